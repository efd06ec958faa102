"""What the machine of the backups remembers of a store, where a restore runs on it."""

from __future__ import annotations

import os

from tools.base import hung_mount
from tools.base.errors import BackupError
from tools.catalog import identity, sequence, store_identity
from tools.catalog.catalog import Catalog
from tools.catalog.location import BackupLocation
from tools.catalog.memory import Memory, Reached
from tools.engine import state


def require(place: BackupLocation, catalog: Catalog) -> None:
    """Raise ManifestError where a store lacks the newest runs that are remembered.

    On another machine, or for another user, nothing is known.
    """
    general = place.config.general
    if place.configured and catalog.host == general.hostname:
        config_id = identity.config_id(place.config.path)
        sequence.require_reached(catalog, config_id, _reached(place, catalog, config_id))


def _reached(place: BackupLocation, catalog: Catalog, config_id: str) -> Reached:
    folder = place.config.general.work_folder / state.NAME
    try:
        if not hung_mount.answer(folder, lambda: os.access(folder, os.R_OK | os.X_OK)):
            return Reached()
        found = store_identity.seen(catalog.store, catalog.host, "").identity
        return Memory(folder).reached(found, catalog.host, config_id)
    except (BackupError, OSError):
        return Reached()  # a store without a marker, or a folder that does not answer
