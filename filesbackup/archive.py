"""The fileset as a stream: GNU tar's archive, and every message of tar understood.

Format: GNU tar, POSIX (pax) with ACLs and extended attributes, numeric owners, sparse files.
What tar's messages mean was read in GNU tar 1.34 (src/create.c, lib/paxerror.c) and in runs.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filesbackup import longnames
from tools import date_str_utils
from tools.base.errors import SourceError
from tools.flow import process, tar

_FORMAT = [
    "--create",
    "--directory=/",
    "--format=posix",
    "--numeric-owner",
    "--acls",
    "--xattrs",
    "--xattrs-include=*",
    "--sparse",
]
# Names are taken by the letter, and can be read back in messages; a * in an exclude stays
# within one folder.
SPOKEN = ("--no-unquote", "--quoting-style=escape", "--no-wildcards-match-slash")
FROM_LIST = ("--null", "--verbatim-files-from", "--files-from=-")
_LISTED = 1000  # names that a finding lists; more are counted

_CHANGED = re.compile(r"(?P<name>.*): file changed as we read it$")
_LOST = (
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
_NOTHING = (
    re.compile(r"Removing leading .* from (?:member names|hard link targets)$"),
    re.compile(r".*: file is the archive; not dumped$"),
    re.compile(r".*: file is on a different filesystem; not dumped$"),
    re.compile(r"Exiting with failure status due to previous errors$"),
    re.compile(r"sudo: unable to resolve host .*$"),
)
_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92}
_NAMED = 3  # names that a note gives; more are counted


def unquoted(name: str) -> bytes:
    """The bytes of a name that tar has written with --quoting-style=escape."""
    found = bytearray()
    for octal, sign, plain in re.findall(r"\\([0-7]{3})|\\(.)|([^\\]+)", name):
        if octal:
            found.append(int(octal, 8) & 0xFF)
        elif sign:
            found += bytes([_ESCAPES[sign]]) if sign in _ESCAPES else sign.encode()
        else:
            found += plain.encode("utf-8", "surrogateescape")
    return bytes(found)


def shown(name: bytes) -> str:
    """A name on one line: what cannot be printed, and the backslash, is escaped."""
    text = name.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _named(quoted: str) -> str:
    return shown(b"/" + unquoted(quoted).lstrip(b"/"))


@dataclass
class Findings:
    """What tar said while it read, by names.

    changed: while they were read; lost: not stored, or not whole; sockets: left out by
    tar's own rule; unknown: lines that are not understood; long: paths that are too long
    """

    changed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    sockets: list[str] = field(default_factory=list)
    long: longnames.LongNames = field(default_factory=longnames.LongNames)

    def take(self, line: str) -> None:
        """Understand one line of tar's standard error."""
        text = re.sub(r"^\S*tar: ", "", line)
        if not text or any(kind.match(text) for kind in _NOTHING):
            return
        if socket := _SOCKET.match(text):
            self.sockets.append(_named(socket["name"]))
            return
        changed = _CHANGED.match(text)
        lost = next((found for kind in _LOST if (found := kind.match(text))), None)
        unsupported = _UNSUPPORTED.match(text)
        if changed:
            self.changed.append(_named(changed["name"]))
        elif lost:
            self.lost.append(f"{_named(lost['name'])}: {lost['what'].lower()}")
        elif unsupported:
            names = {"ACL": "ACLs", "XATTR": "extended attributes"}[unsupported["what"]]
            self.lost.append(f"{names} not stored: this tar does not support them")
        else:
            self.unknown.append(text)

    def explain(self, code: int) -> bool:
        """Whether tar's exit code is one that what it said accounts for.

        1: files changed; 2: files are lost. What is not understood is for `judge`.
        """
        if self.unknown and code > 0:
            return True
        return (
            code == 0 or (code == 1 and bool(self.changed)) or (code in (1, 2) and bool(self.lost))
        )

    def judge(self) -> None:
        """Raise SourceError where tar said what is not understood."""
        if self.unknown:
            said = "\n".join(self.unknown[-process.TAIL :])
            raise SourceError(f"tar: unrecognized message: {self.unknown[0]}", hint=said)

    def left_out(self) -> tuple[str, ...]:
        """Return what tar did not store by its own rules: notes."""
        if not self.sockets:
            return ()
        count = date_str_utils.count(len(self.sockets), "socket")
        return (f"{count} not stored: {few(self.sockets)}",)


