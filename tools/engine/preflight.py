"""Whether a run could do its work (`-t`): nothing here changes anything."""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from tools import os_works
from tools.base import crash, finding, hung_mount, log, signals
from tools.base.errors import BackupError, in_words
from tools.base.finding import Finding, Level, Line, bad
from tools.catalog import writer_key
from tools.catalog.memory import Memory
from tools.config import model
from tools.config.declarations import General
from tools.config.model import Config, Section
from tools.config.paths import unwritable
from tools.engine import admission, guard, module_checks, plan, state
from tools.engine.consent import Consent
from tools.engine.limits import Limits, within
from tools.filesystem_handling import nearest
from tools.flow import retries, stream, task
from tools.flow.task import StoppedError, Task
from tools.modules import loader, options
from tools.modules.options import Declaration

_LONGEST = 60.0  # seconds for the test of a section
_AT_ONCE = 16  # sections


def tested(config: Config, chosen: Sequence[Section], consent: Consent) -> list[Line]:
    """Config, tools, credentials and destinations (-t). The config itself has been read.

    Sections are tested at once, each within a time limit; the lines are in their order. What
    several sections have in common is one line.
    """
    lines = [Line("GENERAL", f"{config.path} is valid")]
    lines += plan.warnings(config, chosen)
    lines += _general(config)
    of_general = {line.text for line in lines}
    found = _of_sections(config, chosen, consent)
    found = [pair for pair in found if pair[1].text not in of_general]
    return [*lines, *finding.merged((one, _line(section, one)) for section, one in found)]


def _line(section: Section, one: Finding) -> Line:
    text = one.text if one.level is Level.OK else _placed(section, one.text)
    return Line(section.name, text, one.level, one.hint, one.fix)


def _of_sections(
    config: Config, chosen: Sequence[Section], consent: Consent
) -> list[tuple[Section, Finding]]:
    """Return what is found about all sections, in their order."""
    found: list[list[Finding]] = [[] for _ in chosen]
    free = threading.Semaphore(_AT_ONCE)
    done = [threading.Event() for _ in chosen]

    def work(number: int) -> None:
        try:
            with free, retries.once():
                found[number] += _of_section(chosen[number], config, consent)
        finally:
            done[number].set()

    with task.entered(Task(task.current())) as all_of_them:
        try:
            for number in range(len(chosen)):
                stream.thread(functools.partial(work, number))
            for event in done:
                while not event.wait(task.TICK):
                    signals.raise_lost()
        except BaseException:
            all_of_them.stop("the test was ended")
            raise
    pairs = zip(chosen, found, strict=True)
    return [(section, one) for section, findings in pairs for one in findings]


def _of_section(current: Section, config: Config, consent: Consent) -> list[Finding]:
    """Return what is found about a section; what it cannot be tested for is an error."""
    found: list[Finding] = []  # kept when the time limit is over

    def look() -> None:
        for one in _of(current, config):
            found.append(Finding(one) if isinstance(one, str) else one)
        found.extend(_store(current, config, consent))

    limits = _limits(current, config)
    try:
        within(limits, look)
    except StoppedError as error:
        if current.timeout is not None and limits.timeout == current.timeout:
            return [*found, bad(str(error), error.hint)]
        return [*found, bad(f"no answer within {limits.timeout:g} s", error.hint)]
    except Exception as error:  # noqa: BLE001  (see crash.known)
        known = crash.known(error)
        return [*found, bad(*in_words(known), getattr(known, "fix", ""))]
    return found


def _limits(current: Section, config: Config) -> Limits:
    """Return how long the test of a section may take: no longer than a run."""
    longest = (current.timeout, config.general.max_runtime, config.general.stall_timeout, _LONGEST)
    return Limits(current.name, min(filter(None, longest)))


def _general(config: Config) -> list[Line]:
    general = config.general
    lines = []
    try:
        os_works.refuse_root(general.allow_root)
    except BackupError as error:
        lines.append(Line("GENERAL", str(error), Level.BAD, hint=error.hint))
    if guard.root_allowed(config):
        hint = "Run it as a user of its own, with the rights that it needs."
        lines.append(Line("GENERAL", guard.ROOT_ALLOWED, Level.WARN, hint=hint))
    for key, problem in guard.problems(config):
        text = f"{key}: {problem}"
        lines.append(Line("GENERAL", text, Level.BAD, problem.advice, problem.fix))
    lines.append(_writable("WORK_FOLDER", general.work_folder, general.work_folder))
    log_folder = log.file_of(general.log_folder).parent
    lines.append(_writable("LOG_FOLDER", log_folder, general.log_folder))
    lines.append(_signing(general))
    address = general.message_config_command
    if address or not config.notify:
        text = f"reports go to {address}" if address else "no report is sent"
        lines.append(Line("GENERAL", text))
    return lines


def _writable(key: str, folder: Path, configured: Path) -> Line:
    """Return whether a folder of the run is writable. configured: the value of its key"""

    def look() -> bool:
        return os.access(nearest(folder), os.W_OK | os.X_OK, effective_ids=True)

    try:
        good = hung_mount.answer(configured, look)
    except TimeoutError as error:
        problem, hint = in_words(error)
        return Line("GENERAL", f"{key}: {problem}", Level.BAD, hint)
    text = f"{key} {folder} is {'' if good else 'not '}writable"
    level, hint = (Level.OK, "") if good else (Level.BAD, unwritable(key, folder))
    return Line("GENERAL", text, level, hint)


def _signing(general: General) -> Line:
    """Whether the runs are signed."""
    path = general.writer_key
    if not os.path.lexists(path):
        hint = f"Create it: {writer_key.COMMAND} --WRITER_KEY {path} --HOSTNAME {general.hostname}"
        text = f"WRITER_KEY {path} does not exist: runs are not signed"
        return Line("GENERAL", text, Level.WARN, hint)
    try:
        signer = writer_key.allowed_signer(general.hostname, writer_key.read(path).public)
    except BackupError as error:
        return Line("GENERAL", str(error), Level.BAD, error.hint)
    return Line("GENERAL", f"runs are signed; the signer is: {signer}")


def _placed(current: Section, text: str) -> str:
    """The text with file, line and whole name of the key that it begins with, or the section's."""
    key, colon, rest = text.partition(":")
    if not colon or not key.isupper() or current.declaration is None:
        return f"{current.where}: {text}"
    fields = options.keys(current.declaration)
    names = [name for name in fields if fields[name] is fields.get(key)]
    place = next((current.places[name] for name in (key, *names) if name in current.places), "")
    return f"{place}:{rest}" if place else f"{current.where}: {current.name}.{text}"


def _of(current: Section, config: Config) -> Sequence[str | Finding]:
    """What the module's test found; raises BackupError where it could not go on."""
    if current.declaration is None:
        return tuple(module_checks.tested(current, config))
    module = loader.tested(current.file)
    if module is None:
        return (f"{current.file.name} exists",)
    with os_works.passing(current.environment):
        return tuple(module.test(_options(current, config)))


def _options(current: Section, config: Config) -> Declaration:
    """Return the Options of a section; a module that reads the config gets its path."""
    filled = model.filled(current, config)
    if getattr(filled, "conf", "") is None:
        return dataclasses.replace(filled, conf=config.path)
    return filled


def _store(current: Section, config: Config, consent: Consent) -> Sequence[Finding]:
    """What is to be known of a built-in store before a run."""
    if current.kind != "store" or current.declaration is None:
        return ()
    memory = Memory(config.general.work_folder / state.NAME)
    return tuple(admission.tested(current, config, memory, consent))
