"""Our own look at every member of a tar archive, before GNU tar sees it (RELIABILITY 4.4).

Formats: POSIX.1-2001 pax interchange, ustar, and what GNU tar adds (long names, sparse files in
all its forms). Wherever two readers could disagree about where a member begins, it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tools.errors import BackupError
from tools.stream import Chunks

BLOCK = 512
_ZEROS = bytes(BLOCK)
_GATHERED = 1 << 18  # bytes that are handed on together
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*")
_KINDS = {b"0": "file", b"\0": "file", b"7": "file", b"S": "file", b"1": "link", b"2": "symlink",
          b"3": "device", b"4": "device", b"5": "folder", b"6": "fifo"}  # fmt: skip
_LONG = {b"L": b"path", b"K": b"linkpath"}  # GNU's long names: which pax record they stand for
_REPEATED = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")  # of the old sparse format
_HARMLESS = (b"comment", b"charset")  # that a global header may set
_SET_ID = 0o6000
_HINT = "Somebody altered this archive, or it was not made by this system: nothing was taken over."


class HostileError(BackupError):
    """A member that would be written elsewhere, or that two programs would read differently."""


class NeedsTarget(BackupError):  # noqa: N818  (a request, rather than a fault)
    """Hard links were chosen whose first name was not: they must be chosen as well."""

    def __init__(self, targets: frozenset[bytes]) -> None:
        super().__init__("the other name of a hard link is needed")
        self.targets = targets


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


def matcher(patterns: Sequence[str]) -> Callable[[bytes], bool]:
    """Whether a name is meant by one of the globs, or lies below a folder that is.

    A pattern counts from /, with or without it in front; `*` and `?` stay within one folder,
    `**` crosses folders, [abc] is a set.
    """
    found = b"|".join(
        _regex(pattern.strip("/").encode("utf-8", "surrogateescape")) for pattern in patterns
    )
    compiled = re.compile(rb"(?:" + found + rb")(?:/.*)?", re.DOTALL)
    return lambda name: compiled.fullmatch(name) is not None


def _regex(pattern: bytes) -> bytes:
    """One glob as a regular expression."""
    words = re.findall(rb"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", pattern, re.DOTALL)
    signs = {b"**/": rb"(?:.*/)?", b"**": rb".*", b"*": rb"[^/]*", b"?": rb"[^/]"}
    return b"".join(signs.get(word) or _plain(word) for word in words)


def _plain(word: bytes) -> bytes:
    if len(word) > 1 and word.startswith(b"["):
        inner = word[1:-1].replace(b"\\", b"\\\\")
        return b"[" + (b"^/" + inner[1:] if inner.startswith(b"!") else inner) + b"]"
    return re.escape(word)


def checked(
    chunks: Chunks,
    rules: Rules,
    seen: Callable[[Member], None] | None = None,
    wanted: Callable[[bytes], bool] | None = None,
) -> Iterator[bytes]:
    """A stage: the archive, each member only after it has been looked at.

    seen: gets every member that goes on. wanted: which names go on at all, with the folders
    that they lie in; without it all. Raises HostileError before a byte of a bad member's
    header has been handed on, and NeedsTarget at the end.
    """
    source = _Source(chunks)
    checks = _Checks(rules)
    choice = _Choice(wanted) if wanted is not None else None
    gathered: list[bytes] = []
    size = 0
    while (found := _next(source, rules)) is not None:
        member, header, stored = found
        member, header = checks.take(member, header)
        first = [header] if choice is None else choice.take(member, header)
        goes_on = bool(header and first)
        if goes_on:
            gathered += first
            size += len(header)
            if seen is not None:
                seen(member)
        for piece in source.data(stored):
            if goes_on:
                gathered.append(piece)
                size += len(piece)
                if size >= _GATHERED:
                    yield b"".join(gathered)
                    gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)
    source.end()
    yield _ZEROS * 2
    if choice is not None:
        choice.judge()


class _Source:
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
                raise HostileError("something follows the end of the archive", _HINT)
            more = next(self._chunks, None)
            if more is None:
                return
            rest = more


def _next(source: _Source, rules: Rules) -> tuple[Member, bytes, int] | None:
    """The next member, all its header blocks, its stored bytes with padding; None at the end."""
    header: list[bytes] = []
    records: dict[bytes, bytes] = {}
    while True:
        block = source.block()
        if block == _ZEROS:
            if header or source.block() != _ZEROS:
                raise HostileError("the archive has a hole where a member should be", _HINT)
            return None
        _check_sum(block)
        header.append(block)
        kind = block[156:157]
        if kind not in (b"x", b"g", b"L", b"K"):
            break
        size = _number(block[124:136])
        if size > rules.longest_name * 64:
            raise HostileError(f"an extended header has {size} bytes", _HINT)
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
            raise HostileError("a long name holds NUL", _HINT)
    else:
        found = list(_pax(data))
    if kind == b"g":
        bad = [key for key, _ in found if key not in _HARMLESS]
        if bad:
            raise HostileError(f"a global header sets {shown(bad[0])}", _HINT)
        return
    for key, value in found:
        if key in records and key not in _REPEATED:
            raise HostileError(f"a header says {shown(key)} twice", _HINT)
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


def _extensions(source: _Source, block: bytes) -> Iterator[bytes]:
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
        raise HostileError(f"the name {shown(name[:80])!r} cannot be one", _HINT)
    kind = _KINDS.get(block[156:157], "")
    stored = _of(records, b"size", _number(block[124:136]), name)
    if not kind:
        raise HostileError(f"{shown(name)} is of the unknown type {block[156:157]!r}", _HINT)
    if kind == "file" and name.endswith(b"/"):
        raise HostileError(f"{shown(name)} is a file with the name of a folder", _HINT)
    if kind != "file" and stored:
        raise HostileError(f"{shown(name)} is no file and has content", _HINT)
    target = b""
    if kind in ("link", "symlink"):
        target = records.get(b"linkpath", block[157:257].partition(b"\0")[0])
        if not target or b"\0" in target:
            raise HostileError(f"{shown(name)} is a link to nothing", _HINT)
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
        raise HostileError(f"{shown(name)}: {shown(key)} is {shown(value[:40])!r}", _HINT)
    return int(value)


class _Checks:
    """Where members may go, given those that came before."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._members = 0
        self._bytes = 0
        self._symlinks: set[bytes] = set()
        self._folders: set[bytes] = {b""}

    def take(self, member: Member, header: bytes) -> tuple[Member, bytes]:
        """The member as it may be restored, and its header; b"" where it is left out.

        Raises HostileError.
        """
        name = _clean(member.name, member, "name")
        member = member._replace(name=name)
        self._members += 1
        self._bytes += member.size
        most = self._rules.most_bytes
        if self._members > self._rules.most_members or (most is not None and self._bytes > most):
            raise HostileError(f"at {shown(name)} the archive holds more than is allowed")
        self._way(name, member)
        self._place(name, member)
        if member.kind == "link":
            target = _clean(member.target, member, "target")
            self._way(target, member)
            if target in self._symlinks:
                self._symlinks.add(name)  # a second name of a symbolic link is one as well
            elif target in self._folders:
                raise HostileError(f"{shown(name)} is a hard link to a folder", _HINT)
            member = member._replace(target=target)
        return self._allowed(member, header)

    def _way(self, name: bytes, member: Member) -> None:
        """No folder on the way may be a symbolic link of this archive."""
        parent = name.rpartition(b"/")[0]
        if parent in self._folders:
            return
        way = parent
        while way and way not in self._folders:
            if way in self._symlinks:
                raise HostileError(
                    f"{shown(member.name)} goes through the symbolic link {shown(way)}", _HINT
                )
            way = way.rpartition(b"/")[0]
        while parent and parent not in self._folders:
            self._folders.add(parent)
            parent = parent.rpartition(b"/")[0]

    def _place(self, name: bytes, member: Member) -> None:
        """No member takes the place of a symbolic link, and none but a folder that of a folder."""
        if name in self._symlinks:
            raise HostileError(f"{shown(name)} takes the place of a symbolic link", _HINT)
        if member.kind == "folder":
            self._folders.add(name)
            return
        if name in self._folders:
            raise HostileError(f"{shown(name)} takes the place of a folder", _HINT)
        if member.kind == "symlink":
            self._symlinks.add(name)

    def _allowed(self, member: Member, header: bytes) -> tuple[Member, bytes]:
        """What only root may get back is taken off, and said."""
        if self._rules.privileged:
            return member, header
        if member.kind == "device":
            return member._replace(unsafe="a device node, left out"), b""
        if member.mode & _SET_ID and member.kind != "symlink":
            if header[-BLOCK:][156:157] == b"S" or header[-BLOCK:][257:262] != b"ustar":
                return member._replace(unsafe="a set-id bit in an old format, left out"), b""
            mode = member.mode & ~_SET_ID
            lost = "its set-user-id or set-group-id bit"
            return member._replace(mode=mode, unsafe=lost), _with_mode(header, mode)
        return member, header


