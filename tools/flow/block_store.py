"""A store on what remote stores can do: objects that are uploaded in blocks."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from tools.base.errors import StoreError, TakenError, TransientError
from tools.flow import store, stream
from tools.flow.block_backend import Block, BlockBackend, Held, Unpublished, Upload
from tools.flow.retries import Retries, SelfRetrying
from tools.flow.store import CreateOnly, StoredObject, StoreEntry

_MARK = ".upload-"  # in the names of unfinished uploads; the ID of the upload follows
_MEMORY = 64 << 20  # bytes of small objects that wait to be published


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


class _Slots:
    """The blocks of one store in memory: each put fills one, others wait or are sent."""

    def __init__(self, parallel: int, block: int, total: int) -> None:
        self._changed = threading.Condition()
        self._parallel = parallel
        self._block = block
        self._total = total
        self._filling = 0
        self._sending = 0
        self.waiting = 0  # bytes of small objects

    @contextlib.contextmanager
    def filling(self) -> Iterator[None]:
        """Count a put. It never waits: see Limited."""
        self._add(filling=1)
        try:
            yield
        finally:
            self._add(filling=-1)

    def acquire(self) -> None:
        """Wait until one more block may be sent; one at a time always may."""
        with self._changed:
            self._changed.wait_for(self._is_free)
            self._sending += 1

    def _is_free(self) -> bool:
        used = (self._filling + self._sending + 1) * self._block + self.waiting
        return self._sending == 0 or (self._sending < self._parallel and used <= self._total)

    def release(self) -> None:
        """Count a block that has been sent."""
        self._add(sending=-1)

    def reserve(self, size: int, most: int) -> bool:
        """Take memory for a small object that waits; return whether there is enough."""
        with self._changed:
            if self.waiting + size > most:
                return False
            self.waiting += size
            return True

    def give_back(self, size: int) -> None:
        """Free the memory of a small object that waits no more."""
        self._add(waiting=-size)

    def _add(self, *, filling: int = 0, sending: int = 0, waiting: int = 0) -> None:
        with self._changed:
            self._filling += filling
            self._sending += sending
            self.waiting += waiting
            self._changed.notify_all()


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
        total: int = sys.maxsize,
    ) -> None:
        """Store objects by a backend.

        parallel: blocks that are sent at a time
        memory:   bytes of small objects that may wait in memory; more of them are uploaded
        total:    bytes of all blocks in memory; each put fills one and sends one in any case
        """
        self._backend = backend
        self.retries = retries or Retries()
        self._slots = _Slots(parallel, backend.block_size, total)
        self._memory = memory
        self._unpublished: dict[str, Unpublished] = {}
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
        with self._slots.filling():
            return self._put(name, stream.content(chunks))

    def _put(self, name: str, content: stream.Content) -> StoredObject:
        blocks = map(_filled, stream.split(content, self._backend.block_size))
        begin = deque(itertools.islice(blocks, 2))
        if len(begin) == 1 and self._slots.reserve(len(begin[0]), self._memory):
            stored = StoredObject(name, len(begin[0]), content.sha256)
            self._keep(Unpublished(stored, begin[0]))
            return stored
        return self._upload(name, content, itertools.chain(_emptied(begin), blocks))

    def _keep(self, unpublished: Unpublished) -> None:
        with self._lock:
            self._unpublished[unpublished.stored.name] = unpublished

    def _upload(self, name: str, content: stream.Content, blocks: Iterable[Block]) -> StoredObject:
        """Send all blocks; on any error the upload is aborted."""
        upload = self.retries.call(name, lambda: self._backend.begin(name), content.abandoned)
        transfer = _Transfer(upload)
        size = 0
        try:
            for number, block in enumerate(blocks):
                size += len(block)
                self._send(transfer, number, block, content.abandoned)
                del block  # or it would be kept while the next one is filled
            transfer.join()
        except BaseException:
            with contextlib.suppress(StoreError, OSError):
                transfer.join()
            self._abort(upload)
            raise
        stored = StoredObject(name, size, content.sha256)
        tags = tuple(transfer.tags[number] for number in sorted(transfer.tags))
        self._keep(Unpublished(stored, None, upload, tags))
        return stored

    def _send(
        self, transfer: _Transfer, number: int, block: Block, abandoned: threading.Event
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

    def _publish(self, unpublished: Unpublished) -> None:
        """Make one object visible; where the answer was lost, the store is asked what it holds.

        A repeated call may be answered by "exists" or "no such upload", although the object is
        our own.
        """
        name = unpublished.stored.name
        try:
            self.retries.call(name, lambda: self._make_visible(unpublished))
        except (StoreError, OSError) as error:
            self._settle(unpublished, error)

    def _make_visible(self, unpublished: Unpublished) -> None:
        stored = unpublished.stored
        try:
            if unpublished.content is not None:
                self._backend.create(stored.name, unpublished.content, stored.sha256)
            elif unpublished.upload is not None:
                self._backend.complete(unpublished.upload, unpublished.tags, stored.size)
        except (TransientError, OSError) as error:
            self._settle(unpublished, error)

    def _settle(self, unpublished: Unpublished, error: StoreError | OSError) -> None:
        """Return where the store holds the object in spite of an error, else raise that.

        Raises TakenError where it holds another one.
        """
        held = self._held(unpublished)
        if held is Held.OURS:
            if unpublished.upload is not None:  # another program has stored the same bytes
                self._abort(unpublished.upload)
            return
        if held is Held.OTHER and not isinstance(error, TakenError):
            message = f"{unpublished.stored.name}: object exists with different content"
            raise TakenError(message) from error
        raise error

    def _held(self, unpublished: Unpublished) -> Held:
        """Compare what the store holds with an object; it is read where nothing else tells."""
        stored = unpublished.stored
        try:
            held = self._backend.held(unpublished)
            if held is not Held.UNKNOWN:
                return held
            read = stream.content(self._backend.get(stored.name))
            stream.drained(read)
        except (StoreError, OSError):
            return Held.UNKNOWN
        same = (read.size, read.sha256) == (stored.size, stored.sha256)
        return Held.OURS if same else Held.OTHER

    def discard(self, names: Sequence[str]) -> None:
        """See Store; an upload that cannot be aborted stays in `unfinished`."""
        for name in names:
            unpublished = self._forget(name)
            if unpublished is not None and unpublished.upload is not None:
                self._abort(unpublished.upload)

    def _forget(self, name: str) -> Unpublished | None:
        with self._lock:
            unpublished = self._unpublished.pop(name, None)
        if unpublished is not None and unpublished.content is not None:
            self._slots.give_back(len(unpublished.content))
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


def _emptied(blocks: deque[Block]) -> Iterator[Block]:
    """Yield blocks without keeping them."""
    while blocks:
        yield blocks.popleft()


def _filled(chunks: Iterable[bytes]) -> Block:
    """Return the bytes of one block: gathered without a second copy of them."""
    block = bytearray()
    for chunk in chunks:
        block += chunk
    return block


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
