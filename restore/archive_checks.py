"""Check every entry of a tar archive before GNU tar reads it (RELIABILITY 4.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from restore import attributes, names
from restore.archive_errors import UnsafeArchiveError, printable_name, unsafe
from restore.block_reader import BLOCK, BlockReader
from restore.tar_reader import ZEROS, Member, Rules, next_member, without_records
from tools.base import path_patterns
from tools.base.errors import BackupError
from tools.flow.stream import Chunks

_SET_ID = 0o6000
_COMPONENT = 255  # bytes of one name (NAME_MAX of Linux)
_CAPABILITY = b"SCHILY.xattr.security.capability"
_NAMED = 5  # entries that an error names
_PATH = 4095  # bytes of a path, and of a link's target (PATH_MAX of Linux)


_SPECIAL = "from a run without a known signer (--allow-special)"


class MissingLinkTargetError(BackupError):
    """Hard links are selected, but not the first names of their files: those are needed too."""

    def __init__(self, targets: frozenset[bytes]) -> None:
        super().__init__("the first name of a hard link is not selected")
        self.targets = targets


class Patterns:
    """The patterns of --path; a name below a folder that matches is selected as well.

    unmatched: the patterns that no name has matched so far. Raises ConfigError for an invalid one.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._all = [
            path_patterns.compile_pattern(one, "--path") for one in dict.fromkeys(patterns)
        ]
        self._matches = [pattern.matches for pattern in self._all]
        self._open = list(self._all)

    def __call__(self, name: bytes) -> bool:
        for matches in self._matches:
            if matches(name):
                break
        else:
            return False
        if self._open:
            self._open = [pattern for pattern in self._open if not pattern.matches(name)]
        return True

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Return the patterns that no name has matched so far, as written."""
        return tuple(pattern.text for pattern in self._open)


def check_archive(
    chunks: Chunks,
    rules: Rules,
    on_member: Callable[[Member], None] | None = None,
    selects: Callable[[bytes], bool] | None = None,
    on_lost: Callable[[Member, str], None] | None = None,
) -> Iterator[bytes]:
    """Yield the archive, each member only after it has been checked.

    on_member: gets every member that is yielded
    selects: which names are yielded, with the folders that they lie in; None for all
    on_lost: gets every selected member that no system could create, or that only root could, and
    why; it is not yielded
    Raises UnsafeArchiveError before a byte of a bad member's header is yielded, and
    MissingLinkTargetError at the end. What the rules call special is not yielded either; if any
    was selected, UnsafeArchiveError names it at the end.
    """
    source = BlockReader(chunks)
    checks = _Checks(rules)
    choice = _EntryFilter(selects)
    special: list[bytes] = []
    while (entry := next_member(source, rules)) is not None:
        member, header, stored = entry
        member, header, why = checks.take(member, header)
        chosen: list[tuple[Member, bytes]] = []
        if not why:
            chosen = choice.take(member, header)
        elif selects is None or selects(member.name):
            if why == _SPECIAL:
                special.append(member.name)
            if on_lost is not None:
                on_lost(member, why)
        for chosen_member, blocks in chosen:
            if on_member is not None:
                on_member(chosen_member)
            yield blocks
        if chosen:
            yield from source.data(stored)
        else:
            source.skip(stored)
    source.end()
    if special:
        raise _special_error(special)
    yield ZEROS * 2
    choice.judge()


def is_special(member: Member) -> bool:
    """Return whether a member gives the rights of root or of its owner to other users.

    A set-group-ID bit of a folder only says which group its files get.
    """
    set_id = member.mode & _SET_ID and member.kind in ("file", "link")
    capable = any(key == _CAPABILITY for key, _value in member.attributes)
    return member.kind == "device" or bool(set_id) or capable


def _special_error(names: Sequence[bytes]) -> UnsafeArchiveError:
    first = ", ".join(printable_name(name) for name in names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return UnsafeArchiveError(
        f"the run has no known signer, and has device nodes, set-user-ID or set-group-ID bits or "
        f"capabilities ({len(names)}): {first}{more}",
        "If you know the signer, use --signer FILE. If you trust all who can write to the store, "
        "use --allow-special.",
    )


class _Checks:
    """Where members may go, given those that came before."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._members = 0
        self._bytes = 0
        self._symlinks = names.Names()
        self._folders: set[bytes] = {b""}
        self._names = names.Names()  # all that are no folders
        self._lost: set[bytes] = set()

    def take(self, member: Member, header: bytes) -> tuple[Member, bytes, str]:
        """Return the member as it may be restored, its header, and why it cannot be ("" if it can).

        Raises UnsafeArchiveError.
        """
        name = _clean(member.name, member, "name")
        if name != member.name:
            member = member._replace(name=name)
        self._members += 1
        self._bytes += member.size
        most = self._rules.max_bytes
        if self._members > self._rules.max_members or (most is not None and self._bytes > most):
            raise unsafe(name, "the archive exceeds the limit of entries or bytes")
        self._check_path(name, member)
        if member.kind == "link":
            member = member._replace(target=_clean(member.target, member, "target"))
            self._check_path(member.target, member)
        why = _impossible(member) or self._no_link(member)
        if not why:
            member, header, why = self._strip_privileged(member, header)
        if keys := attributes.unreportable(member):
            header = without_records(header, member.header, keys)
        self._check_replacement(name, member, lost=bool(why))
        return member, header, why

    def _no_link(self, member: Member) -> str:
        """Return why a hard link cannot be made. Raises UnsafeArchiveError for one to a folder."""
        if member.kind != "link":
            return ""
        target = printable_name(member.target[:100])
        if member.target in self._folders:
            raise unsafe(member.name, "hard link to a directory")
        if member.target in self._names or member.target in self._symlinks:
            return ""
        if member.target in self._lost:
            return f"hard link to {target}, which cannot be restored"
        return f"hard link to {target}, which is not in the archive"

    def _check_path(self, name: bytes, member: Member) -> None:
        """Reject a path through a symbolic link or a file of this archive."""
        parent = name.rpartition(b"/")[0]
        if parent in self._folders:
            return
        way = parent
        while way and way not in self._folders:
            if way in self._symlinks or way in self._names:
                obstacle = "symbolic link" if way in self._symlinks else "file"
                raise unsafe(member.name, f"path leads through {obstacle} {printable_name(way)}")
            way = way.rpartition(b"/")[0]

    def _check_replacement(self, name: bytes, member: Member, *, lost: bool) -> None:
        """Reject what replaces a symbolic link, and all but a folder in the place of a folder."""
        if self._symlinks and name in self._symlinks:
            raise unsafe(name, "would replace a symbolic link")
        if member.kind != "folder" and name in self._folders:
            raise unsafe(name, "would replace a directory")
        if lost:
            self._lost.add(name)
            return
        parent = name.rpartition(b"/")[0]
        while parent and parent not in self._folders:
            self._folders.add(parent)
            parent = parent.rpartition(b"/")[0]
        if member.kind == "folder":
            self._folders.add(name)
        elif member.kind == "symlink" or (
            member.kind == "link" and member.target in self._symlinks
        ):
            self._symlinks.add(name)  # a second name of a symbolic link is one as well
        else:
            self._names.add(name)

    def _strip_privileged(self, member: Member, header: bytes) -> tuple[Member, bytes, str]:
        """Remove what only root may restore, and name it."""
        if self._rules.privileged:
            refused = not self._rules.special and is_special(member)
            return member, header, _SPECIAL if refused else ""
        if member.kind == "device":
            return member, header, "only root can create a device node"
        removed = []
        if member.mode & _SET_ID and member.kind != "symlink":
            member = member._replace(mode=member.mode & ~_SET_ID)
            removed.append("set-user-ID or set-group-ID bit")
            header = _with_mode(header, member)
        removed += [
            printable_name(key.removeprefix(b"SCHILY.xattr."))
            for key, _value in member.attributes
            if not key.startswith((b"SCHILY.xattr.user.", b"SCHILY.acl."))
        ]
        return member._replace(unsafe=", ".join(removed)), header, ""


