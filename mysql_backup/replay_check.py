"""Check the output of mysqlbinlog, and give it a delimiter that no author of a statement knows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from mysql_backup import loading, readings, statements
from tools.base.errors import StoreError

_CHARSET = re.compile(rb"\s*/\*!\\C \w+ \*/\s*")  # a command of the client, by mysqlbinlog
_SHOWN = 120  # bytes of a statement that are shown


def checked(events: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the events of one database.

    Raises StoreError for a statement that a client could end early: what follows would run with
    the privileges of the restoring user.
    """
    delimiter = loading.random_delimiter()
    yield b"DELIMITER " + delimiter + b"\n"
    for statement in statements.Reader(replay=True).read(events):
        if statement.command or not statement.tokens:
            continue
        text = statement.text[statement.start :]  # without the comments of mysqlbinlog
        if statement.keywords[:1] != (b"BINLOG",) and not _CHARSET.fullmatch(text):
            _check(statement)
            text = readings.unwrapped(text, statement.mode, same_charset=True)
        yield text + (b"\n" + delimiter + b"\n" if statement.delimiter else b"")


def _check(statement: statements.Statement) -> None:
    if part := readings.difference(statement, same_charset=True):
        shown = statement.text[statement.start :][:_SHOWN].decode("utf-8", "replace").strip()
        raise StoreError(
            f"--until: a statement in the binary logs is rejected: {shown!r}: a client and a "
            f"server may read {part} in different ways",
            "Use --until with a position before it.",
        )
