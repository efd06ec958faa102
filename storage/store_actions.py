"""What storage.py does on the command line besides storing: list, size and check."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from storage.keys import StorageKeys
from tools import date_str_utils
from tools.base import foreign
from tools.base.result import Result, Status
from tools.flow.store import Store, StoreEntry


def listing(options: StorageKeys, store: Store) -> Result:
    """Return the objects of this host: size in bytes, age in hours, name."""
    entries = list(store.entries(options.hostname))
    lines = [
        f"{entry.size:>14} {entry.age / 3600:>9.1f} h  {foreign.printable(entry.name)}"
        for entry in entries
    ]
    return dataclasses.replace(_sum(options, store, entries), details=tuple(lines))


def size(options: StorageKeys, store: Store) -> Result:
    """Return how many objects of this host there are, and their bytes."""
    return _sum(options, store, list(store.entries(options.hostname)))


def _sum(options: StorageKeys, store: Store, entries: Sequence[StoreEntry]) -> Result:
    total = sum(entry.size for entry in entries)
    count = date_str_utils.count(len(entries), "file")
    text = f"{options.hostname}: {count}, {date_str_utils.human_size(total)}, in {store}"
    return Result(Status.OK, text, items=len(entries), bytes=total)


ACTIONS: Mapping[str, Callable[[StorageKeys, Store], Result]] = {"list": listing, "size": size}
