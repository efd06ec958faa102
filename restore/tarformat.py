"""Tar archives read block by block: where each member begins, and what it is.

Formats: POSIX.1-2001 pax interchange, ustar, and what GNU tar adds (long names, sparse files in
all its forms). Wherever two readers could disagree about where a member begins, it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tools.errors import BackupError
from tools.stream import Chunks

BLOCK = 512
ZEROS = bytes(BLOCK)
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*")
_KINDS = {b"0": "file", b"\0": "file", b"7": "file", b"S": "file", b"1": "link", b"2": "symlink",
          b"3": "device", b"4": "device", b"5": "folder", b"6": "fifo"}  # fmt: skip
_LONG = {b"L": b"path", b"K": b"linkpath"}  # GNU's long names: which pax record they stand for
_REPEATED = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")  # of the old sparse format
_HARMLESS = (b"comment", b"charset")  # that a global header may set
HINT = "Somebody altered this archive, or it was not made by this system: nothing was taken over."


class HostileError(BackupError):
    """A member that would be written elsewhere, or that two programs would read differently."""


class Member(NamedTuple):
    """One entry as it would be restored.

    kind: file, folder, link (hard), symlink, fifo or device; size: bytes of the content with
    its holes; unsafe: why only root gets all of it, "" otherwise
    """

    name: bytes
    kind: str
    size: int
    mode: int
    uid: int
    gid: int
    target: bytes = b""
    unsafe: str = ""


@dataclass(frozen=True)
class Rules:
    """What may come out. privileged: device nodes and set-id bits come back, as for root."""

    privileged: bool = False
    most_members: int = 100_000_000
    most_bytes: int | None = None
    longest_name: int = 1 << 16


def shown(name: bytes) -> str:
    """A name on one line: what cannot be printed is escaped."""
    text = name.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Source:
    """Chunks as blocks; what is taken is gone."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = iter(chunks)
        self._chunk = b""
        self._at = 0

    def block(self) -> bytes:
        """The next 512 bytes. Raises HostileError where the archive ends."""
        end = self._at + BLOCK
        if end <= len(self._chunk):
            block = self._chunk[self._at : end]
            self._at = end
            return block
        return b"".join(self.data(BLOCK))

    def data(self, size: int) -> Iterator[bytes]:
        """So many bytes, in pieces that are copied only where a chunk holds more."""
        while size:
            if self._at == len(self._chunk):
                self._chunk, self._at = next(self._chunks, b""), 0
                while self._chunk == b"":
                    more = next(self._chunks, None)
                    if more is None:
                        raise HostileError("the archive ends too early", "It was cut.")
                    self._chunk = more
            end = min(len(self._chunk), self._at + size)
            piece = (
                self._chunk
                if self._at == 0 and end == len(self._chunk)
                else self._chunk[self._at : end]
            )
            self._at = end
            size -= len(piece)
            yield piece

    def end(self) -> None:
        """After the end mark only zeros may follow."""
        rest = self._chunk[self._at :]
        while True:
            if rest.strip(b"\0"):
                raise HostileError("something follows the end of the archive", HINT)
            more = next(self._chunks, None)
            if more is None:
                return
            rest = more