def few(names: Sequence[str]) -> str:
    """Return the first names on one line, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def bounded(names: Sequence[str]) -> tuple[str, ...]:
    """The first names, and how many more there are."""
    more = len(names) - _LISTED
    return (*names[:_LISTED], *((f"and {more} more",) if more > 0 else ()))


@dataclass(frozen=True)
class Fileset:
    """What goes into an archive.

    include: absolute paths that exist; exclude: paths and patterns of the user;
    private: absolute paths that must never be in it
    """

    include: tuple[Path, ...]
    exclude: tuple[str, ...] = ()
    private: tuple[Path, ...] = ()
    one_file_system: bool = False


def excludes(fileset: Fileset, top: str = "") -> list[str]:
    """tar's options for what stays out; tar reads them in order, and they precede the names.

    A path that begins with / means that path and all below; anything else matches a name
    at any depth (`*.log`, `cache`). Private paths are taken by the letter, as given and
    without links. `top` is what member names begin with: "" where tar works from /, else "/".
    """
    words = []
    for path in fileset.private:
        spellings = {str(path), os.path.realpath(path)}
        words += [f"--exclude={top}{spelling.lstrip('/')}" for spelling in sorted(spellings)]
    words = ["--anchored", "--no-wildcards", *words] if words else []
    for pattern in fileset.exclude:
        anchored = pattern.startswith("/")
        clean = os.path.normpath(pattern).lstrip("/")
        words += ["--anchored" if anchored else "--no-anchored", "--wildcards"]
        spelt = dict.fromkeys((clean, _without_links(clean))) if anchored else (clean,)
        words += [f"--exclude={top if anchored else ''}{spelling}" for spelling in spelt]
    return words


def _without_links(pattern: str) -> str:
    """A pattern for a path (without its first /), the links in its literal beginning followed.

    Member names are real paths; the last part is left, so that a link itself can be excluded.
    """
    parts = pattern.split("/")
    literal = list(itertools.takewhile(lambda part: not re.search(r"[*?\[\\]", part), parts[:-1]))
    real = os.path.realpath("/" + "/".join(literal)).strip("/")
    escaped = re.sub(r"([*?\[\\])", r"\\\1", real)
    return "/".join(filter(None, (escaped, *parts[len(literal) :])))


def configured(fileset: Fileset) -> list[bytes]:
    """Return the names of all configured paths, relative to /.

    All are real paths: where a configured path is or goes over a link, the link is stored
    as a link, and what it leads to under its real path. So nothing is stored twice, and an
    exclude by real path cannot be got round.
    """
    return [os.fsencode(path).lstrip(b"/") for path in _wanted(fileset)]


def _wanted(fileset: Fileset) -> list[Path]:
    wanted: dict[Path, None] = {}
    for path in fileset.include:
        links = [place for place in (path, *path.parents) if _is_link(place)]
        wanted.update({Path(os.path.realpath(link.parent)) / link.name: None for link in links})
        wanted[Path(os.path.realpath(path))] = None
    return list(wanted)


def members(fileset: Fileset) -> list[bytes]:
    """Return the names that tar is given: those that are configured, the inner of two dropped."""
    wanted = _wanted(fileset)
    single = fileset.one_file_system
    outer = [
        path
        for path in wanted
        if not any(
            path != other and path.is_relative_to(other) and not (single and _apart(path, other))
            for other in wanted
        )
    ]
    return [os.fsencode(path).lstrip(b"/") for path in outer]


def _is_link(path: Path) -> bool:
    return os.path.islink(path)  # noqa: PTH114  (Path.is_symlink raises where we may not look)


def _apart(inner: Path, outer: Path) -> bool:
    """Whether --one-file-system would keep tar from coming from outer to inner."""
    way = [place for place in (inner, *inner.parents) if place.is_relative_to(outer)]
    try:
        return len({place.lstat().st_dev for place in way}) > 1
    except OSError:
        return True


def command(fileset: Fileset) -> list[str]:
    """tar's own command line: archive to standard output, names on standard input."""
    program = tar.program()
    tar.version(program)
    single = ["--one-file-system"] if fileset.one_file_system else []
    return [program, *_FORMAT, *SPOKEN, "--file=-", *single, *excludes(fileset), *FROM_LIST]


def read(fileset: Fileset, findings: Findings) -> Iterator[bytes]:
    """The archive as chunks. Raises SourceError at its end where tar did not end well."""
    given = b"".join(name + b"\0" for name in members(fileset))
    argv = command(fileset)
    yield from tar.whole(
        process.output(
            argv,
            given=given,
            allowed=findings.explain,
            notice=findings.take,
            env=tar.environment(),
        ),
        findings.long.take,
    )
    findings.judge()