def _impossible(member: Member) -> str:
    """Return why no Linux file system could hold a member; "" where it can."""
    if len(member.written) <= _COMPONENT and len(member.target) <= _COMPONENT:
        return ""
    longest = max(map(len, member.name.split(b"/")))
    if longest > _COMPONENT:
        return f"a name of {longest} bytes in the path, limit {_COMPONENT}"
    for subject, path in (("path", member.written), ("link target", member.target)):
        if len(path) > _PATH:
            return f"{subject} of {len(path)} bytes, limit {_PATH}"
    return ""


def _clean(name: bytes, member: Member, subject: str) -> bytes:
    """Return a name without `.` and `//`. Raises UnsafeArchiveError where it leads out."""
    if name.startswith(b"/"):
        raise unsafe(member.name, f"absolute {subject} {printable_name(name)}")
    if b"//" not in name and (b"." not in name or _only_inside_names(name)):
        return name
    components = name.split(b"/")
    if b".." in components:
        raise unsafe(
            member.name, f"{subject} {printable_name(name)} leads out of the destination (..)"
        )
    if b"." in components[1:]:  # only in front: tar has other ideas of a/. than the kernel
        raise unsafe(member.name, f"{subject} {printable_name(name)} contains a . component")
    return b"/".join(word for word in components if word not in (b"", b"."))


def _only_inside_names(name: bytes) -> bool:
    """Return whether no dot begins a component; False for a name that ends with / as well."""
    return b"/." not in name and not name.startswith(b".") and not name.endswith(b"/")


def _with_mode(header: bytes, member: Member) -> bytes:
    """Return the header blocks with the member's mode, and its checksum put right."""
    end = member.header + BLOCK
    block = bytearray(header[member.header : end])
    block[100:108] = b"%07o\0" % member.mode
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return header[: member.header] + bytes(block) + header[end:]


class _EntryFilter:
    """Which members go on: those that are wanted, and the folders that they lie in."""

    def __init__(self, selects: Callable[[bytes], bool] | None) -> None:
        self._selects = selects
        self._way: list[tuple[Member, bytes]] = []  # folders that lead here
        self._prefixes: list[bytes] = []  # of the names in them
        self._chosen = names.Names()
        self._needed: set[bytes] = set()

    def take(self, member: Member, header: bytes) -> list[tuple[Member, bytes]]:
        """Return the members to hand on, each with its headers; none where it is not selected."""
        if self._selects is None:
            return [(member, header)]
        while self._way and not member.name.startswith(self._prefixes[-1]):
            self._way.pop()
            self._prefixes.pop()
        if not self._selects(member.name):
            if member.kind == "folder":
                self._way.append((member, header))
                self._prefixes.append(member.name + b"/")
            return []
        self._chosen.add(member.name)
        if member.kind == "link" and member.target not in self._chosen:
            self._needed.add(member.target)
        before, self._way, self._prefixes = self._way, [], []
        return [*before, (member, header)]

    def judge(self) -> None:
        """Raise MissingLinkTargetError where a hard link has no first name."""
        if self._needed:
            raise MissingLinkTargetError(frozenset(self._needed))
