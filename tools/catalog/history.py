"""The runs of one host in one store, as far as a new run needs them.

Runs of the future are left out everywhere: they were made while the clock was wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

from tools.base import run_ids
from tools.base.errors import BackupError
from tools.base.log import logger
from tools.catalog import manifest, markers
from tools.catalog.manifest import Manifest
from tools.flow.item_record import StoredItem as Item
from tools.flow.store import Store

_LOOK_BACK = 100  # runs in which an earlier copy of an item is looked for
_MOST_RATIO = 1 << 17  # plaintext bytes of a stored byte: zstd makes 128 KiB of zeros four bytes
_FRAME = 1 << 20  # bytes of plaintext that are believed whatever is stored


class History:
    """Manifests, newest first, each read once, when it is asked for."""

    def __init__(self, place: Store, host: str) -> None:
        """Raises BackupError or OSError where the store cannot be listed."""
        self._place, self._host = place, host
        self.names = [entry.name.rpartition("/")[2] for entry in place.entries(host)]
        runs = sorted(filter(None, map(manifest.run_of, self.names)), reverse=True)
        self.future = [run for run in runs if run_ids.in_future(run)]
        self._unread = iter([run for run in runs if run not in self.future][:_LOOK_BACK])
        self._read: list[Manifest] = []
        self._lock = threading.Lock()  # items of several sections ask at once

    def holds(self, run_id: str) -> bool:
        """Return whether anything in the store has this run id already."""
        return any(run_ids.run_in(name) == run_id for name in self.names)

    def manifests(self) -> Iterator[Manifest]:
        """Give the manifests of the last runs, newest first."""
        number = 0
        while number < len(self._read) or self._advance(number):
            yield self._read[number]
            number += 1

    def _advance(self, number: int) -> bool:
        """Read until there is a manifest of this number; False where there is none."""
        with self._lock:
            while number >= len(self._read):
                run = next(self._unread, None)
                if run is None:
                    return False
                try:
                    self._read.append(markers.read(self._place, self._host, run))
                except (BackupError, OSError) as error:
                    logger.warning("%s: %s", self._place, error)
        return True

    def newest(self) -> Manifest | None:
        """Return the newest run."""
        return next(self.manifests(), None)

    def newest_good(self, config_id: str = "") -> Manifest | None:
        """Return the newest good run, of this config where it has one."""
        good = [made for made in self.manifests() if made.good] if config_id else []
        ours = (made for made in good if made.config_id == config_id)
        return next(ours, None) or next((made for made in self.manifests() if made.good), None)

    def newest_item(self, section: str, name: str) -> Item | None:
        """Return the newest stored copy of an item, in whichever run it is."""
        found = (item for made in self.manifests() for item in made.items)
        return next((one for one in found if (one.section, one.name) == (section, name)), None)

    def section_size(self, section: str) -> int | None:
        """Return the plaintext bytes of a section in the last good run that has it."""
        for made in self.manifests():
            items = [item for item in made.items if item.section == section]
            if items and made.good:
                return sum(item.size or 0 for item in items if _believable(item))
        return None

    def size_of(self, called: str) -> int | None:
        """Return the plaintext bytes of the last good copy of an item, SECTION/name.

        A size that its stored bytes cannot hold is passed over: a manifest that was altered must
        not make later backups fail.
        """
        items = (item for made in self.manifests() if made.good for item in made.items)
        known = (item for item in items if item.called == called and item.size is not None)
        return next((item.size for item in known if _believable(item)), None)


class Past:
    """What the stores of a run know of earlier ones, together."""

    def __init__(self, histories: Sequence[History] = (), *, compare: bool = True) -> None:
        """compare: whether sizes are to be compared at all (SHRINK_CHECK)."""
        self._histories = tuple(histories)
        self._compare = compare

    def size_of(self, called: str) -> int | None:
        """Return the plaintext bytes of the last good copy of an item, to compare with."""
        histories = self._histories if self._compare else ()
        sizes = (one.size_of(called) for one in histories)
        return next((size for size in sizes if size is not None), None)

    def section_size(self, section: str) -> int | None:
        """Return the plaintext bytes of a section in its last good run."""
        sizes = (one.section_size(section) for one in self._histories)
        return next((size for size in sizes if size is not None), None)

    def earlier(self, section: str, name: str) -> list[Mapping[str, str] | None]:
        """Return what the newest copy of an item says of itself, in each store."""
        found = [one.newest_item(section, name) for one in self._histories]
        return [None if item is None else item.facts for item in found]


def _believable(item: Item) -> bool:
    return item.size is not None and item.size <= item.stored * _MOST_RATIO + _FRAME
