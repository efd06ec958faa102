"""Count the members of an archive stream (POSIX.1-2001 pax, GNU tar): one header each is read."""

from __future__ import annotations

import re

_BLOCK = 512  # bytes; content is padded to whole blocks
_LONGEST = 1 << 16  # bytes of the longest extended header that is read
_DATA = b"0\x007S"  # types of members with content: files, contiguous and sparse ones
_EXTRA = b"xgXLKVN"  # types of headers that describe the next member, or the volume
_SIZE = re.compile(rb"(?:^|\n)[0-9]+ size=([0-9]{1,19})\n")  # of a file of 8 GiB or more


class MemberCount:
    """Counts files, folders and links while an archive passes.

    found: their number so far; None for an archive that is not understood
    """

    def __init__(self) -> None:
        self.found: int | None = 0
        self._skip = 0  # bytes to the next header
        self._waiting = b""  # the beginning of a header
        self._size: int | None = None  # of the next member, from an extended header

    def add_chunk(self, chunk: bytes) -> None:
        """Read the headers in the next bytes of the archive."""
        if self._skip >= len(chunk):
            self._skip -= len(chunk)
        elif self.found is not None:
            data = self._waiting + chunk
            at = self._read(data, self._skip)
            self._waiting, self._skip = data[at:], max(0, at - len(data))

    def _read(self, data: bytes, at: int) -> int:
        """Read all headers that are there; return where the next one begins."""
        while at + _BLOCK <= len(data) and self.found is not None:
            kind = data[at + 156]
            if data[at + 257 : at + 262] != b"ustar":
                if data.count(0, at, at + _BLOCK) != _BLOCK:  # no end mark either
                    self.found = None
                at += _BLOCK
                continue
            size = _number(data[at + 124 : at + 136])
            if size is None or (kind == b"S"[0] and data[at + 482]):  # more headers of its holes
                self.found = None
            elif kind in _EXTRA:
                if kind == b"x"[0] and size <= _LONGEST:
                    if at + _BLOCK + size > len(data):
                        return at  # its end has not come yet
                    if data.find(b" size=", at + _BLOCK, at + _BLOCK + size) >= 0:
                        record = _SIZE.search(data[at + _BLOCK : at + _BLOCK + size])
                        self._size = int(record[1]) if record else None
            else:
                self.found += 1
                size = (size if self._size is None else self._size) if kind in _DATA else 0
                self._size = None
            at += _BLOCK + -(-(size or 0) // _BLOCK) * _BLOCK
        return at


def _number(field: bytes) -> int | None:
    """Return a size: octal, or binary where that is too short (GNU); None for anything else."""
    try:
        return int(field.rstrip(b" \0"), 8)
    except ValueError:
        return int.from_bytes(field[1:], "big") if field[:1] == b"\x80" else None
