"""A store on what remote stores can do: objects that are uploaded in blocks."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, unquote

from tools.base.errors import StoreError
from tools.flow import store, stream
from tools.flow.retries import Retries, SelfRetrying
from tools.flow.store import CreateOnly, StoredObject, StoreEntry

_MARK = ".upload-"  # in the names of unfinished uploads; the ID of the upload follows
_MEMORY = 64 << 20  # bytes of small objects that wait to be published


@dataclass(frozen=True)
class Upload:
    """An upload that has begun: the object that it is for, and the ID that the store gave it."""

    name: str
    id: str


@dataclass(frozen=True)
class PendingUpload:
    """An upload that was never completed: its bytes so far, and its age in seconds."""

    upload: Upload
    size: int = 0
    age: float = 0.0


class BlockBackend(Protocol):
    """What one kind of remote store implements; `BlockStore` makes a Store of it.

    Every call can be repeated: a block replaces the one of its number, and aborting or removing
    what is gone is no error. Calls come from several threads at once. Errors as in Store: only
    TransientError and OSError are worth another attempt.
    """

    @property
    def consistent(self) -> bool:
        """See Store."""

    @property
    def create_only(self) -> CreateOnly:
        """See Store."""

    @property
    def block_size(self) -> int:
        """Bytes of every block but the last; objects up to this size are created in one call."""

    @property
    def max_blocks(self) -> int:
        """How many blocks an object may have."""

    def create(self, name: str, content: bytes, sha256: str) -> None:
        """Make one whole object visible, never over another (TakenError).

        The store compares the bytes that it holds with their checksum before they are visible.
        """

    def begin(self, name: str) -> Upload:
        """Begin an upload; nothing is visible."""

    def block(self, upload: Upload, number: int, content: bytes) -> str:
        """Store one block, numbered from 0, checked by the store; return its tag."""

    def complete(self, upload: Upload, tags: Sequence[str], size: int) -> None:
        """Make the object visible, never over another (TakenError).

        tags: of all blocks in their order. Raises StoreError where the object has another size.
        """

    def abort(self, upload: Upload) -> None:
        """Drop an upload and its blocks."""

    def uploads(self, folder: str) -> Iterator[PendingUpload]:
        """Yield the uploads in a folder that were neither completed nor aborted."""

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store."""

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""

    def folders(self) -> Iterator[str]:
        """See Store."""

    def remove(self, names: Sequence[str]) -> None:
        """See Store."""


@dataclass(frozen=True)
class _Unpublished:
    """An object that has been put: its bytes where it is small, else its upload."""

    stored: StoredObject
    content: bytes | None = None
    upload: Upload | None = None
    tags: tuple[str, ...] = ()


@dataclass
class _Transfer:
    """One upload on its way: the tags of its blocks, and the first error."""

    upload: Upload
    tags: dict[int, str] = field(default_factory=dict)
    error: BaseException | None = None
    threads: list[threading.Thread] = field(default_factory=list)

    def join(self) -> None:
        """Wait for every block. Raises the first error."""
        for thread in self.threads:
            thread.join()
        if self.error is not None:
            raise self.error


