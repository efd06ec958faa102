"""The fileset as a stream: GNU tar's archive, and every message of tar understood.

Format: GNU tar, POSIX (pax) with ACLs and extended attributes, numeric owners, sparse files.
What tar's messages mean was read in GNU tar 1.34 (src/create.c, lib/paxerror.c) and in runs.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools import process
from tools.errors import ConfigError, SourceError
from tools.stream import Chunks

PRIVILEGED = Path("/usr/local/libexec/nc-backup/tar")  # a copy that may read everything
_END = 1024  # bytes: an archive ends with two blocks of zeros (POSIX.1-1988 ustar)
_FORMAT = [
    "--create",
    "--directory=/",
    "--format=posix",
    "--numeric-owner",
    "--acls",
    "--xattrs",
    "--xattrs-include=*",
    "--sparse",
    "--quoting-style=escape",
    "--no-wildcards-match-slash",
]
_FROM_LIST = ("--null", "--verbatim-files-from", "--files-from=-")
_LISTED = 1000  # names that a finding lists; more are counted

_CHANGED = re.compile(r"(?P<name>.*): file changed as we read it$")
_LOST = (
    re.compile(r"(?P<name>.*): (?P<what>File removed before we read it)$"),
    re.compile(r"(?P<name>.*): (?P<what>File shrank by \d+ bytes?; padding with zeros)$"),
    re.compile(
        r"(?P<name>.*): Cannot (?:open|stat|readlink|opendir|read|savedir|seek): (?P<what>.+)$"
    ),
    re.compile(r"(?P<name>.*): (?P<what>Read error at byte \d+, while reading \d+ bytes: .+)$"),
    re.compile(r"(?P<name>.*): Warning: Cannot (?P<what>(?:open|stat|seek|\w+attr\w*|acl_\w+).*)$"),
)
_NOTHING = (
    re.compile(r".*: socket ignored$"),
    re.compile(r".*: door ignored$"),
    re.compile(r"Removing leading .* from (?:member names|hard link targets)$"),
    re.compile(r".*: file is the archive; not dumped$"),
    re.compile(r"Exiting with failure status due to previous errors$"),
)


@dataclass
class Findings:
    """What tar said while it read: names that changed, names that are lost, and the rest."""

    changed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def take(self, line: str) -> None:
        """Understand one line of tar's standard error."""
        text = re.sub(r"^\S*tar: ", "", line)
        if not text or any(kind.match(text) for kind in _NOTHING):
            return
        changed = _CHANGED.match(text)
        lost = next((found for kind in _LOST if (found := kind.match(text))), None)
        if changed:
            self.changed.append(f"/{changed['name'].lstrip('/')}")
        elif lost:
            self.lost.append(f"/{lost['name'].lstrip('/')}: {lost['what'].lower()}")
        else:
            self.unknown.append(text)

    def judge(self) -> None:
        """Raise SourceError where tar said anything that is not understood."""
        if self.unknown:
            said = "\n".join(self.unknown[-process.TAIL :])
            raise SourceError(f"tar said what is not understood: {self.unknown[0]}", hint=said)


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


def tar_program() -> str:
    """The copy of tar that may read everything where there is one, else the tar on PATH.

    Raises ConfigError where there is none.
    """
    if os.access(PRIVILEGED, os.X_OK):
        return str(PRIVILEGED)
    found = shutil.which("tar")
    if found is None:
        raise ConfigError("there is no tar", "Install GNU tar.")
    return found


def excludes(fileset: Fileset) -> list[str]:
    """tar's options for what stays out; tar reads them in order, and they precede the names.

    A path that begins with / means that path and all below; anything else matches a name
    at any depth (`*.log`, `cache`). Private paths are taken by the letter.
    """
    words = []
    for path in fileset.private:
        spellings = {str(path), str(path.resolve())}
        words += [f"--exclude={spelling.lstrip('/')}" for spelling in sorted(spellings)]
    words = ["--anchored", "--no-wildcards", *words] if words else []
    for pattern in fileset.exclude:
        anchored = pattern.startswith("/")
        words += ["--anchored" if anchored else "--no-anchored", "--wildcards"]
        words.append(f"--exclude={pattern.strip('/') if anchored else pattern.rstrip('/')}")
    return words


def members(fileset: Fileset) -> list[bytes]:
    """The names that tar is given: relative to /, the inner one of two dropped.

    A configured path that is itself a link is stored as a link, and what it leads to as well.
    """
    wanted = dict.fromkeys(fileset.include)
    wanted.update({path.resolve(): None for path in fileset.include if path.is_symlink()})
    outer = [p for p in wanted if not any(p != q and p.is_relative_to(q) for q in wanted)]
    return [os.fsencode(path).lstrip(b"/") for path in outer]


def command(fileset: Fileset) -> list[str]:
    """tar's own command line: archive to standard output, names on standard input."""
    single = ["--one-file-system"] if fileset.one_file_system else []
    return [tar_program(), *_FORMAT, "--file=-", *single, *excludes(fileset), *_FROM_LIST]


def read(fileset: Fileset, findings: Findings) -> Iterator[bytes]:
    """The archive as chunks. Raises SourceError at its end where tar did not end well."""
    given = b"".join(name + b"\0" for name in members(fileset))
    env = {**os.environ, "LC_ALL": "C"}
    env.pop("TAR_OPTIONS", None)
    yield from whole(
        process.output(
            command(fileset), given=given, allowed=(0, 1, 2), notice=findings.take, env=env
        )
    )
    findings.judge()


def whole(chunks: Chunks) -> Iterator[bytes]:
    """A stage that changes nothing: raises SourceError where the archive has no end."""
    tail = b""
    for chunk in chunks:
        tail = (tail + chunk)[-_END:] if len(chunk) < _END else chunk[-_END:]
        yield chunk
    if len(tail) < _END or tail.strip(b"\0"):
        raise SourceError(
            "tar's archive stops before its end",
            "tar was ended, or ended itself, half-way through.",
        )
