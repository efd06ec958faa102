"""What --list and --show print."""

from __future__ import annotations

import json

from restore import origin, runs, selection
from tools.catalog.manifest import Manifest
from tools.reporting import terminal

_HEADER = ("run", "host", "age", "result", "items", "size", "base")


def runs_of(source: origin.Origin, *, as_json: bool) -> int:
    """Print the runs that are meant. Return the exit code: 1 where a manifest is unreadable."""
    found = [run for host in source.hosts() for run in runs.found(source.store, host)]
    if as_json:
        terminal.say(json.dumps([run.facts() for run in found]))
    else:
        terminal.table(_HEADER, [run.row() for run in found])
        if not found:
            _nothing(source)
    for line in filter(None, (run.warning() for run in found)):
        terminal.say(f"warning: {line}", error=True)
    return 1 if any(run.manifest is None for run in found) else 0


def _nothing(source: origin.Origin) -> None:
    """Say that there is no run, and where there may be one."""
    where = f" of {source.hostname}" if source.hostname else ""
    terminal.say(f"there is no run{where} in {source.store}", error=True)
    terminal.say(f"hint: {source.elsewhere()}", error=True)


def shown(chosen: selection.Selection) -> None:
    """Print the runs that were chosen, and which section comes from which."""
    for line in chosen.notes:
        terminal.say(line)
    for run in chosen.runs():
        _shown(run.manifest)


def _shown(made: Manifest) -> None:
    """Print one run, its items and parts."""
    terminal.say(
        f"run {made.run_id} of {made.host}: {made.status}, {made.mode}, "
        f"{made.begin} to {made.end}, by {made.program}"
    )
    rows = [
        (i.called, i.kind, " ".join(i.stages) or "-", str(len(i.parts)), str(i.stored),
         "-" if i.size is None else str(i.size))
        for i in made.items
    ]  # fmt: skip
    terminal.table(("item", "kind", "stages", "parts", "stored", "bytes"), rows)
    for item in made.items:
        for line in item.warnings:
            terminal.say(f"warning: {item.called}: {line}")
        for line in item.notes:
            terminal.say(f"note: {item.called}: {line}")
    for name in made.missing:
        terminal.say(f"missing: {name}")
    shown = [line for item in made.items for line in item.warnings]
    for line in made.warnings:
        if not any(line.endswith(known) for known in shown):
            terminal.say(f"warning: {line}")
