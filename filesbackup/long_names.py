"""Find paths in an archive stream that tar can read but Linux cannot create again.

Only a record of a long path can contain a window of this width without a NUL and with a slash in
its first 256 bytes, so headers need not be parsed one by one: a million small files cost nothing.
Formats: `path` and `linkpath` of a pax extended header (POSIX.1-2001), GNU's `././@LongLink`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

MAX_PATH = 4095  # bytes (PATH_MAX of Linux); restore/members.py has the same limit
_WINDOW = 2048  # bytes; a path above the limit covers a whole window wherever these begin
_SLASH = 256  # bytes within which a path has a slash (NAME_MAX of Linux)
_OVERLAP = 4 * _WINDOW  # bytes that are searched again together with the next ones
_BATCH = 1 << 16  # bytes that are searched at a time
_LONGEST = 1 << 20  # bytes of the longest record
_MAX_NAMES = 1000  # names that are kept
_STEP = 4000  # bytes of a path that are opened at a time
_PAX = re.compile(rb"(?<![0-9])([0-9]{4,7}) (?:link)?path=")
_GNU = b"././@LongLink\0"
_BLOCK = 512


class LongNames:
    """Searches an archive stream for records of paths above the limit.

    names: relative to /, as in the archive; more: number of further names.
    The content of a file may contain such a record too, so check a name with `exists`.
    """

    def __init__(self) -> None:
        self.names: dict[bytes, None] = {}
        self.more = 0
        self._waiting: list[bytes] = []
        self._size = 0
        self._at = 0  # offset of the first waiting byte in the archive
        self._known = 0  # offset of the end of the last record

    def add_chunk(self, chunk: bytes) -> None:
        """Search the next bytes of the archive."""
        self._waiting.append(chunk)
        self._size += len(chunk)
        if self._size >= _BATCH:
            self._look(_OVERLAP)

    def end(self) -> None:
        """Search the last bytes of the archive."""
        self._look(0)

    def _look(self, overlap: int) -> None:
        data = b"".join(self._waiting)
        keep_from = max(0, len(data) - overlap)
        for at in range(0, len(data) - _WINDOW + 1, _WINDOW):
            if data.find(0, at, at + _WINDOW) < 0 <= data.find(b"/", at, at + _SLASH):
                for start, length in _records(data, at):
                    if start + length > len(data):
                        keep_from = min(keep_from, max(0, at - _WINDOW - _BLOCK))
                    else:
                        self._add(data[start : start + length], self._at + start)
        self._waiting = [data[keep_from:]]
        self._at += keep_from
        self._size = 0

    def _add(self, name: bytes, start: int) -> None:
        if start < self._known:
            return
        self._known = start + len(name)
        if len(self.names) < _MAX_NAMES:
            self.names[name] = None
        else:
            self.more += 1


def _records(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Yield offset and length in bytes of each long path that extends into a window."""
    start = max(0, at - _WINDOW - _BLOCK)
    if data.find(b"=", start, at) >= 0 and data.find(b"path=", start, at) >= 0:
        for match in _PAX.finditer(data, start, at):
            length = int(match[1]) - (match.end() - match.start()) - 1
            if MAX_PATH < length <= _LONGEST:
                yield match.end(), length
    if data.find(0, start, at) < 0:  # text
        return
    header = data.rfind(_GNU, start, at)
    size = re.fullmatch(rb"([0-7]+)[ \0]*", data[header + 124 : header + 136])
    if header >= 0 and size and MAX_PATH < int(size[1], 8) - 1 <= _LONGEST:
        yield header + _BLOCK, int(size[1], 8) - 1


def exists(name: bytes) -> bool:
    """Return whether a path exists, relative to / and of any length; True if access is denied."""
    folder = os.open("/", os.O_PATH)
    try:
        for piece in _pieces(name):
            inner = os.open(piece, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
    except PermissionError:
        return True
    except (OSError, ValueError):  # ValueError: a NUL, so it is no path
        return False
    finally:
        os.close(folder)
    return True


def _pieces(name: bytes) -> Iterator[bytes]:
    """Split a path into pieces that are short enough for the system."""
    piece = b""
    for word in filter(None, name.split(b"/")):
        if piece and len(piece) + len(word) > _STEP:
            yield piece
            piece = b""
        piece += (b"/" if piece else b"") + word
    yield piece
