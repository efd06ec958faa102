"""The messages of GNU tar while it unpacks or lists: which member it is about, and how bad it is.

Only lines of a known kind are taken for the trouble of one member; with any other line a tar that
ended with an error has failed as a whole. Needs LC_ALL=C and --quoting-style=escape.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from restore import archive_errors
from restore.lines import Lines
from restore.names import Names
from tools.base.bounded_list import BoundedList

_NAME = r"(?P<name>(?:[^:\\]|\\.)*)"
_WHY = r": (?P<why>[^:]+)"
_CREATE = re.compile(
    rf"{_NAME}: Cannot (?P<what>open|mkdir|mknod|mkfifo|hard link to '.*'"
    rf"|create symlink to '.*'){_WHY}"
)
_CONTENT = re.compile(rf"{_NAME}: Cannot (?P<what>seek to \d+|truncate|ftruncate|write){_WHY}")
_SET = re.compile(
    rf"{_NAME}: (?:Warning: )?Cannot (?P<what>change ownership to uid \d+, gid \d+"
    r"|change mode to [-a-zA-Z]+|utime|acl_\w+|set \w+|setfilecon|lsetfilecon|setfileconat"
    rf"|\w*chflags|change \w+){_WHY}"
)
_ATTRIBUTE = re.compile(
    r"\w+: Cannot set '(?P<what>.*)' extended attribute for file '(?P<name>.*)'" + _WHY
)
_HARMLESS = re.compile(
    rf"{_NAME}: (?:implausibly old time stamp .*|time stamp .* is .* s in the future)"
    r"|Ignoring unknown extended header keyword '.*'"
    r"|Extracting contiguous files as regular files"  # only old systems knew a difference
    r"|Exiting with failure status due to previous errors"
)
# What the disk or the machine refuses is no trouble of one member: the next one has it as well.
_EVERYWHERE = (
    "No space left on device",
    "Disk quota exceeded",
    "Input/output error",
    "Read-only file system",
    "Too many open files",
    "Too many open files in system",
    "Cannot allocate memory",
    "Stale file handle",
    "Transport endpoint is not connected",
)
_TOO_LARGE = ("File too large", "Invalid argument")  # why a sparse file cannot be so long
_ESCAPES = {
    b"n": b"\n",
    b"t": b"\t",
    b"r": b"\r",
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"v": b"\v",
}
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)


_MOST_UNKNOWN = 1000  # lines that are kept


class Trouble(NamedTuple):
    """What became of one member.

    name: as it stands in the archive; missing: it is not there (else something of it is not set)
    partial: a file of its name may hold a part of it; owner: its owner could not be set
    """

    name: bytes
    why: str
    missing: bool = False
    partial: bool = False
    owner: bool = False

    def line(self) -> str:
        """Return the trouble as one line."""
        return f"{archive_errors.printable_name(self.name)}: {self.why}"


class Messages:
    """Takes each line of tar's standard error, and judges all of them at its end.

    lost: members that are not there; unset: what of others is not set; missing: the names of lost
    partial: names of lost members of which a part may be there; of_others: names of members whose
    owner could not be set; unknown: lines of no known kind
    """

    def __init__(self, program: str) -> None:
        self._prefix = f"{program}: "
        self.lost = Lines()
        self.unset = Lines()
        self.missing = Names()
        self.partial: list[bytes] = []
        self.of_others: list[bytes] = []
        self.unknown = BoundedList(_MOST_UNKNOWN)

    def take(self, line: str) -> None:
        """Take one line."""
        text = line.removeprefix(self._prefix)
        if trouble := _trouble(text):
            self._add(trouble)
        elif not _HARMLESS.fullmatch(text):
            self.unknown.append(text)

    def _add(self, trouble: Trouble) -> None:
        (self.lost if trouble.missing else self.unset).add(trouble.line())
        if trouble.missing:
            self.missing.add(trouble.name)
        if trouble.partial:
            self.partial.append(trouble.name)
        if trouble.owner:
            self.of_others.append(trouble.name)

    def allowed(self, code: int) -> bool:
        """Return whether everything that is not as it should be is known by name."""
        named = bool(self.lost.count or self.unset.count)
        return code == 0 or (code == 2 and named and not self.unknown)  # noqa: PLR2004

    def error(self) -> str:
        """Return the line that best explains why tar failed."""
        return next(iter(self.unknown), "tar did not say why")


def _trouble(text: str) -> Trouble | None:
    """Return the trouble of one member that a line reports; None for any other line."""
    if match := _CREATE.fullmatch(text):
        return None if match["why"] in _EVERYWHERE else _trouble_of(match, missing=True)
    if match := _CONTENT.fullmatch(text):
        return (
            _trouble_of(match, missing=True, partial=True) if match["why"] in _TOO_LARGE else None
        )
    if match := _SET.fullmatch(text):
        return _trouble_of(match, owner="ownership" in match["what"])
    if match := _ATTRIBUTE.fullmatch(text):
        return _trouble_of(match)
    return None


def _trouble_of(match: re.Match[str], **kinds: bool) -> Trouble:
    subject = match["what"].partition(" '")[0]  # a link's target may be long
    cannot = {
        "open": "cannot be created",
        "hard link to": "cannot be created as a hard link",
        "create symlink to": "cannot be created as a symbolic link",
    }
    problem = cannot.get(
        subject, f"{subject} failed" if kinds.get("missing") else f"{subject}: not set"
    )
    name = unescaped(match["name"].encode("utf-8", "surrogateescape"))
    return Trouble(name, f"{problem}: {match['why'].lower()}", **kinds)


def unescaped(name: bytes) -> bytes:
    """Return a name as it is, from what tar's --quoting-style=escape wrote."""
    if b"\\" not in name:
        return name

    def plain(match: re.Match[bytes]) -> bytes:
        word = match[1]
        return bytes([int(word, 8) & 0xFF]) if len(word) == 3 else _ESCAPES.get(word, word)  # noqa: PLR2004

    return _ESCAPE.sub(plain, name)
