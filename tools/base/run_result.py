"""The result of a run: report, `--json`, closing table, log and exit code are made from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Protocol

from tools import date_str_utils
from tools.base import foreign
from tools.base.result import Result, Status


class ProgressListener(Protocol):
    """Receives the progress of a run. The calls come from one thread, in the order of events."""

    def begin(self, number: int, name: str) -> None:
        """Note that a section begins; the first is number 1."""

    def expect(self, size: int | None) -> None:
        """Tell how many bytes the section had in the last run; None if that is not known."""

    def advance(self, size: int) -> None:
        """Tell how many bytes of the section have been processed so far."""

    def notice(self, text: str) -> None:
        """Show what people who look on should know at once."""

    def end(self, name: str, result: Result, seconds: float) -> None:
        """Note that a section has ended."""


@dataclass(frozen=True)
class RunProblem:
    """One error or warning of a run, and how to fix it.

    section: the section that it concerns; "" for the run as a whole
    """

    text: str
    error: bool
    hint: str = ""
    section: str = ""

    @property
    def line(self) -> str:
        """Return the text as one line for people, after the name of the section."""
        return f"{foreign.line(self.section)}: {self.text}" if self.section else self.text


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class SectionResult:
    """The result of one section.

    kind:     role of the section: source, stage, store, check, cleanup, "" of a staged
              user-defined module; "hook" for GENERAL where hooks failed after the run; "item" in a
              restore
    seconds:  how long it worked; in a streamed run stages and stores work beside the sources
    ended_at: UTC; default: when this result was made
    """

    name: str
    kind: str
    result: Result
    seconds: float = 0.0
    ended_at: datetime = field(default_factory=_now)

    @property
    def started_at(self) -> datetime:
        """Return when the section began, UTC."""
        return self.ended_at - timedelta(seconds=self.seconds)

    @property
    def summary(self) -> str:
        """Return the message for a table; "" where it is a problem, which stands below it."""
        first = next(self.problems(), None)
        return "" if first and first.text == self.result.message else self.result.message

    def problems(self) -> Iterator[RunProblem]:
        """Give the section's error with its hint, and its warnings; nothing if it succeeded.

        The message of a section that is merely incomplete is a statistic: its warnings say more.
        """
        result = self.result
        if result.status is Status.OK:
            return
        failed = not result.status.stored
        lines = [] if result.warnings and not failed else [result.message]
        first, *others = [*lines, *result.warnings]
        yield RunProblem(first, failed, result.hint, self.name)
        yield from (RunProblem(line, failed, section=self.name) for line in others)


@dataclass(frozen=True)
class ItemResult:
    """One item that at least one store holds, or an item that was restored.

    size: bytes of its plaintext, None if unknown; stored_size: bytes of its parts
    seconds: how long its stream was read, None if unknown
    """

    section: str
    name: str
    kind: str
    size: int | None
    stored_size: int
    warnings: tuple[str, ...] = ()
    seconds: float | None = None


@dataclass(frozen=True)
class StoreResult:
    """What one store holds of the run.

    section:  the store's section
    kind:     DESTINATION, as `local`
    status:   of everything that this store should hold
    manifest: whether the manifest was written; without it the run does not exist in the store
    bytes:    of all parts
    missing:  items of the run that the store does not hold, SECTION/name
    sequence: the number of the run, for restore.py --newest; 0 without a manifest
    signer:   the line of allowed_signers for its signature; "" where it is not signed
    """

    section: str
    kind: str
    status: Status
    manifest: bool
    items: int = 0
    parts: int = 0
    bytes: int = 0
    missing: tuple[str, ...] = ()
    sequence: int = 0
    signer: str = ""


@dataclass(frozen=True)
class RunOrigin:
    """Which machine, config and program made a run. What is not known is "".

    config_id:     digest of the config's path; config_sha256: digest of its content, without
                   secrets; config_file: its path, which is not sent anywhere
    machine:       MACHINE_ID, or a digest of /etc/machine-id
    """

    config_id: str = ""
    config_sha256: str = ""
    config_file: str = ""
    machine: str = ""
    machine_name: str = ""
    program: str = ""


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    begin:        UTC
    mode:         "streamed" or "staged"; "" if no section ran
    destinations: the kinds of the stores
    action:       "backup", "restore" or "verify"
    stores, items: empty if the run ended before its manifests were written
    """

    run_id: str
    hostname: str
    begin: datetime
    seconds: float
    status: Status
    sections: tuple[SectionResult, ...] = ()
    message: str = ""
    hint: str = ""
    destinations: tuple[str, ...] = ()
    mode: str = ""
    action: str = "backup"
    stores: tuple[StoreResult, ...] = ()
    items: tuple[ItemResult, ...] = ()
    origin: RunOrigin = RunOrigin()

    def __post_init__(self) -> None:
        """Make its texts fit to be shown, as those of the sections are."""
        object.__setattr__(self, "message", foreign.line(self.message))
        object.__setattr__(self, "hint", foreign.paragraph(self.hint))

    @property
    def size(self) -> str:
        """Return what a size plugin measured, else what a store took or a restore gave, or N/A."""
        for section in reversed(self.sections):
            if section.result.size:
                return section.result.size
        return date_str_utils.human_size(self.stored) if self.stored else "N/A"

    @property
    def stored(self) -> int:
        """Return the bytes that the fullest store took, or that a restore wrote."""
        stored = max((s.result.bytes for s in self.sections if s.kind == "store"), default=0)
        return stored or sum(s.result.bytes for s in self.sections if s.kind == "item")

    @property
    def notices(self) -> tuple[str, ...]:
        """Return what a report says before anything else, after the name of its section."""
        return tuple(
            foreign.line(f"{section.name}: {line}")
            for section in self.sections
            for line in section.result.notices
        )

    @property
    def end(self) -> datetime:
        """Return when it ended, UTC."""
        return self.begin + timedelta(seconds=self.seconds)

    def summary(self) -> str:
        """Return the one line that says how the run ended."""
        failed = [section.name for section in self.sections if not section.result.status.stored]
        warnings = sum(len(section.result.warnings) for section in self.sections)
        facts = [f"{self.stored} bytes", f"{self.seconds:.1f} s", f"exit {self.status.exit_code}"]
        facts += [f"failed: {', '.join(failed)}"] if failed else []
        facts += [date_str_utils.count(warnings, "warning")] if warnings else []
        facts += [self.message] if self.message else []
        return f"run {self.run_id}: {self.status.value}, {', '.join(facts)}"

    def problem_lines(self) -> tuple[str, ...]:
        """Return what went wrong or is missing, one line each; empty if there is nothing."""
        return tuple(problem.line for problem in self.problems())

    def problems(self) -> tuple[RunProblem, ...]:
        """Return what went wrong or is missing, errors with their hints, in the run's order.

        What only follows from another problem comes last: reports name the first one.
        """
        stored = self.status.stored
        of_run = [RunProblem(self.message, not stored, self.hint)] if self.message else []
        by_cause = sorted(self.sections, key=lambda section: section.result.consequence)
        return (*of_run, *(problem for section in by_cause for problem in section.problems()))