class BlockStore:
    """A store that sends large objects in blocks, several at a time, each one retried.

    An object of at most one block waits in memory, and `publish` creates it in one call. A
    larger one is uploaded by `put`, and `publish` completes the upload. Nothing is visible
    before. At most `parallel` blocks are sent at a time, and each `put` fills one more.
    """

    def __init__(
        self,
        backend: BlockBackend,
        retries: Retries | None = None,
        *,
        parallel: int = 2,
        memory: int = _MEMORY,
    ) -> None:
        """memory: bytes of small objects that may wait in memory; more of them are uploaded."""
        self._backend = backend
        self.retries = retries or Retries()
        self._slots = threading.BoundedSemaphore(parallel)
        self._memory = memory
        self._unpublished: dict[str, _Unpublished] = {}
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return str(self._backend)

    @property
    def consistent(self) -> bool:
        """See Store."""
        return self._backend.consistent

    @property
    def create_only(self) -> CreateOnly:
        """See Store."""
        return self._backend.create_only

    @property
    def max_object_size(self) -> int:
        """See Bounded."""
        return self._backend.block_size * self._backend.max_blocks

    def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
        """See Store."""
        store.check_name(name)
        self.discard([name])
        content = stream.content(chunks)
        blocks = (b"".join(part) for part in stream.split(content, self._backend.block_size))
        first = next(blocks)
        second = next(blocks, None)
        if second is None and self._reserve(len(first)):
            stored = StoredObject(name, len(first), content.sha256)
            self._keep(_Unpublished(stored, first))
            return stored
        begin = [first] if second is None else [first, second]
        return self._upload(name, content, itertools.chain(begin, blocks))

    def _reserve(self, size: int) -> bool:
        """Take memory for a small object; return whether there is enough."""
        with self._lock:
            if size > self._memory:
                return False
            self._memory -= size
            return True

    def _keep(self, unpublished: _Unpublished) -> None:
        with self._lock:
            self._unpublished[unpublished.stored.name] = unpublished

    def _upload(self, name: str, content: stream.Content, blocks: Iterable[bytes]) -> StoredObject:
        """Send all blocks; on any error the upload is aborted."""
        upload = self.retries.call(name, lambda: self._backend.begin(name), content.abandoned)
        transfer = _Transfer(upload)
        size = 0
        try:
            for number, block in enumerate(blocks):
                size += len(block)
                self._send(transfer, number, block, content.abandoned)
            transfer.join()
        except BaseException:
            with contextlib.suppress(StoreError, OSError):
                transfer.join()
            self._abort(upload)
            raise
        stored = StoredObject(name, size, content.sha256)
        tags = tuple(transfer.tags[number] for number in sorted(transfer.tags))
        self._keep(_Unpublished(stored, None, upload, tags))
        return stored

    def _send(
        self, transfer: _Transfer, number: int, block: bytes, abandoned: threading.Event
    ) -> None:
        """Send one block in a thread of its own, when a slot is free. Raises an earlier error."""
        self._slots.acquire()  # only with a whole block at hand: see Limited

        def work() -> None:
            try:
                transfer.tags[number] = self.retries.call(
                    f"{transfer.upload.name}, block {number}",
                    lambda: self._backend.block(transfer.upload, number, block),
                    abandoned,
                )
            except BaseException as error:  # noqa: BLE001  (raised again by the thread that puts)
                transfer.error = transfer.error or error
            finally:
                self._slots.release()

        if transfer.error is not None:
            self._slots.release()
            raise transfer.error
        try:
            transfer.threads.append(stream.thread(work))
        except BaseException:
            self._slots.release()
            raise

    def publish(self, names: Sequence[str]) -> None:
        """See Store."""
        for name in names:
            if name in self._unpublished:
                self._publish(self._unpublished[name])
                self._forget(name)

    def _publish(self, unpublished: _Unpublished) -> None:
        """Make one object visible; where the answer was lost, the store is asked what it holds.

        A repeated call may be answered by "exists" or "no such upload", although the object is
        our own.
        """
        name = unpublished.stored.name
        try:
            self.retries.call(name, lambda: self._make_visible(unpublished))
        except (StoreError, OSError):
            if not self._is_stored(unpublished.stored):
                raise

    def _make_visible(self, unpublished: _Unpublished) -> None:
        stored = unpublished.stored
        if unpublished.content is not None:
            self._backend.create(stored.name, unpublished.content, stored.sha256)
        elif unpublished.upload is not None:
            self._backend.complete(unpublished.upload, unpublished.tags, stored.size)

    def _is_stored(self, stored: StoredObject) -> bool:
        """Return whether the store holds this object with this content."""
        try:
            held = stream.content(self._backend.get(stored.name))
            stream.drained(held)
        except (StoreError, OSError):
            return False
        return (held.size, held.sha256) == (stored.size, stored.sha256)

    def discard(self, names: Sequence[str]) -> None:
        """See Store; an upload that cannot be aborted stays in `unfinished`."""
        for name in names:
            unpublished = self._forget(name)
            if unpublished is not None and unpublished.upload is not None:
                self._abort(unpublished.upload)

    def _forget(self, name: str) -> _Unpublished | None:
        with self._lock:
            unpublished = self._unpublished.pop(name, None)
            if unpublished is not None and unpublished.content is not None:
                self._memory += len(unpublished.content)
            return unpublished

    def _abort(self, upload: Upload) -> None:
        with contextlib.suppress(StoreError, OSError):
            self._backend.abort(upload)

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store."""
        return self._backend.get(store.check_name(name), start, end)

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""
        return self._backend.entries(store.check_name(folder))

    def folders(self) -> Iterator[str]:
        """See Store."""
        return self._backend.folders()

    def unfinished(self, folder: str) -> Iterator[StoreEntry]:
        """See Store: uploads that were never completed, and what waits here in memory."""
        for pending in self._backend.uploads(store.check_name(folder)):
            yield StoreEntry(_name_of(pending.upload), pending.size, pending.age)
        with self._lock:
            waiting = [one.stored for one in self._unpublished.values() if one.upload is None]
        for stored in sorted(waiting, key=lambda one: one.name):
            if stored.name.rpartition("/")[0] == folder:
                yield StoreEntry(_name_of(Upload(stored.name, "")), stored.size)

    def remove(self, names: Sequence[str]) -> None:
        """See Store."""
        objects = []
        for name in names:
            upload = _upload_of(store.check_name(name))
            if upload is None:
                objects.append(name)
            elif upload.id:
                self._backend.abort(upload)
            else:
                self._forget(upload.name)
        if objects:
            self._backend.remove(objects)


def _name_of(upload: Upload) -> str:
    """Return the name of an unfinished upload: hidden, beside the object that it is for."""
    above, slash, file = upload.name.rpartition("/")
    return f"{above}{slash}.{file}{_MARK}{quote(upload.id, safe='')}"


def _upload_of(name: str) -> Upload | None:
    """Return the upload that `_name_of` has named; None for the name of an object."""
    above, slash, file = name.rpartition("/")
    stem, mark, upload_id = file.rpartition(_MARK)
    if not mark or not stem.startswith("."):
        return None
    return Upload(f"{above}{slash}{stem[1:]}", unquote(upload_id))


if TYPE_CHECKING:
    _: type[store.Store] = BlockStore
    _bounded: type[store.Bounded] = BlockStore
    _persistent: type[SelfRetrying] = BlockStore
