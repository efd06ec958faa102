"""References to the old name of a database in a dump or in binary logs that are restored."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from mysql_backup import mysql_server, statements

_SHOWN = 120  # bytes of a statement that are shown
_WARNINGS = 5  # statements that are named
_HINT = (
    "Restore the database under its own name into another server: a statement would change the "
    "original database."
)


def reject_events_naming(events: Iterable[bytes], old: str) -> None:
    """Raise WouldOverwriteError if a statement of mysqlbinlog refers to the old database."""
    edge = r"\b" if old.isidentifier() else ""
    name_pattern = re.compile(rf"{edge}{re.escape(old)}{edge}".encode(), re.IGNORECASE)
    rows = False  # within BINLOG '...', which is base64
    for line in lines(events):
        if not rows and not line.startswith(b"#") and name_pattern.search(line):
            raise mysql_server.WouldOverwriteError(
                f"--until: a statement in the binary logs refers to database {old}: "
                f"{_shorten(line)}",
                _HINT,
            )
        rows = line.startswith(b"BINLOG '") or (rows and not line.startswith(b"'"))


def find_references(dump: Iterable[statements.Statement], old: str) -> tuple[str, ...]:
    """Return warnings on definitions in a dump that still refer to the old database.

    Reads all of it. Raises WouldOverwriteError if a trigger would be created there.
    """
    qualified_name = _qualified(old)
    warnings = []
    for statement in dump:
        if statement.is_data or statement.command or not statement.keywords:
            continue
        if b"TRIGGER" in statement.keywords:
            _reject_trigger(statement, old)
        text = _rename(statement, old, "")[statement.start :]
        if match := qualified_name.search(text):
            line = text[text.rfind(b"\n", 0, match.start()) + 1 :].partition(b"\n")[0]
            warnings.append(f"still refers to database {old}: {_shorten(line)}")
    more = len(warnings) - _WARNINGS
    return (
        *warnings[:_WARNINGS],
        *([f"{more} more statements refer to {old}"] if more > 0 else []),
    )


def rename_references(statement: statements.Statement, old: str, new: str) -> bytes:
    """Return the text of a statement; a table's defaults take sequences of the new database.

    SHOW CREATE TABLE writes nextval(`old`.`sequence`) in full, also for its own database.
    """
    return _rename(statement, old, f"`{new.replace('`', '``')}`.")


def rename_database(statement: statements.Statement, new: str) -> bytes:
    """Return ALTER DATABASE, which stands around objects of another collation, for a new name."""
    name = next(one for one in statement.tokens if one.kind is statements.Kind.NAME)
    quoted = mysql_server.quote_identifier(new).encode("utf-8", "surrogateescape")
    return statement.text[: name.start] + quoted + statement.text[name.end :]


def _rename(statement: statements.Statement, old: str, new: str) -> bytes:
    text: bytes = statement.text
    if statement.keywords[:2] != (b"CREATE", b"TABLE"):
        return text
    name = old.encode("utf-8", "surrogateescape")
    parts, at = [], 0
    for token, dot in itertools.pairwise(statement.tokens):
        if token.kind is statements.Kind.NAME and token.name == name and dot.text == b".":
            parts += [text[at : token.start], new.encode("utf-8", "surrogateescape")]
            at = dot.end
    return b"".join((*parts, text[at:]))


def _reject_trigger(statement: statements.Statement, old: str) -> None:
    """Raise WouldOverwriteError for a trigger with the old name, which MariaDB keeps verbatim."""
    if statement.keywords[:1] != (b"CREATE",):
        return
    each = (at for at, token in enumerate(statement.tokens) if token.word == b"EACH")
    head = statement.tokens[: next(each, None)]
    name = old.encode("utf-8", "surrogateescape").lower()
    for token, dot in itertools.pairwise(head):
        if token.name.lower() == name and dot.text == b".":
            text = statement.text[statement.start :]
            raise mysql_server.WouldOverwriteError(
                f"a trigger refers to database {old}: {_shorten(text)}", _HINT
            )


def _qualified(old: str) -> re.Pattern[bytes]:
    """Return a pattern for the name before a dot, also in strings, which may be statements."""
    name = re.escape(old.replace("`", "``"))
    text = rf"(?:`{name}`|(?<![\w`.'@]){name})\.[`\w]"
    return re.compile(text.encode("utf-8", "surrogateescape"), re.IGNORECASE)


def _shorten(line: bytes) -> str:
    return line[:_SHOWN].decode("utf-8", "replace").strip()


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield each line without its end."""
    parts: list[bytes] = []  # of an incomplete line: a row may have a gigabyte
    for chunk in chunks:
        first, newline, rest = chunk.partition(b"\n")
        parts.append(first)
        if newline:
            yield b"".join(parts)
            *complete, last = rest.split(b"\n")
            yield from complete
            parts = [last]
    yield b"".join(parts)
