"""Objects of a remote of rclone: written under a temporary name, compared, then moved."""

from __future__ import annotations

import contextlib
import functools
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storage import rclone_copies, rclone_parallel, rclone_remote
from storage.bucket_keys import Keys
from storage.rclone_calls import Calls
from storage.rclone_copies import Copies
from storage.rclone_daemon import Shared
from storage.rclone_errors import DeniedError, MissingError
from storage.rclone_hashes import Hashing
from storage.rclone_parallel import Prefetcher
from storage.rclone_remote import Features
from tools import filesystem_handling
from tools.base import foreign
from tools.base.errors import ForbiddenError, StoreError, TakenError, TransientError
from tools.base.log import logger
from tools.flow import store, stream, task
from tools.flow.copies import Choosing
from tools.flow.store import StoredObject, StoreEntry

_LONGEST = 200  # characters of a name in a temporary one
_PLAIN = {"noMimeType": True}


@dataclass(frozen=True)
class _Written:
    """An object under its temporary name. digest: by the hash of the remote; "" for none"""

    path: str
    stored: StoredObject
    digest: str


class RcloneStore:
    """See Store. Nothing is overwritten: by looking for the name before each move."""

    create_only = store.CreateOnly.LISTED

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._keys = Keys("")
        self._unpublished: dict[str, _Written] = {}
        self._chosen: dict[str, StoredObject] = {}
        self._twice: dict[str, dict[str, Copies]] = {}  # what is there twice, by folder and path
        self._warned: set[str] = set()
        self._prefetcher = Prefetcher(self._whole)
        self._ahead: float | None = None  # seconds of the clock of the remote

    def __str__(self) -> str:
        return address(self.remote)

    @property
    def remote(self) -> str:
        """Return the remote, as rclone names it."""
        return self._calls.remote

    @property
    def shared(self) -> Shared:
        """Return the rclone that does the work."""
        return self._calls.shared

    @functools.cached_property
    def features(self) -> Features:
        """Return what the remote can do. Raises StoreError."""
        return rclone_remote.features(self._calls)

    @property
    def consistent(self) -> bool:
        """See Store: by the type of the backend."""
        return self.features.consistent

    # --- paths

    def _path(self, name: str) -> str:
        return self._keys.of(store.check_name(name))

    def _named(self, name: str) -> str:
        return foreign.line(f"{self}/{name}")

    def _stat(self, path: str, *, hashed: bool = False) -> dict[str, Any] | None:
        """Return what the remote says of an object; None where there is none."""
        options: dict[str, object] = {**_PLAIN, "filesOnly": True}
        if hashed and self.features.hash_name:
            options |= {"showHash": True, "hashTypes": [self.features.hash_name]}
        try:
            return self._calls.of_remote(
                "operations/stat", self._named(path), remote=path, opt=options
            ).get("item")
        except MissingError:  # the folder
            return None

    def version(self) -> str:
        """Return the version of rclone. Raises StoreError."""
        return foreign.line(str(self._calls.call("core/version", str(self)).get("version", "")))

    @property
    def ahead(self) -> float | None:
        """Return by how many seconds the remote's clock is ahead; None before a comparison."""
        return self._ahead

    def tried(self) -> None:
        """Write an object, compare and remove it. Raises StoreError where that is not possible."""
        was_there = self._is_there()
        name = f".probe{filesystem_handling.PART}{uuid.uuid4().hex[:8]}"
        try:
            self.put(name, [uuid.uuid4().bytes])
            self._delete(self._unpublished.pop(name).path)
            probe = f".clock{filesystem_handling.PART}{uuid.uuid4().hex[:8]}"
            with contextlib.suppress(StoreError):  # not every remote has times
                self._ahead = rclone_remote.clock(self._calls, self.features, self._path(probe))
        finally:
            if not was_there:
                with contextlib.suppress(StoreError):
                    self._calls.of_remote("operations/rmdir", str(self), remote="")

    def _is_there(self) -> bool:
        try:
            self._calls.of_remote("operations/list", str(self), remote="", opt=_PLAIN)
        except MissingError:
            return False
        return True

    # --- put

    def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
        """See Store: under a temporary name; size and hash compared, or read back."""
        path = self._path(name)
        self.discard([name])
        above, _, file = path.rpartition("/")
        mark = f"{filesystem_handling.PART}{uuid.uuid4().hex[:8]}"
        temporary = f"{above}/.{file[:_LONGEST]}{mark}".lstrip("/")
        hashing = Hashing(self.features.hash_name)
        content = stream.content(chunks)
        try:
            self._calls.upload(temporary, hashing(content), self._named(name))
            stored = StoredObject(name, content.size, content.sha256)
            digest = hashing.digest(stored.sha256) if self.features.hash_name else ""
            written = _Written(temporary, stored, digest)
            if not self._holds(temporary, written):
                raise StoreError(
                    f"{self._named(name)}: the remote holds other bytes than were sent",
                    "Check the server, and the network to it. The object was not stored.",
                )
        except BaseException:
            self._drop(temporary)
            raise
        self._unpublished[name] = written
        return stored

    def _holds(self, path: str, written: _Written) -> bool:
        """Return whether an object has the size, and the hash or the bytes, of what was sent."""
        about = self._stat(path, hashed=True)
        if about is None or about.get("Size") != written.stored.size:
            return False
        held = (about.get("Hashes") or {}).get(self.features.hash_name, "")
        if held:
            return bool(held == written.digest)
        content = stream.content(self._calls.download(path, self._named(written.stored.name)))
        stream.drained(content)
        return (content.size, content.sha256) == (written.stored.size, written.stored.sha256)

    # --- publish and discard

    def publish(self, names: Sequence[str]) -> None:
        """See Store: the name is looked for, then the object is moved to it."""
        for name in names:
            if name in self._unpublished:
                if self._publish(self._path(name), self._unpublished[name]):
                    del self._unpublished[name]
                self.discard([name])

    def _publish(self, path: str, written: _Written) -> bool:
        """Return whether the object was moved; False where an equal one has its name."""
        subject = self._named(written.stored.name)
        if self._stat(path) is not None:
            if self._holds(path, written):
                return False
            raise TakenError(
                f"{subject}: object exists with different content",
                "Stored objects are never overwritten. Check whether two machines use the same "
                "HOSTNAME.",
            )
        ends = {"srcFs": self.remote, "srcRemote": written.path}
        ends |= {"dstFs": self.remote, "dstRemote": path}
        self._calls.call("operations/movefile", subject, **ends)
        about = self._stat(path)
        if about is None or about.get("Size") != written.stored.size:
            raise TransientError(f"{subject}: the remote does not show it after its move")
        return True

    def discard(self, names: Sequence[str]) -> None:
        """See Store."""
        for name in names:
            written = self._unpublished.pop(name, None)
            if written is not None:
                self._drop(written.path)

    def _drop(self, path: str) -> None:
        """Remove a temporary object, also of an item that was stopped."""
        with task.entered(task.Task()):
            try:
                self._delete(path)
            except StoreError as error:
                logger.info("%s: a temporary object stays: %s", self, error)

    def _delete(self, path: str) -> None:
        with contextlib.suppress(MissingError):  # it has gone, or its own name
            self._calls.of_remote("operations/deletefile", self._named(path), remote=path)

    # --- get

    def choose(self, stored: StoredObject) -> None:
        """See Choosing."""
        self._chosen[stored.name] = stored

    def prefetch(self, names: Sequence[str]) -> None:
        """See Prefetching."""
        self._prefetcher.begin(names)

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store."""
        path = self._path(name)
        if (start, end) == (0, None):
            yield from self._prefetcher.get(name)
        elif self._duplicates(path):
            yield from store.cut(self._whole(name), start, end)
        else:
            about = self._stat(path)
            if about is None:
                raise StoreError(f"{self._named(name)}: no such object")
            size = int(about.get("Size", 0))
            last = size if end is None else min(end, size)
            if start < last:
                yield from self._calls.download(path, self._named(name), start, last)

    def _whole(self, name: str) -> Iterator[bytes]:
        path = self._path(name)
        if copies := self._duplicates(path):
            wanted, program = self._chosen.get(name), self.shared.program
            yield from rclone_copies.read(program, self.remote, copies, wanted, self._named(name))
        else:
            yield from self._calls.download(path, self._named(name))

    def holds(self, stored: StoredObject) -> bool:
        """See Choosing."""
        copies = self._duplicates(self._path(stored.name))
        return stored.size in [one.get("Size") for one in copies]

    def _duplicates(self, path: str) -> Copies:
        """Return what has the name of an object, where that is more than one."""
        folder = path.rpartition("/")[0]
        if folder not in self._twice and self.features.duplicates:
            self._listed(folder)
        return self._twice.get(folder, {}).get(path, ())

    # --- lists

    def _listed(self, folder: str, **options: object) -> list[dict[str, Any]]:
        """Return what is in a folder, sorted; nothing where there is no such folder."""
        try:
            answer = self._calls.of_remote(
                "operations/list", str(self), remote=folder, opt={**_PLAIN, **options}
            )
        except MissingError:
            return []
        entries = [one for one in answer.get("list") or () if isinstance(one.get("Path"), str)]
        by_path: dict[str, list[dict[str, Any]]] = {}
        for one in entries:
            by_path.setdefault(str(one["Path"]), []).append(one)
        twice = ((path, copies) for path, copies in by_path.items() if len(copies) > 1)
        self._twice[folder] = dict(twice)
        return entries

    def _warn(self, folder: str) -> None:
        """Name what is there twice, once."""
        for path, copies in self._twice.get(folder, {}).items():
            if path not in self._warned:
                self._warned.add(path)
                name = self._named(self._keys.name(path))
                logger.warning("%s", rclone_copies.named(copies, name))

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """See Store. Of two objects of one name the first counts, and a warning names both."""
        seen: set[str] = set()
        for entry in sorted(self._entries(folder, temporary=False), key=lambda one: one.name):
            if entry.name not in seen:
                yield entry
            seen.add(entry.name)
        self._warn(self._path(folder))

    def unfinished(self, folder: str) -> Iterator[StoreEntry]:
        """See Store. The clock of the remote is asked for: it decides what is removed."""
        entries = list(self._entries(folder, temporary=True))
        if entries and self._ahead is None:
            probe = f"{self._path(folder)}/.clock{filesystem_handling.PART}{uuid.uuid4().hex[:8]}"
            self._ahead = rclone_remote.clock(self._calls, self.features, probe)
            entries = list(self._entries(folder, temporary=True))
        yield from entries

    def _entries(self, folder: str, *, temporary: bool) -> Iterator[StoreEntry]:
        path = self._path(folder)
        listed = self._listed(path)
        now = time.time() + (self._ahead or 0.0)
        for one in listed:
            file = self._keys.name(str(one["Path"]).rpartition("/")[2])
            if filesystem_handling.is_temporary(file) is temporary and not one.get("IsDir"):
                age = now - rclone_remote.seconds(str(one.get("ModTime")))
                yield StoreEntry(f"{folder}/{file}", max(0, int(one.get("Size", 0))), age)

    def folders(self) -> Iterator[str]:
        """See Store."""
        entries = self._listed("", dirsOnly=True)
        for name in sorted(
            self._keys.name(str(one["Path"])) for one in entries if one.get("IsDir")
        ):
            if name != store.OWN_FOLDER and not name.startswith("."):
                yield name

    # --- remove

    def remove(self, names: Sequence[str]) -> None:
        """See Store. Nothing is removed where one of the names is there twice."""
        paths = [self._path(name) for name in names]
        for folder in {path.rpartition("/")[0] for path in paths}:
            self._listed(folder)
        for path in paths:
            if copies := self._twice.get(path.rpartition("/")[0], {}).get(path):
                raise ForbiddenError(
                    rclone_copies.named(copies, self._named(self._keys.name(path))),
                    "None of them was removed. Compare them with the manifest, and remove by hand "
                    "what is too much.",
                )
        rclone_parallel.each(paths, self._remove)

    def _remove(self, path: str) -> None:
        try:
            self._delete(path)
        except DeniedError as error:
            raise ForbiddenError(str(error), error.hint) from error

    def note(self) -> str:
        """See Noted: rclone replaces objects, so this store cannot be append-only."""
        return f"create-only {self.create_only.value}"

    def free(self) -> int | None:
        """See Measured: None too where the folder does not exist yet."""
        if not self.features.measured:
            return None
        try:
            free = self._calls.of_remote("operations/about", str(self)).get("free")
        except MissingError:
            return None
        return free if isinstance(free, int) else None


def address(remote: str) -> str:
    """Return a remote as `restore.py --store` takes it; one without a name as it is."""
    name, _, path = remote.partition(":")
    return foreign.line(f"rclone://{name}/{path}".rstrip("/") if name else remote)


if TYPE_CHECKING:
    _: type[store.Store] = RcloneStore
    _measured: type[store.Measured] = RcloneStore
    _choosing: type[Choosing] = RcloneStore
    _prefetching: type[store.Prefetching] = RcloneStore
    _noted: type[store.Noted] = RcloneStore
