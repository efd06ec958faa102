"""Stores around a store: what every store needs, whatever it is: retries, limits, a dry run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tools.base.errors import TransientError
from tools.flow import retries, store, stream
from tools.flow.retries import Retries, SelfRetrying
from tools.flow.store import CreateOnly, Store, StoredObject, StoreEntry

_REPLAY = 32 << 20  # bytes of all objects of one store that are kept for another attempt


class Wrapping:
    """A store that does what the store inside does."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    def __str__(self) -> str:
        return str(self._inner)

    @property
    def inner(self) -> Store:
        """See Wrapper."""
        return self._inner

    def passes_on(self, _kind: type[object]) -> bool:
        """See Wrapper: every ability."""
        return True

    @property
    def consistent(self) -> bool:
        """See Store."""
        return self._inner.consistent

    @property
    def create_only(self) -> CreateOnly:
        """See Store."""
        return self._inner.create_only

    def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
        """See Store."""
        return self._inner.put(name, chunks)

    def publish(self, names: Sequence[str]) -> None:
        """See Store."""
        self._inner.publish(names)

    def discard(self, names: Sequence[str]) -> None:
        """See Store."""
        self._inner.discard(names)

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store."""
        return self._inner.get(name, start, end)

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""
        return self._inner.entries(folder)

    def folders(self) -> Iterator[str]:
        """See Store."""
        return self._inner.folders()

    def unfinished(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""
        return self._inner.unfinished(folder)

    def remove(self, names: Sequence[str]) -> None:
        """See Store."""
        self._inner.remove(names)


class Retrying(Wrapping):
    """Repeats what failed for a moment.

    An object is read again from where it comes from (`stream.Rereadable`), or from memory: as
    long as all objects on their way together fit there. A longer one is not put again: its
    bytes have passed. Reading goes on where it stopped. `publish` is repeated only where the
    store says that it may be (TransientError): a sync that has failed is never repeated.
    """

    def __init__(
        self, inner: Store, policy: Retries | None = None, *, memory: int = _REPLAY
    ) -> None:
        """memory: bytes of all objects on their way together that are kept for a repetition."""
        super().__init__(inner)
        self._policy = policy or Retries()
        self._budget = _Budget(memory)

    def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
        """See Store."""
        if isinstance(self._inner, SelfRetrying):
            return self._inner.put(name, chunks)
        if isinstance(chunks, stream.Rereadable):
            return self._policy.call(name, lambda: self._inner.put(name, chunks.open()))
        content = stream.content(chunks)
        with _Replay(content, self._budget) as replay:
            return self._policy.call(
                name,
                lambda: self._inner.put(name, content.replayed(replay)),
                content.abandoned,
                lambda error: replay.is_possible() and retries.is_transient(error),
            )

    def publish(self, names: Sequence[str]) -> None:
        """See Store."""
        if isinstance(self._inner, SelfRetrying):
            return self._inner.publish(names)
        return self._policy.call(
            ", ".join(names[:1]),
            lambda: self._inner.publish(names),
            is_worth=lambda error: isinstance(error, TransientError),
        )

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store."""
        position = start

        def rest() -> Iterator[bytes]:
            return self._inner.get(name, position, end)

        for chunk in self._continued(name, rest):
            position += len(chunk)
            yield chunk

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""
        return self._listed(folder, lambda: self._inner.entries(folder))

    def unfinished(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""
        return self._listed(folder, lambda: self._inner.unfinished(folder))

    def folders(self) -> Iterator[str]:
        """See Store."""
        yield from self._policy.call(str(self._inner), lambda: list(self._inner.folders()))

    def remove(self, names: Sequence[str]) -> None:
        """See Store."""
        self._policy.call(", ".join(names[:1]), lambda: self._inner.remove(names))

    def _listed(
        self, folder: str, begin: Callable[[], Iterator[StoreEntry]]
    ) -> Iterator[StoreEntry]:
        yield from self._policy.call(folder, lambda: list(begin()))

    def _continued(self, name: str, rest: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
        """Yield the chunks of `rest`, which is called again where one of them fails."""
        current: Iterator[bytes] | None = None

        def following() -> bytes | None:
            nonlocal current
            if current is None:
                current = rest()
            try:
                return next(current, None)
            except BaseException:
                current = None
                raise

        while (chunk := self._policy.call(name, following)) is not None:
            yield chunk


class _Budget:
    """Bytes that several threads share."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Take so many; return False, and take none, where they are not left."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        """Return so many."""
        with self._lock:
            self._left += size


class _Replay:
    """The bytes of an object: read once, and kept for the next attempt while there is room."""

    def __init__(self, content: stream.Content, budget: _Budget) -> None:
        self._source = iter(content)
        self._budget = budget
        self._kept: list[bytes] = []
        self._size = 0
        self._is_complete = True  # all that has been read is kept
        self._is_broken = False  # the source itself has failed

    def __enter__(self) -> _Replay:
        return self

    def __exit__(self, *_error: object) -> None:
        self._drop()

    def is_possible(self) -> bool:
        """Return whether the object can be read from its beginning again."""
        return self._is_complete and not self._is_broken

    def __iter__(self) -> Iterator[bytes]:
        yield from self._kept
        while True:
            try:
                chunk = next(self._source, None)
            except BaseException:
                self._is_broken = True
                raise
            if chunk is None:
                return
            self._keep(chunk)
            yield chunk

    def _keep(self, chunk: bytes) -> None:
        if not self._is_complete:
            return
        if self._budget.take(len(chunk)):
            self._size += len(chunk)
            self._kept.append(chunk)
        else:
            self._is_complete = False
            self._drop()

    def _drop(self) -> None:
        self._budget.give_back(self._size)
        self._size = 0
        self._kept.clear()


class RateLimited(Wrapping):
    """Sends and receives at most so many bytes a second, over all objects together."""

    def __init__(
        self,
        inner: Store,
        bytes_per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(inner)
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = clock()  # when all that has passed is paid for

    def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
        """See Store."""
        content = stream.content(chunks)
        return self._inner.put(name, content.replayed(self._limited(content)))

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store."""
        return self._limited(self._inner.get(name, start, end))

    def _limited(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            with self._lock:
                now = self._clock()
                self._free_at = max(self._free_at, now) + len(chunk) / self._rate
                wait = self._free_at - now
            if wait > 0:
                self._sleep(wait)
            yield chunk


class Limited(Wrapping):
    """Lets at most so many calls work at once.

    A call holds a slot while the store works, and none while it waits for its next chunk or
    for whoever reads: two stores that share one stream would otherwise wait for each other.
    """

    def __init__(self, inner: Store, calls: int) -> None:
        super().__init__(inner)
        self._slots = threading.BoundedSemaphore(calls)

    def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
        """See Store."""
        content = stream.content(chunks)
        with self._slots:
            return self._inner.put(name, content.replayed(self._released(content)))

    def _released(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the chunks; the slot is free while the next one is waited for."""
        source = iter(chunks)
        while True:
            self._slots.release()
            try:
                chunk = next(source, None)
            finally:
                self._slots.acquire()
            if chunk is None:
                return
            yield chunk

    def publish(self, names: Sequence[str]) -> None:
        """See Store."""
        with self._slots:
            self._inner.publish(names)

    def discard(self, names: Sequence[str]) -> None:
        """See Store."""
        with self._slots:
            self._inner.discard(names)

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store."""
        with stream.closed(self._inner.get(name, start, end)) as chunks:
            while True:
                with self._slots:
                    chunk = next(chunks, None)
                if chunk is None:
                    return
                yield chunk

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""
        with self._slots:
            listed = list(self._inner.entries(folder))
        yield from listed

    def unfinished(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""
        with self._slots:
            listed = list(self._inner.unfinished(folder))
        yield from listed

    def folders(self) -> Iterator[str]:
        """See Store."""
        with self._slots:
            listed = list(self._inner.folders())
        yield from listed

    def remove(self, names: Sequence[str]) -> None:
        """See Store."""
        with self._slots:
            self._inner.remove(names)


class DryRun(Wrapping):
    """Reads from the store and changes nothing in it; says what would have been changed."""

    _READING = (store.Measured, store.Located, store.Bounded)

    def __init__(self, inner: Store, say: Callable[[str], None]) -> None:
        """say: gets a line for each object that would be stored or removed."""
        super().__init__(inner)
        self._say = say
        self._unpublished: dict[str, StoredObject] = {}

    def passes_on(self, kind: type[object]) -> bool:
        """See Wrapper: what only reads."""
        return kind in self._READING

    def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
        """See Store: the chunks are read and counted."""
        content = stream.content(chunks)
        stream.drained(content)
        stored = StoredObject(store.check_name(name), content.size, content.sha256)
        self._unpublished[name] = stored
        return stored

    def publish(self, names: Sequence[str]) -> None:
        """See Store."""
        for name in names:
            if stored := self._unpublished.pop(name, None):
                self._say(f"would store {name} ({stored.size} bytes)")

    def discard(self, names: Sequence[str]) -> None:
        """See Store."""
        for name in names:
            self._unpublished.pop(name, None)

    def remove(self, names: Sequence[str]) -> None:
        """See Store."""
        for name in names:
            self._say(f"would remove {store.check_name(name)}")


if TYPE_CHECKING:
    _: tuple[type[Store], ...] = (Retrying, RateLimited, Limited, DryRun)
    _wrappers: tuple[type[store.Wrapper], ...] = (Retrying, RateLimited, Limited, DryRun)
