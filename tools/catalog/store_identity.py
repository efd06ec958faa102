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
class Seen:
    """A store as it is met before a run.

    identity: of its marker; "" where it has none
    key:      its place, as the memory has it
    """

    store: Store
    host: str
    key: str
    identity: str

    def problem(self, memory: Memory) -> StoreError | None:
        """Return why the store must not be written to; None for nothing."""
        known = memory.ids(self.key)
        if known and not self.identity:
            return UnmountedError(
                f"{self.store}: store marker {MARKER}: no such file",
                f"{store.check_place(self.store)} {_ACCEPT}",
            )
        if known and self.identity not in known:
            return StoreError(
                f"{self.store}: another store (id {self.identity}; expected: {', '.join(known)})",
                f"{store.check_store(self.store)} {_ACCEPT}",
            )
        if not self.identity and not known:
            return self._unmounted()
        return None

    def _unmounted(self) -> StoreError | None:
        """A new store below /mnt or /media that would lie on the disk of the system."""
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
            identity = self.identity or _written(self.store, self.host)
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


def seen(place: Store, host: str, key: str) -> Seen:
    """Look at a store. Raises StoreError or OSError where that is not possible.

    key: what tells this store from the others of this machine, where it is no folder
    """
    folder = store.folder_of(place)
    where = str(folder) if folder is not None else key
    return Seen(place, host, f"{where} {host}", _found(place, host))


def require_known(place: Store, host: str, memory: Memory) -> None:
    """Raise StoreError where a folder is not the store that this machine knows there.

    Only folders: other stores are known by the section of the config as well.
    """
    if store.folder_of(place) is None:
        return
    with store.explaining(place):
        found = seen(place, host, "")
        problem = found.problem(memory) if memory.ids(found.key) else None
    if problem is not None:
        raise problem


def _names(host: str) -> tuple[str, str]:
    """Where a marker may be: in the host's folder where the user may write nowhere else."""
    return MARKER, f"{host}/{MARKER.replace('/', '.')}"


def _found(place: Store, host: str) -> str:
    """The id of a store; "" where it has no marker. Raises StoreError for a spoiled one."""
    for name in _names(host):
        try:
            raw = store.beginning(place, name, _MAX_BYTES)
        except BackupError:
            if _is_listed(place, name):
                raise  # it is there, and cannot be read now
            continue
        except PermissionError as error:
            raise StoreError(in_words(error)[0], _READABLE) from None
        if raw:
            return _identity(raw, f"{name} in {place}")
    return ""


def _is_listed(place: Store, name: str) -> bool:
    """Return whether a store lists an object. Raises StoreError, OSError."""
    try:
        return any(entry.name == name for entry in place.entries(name.rpartition("/")[0]))
    except BackupError:
        if place.consistent:
            raise
        return False  # a user-defined program may know no folder that is still empty


def _is_empty(place: Store, host: str) -> bool:
    """Return whether a store lists nothing of a host. Raises StoreError, OSError."""
    try:
        return next(iter(place.entries(host)), None) is None
    except BackupError:
        if place.consistent:
            raise
        return True  # a user-defined program may know no folder that is still empty


def _identity(raw: bytes, called: str) -> str:
    try:
        found = foreign_json.load(raw)["store"]
        if _IS_ID.fullmatch(found):
            return str(found)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass  # said below
    raise StoreError(
        f"{called}: not a store marker",
        "Check that this is the right store, move this file to another place, and run backup.py "
        "once with --accept-store.",
    )


def _written(place: Store, host: str) -> str:
    """A new marker, created, never replaced; the id that the store has then."""
    text = {"store": secrets.token_hex(16), "created": run_ids.now(), "version": 1}
    raw = json.dumps(text, sort_keys=True).encode() + b"\n"
    first, second = _names(host)
    try:
        store.store_object(place, first, [raw])
    except TakenError:
        pass  # another run was faster: its marker counts
    except (BackupError, PermissionError):
        store.store_object(place, second, [raw])
    identity = _found(place, host)
    if not identity:
        raise StoreError(
            f"{place}: store marker {MARKER}: cannot be read back",
            _READABLE,
        )
    return identity


def _runs(place: Store) -> Iterator[str]:
    """The hosts that a store holds something of: it is not a new one."""
    return (host for host in place.folders() if _holds_objects(place, host))


def _holds_objects(place: Store, folder: str) -> bool:
    """Return whether a folder has objects that can be listed: lost+found of a new disk cannot."""
    try:
        return next(place.entries(folder), None) is not None
    except PermissionError:
        return False
