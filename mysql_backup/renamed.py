"""What still names the old database when a dump or binary logs go into one of another name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tools import plugin

if TYPE_CHECKING:
    from mysql_backup import instance
else:
    instance = plugin.load("mysql_backup/instance.py")

_EACH_ROW = re.compile(rb"\bFOR\s+EACH\s+ROW\b", re.IGNORECASE)
_SHOWN = 120  # bytes of a statement that are shown
_WARNINGS = 5  # statements that are named
_HINT = (
    "Under another name it would change that one: restore it by its own name, into another server."
)


def refuse_events(events: Iterable[bytes], old: str) -> None:
    """Raises RefusedError where a statement of mysqlbinlog names the old database."""
    edge = r"\b" if old.isidentifier() else ""
    named = re.compile(rf"{edge}{re.escape(old)}{edge}".encode(), re.IGNORECASE)
    rows = False  # within BINLOG '...', which is no text
    for line in lines(events):
        if not rows and not line.startswith(b"#") and named.search(line):
            raise instance.RefusedError(
                f"--until: a statement in the binary logs names the database {old} itself: "
                f"{_shown(line)}",
                _HINT,
            )
        rows = line.startswith(b"BINLOG '") or (rows and not line.startswith(b"'"))


def of_dump(chunks: Iterable[bytes], old: str) -> tuple[str, ...]:
    """Warnings of what a dump defines with the name of the old database: it still means that one.

    Reads all of it. Raises RefusedError where a trigger would be made there.
    """
    named, spaced = _qualified(old, ""), _qualified(old, r"\s*")
    found = []
    head = b""  # of a trigger: MariaDB keeps it as it was given
    for line in lines(chunks):
        text = line
        if head or (line.startswith(b"/*!50003 CREATE*/") and b" TRIGGER " in line):
            head += line + b"\n"
            if not (end := _EACH_ROW.search(head)):
                continue
            if spaced.search(head[: end.start()]):
                what = f"a trigger names the database {old} itself: {_shown(head)}"
                raise instance.RefusedError(what, _HINT)
            head, text = b"", head[end.end() :]
        if not text.startswith((b"INSERT INTO", b"--")) and named.search(text):
            found.append(f"it still names the database {old}: {_shown(line)}")
    more = len(found) - _WARNINGS
    return (*found[:_WARNINGS], *([f"{more} lines more name {old}"] if more > 0 else []))


def _qualified(old: str, space: str) -> re.Pattern[bytes]:
    """The database's name before a point; a comment may have one before a point and a space."""
    name = re.escape(old.replace("`", "``"))
    text = rf"(?:`{name}`|(?<![\w`.'@]){name}){space}\.{space}[`\w]"
    return re.compile(text.encode(), re.IGNORECASE)


def _shown(line: bytes) -> str:
    return line[:_SHOWN].decode("utf-8", "replace").strip()


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Each line, without its end."""
    parts: list[bytes] = []  # of a line that is not whole: a row may have a gigabyte
    for chunk in chunks:
        first, newline, rest = chunk.partition(b"\n")
        parts.append(first)
        if newline:
            yield b"".join(parts)
            *whole, last = rest.split(b"\n")
            yield from whole
            parts = [last]
    yield b"".join(parts)
