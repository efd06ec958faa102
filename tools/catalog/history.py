"""What a new run needs to know of earlier ones.

Runs dated in the future are left out everywhere: they were made while the clock was wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence, Set
from logging import INFO, WARNING

from tools.base.errors import BackupError, ManifestError
from tools.base.log import logger
from tools.catalog import figures
from tools.catalog.catalog import Catalog
from tools.catalog.manifest import Manifest
from tools.flow.item_record import StoredItem as Item

_MAX_SEARCHED_RUNS = 100  # in which an earlier copy of an item is looked for
_MAX_UNREAD = 30  # newest runs of a store that are read for the database of figures


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

    def unread(self, known_ids: Set[str]) -> Iterator[tuple[str, Manifest | None]]:
        """Yield those of the last 30 runs whose id is not known; None for a bad manifest.

        Bad ones do not count: forged runs could hide the others. Raises StoreError or OSError.
        """
        good = 0
        for run_id in self._past_ids():
            if good >= _MAX_UNREAD:
                return
            try:
                if run_id not in known_ids:
                    yield run_id, self._catalog.manifest(run_id)
                good += 1
            except ManifestError:  # `manifests` names it
                yield run_id, None

    def claimed(self) -> Iterator[Manifest]:
        """Return the manifests of the last runs, newest first, trusted or not.

        They show who writes into the store; nothing else may be taken from them.
        """
        for run_id in self._past_ids()[:_MAX_SEARCHED_RUNS]:
            with contextlib.suppress(BackupError, OSError):  # `manifests` names it
                yield self._catalog.claim(run_id).manifest

    def _past_ids(self) -> Sequence[str]:
        """Return the ids of the last runs, newest first."""
        future = set(self._catalog.future)
        return [run_id for run_id in reversed(self._catalog.run_ids) if run_id not in future]

    def newest_complete(self, config_id: str = "") -> Manifest | None:
        """Return the newest complete run, of this config where it has one."""
        complete = (manifest for manifest in self.manifests() if manifest.is_complete)
        if config_id:
            of_config = (
                manifest for manifest in self.manifests() if manifest.config_id == config_id
            )
            newest = next((manifest for manifest in of_config if manifest.is_complete), None)
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
                return sum(item.size or 0 for item in items if figures.is_plausible(item))
        return None


class Past:
    """What all stores of a run together know of earlier runs."""

    def __init__(self, histories: Sequence[History] = ()) -> None:
        self._histories = tuple(histories)

    def section_size(self, section: str) -> int | None:
        """Return the plaintext bytes of a section in its last complete run."""
        sizes = (one.section_size(section) for one in self._histories)
        return next((size for size in sizes if size is not None), None)

    def earlier(self, section: str, name: str) -> list[Item | None]:
        """Return the newest copy of an item in each store; None where it has none."""
        return [one.newest_item(section, name) for one in self._histories]
