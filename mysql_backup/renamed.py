"""What still names the old database when a dump or binary logs go into one of another name."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from mysql_backup import instance, statements

_SHOWN = 120  # bytes of a statement that are shown
_WARNINGS = 5  # statements that are named
_HINT = (
    "Restore the database under its own name into another server: a statement would change the "
    "original database."
)


def refuse_events(events: Iterable[bytes], old: str) -> None:
    """Raises RefusedError where a statement of mysqlbinlog names the old database."""
    edge = r"\b" if old.isidentifier() else ""
    named = re.compile(rf"{edge}{re.escape(old)}{edge}".encode(), re.IGNORECASE)
    rows = False  # within BINLOG '...', which is no text
    for line in lines(events):
        if not rows and not line.startswith(b"#") and named.search(line):
            raise instance.RefusedError(
                f"--until: a statement in the binary logs refers to database {old}: {_shown(line)}",
                _HINT,
            )
        rows = line.startswith(b"BINLOG '") or (rows and not line.startswith(b"'"))


def of_dump(chunks: Iterable[bytes], old: str) -> tuple[str, ...]:
    """Warnings of what a dump defines with the name of the old database: it still means that one.

    Reads all of it. Raises RefusedError where a trigger would be made there.
    """
    named = _qualified(old)
    found = []
    for statement in statements.Reader().read(chunks):
        if statement.is_data or statement.command or not statement.words:
            continue
        if b"TRIGGER" in statement.words:
            _refuse_trigger(statement, old)
        text = _moved(statement, old, "")[statement.start :]
        if place := named.search(text):
            line = text[text.rfind(b"\n", 0, place.start()) + 1 :].partition(b"\n")[0]
            found.append(f"still refers to database {old}: {_shown(line)}")
    more = len(found) - _WARNINGS
    return (*found[:_WARNINGS], *([f"{more} more statements refer to {old}"] if more > 0 else []))


def moved(statement: statements.Statement, old: str, new: str) -> bytes:
    """Return the text of a statement; a table's defaults take sequences of the new database.

    SHOW CREATE TABLE writes nextval(`old`.`sequence`) in full, also for its own database.
    """
    return _moved(statement, old, f"`{new.replace('`', '``')}`.")


def _moved(statement: statements.Statement, old: str, new: str) -> bytes:
    text: bytes = statement.text
    if statement.words[:2] != (b"CREATE", b"TABLE"):
        return text
    name = old.encode("utf-8", "surrogateescape")
    parts, at = [], 0
    for token, dot in itertools.pairwise(statement.tokens):
        if token.kind is statements.Kind.NAME and token.name == name and dot.text == b".":
            parts += [text[at : token.start], new.encode("utf-8", "surrogateescape")]
            at = dot.end
    return b"".join((*parts, text[at:]))


def _refuse_trigger(statement: statements.Statement, old: str) -> None:
    """MariaDB keeps a trigger as it was given: with the database's name, perhaps."""
    if statement.words[:1] != (b"CREATE",):
        return
    each = (at for at, token in enumerate(statement.tokens) if token.word == b"EACH")
    head = statement.tokens[: next(each, None)]
    name = old.encode("utf-8", "surrogateescape").lower()
    for token, dot in itertools.pairwise(head):
        if token.name.lower() == name and dot.text == b".":
            text = statement.text[statement.start :]
            raise instance.RefusedError(
                f"a trigger refers to database {old}: {_shown(text)}", _HINT
            )


def _qualified(old: str) -> re.Pattern[bytes]:
    """The database's name before a point, also within strings: they may be statements."""
    name = re.escape(old.replace("`", "``"))
    text = rf"(?:`{name}`|(?<![\w`.'@]){name})\.[`\w]"
    return re.compile(text.encode("utf-8", "surrogateescape"), re.IGNORECASE)


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
