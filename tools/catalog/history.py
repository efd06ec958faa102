"""What a new run needs to know of earlier ones.

Runs dated in the future are left out everywhere: they were made while the clock was wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from logging import INFO, WARNING

from tools.base.errors import BackupError
from tools.base.log import logger
from tools.catalog.catalog import Catalog
from tools.catalog.manifest import Manifest
from tools.flow.item_record import StoredItem as Item

_MAX_SEARCHED_RUNS = 100  # in which an earlier copy of an item is looked for
_MAX_RATIO = 1 << 17  # plaintext bytes of a stored byte: zstd makes 128 KiB of zeros four bytes
_MIN_SIZE = 1 << 20  # bytes of plaintext that are plausible whatever is stored


class History:
    """The last runs of one catalog, newest first."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._unreadable: set[str] = set()

    def manifests(self) -> Iterator[Manifest]:
        """Return the manifests of the last 100 runs, newest first.

        Those that are unreadable or not trusted are left out.
        """
        trusted = 0
        for run_id in self._past_ids():
            if trusted >= _MAX_SEARCHED_RUNS:
                return
            try:
                manifest = self._catalog.manifest(run_id)
            except (BackupError, OSError) as error:
                if run_id not in self._unreadable:
                    level = INFO if self._catalog.is_unsigned(run_id) else WARNING
                    logger.log(level, "%s: %s", self._catalog.store, error)
                    self._unreadable.add(run_id)
                continue
            trusted += 1
            yield manifest

    def claimed(self) -> Iterator[Manifest]:
        """Return the manifests of the last runs, newest first, trusted or not.

        They show who writes into the store; nothing else may be taken from them.
        """
        for run_id in self._past_ids()[:_MAX_SEARCHED_RUNS]:
            with contextlib.suppress(BackupError, OSError):  # `manifests` names it
                yield self._catalog.claim(run_id).manifest

    def _past_ids(self) -> Sequence[str]:
        """The ids of the last runs, newest first."""
        future = set(self._catalog.future)
        return [run_id for run_id in reversed(self._catalog.run_ids) if run_id not in future]

    def newest_complete(self, config_id: str = "") -> Manifest | None:
        """Return the newest complete run, of this config where it has one."""
        complete = (manifest for manifest in self.manifests() if manifest.is_complete)
        if config_id:
            own = (manifest for manifest in self.manifests() if manifest.config_id == config_id)
            newest = next((manifest for manifest in own if manifest.is_complete), None)
            if newest is not None:
                return newest
        return next(complete, None)

    def newest_item(self, section: str, name: str) -> Item | None:
        """Return the newest stored copy of an item, in whichever run it is."""
        items = (one for run in self.manifests() for one in run.items if not one.problem)
        return next((one for one in items if (one.section, one.name) == (section, name)), None)

    def section_size(self, section: str) -> int | None:
        """Return the plaintext bytes of a section in the last complete run that has it."""
        for manifest in self.manifests():
            items = [item for item in manifest.items if item.section == section]
            if items and manifest.is_complete:
                return sum(item.size or 0 for item in items if _plausible(item))
        return None

    def size_of(self, label: str, config_id: str = "") -> int | None:
        """Return the plaintext bytes of the last complete copy of an item, SECTION/name.

        Where this config made such a copy, those of other configs do not count: several may
        share a host and a store, and call different things by one name.
        A size that the stored bytes cannot hold is skipped: a manifest that was altered must
        not make later backups fail.
        """
        others: int | None = None
        for manifest in self.manifests():
            size = _complete_size(manifest, label)
            if size is not None and (not config_id or manifest.config_id in ("", config_id)):
                return size
            others = size if others is None else others
        return others


class Past:
    """What all stores of a run together know of earlier runs."""

    def __init__(
        self, histories: Sequence[History] = (), config_id: str = "", *, compare: bool = True
    ) -> None:
        """config_id: of the run's config. compare: whether sizes are compared (SHRINK_CHECK)"""
        self._histories = tuple(histories)
        self._config_id = config_id
        self._compare = compare

    def size_of(self, label: str) -> int | None:
        """Return the plaintext bytes of the last complete copy of an item, to compare with."""
        histories = self._histories if self._compare else ()
        sizes = (one.size_of(label, self._config_id) for one in histories)
        return next((size for size in sizes if size is not None), None)

    def section_size(self, section: str) -> int | None:
        """Return the plaintext bytes of a section in its last complete run."""
        sizes = (one.section_size(section) for one in self._histories)
        return next((size for size in sizes if size is not None), None)

    def earlier(self, section: str, name: str) -> list[Item | None]:
        """Return the newest copy of an item in each store; None where it has none."""
        return [one.newest_item(section, name) for one in self._histories]


def _complete_size(manifest: Manifest, label: str) -> int | None:
    """Return the plaintext bytes of an item in a complete run; None where it has none."""
    items = (item for item in manifest.items if manifest.is_complete and item.label == label)
    return next((item.size for item in items if _plausible(item)), None)


def _plausible(item: Item) -> bool:
    return item.size is not None and item.size <= item.stored * _MAX_RATIO + _MIN_SIZE
