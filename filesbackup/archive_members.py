"""What an archive stream holds: the number of its members, and the paths that are too long.

Formats: POSIX.1-2001 pax interchange, ustar, and GNU tar. One header of each member is read.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from tools.base import foreign

MAX_PATH = 4095  # bytes (PATH_MAX of Linux); restore/archive_checks.py has the same limit
_BLOCK = 512  # bytes; content is padded to whole blocks
_LONGEST = 1 << 21  # bytes of the longest header in front of a member that is read
_MAX_NAMES = 1000  # names that are kept
_DATA = b"0\x007S"  # types of members with content: files, contiguous and sparse ones
_EXTRA = b"xgXLKVN"  # types of headers that describe the next member, or the volume
_DESCRIBES = b"xLK"  # of these, such that may have a long name or a size: pax, GNU
_PAX, _OLD_SPARSE = b"xS"
_DIGITS = re.compile(rb"[0-9]{1,19}")
_PATHS = (b"path", b"linkpath")


class ArchiveMembers:
    """Counts files, folders and links while an archive passes, and finds paths above MAX_PATH.

    Linux cannot create such a path again, though tar can read it.
    long: such paths, relative to / as in the archive; more: the number of further ones
    """

    def __init__(self) -> None:
        self.long: dict[bytes, None] = {}
        self.more = 0
        self._count = 0
        self._understood = True
        self._skip = 0  # bytes to the next header
        self._waiting = b""  # the beginning of a header
        self._size: int | None = None  # of the next member, from an extended header

    @property
    def count(self) -> int | None:
        """Return the number of members so far; None for an archive that is not understood."""
        return self._count if self._understood else None

    def add_chunk(self, chunk: bytes) -> None:
        """Read the headers in the next bytes of the archive."""
        if self._skip >= len(chunk):
            self._skip -= len(chunk)
        elif self._understood:
            data = self._waiting + chunk
            at = self._read(data, self._skip)
            self._waiting, self._skip = data[at:], max(0, at - len(data))

    def _read(self, data: bytes, at: int) -> int:
        """Read all headers that are there; return where the next one begins."""
        last = len(data) - _BLOCK
        while at <= last:
            if data[at + 257 : at + 262] != b"ustar":
                if data.count(0, at, at + _BLOCK) != _BLOCK:  # no end mark either
                    return self._give_up(at)
                at += _BLOCK
                continue
            kind, size = data[at + 156], _number(data[at + 124 : at + 136])
            content = at + _BLOCK if kind != _OLD_SPARSE else _after_map(data, at)
            if size is None or content - at > _LONGEST:
                return self._give_up(at)
            if content > len(data):
                break  # the map of a sparse file has not ended yet
            if kind in _DESCRIBES and size <= _LONGEST:
                if content + size > len(data):
                    break  # its end has not come yet
                if size > MAX_PATH or data.find(b" size=", content, content + size) >= 0:
                    self._describe(kind, data[content : content + size])
            elif kind not in _EXTRA:
                size = self._counted(kind, size)
            at = content + (size + _BLOCK - 1) // _BLOCK * _BLOCK
        return at

    def _give_up(self, at: int) -> int:
        self._understood = False
        return at

    def _counted(self, kind: int, size: int) -> int:
        """Count a member; return the bytes of its content. size: what its own header says."""
        self._count += 1
        size, self._size = size if self._size is None else self._size, None
        return size if kind in _DATA else 0

    def _describe(self, kind: int, header: bytes) -> None:
        """Read what a header says of the next member."""
        if kind != _PAX:
            self._add(header.rstrip(b"\0"))
            return
        self._size = None
        for key, value in _records(header):
            if key == b"size" and _DIGITS.fullmatch(value):  # of a file of 8 GiB or more
                self._size = int(value)
            elif key in _PATHS:
                self._add(value)

    def _add(self, name: bytes) -> None:
        if len(name) <= MAX_PATH or name in self.long:
            return
        if len(self.long) < _MAX_NAMES:
            self.long[name] = None
        else:
            self.more += 1


def _after_map(data: bytes, at: int) -> int:
    """Return where the headers of a sparse file end (GNU's old format); beyond data: later."""
    more, end = data[at + 482], at + _BLOCK
    while more:
        end += _BLOCK
        more = data[end - 8] if end <= len(data) else 0
    return end


def _records(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the records of an extended header: "LENGTH KEY=VALUE\\n" (POSIX.1-2001)."""
    while True:
        digits = header[:20].partition(b" ")[0]
        length = foreign.number(digits)
        if not length:
            return
        key, _sign, value = header[len(digits) + 1 : length - 1].partition(b"=")
        yield key, value
        header = header[length:]


@functools.lru_cache(maxsize=4096)  # sizes repeat
def _number(field: bytes) -> int | None:
    """Return a size: octal, or binary where that is too short (GNU); None for anything else."""
    try:
        number = int(field.rstrip(b" \0"), 8)
        return number if number >= 0 else None
    except ValueError:
        return int.from_bytes(field[1:], "big") if field[:1] == b"\x80" else None
