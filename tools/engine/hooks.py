"""Commands before and after a run and its sections (docs/hooks.md).

Argument lists, no shell. A section that was entered is left again, whatever happens: then AFTER
or ON_FAILURE run, and FINALLY.
"""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tools import os_works
from tools.base import crash, foreign, masking, signals
from tools.base.errors import BackupError, in_words
from tools.base.log import logger
from tools.base.result import Result, Status, worst
from tools.base.run_result import RunResult, SectionResult
from tools.config.declarations import Hooks
from tools.config.model import Config, Section
from tools.engine.section_runner import Output
from tools.flow import process

_TICK = 0.2  # seconds between two looks at the time
_LONGEST_MESSAGE = 4096  # characters of NC_BACKUP_MESSAGE


class Event(Enum):
    """When a hook runs; the value is NC_BACKUP_EVENT."""

    BEFORE = "before"
    AFTER = "after"
    ON_FAILURE = "on_failure"
    FINALLY = "finally"

    @property
    def key(self) -> str:
        """Return the key of the config."""
        return self.name


@dataclass(frozen=True)
class Outcome:
    """How a run or a section ended, as far as hooks need to know it."""

    status: Status
    message: str = ""

    @property
    def events(self) -> tuple[Event, Event]:
        """Return what runs at the end."""
        return (Event.AFTER if self.status.stored else Event.ON_FAILURE, Event.FINALLY)


def commands(hooks: Hooks, event: Event) -> Sequence[Sequence[str]]:
    """Return the argument lists of an event."""
    by_event = {
        Event.BEFORE: hooks.before,
        Event.AFTER: hooks.after,
        Event.ON_FAILURE: hooks.on_failure,
        Event.FINALLY: hooks.finally_,
    }
    return by_event[event]


def listed(hooks: Hooks) -> Iterator[tuple[str, Sequence[str]]]:
    """Give each argument list with its key, in the order in which they run."""
    for event in Event:
        for argv in commands(hooks, event):
            yield event.key, argv


