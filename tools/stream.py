"""The flow of bytes: a stage is a function from chunks to chunks, its inverse beside it.

End of input is not success: what produced the chunks raises at the end if it did not end
well, and what consumes them makes nothing visible before that end.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tools import filesystem_handling

CHUNK = 1 << 20  # bytes; large enough that Python's share of the work does not show

Chunks = Iterable[bytes]
Stage = Callable[[Chunks], Iterator[bytes]]


def flow(source: Chunks, *stages: Stage) -> Iterator[bytes]:
    """Join stages in the order of the data: flow(source, compress, encrypt)."""
    for stage in stages:
        source = stage(source)
    return iter(source)


def read(path: Path) -> Iterator[bytes]:
    """The chunks of a file. Raises OSError naming it, and not the file they are written to."""
    with filesystem_handling.naming(path), path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            yield chunk


def joined(paths: Iterable[Path]) -> Iterator[bytes]:
    """The chunks of several files, one after the other."""
    for path in paths:
        yield from read(path)


def drained(chunks: Chunks) -> None:
    """Read to the end, for what is learnt on the way."""
    for _ in chunks:
        pass


class Tally:
    """A stage that changes nothing: it counts the bytes and takes their SHA-256."""

    def __init__(self) -> None:
        self.size = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The digest of all that has passed, in hexadecimal."""
        return self._digest.hexdigest()

    def __call__(self, chunks: Chunks) -> Iterator[bytes]:
        for chunk in chunks:
            self.size += len(chunk)
            self._digest.update(chunk)
            yield chunk


class Progress:
    """A stage that changes nothing: it tells the runner how many bytes have passed.

    The runner names a file in NC_BACKUP_PROGRESS where somebody looks on; the number of
    bytes is written there a few times a second.
    """

    _PAUSE = 0.25  # seconds between two messages

    def __init__(self) -> None:
        self._path = os.environ.get("NC_BACKUP_PROGRESS", "")
        self._size = 0
        self._next = 0.0

    def __call__(self, chunks: Chunks) -> Iterator[bytes]:
        if not self._path:
            yield from chunks
            return
        for chunk in chunks:
            self._size += len(chunk)
            if time.monotonic() >= self._next:
                Path(self._path).write_text(str(self._size), encoding="ascii")
                self._next = time.monotonic() + self._PAUSE
            yield chunk


def split(chunks: Chunks, size: int) -> Iterator[Iterator[bytes]]:
    """Cut a stream into parts of `size` bytes, the last one shorter; each is read in turn.

    An empty stream is one empty part.
    """
    source = (chunk for chunk in chunks if chunk)  # an empty chunk is no end
    rest = next(source, b"")
    first = True
    while rest or first:
        first = False

        def part() -> Iterator[bytes]:
            nonlocal rest
            left = size
            while rest and left:
                piece, rest = rest[:left], rest[left:]
                left -= len(piece)
                yield piece
                if not rest:
                    rest = next(source, b"")

        yield part()
