"""How long stages and stores work, without what they wait for."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from tools.flow import stream


class Stopwatch:
    """The seconds that stages or stores work, without the time that they wait for their input.

    One may be shared by several threads: the times of all add up.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()

    def stage(self, forward: stream.Stage) -> stream.Stage:
        """Return the same stage, timed."""

        def timed(chunks: stream.Chunks) -> Iterator[bytes]:
            yield from self._between(forward(self._waiting(chunks)), 1)

        return timed

    @contextlib.contextmanager
    def reading(self, chunks: stream.Chunks) -> Iterator[Iterator[bytes]]:
        """Time the block, without what reading `chunks` takes in it."""
        began = time.perf_counter()
        try:
            yield self._waiting(chunks)
        finally:
            self._add(time.perf_counter() - began)

    def _waiting(self, chunks: stream.Chunks) -> Iterator[bytes]:
        yield from self._between(chunks, -1)

    def _between(self, chunks: stream.Chunks, sign: int) -> Iterator[bytes]:
        """Pass chunks on; the time that each takes counts with this sign."""
        with stream.closed(iter(chunks)) as source:
            while True:
                began = time.perf_counter()
                try:
                    chunk = next(source, None)
                finally:
                    self._add(sign * (time.perf_counter() - began))
                if chunk is None:
                    return
                yield chunk

    def _add(self, seconds: float) -> None:
        with self._lock:
            self.seconds += seconds