def following(source: Source, rules: Rules) -> tuple[Member, bytes, int] | None:
    """The next member, all its header blocks, its stored bytes with padding; None at the end."""
    header: list[bytes] = []
    records: dict[bytes, bytes] = {}
    while True:
        block = source.block()
        if block == ZEROS:
            if header or source.block() != ZEROS:
                raise HostileError("the archive has a hole where a member should be", HINT)
            return None
        _check_sum(block)
        header.append(block)
        kind = block[156:157]
        if kind not in (b"x", b"g", b"L", b"K"):
            break
        size = _number(block[124:136])
        if size > rules.longest_name * 64:
            raise HostileError(f"an extended header has {size} bytes", HINT)
        data = b"".join(source.data(-(-size // BLOCK) * BLOCK))
        header.append(data)
        _collect(kind, data[:size], records)
    if kind == b"S":
        header += _extensions(source, block)
    return _member(block, records, b"".join(header), rules)


def _check_sum(block: bytes) -> None:
    if _number(block[148:156]) != sum(block) - sum(block[148:156]) + 256:
        raise HostileError("the archive is damaged (a header's checksum)", "Use another copy.")


def _number(field: bytes) -> int:
    """A number of a header: octal digits, or binary with the first bit set (GNU)."""
    if field[0] == 0x80:  # noqa: PLR2004
        return int.from_bytes(field[1:], "big")
    found = _OCTAL.fullmatch(field)
    if found is None:
        raise HostileError("the archive is damaged (a number in a header)", "Use another copy.")
    return int(found[1] or b"0", 8)


def _collect(kind: bytes, data: bytes, records: dict[bytes, bytes]) -> None:
    """What a header in front of a member says of it. Raises HostileError for anything twice."""
    found: list[tuple[bytes, bytes]]
    if kind in _LONG:
        found = [(_LONG[kind], data.partition(b"\0")[0])]
        if data.rstrip(b"\0") != found[0][1]:
            raise HostileError("a long name holds NUL", HINT)
    else:
        found = list(_pax(data))
    if kind == b"g":
        bad = [key for key, _ in found if key not in _HARMLESS]
        if bad:
            raise HostileError(f"a global header sets {shown(bad[0])}", HINT)
        return
    for key, value in found:
        if key in records and key not in _REPEATED:
            raise HostileError(f"a header says {shown(key)} twice", HINT)
        records[key] = value


def _pax(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records of an extended header: "LENGTH KEY=VALUE\\n" (POSIX.1-2001)."""
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        length = data[at:space] if space > at else b""
        end = at + int(length) if length.isdigit() and length[:1] != b"0" else 0
        key, sign, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space or end > len(data) or data[end - 1 : end] != b"\n" or not key or not sign:
            raise HostileError("the archive is damaged (an extended header)", "Use another copy.")
        yield key, value
        at = end


def _extensions(source: Source, block: bytes) -> Iterator[bytes]:
    """The blocks that follow the header of a sparse file of the old GNU format."""
    more = block[482]
    while more:
        extension = source.block()
        yield extension
        more = extension[504]


def _member(
    block: bytes, records: Mapping[bytes, bytes], header: bytes, rules: Rules
) -> tuple[Member, bytes, int]:
    names = (records[key] for key in (b"GNU.sparse.name", b"path") if key in records)
    name = next(names, None)
    name = _name(block) if name is None else name
    if len(name) > rules.longest_name or b"\0" in name or not name:
        raise HostileError(f"the name {shown(name[:80])!r} cannot be one", HINT)
    kind = _KINDS.get(block[156:157], "")
    stored = _of(records, b"size", _number(block[124:136]), name)
    if not kind:
        raise HostileError(f"{shown(name)} is of the unknown type {block[156:157]!r}", HINT)
    if kind == "file" and name.endswith(b"/"):
        raise HostileError(f"{shown(name)} is a file with the name of a folder", HINT)
    if kind != "file" and stored:
        raise HostileError(f"{shown(name)} is no file and has content", HINT)
    target = b""
    if kind in ("link", "symlink"):
        target = records.get(b"linkpath", block[157:257].partition(b"\0")[0])
        if not target or b"\0" in target:
            raise HostileError(f"{shown(name)} is a link to nothing", HINT)
    size = stored
    if block[156:157] == b"S":
        size = _number(block[483:495])
    for key in (b"GNU.sparse.size", b"GNU.sparse.realsize"):
        size = _of(records, key, size, name)
    member = Member(
        name.rstrip(b"/") or b"/" * (name[:1] == b"/"),
        kind,
        size,
        _number(block[100:108]) & 0o7777,
        _of(records, b"uid", _number(block[108:116]), name),
        _of(records, b"gid", _number(block[116:124]), name),
        target,
    )
    return member, header, -(-stored // BLOCK) * BLOCK


def _name(block: bytes) -> bytes:
    """The name in the header itself, with its prefix where the format has one."""
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _of(records: Mapping[bytes, bytes], key: bytes, otherwise: int, name: bytes) -> int:
    """A number in an extended header; else what the header itself says."""
    value = records.get(key)
    if value is None:
        return otherwise
    if not value.isdigit() or len(value) > 19:  # noqa: PLR2004  (2^63)
        raise HostileError(f"{shown(name)}: {shown(key)} is {shown(value[:40])!r}", HINT)
    return int(value)
