"""One section: the command that it stands for, and its result once that has run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tools import os_works
from tools.base import crash, foreign, masking, permissions, project, secret, signals
from tools.base.errors import BackupError
from tools.base.log import logger
from tools.base.result import Result, Status, of_error, worst
from tools.base.secret import Secret
from tools.config.model import Config, Section
from tools.engine.limits import Limits
from tools.flow import process, reachability
from tools.modules import options, registry, work_folder

_HOST = project.ROOT / "tools/modules/plugin_host.py"
_LEVELLED = re.compile(r"(debug|info|warning|error|critical): ", re.I)
_LOGGED = 1 << 20  # bytes of one section's output that go into the log
_ENTRY = 60  # bytes that the log adds to each line
_TICK = 0.2  # seconds between two looks at the progress
_PROGRESS = 100  # bytes of a file that tells the progress
_LEFT_RUNNING = "a program that it started still runs and holds its output"
ENDINGS = (Status.OK, Status.UNCLEAN, Status.INCOMPLETE)


class CallResults:
    """What the programs of one filter or store say in their results, over all their calls."""

    def __init__(self) -> None:
        self.unclean = False
        self._lines: dict[str, None] = {}  # each once, however many parts there are

    def add(self, result: Result) -> None:
        """Keep what is to be shown of the result of a call that did its work."""
        lines = result.warnings
        if result.status is Status.UNCLEAN:
            self.unclean = True
            lines = (result.message or "clean-up failed", *lines)
        if len(self._lines) < foreign.MAX_LINES:
            self._lines.update(dict.fromkeys(lines))

    def of(self, result: Result) -> Result:
        """Return the result of the section with what its calls said."""
        if result.status is Status.OK and self.unclean:
            result = replace(result, status=Status.UNCLEAN)
        return replace(result, warnings=foreign.listing((*result.warnings, *self._lines)))


@dataclass(frozen=True)
class Context:
    """What a run tells each of its sections.

    folder:   a private folder of this section for the result and the progress
    private:  paths that no source may back up
    deadline: on the monotonic clock; None where nothing limits the run
    advance:  gets the bytes that have passed so far, if progress is shown
    streamed: bytes that a streamed run has stored so far; None in a staged one
    records:  folder of the records of items in the work folder; None in a streamed run
    calls:    gets what a filter or store of the user's own says in the results of its calls
    written:  for clean-up: the store sections that hold the manifest of this run; None where
              the run stores nothing
    """

    config: Config
    run_id: str
    folder: Path
    private: tuple[str, ...] = ()
    deadline: float | None = None
    advance: Callable[[int], None] | None = None
    streamed: int | None = None
    records: Path | None = None
    calls: CallResults = field(default_factory=CallResults)
    written: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Command:
    """What is spawned for a section: the list, its standard input, its own environment."""

    argv: tuple[str, ...]
    stdin_data: bytes = b""
    extra: Mapping[str, str] = field(default_factory=dict)
    named: tuple[str, ...] = ()

    def masked(self) -> str:
        """Return the command as it may be shown: quoted, secrets masked."""
        return masking.command(self.argv)


def command(section: Section, config: Config) -> Command:
    """Return the command of a section. Values go into a list; no shell ever sees them."""
    secret.learn({**config.handed, **section.parameters})
    named = (*section.environment, *_referenced({**config.handed, **section.parameters}))
    if section.action == "load":
        job = {
            "file": str(section.file),
            "class": section.class_name,
            "home": str(config.general.home_folder),
            "parameters": {**config.handed, **section.parameters},
        }
        return Command((sys.executable, str(_HOST)), json.dumps(job).encode(), named=named)
    python = section.interpreter in ("python", "python3")
    interpreter = [sys.executable] if python else shlex.split(section.interpreter)
    arguments, extra = _arguments(section, config.handed)
    return Command((*interpreter, str(section.file), *arguments), extra=extra, named=named)


def program_name(section: Section) -> str:
    """Return the name of a section's program in errors: its section and its file."""
    return f"{section.name} ({section.file.name})"


