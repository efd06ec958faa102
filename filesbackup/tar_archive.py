"""Run GNU tar on a fileset and parse each of its messages.

Source of the messages: GNU tar 1.34 (src/create.c, lib/paxerror.c), and runs of it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filesbackup import tar_patterns, tar_privilege, tar_sudo
from filesbackup.archive_members import ArchiveMembers
from tools import date_str_utils
from tools.base import fixed_tar, foreign, hung_mount
from tools.base.bounded_list import BoundedList
from tools.base.errors import SourceError
from tools.base.path_patterns import PathPattern, compile_pattern
from tools.flow import process, tar

EXCLUDE = "FILESET_EXCLUDE"
_MAX_ARGUMENTS = 1 << 15  # bytes of names on a command line
_MAX_LISTED = 1000  # names in warnings and notes; the others are counted

_CHANGED = re.compile(r"(?P<name>.*): file changed as we read it$")
_UNREADABLE = (
    re.compile(r"(?P<name>.*): (?P<what>File removed before we read it)$"),
    re.compile(r"(?P<name>.*): (?P<what>File shrank by \d+ bytes?; padding with zeros)$"),
    re.compile(r"(?P<name>.*): (?P<what>Unknown file type; file ignored)$"),
    re.compile(
        r"(?P<name>.*): Cannot (?:open|stat|readlink|opendir|read|savedir|seek): (?P<what>.+)$"
    ),
    re.compile(r"(?P<name>.*): (?P<what>Read error at byte \d+, while reading \d+ bytes?: .+)$"),
    re.compile(r"(?P<name>.*): Warning: Cannot (?P<what>(?:open|stat|seek|\w+attr\w*|acl_\w+).*)$"),
)
_UNSUPPORTED = re.compile(r"(?:POSIX )?(?P<what>ACL|XATTR) support is not available$")
_SOCKET = re.compile(r"(?P<name>.*): (?:socket|door) ignored$")
_IGNORED = (
    re.compile(r"Removing leading .* from (?:member names|hard link targets)$"),
    re.compile(r".*: file is the archive; not dumped$"),
    re.compile(r".*: file is on a different filesystem; not dumped$"),
    re.compile(r"Exiting with failure status due to previous errors$"),
    re.compile(r"sudo: unable to resolve host .*$"),
)
_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92}
_MAX_NAMED = 3  # names in one note; the others are counted


def unquote_name(name: str) -> bytes:
    """Return the bytes of a name that tar printed with --quoting-style=escape."""
    decoded = bytearray()
    for octal, character, plain in re.findall(r"\\([0-7]{3})|\\(.)|([^\\]+)", name):
        if octal:
            decoded.append(int(octal, 8) & 0xFF)
        elif character:
            decoded += bytes([_ESCAPES[character]]) if character in _ESCAPES else character.encode()
        else:
            decoded += plain.encode("utf-8", "surrogateescape")
    return bytes(decoded)


def printable_name(name: bytes) -> str:
    """Return a name on one line; unprintable characters and the backslash are escaped."""
    return foreign.printable(foreign.decoded(name.replace(b"\\", b"\\\\")))


def _printable_path(quoted: str) -> str:
    return printable_name(b"/" + unquote_name(quoted).lstrip(b"/"))


def _first_lines() -> BoundedList:
    return BoundedList(_MAX_LISTED)


@dataclass
class TarMessages:
    """The messages of tar, by name.

    changed: files that changed while they were read; unreadable: not stored, or truncated;
    sockets: never stored by tar; unknown: unrecognized lines; members: what is in the archive.
    Of each the first are kept and all are counted.
    """

    changed: BoundedList = field(default_factory=_first_lines)
    unreadable: BoundedList = field(default_factory=_first_lines)
    unknown: BoundedList = field(default_factory=_first_lines)
    sockets: BoundedList = field(default_factory=_first_lines)
    members: ArchiveMembers = field(default_factory=ArchiveMembers)

    def look(self, chunk: bytes) -> None:
        """Look at the next bytes of the archive."""
        self.members.add_chunk(chunk)

    def add_line(self, line: str) -> None:
        """Parse one line of tar's standard error."""
        text = re.sub(r"^\S*tar: ", "", line)
        if not text or any(kind.match(text) for kind in _IGNORED):
            return
        if socket := _SOCKET.match(text):
            self.sockets.append(_printable_path(socket["name"]))
            return
        changed = _CHANGED.match(text)
        unreadable = next((match for kind in _UNREADABLE if (match := kind.match(text))), None)
        unsupported = _UNSUPPORTED.match(text)
        if changed:
            self.changed.append(_printable_path(changed["name"]))
        elif unreadable:
            self.unreadable.append(
                f"{_printable_path(unreadable['name'])}: {unreadable['what'].lower()}"
            )
        elif unsupported:
            names = {"ACL": "ACLs", "XATTR": "extended attributes"}[unsupported["what"]]
            self.unreadable.append(f"{names} not stored: this tar does not support them")
        else:
            self.unknown.append(text)

    def explains_exit(self, code: int) -> bool:
        """Return whether the messages explain the exit code.

        1: files changed; 2: files are unreadable. Unknown messages are for `raise_on_error`.
        """
        if self.unknown and code > 0:
            return True
        return (
            code == 0
            or (code == 1 and bool(self.changed))
            or (code in (1, 2) and bool(self.unreadable))
        )

    def raise_on_error(self) -> None:
        """Raise SourceError if tar printed an unrecognized message."""
        if self.unknown:
            lines = "\n".join(self.unknown[-process.TAIL :])
            raise SourceError(f"tar: unrecognized message: {self.unknown[0]}", hint=lines)

    def left_out(self) -> tuple[str, ...]:
        """Return a note on the files that tar never stores: sockets."""
        if not self.sockets:
            return ()
        count = date_str_utils.count(self.sockets.total, "socket")
        return (f"{count} not stored: {first_names(self.sockets, self.sockets.more)}",)


