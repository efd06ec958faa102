"""A store around a store that repeats what failed for a moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from tools.base.errors import TransientError
from tools.flow import retries, store, stream
from tools.flow.retries import Retries, SelfRetrying
from tools.flow.store import Store, StoredObject, StoreEntry
from tools.flow.store_wrappers import Wrapping

T = TypeVar("T")
_REPLAY = 32 << 20  # bytes of all objects of one store that are kept for another attempt


def retries_itself(receiver: store.Receiver) -> bool:
    """Return whether a store, or the one that it wraps, repeats its puts and publications."""
    return store.ability(receiver, SelfRetrying) is not None  # type: ignore[type-abstract]


class Retrying(Wrapping):
    """Repeats what failed for a moment.

    An object is read again from memory, as long as all objects on their way together fit there.
    A longer one is not put again: its bytes have passed. All other calls are repeated only where
    the store says that it is worth it (TransientError): a sync that has failed is never repeated,
    and a disk that cannot be read is not waited for. Reading goes on where it stopped.
    """

    def __init__(
        self, inner: Store, policy: Retries | None = None, *, memory: int = _REPLAY
    ) -> None:
        """Wrap a store. memory: bytes of all objects in transfer that are kept for a repetition"""
        super().__init__(inner)
        self._policy = policy or Retries()
        self._budget = _Budget(memory)

    def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
        """See Store."""
        if retries_itself(self._inner):
            return self._inner.put(name, chunks)
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
        if retries_itself(self._inner):
            return self._inner.publish(names)
        return self._again(", ".join(names[:1]), lambda: self._inner.publish(names))

    def _again(self, name: str, attempt: Callable[[], T]) -> T:
        return self._policy.call(name, attempt, None, lambda e: isinstance(e, TransientError))

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store."""
        position = start

        def reopen() -> Iterator[bytes]:
            return self._inner.get(name, position, end)

        for chunk in self._continued(name, reopen):
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
        yield from self._again(str(self._inner), lambda: list(self._inner.folders()))

    def remove(self, names: Sequence[str]) -> None:
        """See Store."""
        self._again(", ".join(names[:1]), lambda: self._inner.remove(names))

    def _listed(
        self, folder: str, begin: Callable[[], Iterator[StoreEntry]]
    ) -> Iterator[StoreEntry]:
        yield from self._again(folder, lambda: list(begin()))

    def _continued(self, name: str, reopen: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
        """Yield the chunks of `reopen()`, which is called again where one of them fails."""
        current: Iterator[bytes] | None = None

        def following() -> bytes | None:
            nonlocal current
            if current is None:
                current = reopen()
            try:
                return next(current, None)
            except BaseException:
                current = None
                raise

        while (chunk := self._again(name, following)) is not None:
            yield chunk


class _Budget:
    """Bytes that several threads share."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Take so many; return False, and take none, where fewer are free."""
        with self._lock:
            if size > self._free:
                return False
            self._free -= size
            return True

    def give_back(self, size: int) -> None:
        """Return so many."""
        with self._lock:
            self._free += size


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


if TYPE_CHECKING:
    _: type[Store] = Retrying
    _wrapper: type[store.Wrapper] = Retrying
