"""Runs in a store without a backup: manifests and parts, stored at times of one's choice."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from tools import date_str_utils
from tools.catalog import manifest, trust
from tools.catalog.manifest import Manifest
from tools.catalog.writer_key import WriterKey
from tools.flow import store
from tools.flow.item_record import Part, StoredItem
from tools.flow.memory_store import MemoryStore, Objects
from tools.flow.store import Store

HOST = "srv-1"
CONTENT = b"data"
NOW = datetime.now(timezone.utc).replace(microsecond=0)


class Clock:
    """The clock of a store in memory: it can be put back while a run is stored."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now.timestamp()


def memory() -> tuple[MemoryStore, Clock]:
    """Return a store in memory, and its clock."""
    clock = Clock()
    return MemoryStore(objects=Objects(clock)), clock


def item(
    run_id: str, section: str, *, name: str = "", base: str | None = None, size: int | None = 4
) -> StoredItem:
    """Return an item of one part."""
    dotted = f".{name}" if name else ""
    part = Part(
        f"{run_id}.{section}{dotted}.tar.000", len(CONTENT), hashlib.sha256(CONTENT).hexdigest()
    )
    digest = hashlib.sha256(CONTENT).hexdigest()
    return StoredItem(section, name, "fileset", ".tar", (), (part,), size, digest, base=base)


def run(run_id: str, items: Sequence[StoredItem], **fields: object) -> Manifest:
    """Return the manifest of a complete run."""
    complete = Manifest(
        HOST, run_id, "", "", "streamed", "ok", tuple(items), config_id="a", program="test"
    )
    return Manifest(**{**vars(complete), **fields})


def put(
    target: Store,
    stored: Manifest,
    *,
    without: Sequence[str] = (),
    key: WriterKey | None = None,
) -> None:
    """Store a run. without: labels of items whose parts are left out"""
    for one in stored.items:
        for part in one.parts if one.label not in without else ():
            store.store_object(target, f"{stored.host}/{part.name}", [CONTENT])
    name = f"{stored.host}/{manifest.name_of(stored.run_id)}"
    store.store_object(target, f"{stored.host}/{stored.run_id}{manifest.RECOVERY}", [b"sheet"])
    if key is not None:
        store.store_object(target, name + trust.ENDING, [key.sign(stored.to_json())])
    store.store_object(target, name, [stored.to_json()])


def days_ago(days: float) -> datetime:
    """Return a moment before the tests began."""
    return NOW - timedelta(days=days)


def run_id(moment: datetime) -> str:
    """Return the run ID of a moment."""
    return date_str_utils.run_id(moment)


def daily(
    target: MemoryStore, clock: Clock, number: int, *sections: str, key: WriterKey | None = None
) -> list[str]:
    """Store a run for each of the last days, oldest first; return their ids."""
    run_ids = []
    for day in range(number, 0, -1):
        clock.now = days_ago(day)
        run_ids.append(run_id(clock.now))
        put(target, run(run_ids[-1], [item(run_ids[-1], one) for one in sections]), key=key)
    clock.now = NOW
    return run_ids


def age(folder: Path, moment: datetime, run: str) -> None:
    """Make the files of a run in a folder as old as if they had been stored then."""
    for file in folder.glob(f"{run}*"):
        os.utime(file, (moment.timestamp(), moment.timestamp()))
