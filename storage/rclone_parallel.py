"""Several calls to a remote at once: a cloud drive answers each of them only after a while."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from tools.flow import stream

_AT_ONCE = 8  # calls; rclone itself moves 4 files at a time and checks 8
_LARGEST = 4 << 20  # bytes of an object that is read ahead
_WAITING = 32 << 20  # bytes that wait until they are asked for


class Prefetcher:
    """Small objects on their way here, each of which is handed out once."""

    def __init__(self, read: Callable[[str], Iterator[bytes]]) -> None:
        """Prefetch with `read`, which yields an object; several threads call it."""
        self._read = read
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._coming: dict[str, Future[bytes | None]] = {}
        self._waiting = 0

    def begin(self, names: Sequence[str]) -> None:
        """Begin to read objects."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_AT_ONCE, "rclone-prefetch")
            for name in names:
                if name not in self._coming:
                    self._coming[name] = self._pool.submit(self._held, name)

    def _held(self, name: str) -> bytes | None:
        """Return an object; None where it is large, or too much waits already."""
        if self._waiting >= _WAITING:
            return None
        content = stream.small(self._read(name), _LARGEST)
        with self._lock:
            self._waiting += len(content or b"")
        return content

    def get(self, name: str) -> Iterator[bytes]:
        """Yield an object, as soon as it has come where it is on its way."""
        with self._lock:
            coming = self._coming.pop(name, None)
        content = None if coming is None else coming.result()
        if content is None:
            yield from self._read(name)
            return
        with self._lock:
            self._waiting -= len(content)
        yield content


def each(names: Sequence[str], work: Callable[[str], None]) -> None:
    """Call a function for each name, several at once. Raises what the first of them raised."""
    if len(names) == 1:
        work(names[0])
    elif names:
        with ThreadPoolExecutor(min(_AT_ONCE, len(names))) as pool:
            for _ in pool.map(work, names):
                pass
