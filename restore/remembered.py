"""What the machine of the backups remembers of a store, where a restore runs on it."""

from __future__ import annotations

import os

from tools.base import hung_mount
from tools.base.errors import BackupError
from tools.catalog import identity, store_identity
from tools.catalog.catalog import Catalog
from tools.catalog.location import BackupLocation
from tools.catalog.memory import Memory
from tools.engine import state


def number(place: BackupLocation, catalog: Catalog) -> int:
    """Return the number of the newest run that was stored in a store; 0 if it is not known here.

    On another machine, or for another user, nothing is known.
    """
    general = place.config.general
    if not place.configured or catalog.host != general.hostname:
        return 0
    folder = general.work_folder / state.NAME
    try:
        if not hung_mount.answer(folder, lambda: os.access(folder, os.R_OK | os.X_OK)):
            return 0
        found = store_identity.seen(catalog.store, catalog.host, "").identity
        config_id = identity.config_id(place.config.path)
        return Memory(folder).number(found, catalog.host, config_id)
    except (BackupError, OSError):
        return 0  # a store without a marker, or a folder that does not answer
