"""Whether a run could do its work (`-t`): nothing here changes anything."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Sequence

from tools import os_works
from tools.base import crash, finding, signals
from tools.base.errors import in_words
from tools.base.finding import Finding, Level, Line, bad
from tools.catalog.memory import Memory
from tools.config import model
from tools.config.model import Config, Section
from tools.engine import admission, general_checks, module_checks, plan, state
from tools.engine.consent import Consent
from tools.engine.limits import Limits, within
from tools.flow import retries, stream, task
from tools.flow.task import StoppedError, Task
from tools.modules import loader, options
from tools.modules.options import Declaration

_LONGEST = 60.0  # seconds for the test of a section
_SILENT = "Check the server, the network to it, and the mounts that this section uses."
_AT_ONCE = 16  # sections


def tested(config: Config, chosen: Sequence[Section], consent: Consent) -> list[Line]:
    """Test config, tools, credentials and destinations (-t). The config itself has been read.

    Sections are tested at once, each within a time limit; the lines are in their order. What
    several sections have in common is one line.
    """
    lines = [Line("GENERAL", f"{config.path} is valid")]
    lines += plan.warnings(config, chosen)
    for one in general_checks.tested(config):
        lines.append(Line("GENERAL", one.text, one.level, one.hint, one.fix))
    of_general = {line.text for line in lines}
    findings = _of_sections(config, chosen, consent)
    findings = [pair for pair in findings if pair[1].text not in of_general]
    return [*lines, *finding.merged((one, _line(section, one)) for section, one in findings)]


def _line(section: Section, entry: Finding) -> Line:
    text = entry.text if entry.level is Level.OK else _placed(section, entry.text)
    return Line(section.name, text, entry.level, entry.hint, entry.fix)


def _of_sections(
    config: Config, chosen: Sequence[Section], consent: Consent
) -> list[tuple[Section, Finding]]:
    """Return what is found about all sections, in their order."""
    results = [[bad("the test ended without a result")] for _ in chosen]
    free = threading.Semaphore(_AT_ONCE)
    done = [threading.Event() for _ in chosen]

    def work(number: int) -> None:
        try:
            with free, retries.once():
                results[number] = _of_section(chosen[number], config, consent)
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
    pairs = zip(chosen, results, strict=True)
    return [(section, one) for section, findings in pairs for one in findings]


def _of_section(current: Section, config: Config, consent: Consent) -> list[Finding]:
    """Return what is found about a section; what it cannot be tested for is an error."""
    findings: list[Finding] = []  # kept when the time limit is over

    def add(more: Sequence[str | Finding]) -> None:
        if not task.current().stopped:  # what ended with the time limit is no finding
            findings.extend(Finding(one) if isinstance(one, str) else one for one in more)

    def look() -> None:
        add(_of(current, config))
        add(_store(current, config, consent))

    limits = _limits(current, config)
    try:
        within(limits, look)
    except StoppedError as error:
        if current.timeout is not None and limits.timeout == current.timeout:
            return [*findings, bad(str(error), error.hint)]
        return [*findings, bad(f"no answer within {limits.timeout:g} s", _SILENT)]
    except Exception as error:  # noqa: BLE001  (see crash.reportable)
        failure = crash.reportable(error)
        return [*findings, bad(*in_words(failure), getattr(failure, "fix", ""))]
    return findings


def _limits(current: Section, config: Config) -> Limits:
    """Return how long the test of a section may take: no longer than a run."""
    longest = (current.timeout, config.general.max_runtime, config.general.stall_timeout, _LONGEST)
    return Limits(current.name, min(filter(None, longest)))


def _placed(current: Section, text: str) -> str:
    """Put the file, line and full name of a key before a text, or those of the section."""
    key, colon, rest = text.partition(":")
    if not colon or not key.isupper() or current.declaration is None:
        return f"{current.where}: {text}"
    fields = options.keys(current.declaration)
    names = [name for name in fields if fields[name] is fields.get(key)]
    location = next((current.places[name] for name in (key, *names) if name in current.places), "")
    return f"{location}:{rest}" if location else f"{current.where}: {current.name}.{text}"


def _of(current: Section, config: Config) -> Sequence[str | Finding]:
    """Return the findings of the module's test. Raises BackupError where it could not go on."""
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
    """Return what is to be known of a built-in store before a run."""
    if current.kind != "store" or current.declaration is None:
        return ()
    memory = Memory(config.general.work_folder / state.NAME)
    return tuple(admission.tested(current, config, memory, consent))