def first_names(names: Sequence[str], more: int = 0) -> str:
    """Return the first names on one line, and the number of the others. more: not in `names`."""
    more += max(0, len(names) - _MAX_NAMED)
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def summarize_names(names: Sequence[str], more: int = 0) -> tuple[str, ...]:
    """Return the first names, and a line with the number of the others. more: not in `names`."""
    more += max(0, len(names) - _MAX_LISTED)
    return (*names[:_MAX_LISTED], *((f"and {more} more",) if more > 0 else ()))


@dataclass(frozen=True)
class Fileset:
    """The content of an archive.

    include: absolute paths that exist; exclude: paths and patterns of the config;
    private: absolute paths that are never stored
    """

    include: tuple[Path, ...]
    exclude: tuple[str, ...] = ()
    private: tuple[Path, ...] = ()
    one_file_system: bool = False


def exclude_patterns(fileset: Fileset, top: str = "") -> list[tuple[str, str]]:
    """Return what tar leaves out: patterns, each with its mode (fixed_tar.MODES).

    Private paths are literal, as configured and with links resolved. `top` is the prefix of member
    names: "" if tar runs in /, else "/".
    """
    patterns = []
    for path in fileset.private:
        spellings = {str(path), str(private_path(path))}
        literal = (f"{top}{spelling.lstrip('/')}" for spelling in sorted(spellings))
        patterns += [(fixed_tar.LITERAL, text) for text in literal]
    for text in fileset.exclude:
        for pattern in compiled(text):
            for one in tar_patterns.translate(pattern):
                patterns.append((one.mode, f"{top if one.anchored else ''}{one.text}"))
    return patterns


def excludes(fileset: Fileset, top: str = "") -> list[str]:
    """Return tar's exclude options; their order matters, and they precede the names."""
    return [
        word
        for mode, text in exclude_patterns(fileset, top)
        for word in (*fixed_tar.MODES[mode], f"--exclude={text}")
    ]


def private_path(path: Path) -> Path:
    """Return the real path of a store or a key; as configured where its mount does not answer."""
    return hung_mount.real_path(path, hung_mount.OTHERS)


def compiled(text: str) -> list[PathPattern]:
    """Return an exclude as configured, and with links resolved if it is a path.

    Member names are real paths. Raises ConfigError.
    """
    pattern = compile_pattern(text, EXCLUDE)
    if not pattern.anchored:
        return [pattern]
    real = "/" + _resolve_links(os.path.normpath(text).lstrip("/"))
    resolved = compile_pattern(real, EXCLUDE)
    return [pattern] if resolved.tokens == pattern.tokens else [pattern, resolved]