def _arguments(section: Section, handed: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Return --KEY VALUE pairs, the section's before those of GENERAL, or (`flat`) values alone.

    A literal secret of a built-in module goes by a variable of its environment instead.
    """
    if section.flat:
        return [options.to_text(value) for value in section.parameters.values()], {}
    general = {key: value for key, value in handed.items() if key not in section.parameters}
    kinds = options.kinds(section.declaration) if section.declaration else {}
    arguments: list[str] = []
    extra: dict[str, str] = {}
    for key, value in {**section.parameters, **general}.items():
        text = options.text_of(kinds.get(key.lower()), value)
        if kinds.get(key.lower()) is Secret and text and not Secret(text).is_reference:
            name = f"NC_BACKUP_SECRET_{len(extra) + 1}"
            extra[name] = text
            text = f"env:{name}"
        arguments += [f"--{key}", text]
    return arguments, extra


def learn_secrets(config: Config) -> None:
    """Mask every secret of a config from now on, in whatever shows it."""
    secret.learn(config.handed)
    for hooks in (config.general.hooks, *(entry.hooks for entry in config.sections)):
        secret.learn([*hooks.before, *hooks.after, *hooks.on_failure, *hooks.finally_])
    for entry in config.sections:
        secret.learn(entry.parameters)
        secret.learn_environment(entry.environment)


def _referenced(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the variables that the values refer to as env:NAME."""
    return tuple(secret.variables(parameters))


def execute(section: Section, context: Context) -> Result:
    """Run a section to its end and judge how it ended; ends its whole group in any case.

    Raises Cancelled when a signal asks the run to end. Every failure is a Result.
    """
    try:
        order = command(section, context.config)
        logger.info("Executing: %s", order.masked())
        output = Output()
        with process.started(
            order.argv,
            env=environment(section, order, context),
            folder=context.config.path.parent,
            stdin=subprocess.PIPE if order.stdin_data else subprocess.DEVNULL,
            name=program_name(section),
            capable=_reads_all(section, order),
        ) as group:
            output.follow(group, order.stdin_data)
            code = _wait(group, section, context)
            if not group.finish():
                logger.warning("%s left a program running that held its output", section.name)
        result = _judged(section, code, context.folder / "result.json", output)
        return _with_warning(result, _LEFT_RUNNING) if group.held else result
    except Exception as error:  # noqa: BLE001  (see `failed`)
        return failed(error)


def _reads_all(section: Section, order: Command) -> bool:
    """Return whether a program gets the capability to read every file: a module of ours, as is."""
    row = registry.row(section.file)
    return row is not None and row.reads_all and order.argv[0] == sys.executable


def failed(error: Exception) -> Result:
    """Return the result of a section that raised an error: whatever it is, it fails this one alone.

    The run has started, so it is a failure, whatever its class says.
    """
    return replace(of_error(crash.reportable(error)), status=Status.FAILED)


def _with_warning(result: Result, warning: str) -> Result:
    """Return the result with one more warning: a success becomes incomplete."""
    status = worst((result.status, Status.INCOMPLETE))
    return replace(result, status=status, warnings=(*result.warnings, warning))


def environment(section: Section, order: Command, context: Context) -> dict[str, str]:
    """Return the environment of a section's program: an allow-list, and what we add."""
    variables = {
        "NC_BACKUP_RUN_ID": context.run_id,
        "NC_BACKUP_SECTION": section.name,
        "NC_BACKUP_CONFIG": str(context.config.path),
        "NC_BACKUP_RESULT": str(context.folder / "result.json"),
        "NC_BACKUP_PRIVATE": json.dumps(context.private),
        **reachability.variables(),
    }
    if section.declaration is not None and section.environment:
        variables[os_works.PASSED] = " ".join(section.environment)
    if permissions.accepted():
        variables[permissions.ACCEPT] = "1"
    if context.advance is not None:
        variables["NC_BACKUP_PROGRESS"] = str(context.folder / "progress")
    if context.records is not None:
        variables[work_folder.VARIABLE] = str(context.records)
    if context.written is not None:
        variables["NC_BACKUP_WRITTEN"] = json.dumps(context.written)
    if context.streamed is not None:
        variables["NC_BACKUP_STREAMED"] = str(context.streamed)
    named = (*order.named, *_of_module(section))
    return os_works.environment({**order.extra, **variables}, named, proxies=True)


def _of_module(section: Section) -> Iterator[str]:
    """Yield the variables that a built-in module needs for what it connects to."""
    row = registry.row(section.file)
    if row is not None and row.environment:
        yield from (name for name in os.environ if name.startswith(row.environment))


class Output:
    """What a section prints: into the log line by line, bounded, with a tail for the error."""

    def __init__(self) -> None:
        self.tail: deque[str] = deque(maxlen=process.TAIL)
        self._bytes_left = _LOGGED

    def follow(self, group: process.Group, stdin_data: bytes) -> None:
        """Read both pipes in threads and feed standard input."""
        for pipe in (group.popen.stdout, group.popen.stderr):
            if pipe is not None:
                group.drain(pipe, self.take)
        if stdin_data:
            process.feed(group.popen, stdin_data)

    def take(self, line: str) -> None:
        """Log a line; a level in front of it ("warning: ...") is honoured."""
        self.tail.append(line)
        if self._bytes_left < 0:
            return
        self._bytes_left -= len(line) + _ENTRY
        if self._bytes_left < 0:
            logger.warning("more output is left out of the log")
            return
        levelled = _LEVELLED.match(line)
        logger.log(_level(levelled[1]) if levelled else _level("info"), "%s", line)


def _level(name: str) -> int:
    return {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}[name.lower()]


def _wait(group: process.Group, section: Section, context: Context) -> int:
    """Return the exit code. Raises BackupError when the time of the section or the run is over."""
    limits, began = Limits(section.name, section.timeout, None, context.deadline), time.monotonic()
    while True:
        if reason := limits.exceeded(began):
            raise BackupError(reason, hint="Look what it waits for, or allow it more.")
        signals.raise_lost()
        try:
            return group.wait(_TICK)
        except subprocess.TimeoutExpired:
            _advance(context)


def _advance(context: Context) -> None:
    """Hand on the number of bytes that a built-in module has reported."""
    if context.advance is None:
        return
    try:
        text = foreign.content(context.folder / "progress", _PROGRESS)
    except OSError:  # not there yet, or something else
        return
    context.advance(foreign.number(text.strip()) or 0)


def _judged(section: Section, code: int, result_file: Path, output: Output) -> Result:
    """Return the result from exit code and result file together: the worse of the two counts."""
    by_code = Status.of_exit_code(code) if code >= 0 else Status.FAILED
    by_code = by_code if by_code in ENDINGS else Status.FAILED
    tail = "\n".join(output.tail)
    how = f"{section.name} {process.ending_text(code)}"
    result = Result.from_file(result_file)
    if result is None:
        ours = section.declaration is not None or section.action == "load"
        if ours and by_code is not Status.FAILED:
            return Result(Status.FAILED, f"{how} without a result", hint=tail)
        return Result(by_code, how, hint=tail if by_code is not Status.OK else "")
    status = worst((by_code, result.status if result.status in ENDINGS else Status.FAILED))
    message = result.message or how
    if status is Status.FAILED and result.status in ENDINGS:
        message = f"{how} (it said: {message})"
    return replace(result, status=status, message=message)
