"""What people and programs see: live progress, the closing table, errors, JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tools import os_works
from tools.base import masking
from tools.base.finding import Level
from tools.base.result import Result, Status
from tools.base.run_result import Outcome, Watcher
from tools.date_str_utils import human_size, human_time
from tools.engine.preflight import Line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def say(text: str, *, error: bool = False) -> None:
    """Print, masked, control characters escaped; a reader that is gone is no failure."""
    stream = sys.stderr if error else sys.stdout
    try:
        print(_CONTROL.sub(_escaped, masking.text(text)), file=stream, flush=True)
    except OSError as trouble:
        if error:
            os_works.silence_output()
        else:
            _lose(trouble)
    except (ValueError, AttributeError):  # closed file, no stream at all
        os_works.silence_output()


def write(text: str) -> None:
    """Write a text as it is to standard output; final_code tells of a failure."""
    try:
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
        sys.stdout.flush()
    except OSError as trouble:
        _lose(trouble)


def _lose(trouble: OSError) -> None:
    """Standard output cannot be written; a reader that is gone is no failure."""
    if trouble.errno == errno.EPIPE:
        os_works.silence_output()
    else:
        _lost.append((trouble.strerror or str(trouble)).lower())
        os_works.silence_output(standard_error=False)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # ESC and the like; not tab and line feed
_lost: list[str] = []  # why output could not be written


def _escaped(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]):02x}"


def final_code(code: int) -> int:
    """Return the exit code; 0 becomes 1, with an error, where standard output was lost.

    That is a full disk; a reader that is gone (a closed pipe) is no failure.
    """
    if not _lost:
        return code
    say(f"error: standard output: {_lost[0]}", error=True)
    return code or Status.FAILED.exit_code


def on_terminal() -> bool:
    """Whether somebody looks at standard output."""
    try:
        return sys.stdout is not None and sys.stdout.isatty()
    except ValueError:  # standard output was closed
        return False


class _Live:
    """Live progress on a terminal: section, bytes of the expected ones, speed, times."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def begin(self, number: int, name: str) -> None:
        self._task = self._progress.add_task(f"{number}. {name}", total=None)

    def expect(self, size: int | None) -> None:
        if self._task is not None:
            self._progress.update(self._task, total=size)

    def advance(self, size: int) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=size)

    def end(self, name: str, result: Result, seconds: float) -> None:
        if self._task is not None:
            size = result.bytes or 1
            self._progress.update(self._task, total=size, completed=size)
            self._progress.stop_task(self._task)


def progress_text(done: float, total: float | None, speed: float | None, elapsed: float) -> str:
    """Return the figures of a running section in one unit system: bytes, speed, times.

    total: bytes of the last run; the time left is an estimate from it, and is left out
    where the section has outgrown it.
    """
    texts = [human_size(done)]
    more = total is not None and total > done
    if more and total is not None:
        texts[0] += f" of about {human_size(total)}"
    if speed:
        texts.append(f"{human_size(speed)}/s")
    texts.append(f"elapsed {human_time(elapsed)}")
    if more and speed and total is not None:
        texts.append(f"about {human_time((total - done) / speed)} left")
    return ", ".join(texts)


