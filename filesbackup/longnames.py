"""Paths that tar can read but no Linux system can create again, found as the archive passes by.

Only a record of a long path can hold a window of this width without a NUL and with a slash in
its first 256 bytes, so headers need not be followed one by one: a million small files cost nothing.
Formats: `path` and `linkpath` of a pax extended header (POSIX.1-2001), GNU's `././@LongLink`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

MOST = 4095  # bytes of a path (PATH_MAX of Linux); restore/members.py has the same limit
_WINDOW = 2048  # bytes; a path above the limit covers a whole window wherever these begin
_SLASH = 256  # bytes within which a path has a slash (NAME_MAX of Linux)
_KEPT = 4 * _WINDOW  # bytes that are looked at again together with what follows
_BITE = 1 << 16  # bytes that are worth a look
_LONGEST = 1 << 20  # bytes of a record that is waited for
_NAMES = 1000  # names that are kept
_STEP = 4000  # bytes of a path that are opened at a time
_PAX = re.compile(rb"(?<![0-9])([0-9]{4,7}) (?:link)?path=")
_GNU = b"././@LongLink\0"
_BLOCK = 512


class LongNames:
    """Looks at an archive as it passes for records of paths above the limit.

    names: relative to /, as the archive has them; more: how many others there are.
    A file of the fileset may hold such a record as well, so `is_there` asks the system.
    """

    def __init__(self) -> None:
        self.names: dict[bytes, None] = {}
        self.more = 0
        self._waiting: list[bytes] = []
        self._size = 0
        self._at = 0  # of the first waiting byte in the archive
        self._known = 0  # where the last record that was found ends

    def take(self, chunk: bytes) -> None:
        """The next bytes of the archive."""
        self._waiting.append(chunk)
        self._size += len(chunk)
        if self._size >= _BITE:
            self._look(_KEPT)

    def end(self) -> None:
        """After the last bytes of the archive."""
        self._look(0)

    def _look(self, kept: int) -> None:
        data = b"".join(self._waiting)
        keep_from = max(0, len(data) - kept)
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
        if len(self.names) < _NAMES:
            self.names[name] = None
        else:
            self.more += 1


def _records(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Where a long path that reaches into a window begins, and its length in bytes."""
    start = max(0, at - _WINDOW - _BLOCK)
    if data.find(b"=", start, at) >= 0 and data.find(b"path=", start, at) >= 0:
        for found in _PAX.finditer(data, start, at):
            length = int(found[1]) - (found.end() - found.start()) - 1
            if MOST < length <= _LONGEST:
                yield found.end(), length
    if data.find(0, start, at) < 0:  # text
        return
    header = data.rfind(_GNU, start, at)
    size = re.fullmatch(rb"([0-7]+)[ \0]*", data[header + 124 : header + 136])
    if header >= 0 and size and MOST < int(size[1], 8) - 1 <= _LONGEST:
        yield header + _BLOCK, int(size[1], 8) - 1


def is_there(name: bytes) -> bool:
    """Whether a path, relative to / and of any length, exists; where we may not look it may."""
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
    """A path in pieces that the system takes."""
    piece = b""
    for word in filter(None, name.split(b"/")):
        if piece and len(piece) + len(word) > _STEP:
            yield piece
            piece = b""
        piece += (b"/" if piece else b"") + word
    yield piece


def upper(name: bytes) -> bytes:
    """The first folders of a long path, as many as the system takes."""
    return next(_pieces(name))
