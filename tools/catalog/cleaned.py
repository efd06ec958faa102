"""What clean-up leaves in a store beside a run: notes of items that it removed, and pins.

A note is `<run id>.cleaned-<n>.json`, numbered from 1. Nobody signs it, so the catalog believes it
only where it says no more than the removal of the whole run would (Catalog.claim).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from tools.base import foreign_json, run_ids
from tools.base.errors import StoreError
from tools.flow import store
from tools.flow.store import Store

PATTERN = r"\.cleaned-[1-9][0-9]{0,5}\.json"  # what follows the run id in the name of a note
PIN = ".PINNED"  # what follows the run id in the name of a pin
_NAME = re.compile(rf"(?P<run_id>[0-9]{{8}}_[0-9]{{6}}){PATTERN}")
_PINNED = re.compile(rf"(?P<run_id>[0-9]{{8}}_[0-9]{{6}}){re.escape(PIN)}")
_VERSION = 1
_MAX_BYTES = 4 << 20  # of a note that is read
_MAX_NOTES = 1_000  # of one run: notes with a higher number are not read


def name_of(run_id: str, number: int) -> str:
    """Return the name of a note beside the manifest."""
    return f"{run_id}.cleaned-{number}.json"


def noted_run(name: str) -> str:
    """Return the run ID in the name of a note; "" for another name."""
    match = _NAME.fullmatch(name)
    return match["run_id"] if match else ""


def pinned_run(name: str) -> str:
    """Return the run ID in the name of a pin; "" for another name."""
    match = _PINNED.fullmatch(name)
    return match["run_id"] if match else ""


def by_run(names: Iterable[str]) -> Mapping[str, list[str]]:
    """Return the names of the notes of each run that has some, by its id."""
    notes: dict[str, list[str]] = {}
    for name in names:
        run_id = noted_run(name)
        if run_id and run_ids.is_time(run_id):
            notes.setdefault(run_id, []).append(name)
    return notes


def content(labels: Iterable[str]) -> bytes:
    """Return the bytes of a note about these items, SECTION/name."""
    note = {"version": _VERSION, "items": sorted(labels)}
    return json.dumps(note, indent=1, ensure_ascii=True).encode() + b"\n"


def labels(backup_store: Store, folder: str, names: Iterable[str]) -> frozenset[str]:
    """Return the items that the notes of a run name; a note that is invalid names none.

    Raises StoreError or OSError where a note cannot be read.
    """
    items: set[str] = set()
    for name in sorted(names):
        if _number(name) <= _MAX_NOTES:
            items |= _labels(read(backup_store, folder, name))
    return frozenset(items)


def read(backup_store: Store, folder: str, name: str) -> bytes:
    """Return the bytes of a note, the first of a large one. Raises StoreError or OSError."""
    return store.beginning(backup_store, f"{folder}/{name}", _MAX_BYTES)


def _labels(raw: bytes) -> set[str]:
    try:
        note = foreign_json.load(raw, _MAX_BYTES)
    except (ValueError, RecursionError):
        return set()
    items = note.get("items") if isinstance(note, dict) else None
    if not isinstance(items, list) or note.get("version") != _VERSION:
        return set()
    return {label for label in items if isinstance(label, str)}


def _number(name: str) -> int:
    return int(name.rpartition("-")[2].partition(".")[0])


def free_number(names: Iterable[str]) -> int:
    """Return the number of the next note of a run, the lowest that is free; 0 for none.

    Anyone who can write to the store can take numbers; none of them hides a note that is there.
    names: the names of the notes that the run has
    """
    taken = set(map(_number, names))
    return next((number for number in range(1, _MAX_NOTES + 1) if number not in taken), 0)


def note(
    backup_store: Store, host: str, run_id: str, names: Iterable[str], items: Iterable[str]
) -> str:
    """Store one more note of a run; return its name.

    names: the names of the notes that the run has. Raises StoreError or OSError, also where no
    number is free.
    """
    number = free_number(names)
    if not number:
        raise StoreError(
            f"{backup_store}: run {run_id} has {_MAX_NOTES} notes of clean-up, the maximum",
            "Check who can write to this store.",
        )
    name = name_of(run_id, number)
    store.store_object(backup_store, f"{host}/{name}", [content(items)])
    return name


def pin(backup_store: Store, host: str, run_id: str, reason: str) -> None:
    """Keep clean-up from removing a run. Raises StoreError or OSError."""
    store.store_object(backup_store, f"{host}/{run_id}{PIN}", [reason.encode() + b"\n"])


def unpin(backup_store: Store, host: str, run_id: str) -> None:
    """Let clean-up remove a run again. Raises StoreError or OSError."""
    name = f"{host}/{run_id}{PIN}"
    backup_store.remove([name])
    if any(entry.name == name for entry in backup_store.entries(host)):
        raise StoreError(
            f"{backup_store}: {name} could not be removed", "Check the rights in this store."
        )
