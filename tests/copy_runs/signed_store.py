"""Stores in memory with signed runs, and copies between them in this process."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from copy_runs import selecting
from copy_runs.arguments import ALL
from copy_runs.comparison import Comparison
from copy_runs.transfer import RunCopy, Transfer
from storage.local_store import LocalStore
from tools.base import run_ids
from tools.catalog import manifest, markers, signers, writer_key
from tools.catalog.catalog import Catalog
from tools.catalog.manifest import Manifest
from tools.catalog.signers import Signers
from tools.catalog.trust import Trust
from tools.flow import store
from tools.flow.item_record import Part, StoredItem
from tools.flow.memory_store import MemoryStore
from tools.flow.store import Store

HOST = "srv-1"
FIRST, SECOND, THIRD = "20260101_030000", "20260102_030000", "20260103_030000"
DAY = 86400.0


class Runs:
    """Makes signed runs in any stores."""

    def __init__(self, folder: Path) -> None:
        self.line = writer_key.create(folder / "writer.key", HOST)
        self.key = writer_key.read(folder / "writer.key")
        self.trust = Trust(Signers(tuple(signers.of_text(self.line, "test"))))

    def catalog(self, location: Store, trust: Trust | None = None) -> Catalog:
        return Catalog(location, HOST, trust or self.trust)

    def item(
        self, location: Store, run_id: str, name: str, parts: int, base: str = ""
    ) -> StoredItem:
        """Store the parts of an item."""
        stored_parts = []
        for number in range(parts):
            text = f"{run_id} {name} {number}".encode() * 10
            part = Part(
                f"{run_id}.DB.{name}.tar.{number:03}", len(text), hashlib.sha256(text).hexdigest()
            )
            store.store_object(location, f"{HOST}/{part.name}", [text])
            stored_parts.append(part)
        return StoredItem("DB", name, "file", ".tar", (), tuple(stored_parts), base=base or None)

    def add(
        self,
        location: Store,
        run_id: str,
        *,
        names: Sequence[str] = ("one", "two"),
        parts: int = 2,
        base: str = "",
        signed: bool = True,
        **fields: Any,
    ) -> Manifest:
        """Store a run as a run does."""
        items = tuple(self.item(location, run_id, name, parts, base) for name in names)
        start = run_ids.stamp(run_ids.time_of(run_id))
        run = Manifest(HOST, run_id, start, start, "streamed", "ok", items, config_id="a")
        run = dataclasses.replace(run, **fields)
        markers.publish_manifest(self.catalog(location), run, self.key if signed else None)
        return run

    def transfer(
        self,
        source: Store,
        target: Store,
        names: Sequence[str] = (ALL,),
        *,
        trust: Trust | None = None,
        **more: Any,
    ) -> Transfer:
        """A copy that has not begun."""
        one, other = self.catalog(source, trust), self.catalog(target, trust)
        pair = Comparison(one, other, names)
        options = {"all_times": False, "dry_run": False, **more}
        return Transfer(pair, selecting.chosen(pair, names), **options)

    def copy(self, source: Store, target: Store, *names: str, **more: Any) -> list[RunCopy]:
        """What became of each run."""
        return list(self.transfer(source, target, names or (ALL,), **more).steps(None))


def contents(memory_store: MemoryStore) -> dict[str, bytes]:
    """All objects of a store."""
    names = [entry.name for entry in memory_store.objects.entries(HOST)]
    return {name: memory_store.objects.read(name) for name in names}


class FailingAt:
    """A fault that breaks the call of this number, of these kinds."""

    def __init__(self, number: int, calls: Sequence[str]) -> None:
        self._remaining = number
        self._calls = calls
        self.was_reached = False

    def __call__(self, call: str, name: str) -> None:
        self._remaining -= call in self._calls
        if self._remaining == 0 and not self.was_reached:
            self.was_reached = True
            raise OSError(5, "broken", f"{call} {name}")


def manifest_names(memory_store: MemoryStore) -> list[str]:
    """The ids of the runs that a store has."""
    return [
        run_id for name in contents(memory_store) if (run_id := manifest.run_of(name.split("/")[1]))
    ]


def contents_of(local_store: LocalStore) -> dict[str, bytes]:
    """All objects of a local store, unfinished ones as well."""
    return {path.name: path.read_bytes() for path in (local_store.folder / HOST).iterdir()}
