"""Check the output of mysqlbinlog, and give it a delimiter that no author of a statement knows."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from mysql_backup import dump_statements, loading, readings, statements
from tools.base.errors import StoreError

_CHARSET = re.compile(rb"\s*/\*!\\C \w+ \*/\s*")  # a command of the client, by mysqlbinlog
_KINDS = frozenset(b"TABLE TABLES VIEW TRIGGER EVENT PROCEDURE FUNCTION SEQUENCE PACKAGE".split())
_DATABASES = (b"DATABASE", b"SCHEMA")
_BEFORE_NAME = frozenset(b"IF NOT EXISTS BODY INTO FROM LOW_PRIORITY HIGH_PRIORITY DELAYED".split())
_BEFORE_NAME |= {b"QUICK", b"IGNORE", b"TABLE"}
_SHOWN = 120  # bytes of a statement that are shown


def checked(events: Iterable[bytes], database: str) -> Iterator[bytes]:
    """Yield the events of one database.

    Raises StoreError for a statement that a client could end early: what follows would run with
    the privileges of the restoring user. Also for one that changes another database: its default
    database was this one, and on the target the other one may belong to somebody else.
    """
    own = database.encode("utf-8", "surrogateescape").lower()
    delimiter = loading.random_delimiter()
    yield b"DELIMITER " + delimiter + b"\n"
    for statement in statements.Reader(replay=True).read(events):
        if statement.command or not statement.tokens:
            continue
        text = statement.text[statement.start :]  # without the comments of mysqlbinlog
        if statement.keywords[:1] != (b"BINLOG",) and not _CHARSET.fullmatch(text):
            _check(statement, own)
            text = readings.unwrapped(text, statement.mode, same_charset=True)
        yield text + (b"\n" + delimiter + b"\n" if statement.delimiter else b"")


def _check(statement: statements.Statement, own: bytes) -> None:
    part = readings.difference(statement, same_charset=True)
    reason = f"a client and a server may read {part} in different ways"
    if not part:
        others = changed_databases(dump_statements.tokens(statement)) - {own}
        reason = ", ".join(sorted(one.decode("utf-8", "replace") for one in others))
        reason = f"it changes another database: {reason}" if others else ""
    if reason:
        shown = statement.text[statement.start :][:_SHOWN].decode("utf-8", "replace").strip()
        raise StoreError(
            f"--until: a statement in the binary logs is rejected: {shown!r}: {reason}",
            "Use --until with a position before it.",
        )


def changed_databases(listed: Sequence[statements.Token]) -> set[bytes]:
    """Return the databases that a statement names and changes, in lower case."""
    words = [token.word for token in listed]
    if words[:1] and words[0] in (
        b"INSERT",
        b"REPLACE",
        b"UPDATE",
        b"DELETE",
        b"TRUNCATE",
        b"LOAD",
    ):
        return _qualifiers(
            listed[_name(words, 1 if words[0] != b"LOAD" else _after_into(words)) :][:2]
        )
    if not words or words[0] not in (b"CREATE", b"DROP", b"ALTER", b"RENAME"):
        return set()
    kind = next((at for at, word in enumerate(words) if word in (*_KINDS, *_DATABASES)), 0)
    if not kind or b"TEMPORARY" in words[:kind]:
        return set()
    begin = _name(words, kind + 1)
    if words[kind] in _DATABASES:
        return {dump_statements.identifier(one).lower() for one in listed[begin : begin + 1]}
    found = _qualifiers(listed[begin : begin + 2])
    if words[0] in (b"DROP", b"RENAME"):
        return found | _qualifiers(listed[begin:])
    renamed = [at for at, word in enumerate(words) if words[0] == b"ALTER" and word == b"RENAME"]
    return found.union(*(_qualifiers(listed[at : at + 4]) for at in renamed))


def _after_into(words: Sequence[bytes]) -> int:
    return words.index(b"INTO") + 1 if b"INTO" in words else len(words)


def _name(words: Sequence[bytes], at: int) -> int:
    """Return the index of the first name, from here."""
    while at < len(words) and words[at] in _BEFORE_NAME:
        at += 1
    return at


def _qualifiers(listed: Sequence[statements.Token]) -> set[bytes]:
    """Return the names that stand before a dot, in lower case."""
    pairs = itertools.pairwise(listed)
    return {dump_statements.identifier(one).lower() for one, dot in pairs if dot.text == b"."}
