"""The output of --list and --show, as text and as JSON (docs/restore-list.schema.json)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from restore import remembered
from tools.base import foreign, garbage, run_ids
from tools.catalog.location import BackupLocation
from tools.catalog.manifest import Manifest
from tools.catalog.runs import RunSummary, list_runs
from tools.catalog.selection import Selection
from tools.date_str_utils import human_size, human_time
from tools.flow.item_record import StoredItem as Item
from tools.reporting import terminal

_VERSION = 1  # of the JSON document
_HEADER = ("run", "host", "age", "result", "items", "size", "base")
_DAY = 86400  # seconds


def print_runs(location: BackupLocation, *, as_json: bool) -> int:
    """Print the runs of the hosts.

    Return the exit code: 1 where a manifest or an item of it is unreadable, or is not trusted
    although runs are signed. Raises StoreError where the store is not the one that is known.
    """
    catalogs = map(location.catalog_of, location.hosts())
    with garbage.collected_rarely():
        summaries = [summary for catalog in catalogs for summary in list_runs(catalog)]
    if not summaries:
        remembered.require_store(location, location.hostname)
    if as_json:
        terminal.say(json.dumps(document(str(location.store), summaries), ensure_ascii=True))
    else:
        terminal.table(_HEADER, [_row(summary) for summary in summaries])
        if not summaries:
            _print_nothing(location)
    for line in filter(None, (summary.warning() for summary in summaries)):
        terminal.say(f"warning: {line}", error=True)
    return 1 if any(map(_is_bad, summaries)) else 0


def _is_bad(summary: RunSummary) -> bool:
    if summary.manifest is None:
        return not summary.unsigned
    return bool(summary.manifest.refused)


def _print_nothing(location: BackupLocation) -> None:
    of_host = f" of host {location.hostname}" if location.hostname else ""
    terminal.say(f"{location.store}: no runs{of_host}", error=True)
    terminal.say(f"hint: {location.hint()}", error=True)


def document(store: str, summaries: Sequence[RunSummary]) -> dict[str, Any]:
    """Return the JSON document of --list: times in UTC, sizes in bytes, null for unknown."""
    return {
        "version": _VERSION,
        "store": store,
        "created": run_ids.now(),
        "runs": [_run(summary) for summary in summaries],
    }


def _run(summary: RunSummary) -> dict[str, Any]:
    head = {
        "host": summary.host,
        "run_id": summary.run_id,
        "age": round(summary.age),
        "future": summary.in_future,
        "result": summary.result,
        "signed": summary.signed,
        "error": summary.error or None,
        "pinned": summary.pinned,
    }
    manifest = summary.claimed
    return {**head, **(dict.fromkeys(_MANIFEST_KEYS) if manifest is None else _of(manifest))}


def _of(manifest: Manifest) -> dict[str, Any]:
    """Return the row of a run whose manifest can be read."""
    values = (
        manifest.begin,
        manifest.end,
        manifest.status,
        manifest.is_complete,
        manifest.mode,
        manifest.size,
        manifest.plain_size,
        manifest.base,
        list(manifest.missing),
        list(manifest.warnings),
        [_item(item) for item in manifest.items],
        [item.label for item in manifest.cleaned],
        manifest.program or None,
        manifest.machine or None,
        manifest.machine_name or None,
        manifest.config_id or None,
        manifest.config_file or None,
    )
    return dict(zip(_MANIFEST_KEYS, values, strict=True))


_MANIFEST_KEYS = (
    *("begin", "end", "status", "complete", "mode", "size", "plain_size", "base"),
    *("missing", "warnings", "items", "cleaned", "program"),
    *("machine", "machine_name", "config_id", "config_file"),
)


def _item(item: Item) -> dict[str, Any]:
    return {
        "section": item.section,
        "name": item.name,
        "kind": item.kind,
        "stages": list(item.stages),
        "parts": len(item.parts),
        "size": item.stored,
        "plain_size": item.size,
        "seconds": item.seconds,
        "base": item.base,
        "warnings": list(item.warnings),
        "suspicious": list(item.suspicious),
        "notes": list(item.notes),
        "problem": item.problem or None,
    }


def _row(summary: RunSummary) -> tuple[str, ...]:
    """Return the columns of a run in the table of --list."""
    start = (summary.run_id, summary.host, human_age(summary.age), summary.result)
    manifest = summary.claimed
    if manifest is None:
        return (*start, "-", "-", "-")
    return (*start, str(len(manifest.items)), human_size(manifest.size), manifest.base or "-")


def human_age(seconds: float) -> str:
    """Return an age as text: 3 d, 5 h, 42 s."""
    if seconds < 0:
        return f"in {human_age(-seconds)}"
    days = int(seconds // _DAY)
    return f"{days} d" if days else human_time(seconds)


def _say(text: str) -> None:
    """Print one line: names in a manifest may have line breaks."""
    terminal.say(foreign.line(text))


def print_selection(selection: Selection) -> None:
    """Print the selected runs, and which section is taken from which."""
    for line in selection.notes:
        _say(line)
    for run in selection.runs():
        _print_run(run.manifest)


def _print_run(manifest: Manifest) -> None:
    """Print one run: its items, what is missing, warnings and notes."""
    _say(
        f"run {manifest.run_id} of {manifest.host}: {manifest.status}, {manifest.mode}, "
        f"{manifest.begin} to {manifest.end}, by {manifest.program}"
    )
    rows = [
        (i.label, i.kind, " ".join(i.stages) or "-", str(len(i.parts)), str(i.stored),
         "-" if i.size is None else str(i.size),
         "-" if i.seconds is None else human_time(i.seconds))
        for i in manifest.items
    ]  # fmt: skip
    terminal.table(("item", "kind", "stages", "parts", "stored", "bytes", "duration"), rows)
    for item in manifest.items:
        if item.problem:
            _say(f"invalid: {item.label}: {item.problem}")
        for line in item.suspicious:
            _say(f"warning: {item.label}: suspicious: {line}")
        for line in item.warnings:
            _say(f"warning: {item.label}: {line}")
        for line in item.notes:
            _say(f"note: {item.label}: {line}")
    for name in manifest.missing:
        _say(f"missing: {name}")
    for item in manifest.cleaned:
        _say(f"cleaned away: {item.label}")
    of_items = [line for item in manifest.items for line in (*item.warnings, *item.suspicious)]
    for line in manifest.warnings:
        if not any(line.endswith(item_line) for item_line in of_items):
            _say(f"warning: {line}")
