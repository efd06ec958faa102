"""The progress of a section that runs as a program, for its runner."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from tools.flow.stream import Chunks


class Progress:
    """A stage that changes nothing: it tells the runner how many bytes have passed.

    NC_BACKUP_PROGRESS names a file if the runner shows progress; the number of bytes is
    written there a few times a second.
    """

    _PAUSE = 0.25  # seconds between two messages

    def __init__(self) -> None:
        self._path = os.environ.get("NC_BACKUP_PROGRESS", "")
        self._size = 0
        self._next = 0.0

    def count(self, size: int) -> None:
        """Count so many bytes more."""
        self._size += size
        if self._path and time.monotonic() >= self._next:
            Path(self._path).write_text(str(self._size), encoding="ascii")
            self._next = time.monotonic() + self._PAUSE

    def __call__(self, chunks: Chunks) -> Iterator[bytes]:
        for chunk in chunks:
            self.count(len(chunk))
            yield chunk
