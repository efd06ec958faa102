"""Stores around a store: what every store needs, whatever it is.

Retries, rate limits and the limit of silence have their own files.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tools.flow import store, stream
from tools.flow.store import CreateOnly, Store, StoredObject, StoreEntry


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


class Slot(Protocol):
    """What a call holds while the store works."""

    def __enter__(self) -> object:
        """Begin to hold it."""

    def __exit__(self, *_error: Any) -> None:  # noqa: ANN401  (three arguments, of semaphores)
        """End it."""

    def acquire(self) -> object:
        """Go on holding it."""

    def release(self) -> None:
        """Do not hold it for a while."""


class Slotted(Wrapping, ABC):
    """A store whose calls hold a slot while it works.

    They hold none while they wait for their next chunk or for the reader: two stores that share
    one stream would otherwise wait for each other.
    """

    @abstractmethod
    def _slot(self) -> Slot:
        """Return the slot of a new call."""

    def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
        """See Store."""
        content, slot = stream.content(chunks), self._slot()
        with slot:
            return self._inner.put(name, content.replayed(_released(slot, content)))

    def publish(self, names: Sequence[str]) -> None:
        """See Store."""
        with self._slot():
            self._inner.publish(names)

    def discard(self, names: Sequence[str]) -> None:
        """See Store."""
        with self._slot():
            self._inner.discard(names)

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store."""
        slot = self._slot()
        with stream.closed(self._inner.get(name, start, end)) as chunks:
            while True:
                with slot:
                    chunk = next(chunks, None)
                if chunk is None:
                    return
                yield chunk

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""
        with self._slot():
            listed = list(self._inner.entries(folder))
        yield from listed

    def unfinished(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""
        with self._slot():
            listed = list(self._inner.unfinished(folder))
        yield from listed

    def folders(self) -> Iterator[str]:
        """See Store."""
        with self._slot():
            listed = list(self._inner.folders())
        yield from listed

    def remove(self, names: Sequence[str]) -> None:
        """See Store."""
        with self._slot():
            self._inner.remove(names)


def _released(slot: Slot, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks; the slot is free while the next one is waited for."""
    source = iter(chunks)
    while True:
        slot.release()
        try:
            chunk = next(source, None)
        finally:
            slot.acquire()
        if chunk is None:
            return
        yield chunk


class Limited(Slotted):
    """Lets at most so many calls work at once."""

    def __init__(self, inner: Store, calls: int) -> None:
        super().__init__(inner)
        self._slots = threading.BoundedSemaphore(calls)

    def _slot(self) -> Slot:
        return self._slots


class DryRun(Wrapping):
    """Reads from the store and changes nothing in it; says what would have been changed."""

    _READING = (store.Measured, store.Located, store.Bounded)

    def __init__(self, inner: Store, say: Callable[[str], None]) -> None:
        """Wrap a store. say: gets a line for each object that would be stored or removed"""
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
    _: tuple[type[Store], ...] = (Limited, DryRun)
    _wrappers: tuple[type[store.Wrapper], ...] = (Limited, DryRun)