def _resolve_links(pattern: str) -> str:
    """Resolve the links in the literal beginning of a path pattern (without its leading /).

    Member names are real paths. The last component is not resolved, so a link can be excluded.
    """
    parts = pattern.split("/")
    literal = list(itertools.takewhile(lambda part: not re.search(r"[*?\[\\]", part), parts[:-1]))
    real = os.path.realpath("/" + "/".join(literal)).strip("/")
    escaped = re.sub(r"([*?\[\\])", r"\\\1", real)
    return "/".join(filter(None, (escaped, *parts[len(literal) :])))


def configured_names(fileset: Fileset) -> list[bytes]:
    """Return the names of all configured paths, relative to /.

    All are real paths. If a configured path is or contains a link, the link is stored as a link
    and its destination under the real path. So nothing is stored twice, and an exclude of a real
    path always applies.
    """
    return [os.fsencode(path).lstrip(b"/") for path in _real_paths(fileset)]


def _real_paths(fileset: Fileset) -> list[Path]:
    paths: dict[Path, None] = {}
    for path in fileset.include:
        links = [folder for folder in (path, *path.parents) if _is_link(folder)]
        paths.update({Path(os.path.realpath(link.parent)) / link.name: None for link in links})
        paths[Path(os.path.realpath(path))] = None
    return list(paths)


def tar_members(fileset: Fileset) -> list[bytes]:
    """Return the names for tar: the configured ones without those inside another one."""
    paths = _real_paths(fileset)
    single = fileset.one_file_system
    outer = [
        path
        for path in paths
        if not any(
            path != other
            and path.is_relative_to(other)
            and not (single and _crosses_mount_point(path, other))
            for other in paths
        )
    ]
    return [os.fsencode(path).lstrip(b"/") for path in outer]


def _is_link(path: Path) -> bool:
    return os.path.islink(path)  # noqa: PTH114  (Path.is_symlink raises without permission)


def _crosses_mount_point(inner: Path, outer: Path) -> bool:
    """Return whether --one-file-system would keep tar from reaching inner from outer."""
    folders = [folder for folder in (inner, *inner.parents) if folder.is_relative_to(outer)]
    try:
        return len({folder.lstat().st_dev for folder in folders}) > 1
    except OSError:
        return True


def command(
    fileset: Fileset, names: Sequence[bytes], program: str = "tar"
) -> tuple[list[str], bytes]:
    """Return the command line of tar, with the archive on standard output, and its input.

    Few names stand on the command line: with a list as its input, GNU tar 1.34 keeps about 80
    bytes for every file that it stores.
    """
    single = [fixed_tar.SINGLE] if fileset.one_file_system else []
    options = [program, *fixed_tar.FORMAT, *fixed_tar.MESSAGE_OPTIONS, "--file=-", *single]
    options += excludes(fileset)
    few = 0 < len(names) <= _MAX_ARGUMENTS // 64 and sum(map(len, names)) <= _MAX_ARGUMENTS
    if not few:
        return [*options, *fixed_tar.FROM_LIST], _listed(names)
    return [*options, "--", *map(os.fsdecode, names)], b""


def _listed(names: Sequence[bytes]) -> bytes:
    return b"".join(name + b"\0" for name in names)


def read(fileset: Fileset, messages: TarMessages) -> Iterator[bytes]:
    """Yield the archive. Raises SourceError at its end if tar failed."""
    reader = tar_privilege.reader()
    tar.version(reader.program)
    names = tar_members(fileset)
    with contextlib.ExitStack() as until_it_reads:
        if reader.way is tar_privilege.Way.SUDO:
            by_sudo = tar_sudo.command(exclude_patterns(fileset), single=fileset.one_file_system)
            argv, stdin = until_it_reads.enter_context(by_sudo), _listed(names)
        else:
            argv, stdin = command(fileset, names, reader.program)
        chunks = process.output(
            argv,
            stdin_data=stdin,
            allowed=messages.explains_exit,
            notice=messages.add_line,
            env=tar.environment(),
            capable=reader.raised,
        )
        head = next(chunks, b"")
    yield from tar.whole(itertools.chain([head], chunks), messages.look)
    messages.raise_on_error()
