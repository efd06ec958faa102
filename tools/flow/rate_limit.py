"""A store around a store that sends and receives at most so many bytes a second."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from tools.base import lock
from tools.flow import store, stream, task
from tools.flow.store import Store, StoredObject
from tools.flow.store_wrappers import Wrapping

_PIECES = 8  # of a second: so many pieces are sent in it
_SMALLEST = 1 << 12  # bytes of a piece


def wait(
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait for some seconds, which is no stall. Raises StoppedError where the task is stopped."""
    end = clock() + seconds
    while (remaining := end - clock()) > 0:
        task.current().check()
        task.current().touch()
        sleep(min(remaining, task.TICK))


class Bucket:
    """Bytes a second that all who take from it share; what was not used is not made up for."""

    def __init__(
        self,
        bytes_per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = wait,
    ) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._wait = wait
        self._lock = threading.Lock()
        self._free_at = clock()  # when all that has passed is paid for
        self.piece = max(int(bytes_per_second / _PIECES), _SMALLEST)

    def take(self, size: int) -> None:
        """Return when so many bytes may pass; who came first passes first."""
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now) + size / self._rate
            delay = self._free_at - now
        if delay > 0:
            self._wait(delay)

    def pace(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the bytes of the chunks, in small pieces, as fast as they may pass."""
        for chunk in chunks:
            for begin in range(0, len(chunk), self.piece):
                piece = chunk[begin : begin + self.piece]
                self.take(len(piece))
                yield piece


class RateLimited(Wrapping):
    """Sends and receives no faster than its buckets allow, which other stores may share."""

    def __init__(self, inner: Store, upload: Bucket | None, download: Bucket | None) -> None:
        super().__init__(inner)
        self._upload = upload
        self._download = download

    def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
        """See Store."""
        if self._upload is None:
            return self._inner.put(name, chunks)
        content = stream.content(chunks)
        return self._inner.put(name, content.replayed(self._upload.pace(content)))

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store."""
        chunks = self._inner.get(name, start, end)
        return chunks if self._download is None else self._download.pace(chunks)


@functools.cache
def _shared(_direction: str, bytes_per_second: int) -> Bucket:
    """Return the one bucket of this process for a direction and a rate."""
    return Bucket(bytes_per_second)


def limited(inner: Store, upload: int | None, download: int | None) -> Store:
    """Return a store that shares the rates with all other stores of this process.

    upload, download: bytes a second; None for no limit. A folder on a disk of this machine is not
    limited; one on a network file system is.
    """
    folder = store.folder_of(inner)
    if not (upload or download) or (folder is not None and not lock.on_network(folder)):
        return inner
    return RateLimited(
        inner,
        _shared("upload", upload) if upload else None,
        _shared("download", download) if download else None,
    )


if TYPE_CHECKING:
    _: type[Store] = RateLimited
    _wrapper: type[store.Wrapper] = RateLimited