class RunHooks:
    """The hooks of one run: which sections were entered, and are left at its end at the latest."""

    def __init__(self, config: Config, run_id: Callable[[], str]) -> None:
        """Prepare the hooks. run_id: gives the ID, which may change until the stores are open"""
        self._config = config
        self._run_id = run_id
        self._entered: list[Section] = []
        self._beside: list[Section] = []  # in use from the beginning until the manifests are there
        self._began = False

    # --- the run

    def begin(self) -> None:
        """Run BEFORE of GENERAL. Raises BackupError where it fails: then no section runs."""
        self._began = True
        self._first(None)

    def end(self, outcome: Outcome) -> list[str]:
        """Leave what was entered, then the run; return what failed, as warnings."""
        if not self._began:
            return []
        self._began = False
        failures = [
            f"{section.name}: {line}"
            for section in tuple(reversed(self._entered))
            for line in self._leave(section, Outcome(outcome.status, "the run ended early"))
        ]
        return [*failures, *self._last(None, outcome)]

    # --- a section

    def enter_beside(self, chosen: Sequence[Section], streamed: bool) -> dict[str, Result]:
        """Enter the sections that are in use before their turn comes: stores, streamed stages.

        Return why some of them must take no part.
        """
        self._beside = [
            one for one in chosen if one.kind == "store" or (streamed and one.kind == "stage")
        ]
        entered = {one.name: self._enter(one) for one in self._beside}
        return {name: refusal for name, refusal in entered.items() if refusal is not None}

    def leave_beside(self, steps: list[SectionResult]) -> None:
        """Leave these sections, and note in their results what failed."""
        by_name = {one.name: one for one in self._beside}
        self._beside = []
        for number, step in enumerate(steps):
            if step.name in by_name:
                result = self.leave(by_name[step.name], step.result)
                steps[number] = dataclasses.replace(step, result=result)

    def enter(self, section: Section) -> Result | None:
        """Run BEFORE of a section; return why the section must not run, None where it may."""
        return None if section in self._beside else self._enter(section)

    def _enter(self, section: Section) -> Result | None:
        self._entered.append(section)
        try:
            self._first(section)
        except BackupError as error:
            return Result(Status.FAILED, str(error), error.hint)
        return None

    def leave(self, section: Section, result: Result) -> Result:
        """Return the result of a section that has ended, after what follows it has run."""
        if section in self._beside or section not in self._entered:
            return result
        return noted(result, self._leave(section, Outcome(result.status, result.message)))

    def _leave(self, section: Section, outcome: Outcome) -> list[str]:
        self._entered.remove(section)
        return self._last(section, outcome)

    # --- commands

    def _first(self, section: Section | None) -> None:
        hooks = (section or self._config.general).hooks
        for argv in commands(hooks, Event.BEFORE):
            self._run(argv, self._facts(Event.BEFORE, section, None), Event.BEFORE)

    def _last(self, section: Section | None, outcome: Outcome) -> list[str]:
        """Run what follows. A signal that came before does not keep it from running."""
        hooks = (section or self._config.general).hooks
        failures = []
        with signals.set_aside():
            for event in outcome.events:
                for argv in commands(hooks, event):
                    try:
                        self._run(argv, self._facts(event, section, outcome), event)
                    except Exception as error:  # noqa: BLE001  (the next one runs whatever this was)
                        text, hint = in_words(crash.reportable(error))
                        logger.warning("%s", text)
                        failures.append(f"{text}: {foreign.line(hint)}" if hint else text)
        return failures

    def _facts(
        self, event: Event, section: Section | None, outcome: Outcome | None
    ) -> Mapping[str, str]:
        message = foreign.line(outcome.message)[:_LONGEST_MESSAGE] if outcome else ""
        return {
            "NC_BACKUP_EVENT": event.value,
            "NC_BACKUP_RUN_ID": self._run_id(),
            "NC_BACKUP_HOSTNAME": self._config.general.hostname,
            "NC_BACKUP_SECTION": section.name if section else "",
            "NC_BACKUP_STATUS": outcome.status.value if outcome else "",
            "NC_BACKUP_EXIT_CODE": str(outcome.status.exit_code) if outcome else "",
            "NC_BACKUP_MESSAGE": message,
        }

    def _run(self, argv: Sequence[str], facts: Mapping[str, str], event: Event) -> None:
        """Run one command to its end, with all that it started. Raises BackupError."""
        general = self._config.general
        where = facts["NC_BACKUP_SECTION"]
        logger.info("%s%s: %s", f"{where}: " if where else "", event.key, masking.command(argv))
        output = Output()
        name = f"{event.key} {foreign.line(argv[0])}"
        with process.started(
            argv,
            env=os_works.environment(facts),
            folder=self._config.path.parent,
            name=name,
        ) as group:
            output.follow(group, b"")
            code = _waited(group, general.hook_timeout, ends=event is not Event.BEFORE)
            group.finish()
        if code != 0:
            tail = "\n".join(map(foreign.line, output.tail))
            raise BackupError(f"{name} {process.ending_text(code)}", tail)


def _waited(group: process.Group, longest: float, *, ends: bool) -> int:
    """Return the exit code. Raises BackupError when the time is over."""
    until = time.monotonic() + longest
    while True:
        if not ends:
            signals.raise_lost()
        try:
            return group.wait(_TICK)
        except subprocess.TimeoutExpired:
            if time.monotonic() > until:
                raise BackupError(
                    f"{group.name} took longer than HOOK_TIMEOUT ({longest:g} s) and was ended",
                    "Look what it waits for, or set a longer HOOK_TIMEOUT.",
                ) from None


def noted(result: Result, failures: Sequence[str]) -> Result:
    """Return a result with hooks that failed after it: a success becomes incomplete."""
    if not failures:
        return result
    status = worst((result.status, Status.INCOMPLETE))
    return dataclasses.replace(result, status=status, warnings=(*result.warnings, *failures))


def noted_in_run(result: RunResult, failures: Sequence[str]) -> RunResult:
    """Return the result of a run with hooks that failed after it."""
    if not failures:
        return result
    of_hooks = noted(Result(Status.OK, "commands after the run failed"), failures)
    status = worst((result.status, of_hooks.status))
    steps = (*result.sections, SectionResult("GENERAL", "hook", of_hooks))
    return dataclasses.replace(result, status=status, sections=steps)


def program(argv: Sequence[str], folder: Path) -> Path | None:
    """Return the file that a hook starts; None where there is none, or it cannot be executed."""
    name = str(folder / argv[0]) if "/" in argv[0] else argv[0]
    path = shutil.which(name, path=os_works.environment({})["PATH"])
    return Path(path) if path else None


def all_of(config: Config, chosen: Sequence[Section]) -> Iterator[tuple[str, Hooks]]:
    """Give the hooks of a run: those of GENERAL, then those of its sections, with their names."""
    yield "GENERAL", config.general.hooks
    yield from ((section.name, section.hooks) for section in chosen)
