"""Count the members of an archive stream (POSIX.1-2001 pax, GNU tar): one header each is read."""

from __future__ import annotations

import functools
import re

_BLOCK = 512  # bytes; content is padded to whole blocks
_LONGEST = 1 << 16  # bytes of the longest extended header that is read
_DATA = b"0\x007S"  # types of members with content: files, contiguous and sparse ones
_EXTRA = b"xgXLKVN"  # types of headers that describe the next member, or the volume
_PAX, _OLD_SPARSE = b"xS"
_SIZE = re.compile(rb"(?:^|\n)[0-9]+ size=([0-9]{1,19})\n")  # of a file of 8 GiB or more


class MemberCount:
    """Counts files, folders and links while an archive passes."""

    def __init__(self) -> None:
        self._count = 0
        self._understood = True
        self._skip = 0  # bytes to the next header
        self._waiting = b""  # the beginning of a header
        self._size: int | None = None  # of the next member, from an extended header

    @property
    def found(self) -> int | None:
        """Their number so far; None for an archive that is not understood."""
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
            if size is None or (kind == _OLD_SPARSE and data[at + 482]):  # more headers of holes
                return self._give_up(at)
            content = at + _BLOCK
            if kind == _PAX and size <= _LONGEST:
                if content + size > len(data):
                    break  # its end has not come yet
                if data.find(b" size=", content, content + size) >= 0:
                    record = _SIZE.search(data[content : content + size])
                    self._size = int(record[1]) if record else None
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


@functools.lru_cache(maxsize=4096)  # sizes repeat
def _number(field: bytes) -> int | None:
    """Return a size: octal, or binary where that is too short (GNU); None for anything else."""
    try:
        return int(field.rstrip(b" \0"), 8)
    except ValueError:
        return int.from_bytes(field[1:], "big") if field[:1] == b"\x80" else None
