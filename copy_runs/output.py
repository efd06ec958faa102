"""What copy_runs.py prints, as text and as JSON (docs/copy.schema.json)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from copy_runs.catch_up import Failed
from copy_runs.transfer import RunCopy
from tools.base import foreign, run_ids
from tools.base.result import Result, Status, worst
from tools.date_str_utils import count, human_size, human_time
from tools.reporting import terminal

_VERSION = 1  # of the JSON document
_HEADER = ("run", "host", "to", "result", "objects", "size", "message")


@dataclass
class Outcome:
    """What became of one call.

    steps:    the runs, in the order in which they were copied
    stores:   stores that could not be used
    warnings: that concern no single run
    left_out: runs that are in the target, so that nothing was asked for
    """

    dry_run: bool = False
    steps: list[RunCopy] = field(default_factory=list)
    stores: list[Failed] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    left_out: int = 0
    seconds: float = 0.0

    @property
    def status(self) -> Status:
        """Return the worst status of all."""
        statuses = [one.result.status for one in self.steps]
        statuses += [one.result.status for one in self.stores]
        return worst([*statuses, *([Status.INCOMPLETE] if self.warnings else [])])

    @property
    def copied(self) -> list[RunCopy]:
        """Return the runs of which something was copied, or would be."""
        return [step for step in self.steps if step.objects and step.result.status.stored]

    def summary(self) -> str:
        """Return one line with the outcome of the copy."""
        runs, size = self.copied, sum(step.size for step in self.copied)
        objects = sum(step.objects for step in runs)
        verb = "would be copied" if self.dry_run else "copied"
        facts = [
            f"{count(len(runs), 'run')} {verb}",
            count(objects, "object"),
            human_size(size),
            f"{sum(step.is_there for step in self.steps) + self.left_out} there already",
        ]
        failed = [one for one in self.steps if not one.is_there and one not in runs]
        facts += [f"{len(failed)} not copied"] if failed else []
        facts += [human_time(self.seconds), f"exit {self.status.exit_code}"]
        return f"copy: {self.status.value}, {', '.join(facts)}"


def render(outcome: Outcome, *, as_json: bool) -> int:
    """Print what became of the copy; return the exit code."""
    if as_json:
        terminal.say(json.dumps(document(outcome), ensure_ascii=True))
    else:
        steps = [step for step in outcome.steps if not step.is_there]
        terminal.table(_HEADER, [_row(step) for step in steps])
        terminal.say(outcome.summary())
    _print_problems(outcome)
    return outcome.status.exit_code


def _row(step: RunCopy) -> Sequence[str]:
    size = human_size(step.size) if step.objects else "-"
    message = step.result.message
    status = step.result.status.value
    return (step.run_id, step.host, step.target, status, str(step.objects), size, message)


def _print_problems(outcome: Outcome) -> None:
    """Print errors and warnings, each hint once, below the first line that has it."""
    hints: set[str] = set()
    for name, result in _results(outcome):
        if result.status is Status.OK:
            continue
        word = "warning" if result.status.stored else "error"
        lines = result.warnings or (result.message,)
        for line in lines:
            terminal.say(foreign.line(f"{word}: {name}: {line}"), error=True)
        if result.hint and result.hint not in hints:
            terminal.say(f"hint: {terminal.indented(result.hint)}", error=True)
        hints.add(result.hint)
    for line in outcome.warnings:
        terminal.say(foreign.line(f"warning: {line}"), error=True)


def _results(outcome: Outcome) -> list[tuple[str, Result]]:
    of_runs = [(f"run {one.run_id} of {one.host}", one.result) for one in outcome.steps]
    return [*((one.name, one.result) for one in outcome.stores), *of_runs]


def document(outcome: Outcome) -> dict[str, Any]:
    """Return the JSON document: times in UTC, sizes in bytes."""
    return {
        "version": _VERSION,
        "created": run_ids.now(),
        "dry_run": outcome.dry_run,
        "status": outcome.status.value,
        "exit_code": outcome.status.exit_code,
        "seconds": round(outcome.seconds, 3),
        "runs": [_run(step) for step in outcome.steps],
        "stores": [{"section": one.name, **_result(one.result)} for one in outcome.stores],
        "warnings": list(outcome.warnings),
    }


def _run(step: RunCopy) -> dict[str, Any]:
    return {
        "host": step.host,
        "run_id": step.run_id,
        "from": step.source,
        "to": step.target,
        "objects": step.objects,
        "bytes": step.size,
        **_result(step.result),
    }


def _result(result: Result) -> dict[str, Any]:
    return {
        "status": result.status.value,
        "message": result.message,
        "hint": result.hint,
        "warnings": list(result.warnings),
    }


def failed(result: Result) -> int:
    """Print why nothing was copied; return the exit code."""
    terminal.say(f"error: {result.message}", error=True)
    if result.hint:
        terminal.say(f"hint: {terminal.indented(result.hint)}", error=True)
    return result.status.exit_code


def cancelled(outcome: Outcome) -> None:
    """Print what a cancelled copy leaves."""
    if outcome.dry_run:
        terminal.say("cancelled: nothing was changed", error=True)
        return
    runs = count(len(outcome.copied), "run")
    text = f"cancelled: {runs} copied; the same command continues the copy"
    terminal.say(text, error=True)
