"""The catalog: all runs of one host in one store."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence

from tools.base import run_ids
from tools.base.errors import BackupError, ManifestError
from tools.catalog import manifest
from tools.catalog.manifest import Manifest
from tools.flow.store import Store


class Catalog:
    """The runs of one host in one store, as they were listed at the first question.

    One catalog serves a whole run or restore: the store is listed once, and each manifest is
    read when it is asked for, and only once. It may be asked from several threads.
    """

    def __init__(self, store: Store, host: str) -> None:
        self.store = store
        self.host = host
        self._manifests: dict[str, Manifest | BackupError | OSError] = {}
        self._lock = threading.Lock()

    @functools.cached_property
    def sizes(self) -> Mapping[str, int]:
        """The bytes of every object of the host by its name, without the folder."""
        entries = self.store.entries(self.host)
        return {entry.name.rpartition("/")[2]: entry.size for entry in entries}

    @functools.cached_property
    def run_ids(self) -> Sequence[str]:
        """The ids of all runs that have a manifest, oldest first."""
        found = filter(None, map(manifest.run_of, self.sizes))
        return sorted(run_id for run_id in found if run_ids.is_time(run_id))

    @property
    def future(self) -> Sequence[str]:
        """The ids of runs that were made while the clock was wrong."""
        return [run_id for run_id in self.run_ids if run_ids.in_future(run_id)]

    def has_objects_of(self, run_id: str) -> bool:
        """Return whether anything in the store has this run id."""
        return any(run_ids.run_in(name) == run_id for name in self.sizes)

    def manifest(self, run_id: str) -> Manifest:
        """Return the manifest of a run. Raises ManifestError, StoreError or OSError."""
        with self._lock:
            found = self._manifests.get(run_id)
            if found is None:
                found = self._manifests[run_id] = self._read(run_id)
        if isinstance(found, Manifest):
            return found
        raise found

    def add(self, published: Manifest) -> None:
        """Take over a manifest that this run has published and read back."""
        with self._lock:
            self._manifests[published.run_id] = published

    def _read(self, run_id: str) -> Manifest | BackupError | OSError:
        try:
            return read_manifest(self.store, self.host, run_id)
        except (BackupError, OSError) as error:
            return error


def read_manifest(store: Store, host: str, run_id: str) -> Manifest:
    """Return the manifest of a run. Raises ManifestError, StoreError or OSError."""
    name = f"{host}/{manifest.name_of(run_id)}"
    found = manifest.read(b"".join(store.get(name)), name)
    if (found.host, found.run_id) != (host, run_id):
        raise ManifestError(
            f"{name}: is the manifest of {found.host}/{found.run_id}",
            "It was moved or renamed. Use the copy in another store.",
        )
    return found
