"""The identity of a store: a marker in it with a random id, which this machine remembers.

With it a disk that is not mounted, or another disk in its place, never takes a backup unnoticed.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from tools import filesystem_handling
from tools.base import foreign_json, run_ids
from tools.base.errors import BackupError, StoreError, TakenError, UnmountedError, in_words
from tools.base.log import logger
from tools.catalog.memory import Memory
from tools.flow import store
from tools.flow.store import Store

MARKER = f"{store.OWN_FOLDER}/id.json"  # user-defined stores expect a folder in each name
_IS_ID = re.compile(r"[0-9a-f]{32}")
_MAX_BYTES = 1 << 16  # of a marker that is read
_READABLE = (
    "Let the user of the backup read and write the store. On a new server the files of the old one "
    "belong to its user: docs/guides/new-server.md."
)
_ACCEPT = "If the store was replaced on purpose, run backup.py once with --accept-store."


@dataclass(frozen=True)
class StoreState:
    """The state of a store before a run.

    identity: of its marker; "" where it has none
    key:      its key in the memory of this machine
    """

    store: Store
    host: str
    key: str
    identity: str

    def problem(self, memory: Memory) -> StoreError | None:
        """Return why the store must not be written to; None for nothing."""
        expected = memory.ids(self.key)
        if expected and not self.identity:
            return UnmountedError(
                f"{self.store}: store marker {MARKER}: no such file",
                f"{store.check_place(self.store)} {_ACCEPT}",
            )
        if expected and self.identity not in expected:
            return StoreError(
                f"{self.store}: another store "
                f"(id {self.identity}; expected: {', '.join(expected)})",
                f"{store.check_store(self.store)} {_ACCEPT}",
            )
        if not self.identity and not expected:
            return self._unmounted()
        return None

    def _unmounted(self) -> StoreError | None:
        """Return an error for a new store below /mnt or /media that is on the root file system."""
        folder = store.folder_of(self.store)
        if folder is None or any(_runs(self.store)) or not filesystem_handling.unmounted(folder):
            return None
        return UnmountedError(
            f"{self.store}: a new store would be created on the root file system",
            "Check that its disk is mounted. To use this folder, run backup.py once with "
            "--accept-store.",
        )

    def settle(self, memory: Memory, *, accept: bool) -> str:
        """Check the store, give it a marker where it has none, and remember it. Return its id.

        Raises StoreError where it is not the store that is known, unless `accept`.
        """
        problem = self.problem(memory)
        if problem is not None and not accept:
            raise problem
        with store.explaining(self.store):
            identity = self.identity or _create_marker(self.store, self.host)
        if problem is not None:
            logger.warning("%s (accepted: store id %s)", problem, identity)
        elif self.identity and not memory.ids(self.key):
            self._tell_new(identity)
        memory.remember(self.key, identity)
        return identity

    def _tell_new(self, identity: str) -> None:
        """Tell of a store that this machine did not know: usual for a further host of it."""
        if _is_empty(self.store, self.host):
            logger.info("%s: store %s: the first run of %s there", self.store, identity, self.host)
            return
        logger.warning(
            "%s: store %s accepted: this machine did not know it yet", self.store, identity
        )


def inspect(backup_store: Store, host: str, key: str) -> StoreState:
    """Look at a store. Raises StoreError or OSError where that is not possible.

    key: what tells this store from the others of this machine, where it is no folder
    """
    folder = store.folder_of(backup_store)
    where = str(folder) if folder is not None else key
    return StoreState(backup_store, host, f"{where} {host}", _stored_identity(backup_store, host))


def require_known(backup_store: Store, host: str, memory: Memory) -> None:
    """Raise StoreError where a folder is not the store that this machine knows there.

    Only folders: other stores are known by the section of the config as well.
    """
    if store.folder_of(backup_store) is None:
        return
    with store.explaining(backup_store):
        status = inspect(backup_store, host, "")
        problem = status.problem(memory) if memory.ids(status.key) else None
    if problem is not None:
        raise problem


def _names(host: str) -> tuple[str, str]:
    """Return the names of a marker; the second is for a user who may write to that folder only."""
    return MARKER, f"{host}/{MARKER.replace('/', '.')}"


def _stored_identity(backup_store: Store, host: str) -> str:
    """Return the id of a store; "" without a marker. Raises StoreError for an invalid one."""
    for name in _names(host):
        try:
            raw = store.beginning(backup_store, name, _MAX_BYTES)
        except BackupError:
            if _is_listed(backup_store, name):
                raise  # it is there, and cannot be read now
            continue
        except PermissionError as error:
            raise StoreError(in_words(error)[0], _READABLE) from None
        if raw:
            return _identity(raw, f"{name} in {backup_store}")
    return ""


def _is_listed(backup_store: Store, name: str) -> bool:
    """Return whether a store lists an object. Raises StoreError, OSError."""
    try:
        return any(entry.name == name for entry in backup_store.entries(name.rpartition("/")[0]))
    except BackupError:
        if backup_store.consistent:
            raise
        return False  # a user-defined program may know no folder that is still empty


def _is_empty(backup_store: Store, host: str) -> bool:
    """Return whether a store lists nothing of a host. Raises StoreError, OSError."""
    try:
        return next(iter(backup_store.entries(host)), None) is None
    except BackupError:
        if backup_store.consistent:
            raise
        return True  # a user-defined program may know no folder that is still empty


def _identity(raw: bytes, name: str) -> str:
    try:
        identity = foreign_json.load(raw)["store"]
        if _IS_ID.fullmatch(identity):
            return str(identity)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass  # said below
    raise StoreError(
        f"{name}: not a store marker",
        "Check that this is the right store, move this file to another place, and run backup.py "
        "once with --accept-store.",
    )


def _create_marker(backup_store: Store, host: str) -> str:
    """Create a marker, never replace one; return the id that the store has then."""
    text = {"store": secrets.token_hex(16), "created": run_ids.now(), "version": 1}
    raw = json.dumps(text, sort_keys=True).encode() + b"\n"
    first, second = _names(host)
    try:
        store.store_object(backup_store, first, [raw])
    except TakenError:
        pass  # another run was faster: its marker counts
    except (BackupError, PermissionError):
        store.store_object(backup_store, second, [raw])
    identity = _stored_identity(backup_store, host)
    if not identity:
        raise StoreError(
            f"{backup_store}: store marker {MARKER}: cannot be read back",
            _READABLE,
        )
    return identity


def _runs(backup_store: Store) -> Iterator[str]:
    """Return the hosts that have objects in a store; a new store has none."""
    return (host for host in backup_store.folders() if _holds_objects(backup_store, host))


def _holds_objects(backup_store: Store, folder: str) -> bool:
    """Return whether a folder has objects that can be listed: lost+found of a new disk cannot."""
    try:
        return next(backup_store.entries(folder), None) is not None
    except PermissionError:
        return False