def _clean(name: bytes, member: Member, what: str) -> bytes:
    """A name without `.` and doubled slashes. Raises HostileError where it leads out."""
    if name.startswith(b"/"):
        raise HostileError(f"{shown(member.name)}: its {what} {shown(name)} is absolute", _HINT)
    if b"." not in name and b"//" not in name:
        return name
    words = name.split(b"/")
    if b".." in words:
        raise HostileError(f"{shown(member.name)}: its {what} {shown(name)} leads out by ..", _HINT)
    return b"/".join(word for word in words if word not in (b"", b"."))


def _with_mode(header: bytes, mode: int) -> bytes:
    """The header blocks with another mode in the last one, and its checksum."""
    block = bytearray(header[-BLOCK:])
    block[100:108] = b"%07o\0" % mode
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return header[:-BLOCK] + bytes(block)


class _Choice:
    """Which members go on: those that are wanted, and the folders that they lie in."""

    def __init__(self, wanted: Callable[[bytes], bool]) -> None:
        self._wanted = wanted
        self._way: list[tuple[bytes, bytes]] = []  # folders that lead here: name, header
        self._chosen: set[bytes] = set()
        self._needed: set[bytes] = set()

    def take(self, member: Member, header: bytes) -> list[bytes]:
        """The headers to hand on; none where the member is not wanted."""
        while self._way and not member.name.startswith(self._way[-1][0] + b"/"):
            self._way.pop()
        if not self._wanted(member.name):
            if member.kind == "folder":
                self._way.append((member.name, header))
            return []
        self._chosen.add(member.name)
        if member.kind == "link" and member.target not in self._chosen:
            self._needed.add(member.target)
        before = [folder for _, folder in self._way]
        self._way = []
        return [*before, header]

    def judge(self) -> None:
        """Raises NeedsTarget where a hard link has no first name."""
        if self._needed:
            raise NeedsTarget(frozenset(self._needed))
