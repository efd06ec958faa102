"""What comes of a run, step by step: the report, --json, the table and the exit code show it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from tools import date_str_utils
from tools.result import Result, Status


class Watcher(Protocol):
    """Whoever looks on while a run goes: each call stands for one event, in their order."""

    def begin(self, number: int, name: str) -> None:
        """A section begins; the first is number 1."""

    def advance(self, size: int) -> None:
        """So many bytes of the section have passed."""

    def end(self, name: str, result: Result, seconds: float) -> None:
        """A section has ended."""


@dataclass(frozen=True)
class Step:
    """One section of a run, its result, and how many seconds it took."""

    name: str
    kind: str
    result: Result
    seconds: float = 0.0


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
        stored = max((s.result.bytes for s in self.steps if s.kind == "store"), default=0)
        stored = stored or sum(s.result.bytes for s in self.steps if s.kind == "item")
        return date_str_utils.human_size(stored) if stored else "N/A"

    def troubles(self) -> tuple[str, ...]:
        """What went wrong or is missing, a line each; empty when all is well."""
        lines = [self.message] if self.message else []
        for step in self.steps:
            if step.result.status is not Status.OK:
                lines.append(f"{step.name}: {step.result.message}")
                lines += [f"{step.name}: {warning}" for warning in step.result.warnings]
        return tuple(lines)
