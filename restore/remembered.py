"""What the machine of the backups remembers of a store, where a restore runs on it."""

from __future__ import annotations

from tools.base.errors import BackupError, StoreError
from tools.catalog import identity, sequence, store_identity
from tools.catalog.catalog import Catalog
from tools.catalog.location import BackupLocation
from tools.catalog.memory import Memory, Reached
from tools.engine import state


def require(backups: BackupLocation, catalog: Catalog) -> None:
    """Raise ManifestError where a store lacks the newest runs that are remembered.

    On another machine, or for another user, nothing is known.
    """
    general = backups.config.general
    if backups.configured and catalog.host == general.hostname:
        config_id = identity.config_id(backups.config.path)
        sequence.require_reached(catalog, config_id, _reached(backups, catalog, config_id))


def require_store(backups: BackupLocation, host: str) -> None:
    """Raise StoreError where a store without runs is not the one that is remembered there."""
    if backups.configured:
        folder = state.readable_folder(backups.config.general.work_folder)
        try:
            store_identity.require_known(backups.store, host, Memory(folder))
        except StoreError as error:
            raise type(error)(str(error), f"{error.hint} {backups.others()}".strip()) from None


def _reached(backups: BackupLocation, catalog: Catalog, config_id: str) -> Reached:
    folder = state.readable_folder(backups.config.general.work_folder)
    if folder is None:
        return Reached()
    try:
        store_id = store_identity.inspect(catalog.store, catalog.host, "").identity
        return Memory(folder).reached(store_id, catalog.host, config_id)
    except (BackupError, OSError):
        return Reached()  # a store without a marker, or a folder that does not answer
