"""Output for people and programs: progress bar, closing table, errors, JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from tools.base import finding, foreign, masking
from tools.base.finding import Level, Line
from tools.base.result import Result, Status
from tools.base.run_result import ProgressListener, RunProblem, RunResult
from tools.date_str_utils import human_size, human_time
from tools.reporting import document

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


_MOST_NAMED = 3  # sections or items that have a problem in common
_UNDELIVERED = {"kept": "kept; the next run sends it", "lost": "lost; see the log"}


def say(text: str, *, error: bool = False) -> None:
    """Print a text masked, control characters escaped."""
    stream = sys.stderr if error else sys.stdout
    print(foreign.printable(masking.text(text), keep="\t\n"), file=stream, flush=True)


def write(text: str) -> None:
    """Write a text unchanged to standard output."""
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.flush()


def on_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout.isatty()


class _ProgressBar:
    """A progress bar on a terminal: section, bytes, speed, times."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def begin(self, number: int, name: str) -> None:
        self._task = self._progress.add_task(foreign.line(f"{number}. {name}"), total=None)

    def expect(self, size: int | None) -> None:
        if self._task is not None:
            self._progress.update(self._task, total=size)

    def advance(self, size: int) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=size)

    def notice(self, text: str) -> None:
        self._progress.console.print(foreign.line(text), markup=False, highlight=False)

    def end(self, name: str, result: Result, seconds: float) -> None:
        if self._task is not None:
            size = result.bytes or 1
            self._progress.update(self._task, total=size, completed=size)
            self._progress.stop_task(self._task)


def progress_text(done: float, total: float | None, speed: float | None, elapsed: float) -> str:
    """Return the figures of a running section in one unit system: bytes, speed, times.

    total: bytes of the last run; the time left is estimated from it, and omitted if the section
    is larger by now
    """
    texts = [human_size(done)] if done else []  # clean-up moves no bytes
    remaining = total is not None and total > done
    if remaining and total is not None:
        texts = [f"{human_size(done)} of about {human_size(total)}"]
    if speed:
        texts.append(f"{human_size(speed)}/s")
    texts.append(f"elapsed {human_time(elapsed)}")
    if remaining and speed and total is not None:
        texts.append(f"about {human_time((total - done) / speed)} left")
    return ", ".join(texts)


@contextlib.contextmanager
def watcher(*, quiet: bool) -> Iterator[ProgressListener | None]:
    """Give a progress bar on a terminal, None elsewhere."""
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
    with progress.Progress(*columns, transient=True) as bar:
        yield _ProgressBar(bar)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a header, each column as wide as its widest cell; each row is one line."""
    if not rows:
        return
    rows = [[foreign.line(cell) for cell in row] for row in rows]
    widths = [max(len(row[n]) for row in (header, *rows)) for n in range(len(header))]
    for row in (header, *rows):
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())


def table_lines(result: RunResult, *, brief: bool = False) -> list[str]:
    """Return the closing table as plain text, one line per section.

    brief: without errors, which are printed beside it
    """
    names = [foreign.line(section.name) for section in result.sections]
    width = max(map(len, names), default=0)
    rows = [
        f"{name:{width}}  {section.result.status.value:10}  "
        f"{human_time(section.seconds):>10}  {_size(section.result):>10}  "
        f"{section.summary if brief else section.result.message}"
        for name, section in zip(names, result.sections, strict=True)
    ]
    total = f"run {result.run_id}: {result.status.value} in {human_time(result.seconds)}"
    return [*map(str.rstrip, rows), f"{total}, size {result.size}"]


def _size(result: Result) -> str:
    return human_size(result.bytes) if result.bytes else "-"


def _rich_table(result: RunResult) -> None:
    """Print the closing table in colours."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"run {result.run_id}", title_justify="left")
    for name in ("section", "result", "time", "bytes", "message"):
        table.add_column(
            name, justify="right" if name in ("time", "bytes") else "left", overflow="fold"
        )
    for section in result.sections:
        status = section.result.status
        colour = {Status.OK: "green", Status.FAILED: "red"}.get(status, "yellow")
        message = escape(masking.text(section.summary))
        table.add_row(
            escape(foreign.line(section.name)),
            f"[{colour}]{status.value}[/]",
            human_time(section.seconds),
            _size(section.result),
            message,
        )
    console = Console()
    console.print(table)
    colour = "green" if result.status is Status.OK else "red"
    console.print(
        f"[{colour}]{result.status.value}[/] in {human_time(result.seconds)}, size {result.size}"
    )


def render(result: RunResult, deliveries: Mapping[str, str], *, as_json: bool) -> int:
    """Show the result of a run, and return its exit code.

    deliveries: of its report, by channel. Standard output is silent without a terminal; errors
    and warnings go to standard error.
    """
    if as_json:
        say(json.dumps(document.local_document(result, deliveries)))
    elif on_terminal() and result.sections:
        _rich_table(result)
    for line in () if as_json else result.notices:
        say(f"note: {line}", error=True)
    _print_problems(result)
    for fate, then in _UNDELIVERED.items():
        names = [name for name, how in deliveries.items() if how == fate]
        to = f" to {', '.join(names)}" if names != ["brt"] else ""
        if names:
            say(f"warning: report not delivered{to} ({then})", error=True)
    return result.status.exit_code


def indented(text: str) -> str:
    """Return a text whose further lines cannot be taken for messages of their own."""
    return text.replace("\n", "\n      ")


def _print_problems(result: RunResult) -> None:
    """Print errors and warnings, each hint once, below the first error that has it.

    What several sections or items have in common is one line: all of them lack the same package.
    """
    hints: set[str] = set()
    alike: dict[RunProblem, list[str]] = {}
    for problem in result.problems():
        common = dataclasses.replace(problem, section="")
        alike.setdefault(common, []).append(problem.section)
    for problem, sections in alike.items():
        named = list(dict.fromkeys(filter(None, sections)))
        more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
        section = f"{', '.join(named[:_MOST_NAMED])}{more}"
        line = dataclasses.replace(problem, section=section).line
        say(f"{'error' if problem.error else 'warning'}: {line}", error=True)
        if problem.hint and problem.hint not in hints:
            say(f"hint: {indented(problem.hint)}", error=True)
        hints.add(problem.hint)


def show(lines: Sequence[Line], *, as_json: bool) -> int:
    """Show the lines of -n or -t as they are. Return 1 if one of them is BAD, else 0."""
    if as_json:
        say(json.dumps([dataclasses.asdict(line) for line in lines]))
    for line in () if as_json else lines:
        for text in finding.rendered(line):
            say(text, error=line.level is not Level.OK)
    return 1 if any(line.level is Level.BAD for line in lines) else 0


def show_findings(lines: Sequence[Line], *, as_json: bool) -> int:
    """Show what -t has found, errors first, and how much of each. Return 1 for errors, else 0."""
    lines = finding.sorted_lines(lines)
    code = show(lines, as_json=as_json)
    if not as_json:
        say(finding.summary(lines), error=code != 0)
    return code
