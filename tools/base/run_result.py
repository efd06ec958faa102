"""What comes of a run, step by step: the report, --json, the table and the exit code show it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from tools import date_str_utils
from tools.base.result import Result, Status


class Watcher(Protocol):
    """Whoever looks on while a run goes: each call stands for one event, in their order."""

    def begin(self, number: int, name: str) -> None:
        """A section begins; the first is number 1."""

    def expect(self, size: int | None) -> None:
        """The section had so many bytes in the last run; None where that is not known."""

    def advance(self, size: int) -> None:
        """So many bytes of the section have passed."""

    def end(self, name: str, result: Result, seconds: float) -> None:
        """A section has ended."""


@dataclass(frozen=True)
class Trouble:
    """An error or a warning as a line, and what to do about it."""

    text: str
    error: bool
    hint: str = ""


@dataclass(frozen=True)
class Step:
    """One section of a run, its result, and how many seconds it took."""

    name: str
    kind: str
    result: Result
    seconds: float = 0.0

    def troubles(self) -> Iterator[Trouble]:
        """Give the section's error with its hint, and its warnings; of a good one nothing.

        The message of a section that is merely incomplete is a statistic: its warnings say more.
        """
        result = self.result
        if result.status is Status.OK:
            return
        failed = not result.status.stored
        lines = [] if result.warnings and not failed else [result.message]
        first, *rest = [*lines, *result.warnings]
        yield Trouble(f"{self.name}: {first}", failed, result.hint)
        yield from (Trouble(f"{self.name}: {line}", failed) for line in rest)


@dataclass(frozen=True)
class Outcome:
    """What came of a run: the report, --json, the table and the exit code are made from it."""

    run_id: str
    hostname: str
    begin: datetime
    seconds: float
    status: Status
    steps: tuple[Step, ...] = ()
    message: str = ""
    hint: str = ""
    destinations: tuple[str, ...] = ()

    @property
    def size(self) -> str:
        """What a size plugin measured, else what a store took or a restore gave, or N/A."""
        for step in reversed(self.steps):
            if step.result.size:
                return step.result.size
        return date_str_utils.human_size(self.stored) if self.stored else "N/A"

    @property
    def stored(self) -> int:
        """The bytes that the fullest store took, or that a restore wrote."""
        stored = max((s.result.bytes for s in self.steps if s.kind == "store"), default=0)
        return stored or sum(s.result.bytes for s in self.steps if s.kind == "item")

    @property
    def end(self) -> datetime:
        """When it ended, UTC."""
        return self.begin + timedelta(seconds=self.seconds)

    def summary(self) -> str:
        """Return the one line that says how the run ended."""
        failed = [step.name for step in self.steps if not step.result.status.stored]
        warnings = sum(len(step.result.warnings) for step in self.steps)
        facts = [f"{self.stored} bytes", f"{self.seconds:.1f} s", f"exit {self.status.exit_code}"]
        facts += [f"failed: {', '.join(failed)}"] if failed else []
        facts += [date_str_utils.count(warnings, "warning")] if warnings else []
        facts += [self.message] if self.message else []
        return f"run {self.run_id}: {self.status.value}, {', '.join(facts)}"

    def troubles(self) -> tuple[str, ...]:
        """What went wrong or is missing, a line each; empty when all is well."""
        return tuple(trouble.text for trouble in self.findings())

    def findings(self) -> tuple[Trouble, ...]:
        """Return what went wrong or is missing, errors with their hints, in the run's order."""
        stored = self.status.stored
        whole = [Trouble(self.message, not stored, self.hint)] if self.message else []
        return (*whole, *(found for step in self.steps for found in step.troubles()))
