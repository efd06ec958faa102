"""Our own look at every member of a tar archive, before GNU tar sees it (RELIABILITY 4.4)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from tools import plugin
from tools.errors import BackupError
from tools.stream import Chunks

if TYPE_CHECKING:
    from restore import tarformat
else:
    tarformat = plugin.load("restore/tarformat.py")

_SET_ID = 0o6000


class NeedsTarget(BackupError):  # noqa: N818  (a request, rather than a fault)
    """Hard links were chosen whose first name was not: they must be chosen as well."""

    def __init__(self, targets: frozenset[bytes]) -> None:
        super().__init__("the other name of a hard link is needed")
        self.targets = targets


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
    rules: tarformat.Rules,
    seen: Callable[[tarformat.Member], None] | None = None,
    wanted: Callable[[bytes], bool] | None = None,
) -> Iterator[bytes]:
    """A stage: the archive, each member only after it has been looked at.

    seen: gets every member that goes on. wanted: which names go on at all, with the folders
    that they lie in; without it all. Raises HostileError before a byte of a bad member's
    header has been handed on, and NeedsTarget at the end.
    """
    source = tarformat.Source(chunks)
    checks = _Checks(rules)
    choice = _Choice(wanted) if wanted is not None else None
    while (found := tarformat.following(source, rules)) is not None:
        member, header, stored = found
        member, header = checks.take(member, header)
        first = [header] if choice is None else choice.take(member, header)
        goes_on = bool(header and first)
        if goes_on:
            yield from first
            if seen is not None:
                seen(member)
        for piece in source.data(stored):
            if goes_on:
                yield piece
    source.end()
    yield tarformat.ZEROS * 2
    if choice is not None:
        choice.judge()


class _Checks:
    """Where members may go, given those that came before."""

    def __init__(self, rules: tarformat.Rules) -> None:
        self._rules = rules
        self._members = 0
        self._bytes = 0
        self._symlinks: set[bytes] = set()
        self._folders: set[bytes] = {b""}

    def take(self, member: tarformat.Member, header: bytes) -> tuple[tarformat.Member, bytes]:
        """The member as it may be restored, and its header; b"" where it is left out.

        Raises HostileError.
        """
        name = _clean(member.name, member, "name")
        member = member._replace(name=name)
        self._members += 1
        self._bytes += member.size
        most = self._rules.most_bytes
        if self._members > self._rules.most_members or (most is not None and self._bytes > most):
            raise tarformat.HostileError(
                f"at {tarformat.shown(name)} the archive holds more than is allowed"
            )
        self._way(name, member)
        self._place(name, member)
        if member.kind == "link":
            target = _clean(member.target, member, "target")
            self._way(target, member)
            if target in self._symlinks:
                self._symlinks.add(name)  # a second name of a symbolic link is one as well
            elif target in self._folders:
                raise tarformat.HostileError(
                    f"{tarformat.shown(name)} is a hard link to a folder", tarformat.HINT
                )
            member = member._replace(target=target)
        return self._allowed(member, header)

    def _way(self, name: bytes, member: tarformat.Member) -> None:
        """No folder on the way may be a symbolic link of this archive."""
        parent = name.rpartition(b"/")[0]
        if parent in self._folders:
            return
        way = parent
        while way and way not in self._folders:
            if way in self._symlinks:
                raise tarformat.HostileError(
                    f"{tarformat.shown(member.name)} goes through a symbolic link: "
                    + tarformat.shown(way),
                    tarformat.HINT,
                )
            way = way.rpartition(b"/")[0]
        while parent and parent not in self._folders:
            self._folders.add(parent)
            parent = parent.rpartition(b"/")[0]

    def _place(self, name: bytes, member: tarformat.Member) -> None:
        """No member takes the place of a symbolic link, and none but a folder that of a folder."""
        if name in self._symlinks:
            raise tarformat.HostileError(
                f"{tarformat.shown(name)} takes the place of a symbolic link", tarformat.HINT
            )
        if member.kind == "folder":
            self._folders.add(name)
            return
        if name in self._folders:
            raise tarformat.HostileError(
                f"{tarformat.shown(name)} takes the place of a folder", tarformat.HINT
            )
        if member.kind == "symlink":
            self._symlinks.add(name)

    def _allowed(self, member: tarformat.Member, header: bytes) -> tuple[tarformat.Member, bytes]:
        """What only root may get back is taken off, and said."""
        if self._rules.privileged:
            return member, header
        if member.kind == "device":
            return member._replace(unsafe="a device node, left out"), b""
        if member.mode & _SET_ID and member.kind != "symlink":
            if (
                header[-tarformat.BLOCK :][156:157] == b"S"
                or header[-tarformat.BLOCK :][257:262] != b"ustar"
            ):
                return member._replace(unsafe="a set-id bit in an old format, left out"), b""
            mode = member.mode & ~_SET_ID
            lost = "its set-user-id or set-group-id bit"
            return member._replace(mode=mode, unsafe=lost), _with_mode(header, mode)
        return member, header


def _clean(name: bytes, member: tarformat.Member, what: str) -> bytes:
    """A name without `.` and doubled slashes. Raises HostileError where it leads out."""
    if name.startswith(b"/"):
        raise tarformat.HostileError(
            f"{tarformat.shown(member.name)}: its {what} {tarformat.shown(name)} is absolute",
            tarformat.HINT,
        )
    if b"." not in name and b"//" not in name:
        return name
    words = name.split(b"/")
    if b".." in words:
        raise tarformat.HostileError(
            f"{tarformat.shown(member.name)}: its {what} {tarformat.shown(name)} leads out by ..",
            tarformat.HINT,
        )
    return b"/".join(word for word in words if word not in (b"", b"."))


def _with_mode(header: bytes, mode: int) -> bytes:
    """The header blocks with another mode in the last one, and its checksum."""
    block = bytearray(header[-tarformat.BLOCK :])
    block[100:108] = b"%07o\0" % mode
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return header[: -tarformat.BLOCK] + bytes(block)


class _Choice:
    """Which members go on: those that are wanted, and the folders that they lie in."""

    def __init__(self, wanted: Callable[[bytes], bool]) -> None:
        self._wanted = wanted
        self._way: list[tuple[bytes, bytes]] = []  # folders that lead here: name, header
        self._chosen: set[bytes] = set()
        self._needed: set[bytes] = set()

    def take(self, member: tarformat.Member, header: bytes) -> list[bytes]:
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
