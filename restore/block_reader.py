"""The chunks of an archive as blocks of 512 bytes."""

from __future__ import annotations

from collections.abc import Iterator

from restore.archive_errors import CORRUPT, HINT, UnsafeArchiveError
from tools.flow.stream import Chunks

BLOCK = 512


class BlockReader:
    """Chunks as blocks; each byte is returned once."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = iter(chunks)
        self._chunk = b""
        self._at = 0

    def block(self) -> bytes:
        """Return the next 512 bytes. Raises UnsafeArchiveError where the archive ends."""
        return self.take(BLOCK)

    def take(self, size: int) -> bytes:
        """Return that many bytes as one. Raises UnsafeArchiveError where the archive ends."""
        end = self._at + size
        if end <= len(self._chunk):
            block = self._chunk[self._at : end]
            self._at = end
            return block
        return b"".join(self.data(size))

    def skip(self, size: int) -> None:
        """Leave so many bytes out. Raises UnsafeArchiveError where the archive ends."""
        while size > len(self._chunk) - self._at:
            size -= len(self._chunk) - self._at
            self._next_chunk()
        self._at += size

    def data(self, size: int) -> Iterator[bytes]:
        """Yield that many bytes, in pieces that are copied only where a chunk holds more."""
        while size:
            if self._at == len(self._chunk):
                self._next_chunk()
            end = min(len(self._chunk), self._at + size)
            piece = (
                self._chunk
                if self._at == 0 and end == len(self._chunk)
                else self._chunk[self._at : end]
            )
            self._at = end
            size -= len(piece)
            yield piece

    def _next_chunk(self) -> None:
        self._chunk, self._at = next(filter(None, self._chunks), b""), 0
        if not self._chunk:
            raise UnsafeArchiveError("unexpected end of archive", CORRUPT)

    def end(self) -> None:
        """Require that only zeros follow the end mark."""
        rest = self._chunk[self._at :]
        while True:
            if rest.strip(b"\0"):
                raise UnsafeArchiveError("unexpected data after the end of the archive", HINT)
            more = next(self._chunks, None)
            if more is None:
                return
            rest = more