@contextlib.contextmanager
def watcher(*, quiet: bool) -> Iterator[Watcher | None]:
    """Whoever looks on: live progress on a terminal, nobody elsewhere."""
    if quiet or not on_terminal():
        yield None
        return
    from rich import progress
    from rich.text import Text

    class Figures(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            return Text(progress_text(task.completed, task.total, task.speed, task.elapsed or 0.0))

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", markup=False),
        Figures(),
    )
    with progress.Progress(*columns, transient=True) as shown:
        yield _Live(shown)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows under a header, each column as wide as it must be."""
    if not rows:
        return
    widths = [max(len(row[n]) for row in (header, *rows)) for n in range(len(header))]
    for row in (header, *rows):
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())


def table_lines(outcome: Outcome) -> list[str]:
    """The closing table as plain text, a line a section."""
    steps = outcome.steps
    width = max((len(step.name) for step in steps), default=0)
    rows = [
        f"{step.name:{width}}  {step.result.status.value:10}  {human_time(step.seconds):>10}  "
        f"{human_size(step.result.bytes) if step.result.bytes else '-':>10}  {step.result.message}"
        for step in steps
    ]
    total = f"run {outcome.run_id}: {outcome.status.value} in {human_time(outcome.seconds)}"
    return [*rows, f"{total}, size {outcome.size}"]


def _rich_table(outcome: Outcome) -> None:
    """The closing table in colours."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"run {outcome.run_id}", title_justify="left")
    for name in ("section", "result", "time", "bytes", "what"):
        table.add_column(
            name, justify="right" if name in ("time", "bytes") else "left", overflow="fold"
        )
    for step in outcome.steps:
        colour = {Status.OK: "green", Status.FAILED: "red"}.get(step.result.status, "yellow")
        size = human_size(step.result.bytes) if step.result.bytes else "-"
        result = f"[{colour}]{step.result.status.value}[/]"
        what = escape(masking.text(step.result.message))
        table.add_row(escape(step.name), result, human_time(step.seconds), size, what)
    console = Console()
    console.print(table)
    colour = "green" if outcome.status is Status.OK else "red"
    console.print(
        f"[{colour}]{outcome.status.value}[/] in {human_time(outcome.seconds)}, size {outcome.size}"
    )


def render(outcome: Outcome, delivery: str, *, as_json: bool) -> int:
    """Show what came of a run, and give its exit code.

    Standard output is silent without a terminal; troubles go to standard error.
    """
    if as_json:
        say(json.dumps(_data(outcome, delivery)))
    elif on_terminal() and outcome.steps:
        _rich_table(outcome)
    _troubles(outcome)
    if delivery in ("kept", "lost"):
        then = "kept, the next run sends it" if delivery == "kept" else "lost, see the log"
        say(f"warning: the report was not delivered ({then})", error=True)
    return outcome.status.exit_code


def _troubles(outcome: Outcome) -> None:
    """Print errors and warnings, each hint once, below the first error that has it."""
    shown: set[str] = set()
    for trouble in outcome.findings():
        say(f"{'error' if trouble.error else 'warning'}: {trouble.text}", error=True)
        if trouble.hint and trouble.hint not in shown:
            say(f"hint: {trouble.hint}", error=True)
        shown.add(trouble.hint)


def _data(outcome: Outcome, delivery: str) -> dict[str, object]:
    return {
        "run_id": outcome.run_id,
        "hostname": outcome.hostname,
        "begin": outcome.begin.isoformat(timespec="seconds"),
        "end": outcome.end.isoformat(timespec="seconds"),
        "seconds": round(outcome.seconds, 3),
        "status": outcome.status.value,
        "exit_code": outcome.status.exit_code,
        "message": outcome.message,
        "hint": outcome.hint,
        "size": outcome.size,
        "bytes": outcome.stored,
        "destinations": outcome.destinations,
        "report": delivery,
        "sections": [
            {"name": s.name, "seconds": round(s.seconds, 3), **_of_result(s.result)}
            for s in outcome.steps
        ],
    }


def _of_result(result: Result) -> dict[str, object]:
    """The fields of a result, without what only the manifest is made from."""
    return {key: value for key, value in dataclasses.asdict(result).items() if key != "trail"}


def show(lines: Sequence[Line], *, as_json: bool) -> int:
    """Show what would run, or what a test found. Return 1 where something is BAD, else 0."""
    if as_json:
        say(json.dumps([dataclasses.asdict(line) for line in lines]))
    for line in () if as_json else lines:
        error = line.level is not Level.OK
        say(f"{line.level.value:5}{line.section}: {line.text}", error=error)
        if line.hint:
            say(f"     hint: {line.hint}", error=error)
    return 1 if any(line.level is Level.BAD for line in lines) else 0
