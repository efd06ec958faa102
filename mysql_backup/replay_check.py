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
_LISTS = frozenset(b"UPDATE DELETE FROM USING JOIN STRAIGHT_JOIN".split())  # tables follow
_AFTER_LISTS = frozenset(b"SET WHERE ORDER LIMIT RETURNING".split())
_DATA = frozenset(b"INSERT REPLACE UPDATE DELETE TRUNCATE LOAD".split())
_DEFINITIONS = (b"CREATE", b"DROP", b"ALTER", b"RENAME")
_SHOWN = 120  # bytes of a statement that are shown


def checked(events: Iterable[bytes], database: str) -> Iterator[bytes]:
    """Yield the events of one database.

    Raises StoreError for a statement that a client could end early: what follows would run with
    the privileges of the restoring user. Also for one that changes another database: its default
    database was this one, and on the target the other one may belong to somebody else.
    """
    restored = database.encode("utf-8", "surrogateescape").lower()
    delimiter = loading.random_delimiter()
    yield b"DELIMITER " + delimiter + b"\n"
    for statement in statements.Reader(replay=True).read(events):
        if statement.command or not statement.tokens:
            continue
        text = statement.text[statement.start :]  # without the comments of mysqlbinlog
        if statement.keywords[:1] != (b"BINLOG",) and not _CHARSET.fullmatch(text):
            _check(statement, restored)
            text = readings.unwrapped(text, statement.mode, same_charset=True)
        yield text + (b"\n" + delimiter + b"\n" if statement.delimiter else b"")


def _check(statement: statements.Statement, restored: bytes) -> None:
    part = readings.difference(statement, same_charset=True)
    reason = f"a client and a server may read {part} in different ways"
    if not part:
        others = changed_databases(dump_statements.tokens(statement)) - {restored}
        reason = ", ".join(sorted(one.decode("utf-8", "replace") for one in others))
        reason = f"it changes another database: {reason}" if others else ""
    if reason:
        shown = statement.text[statement.start :][:_SHOWN].decode("utf-8", "replace").strip()
        raise StoreError(
            f"--until: a statement in the binary logs is rejected: {shown!r}: {reason}",
            "Use --until with a position before it.",
        )


def changed_databases(listed: Sequence[statements.Token]) -> set[bytes]:
    """Return the databases that a statement names and changes, in lower case.

    Of an UPDATE or DELETE of several tables, those of all tables: which of them it changes may
    depend on aliases and columns.
    """
    verb = listed[0].word if listed else b""
    if verb == b"WITH":  # common table expressions before an UPDATE or DELETE
        begin = next((at for at, word in _outside(listed) if word in _DATA), len(listed))
        return changed_databases(listed[begin:])
    if verb in (b"UPDATE", b"DELETE"):
        return set().union(*(_qualifiers(listed[at : at + 3]) for at in _tables(listed)))
    keywords = [token.word for token in listed]
    if verb in _DATA:
        begin = _after_into(keywords) if verb == b"LOAD" else 1
        return _qualifiers(listed[_name(keywords, begin) :][:2])
    return _defined(listed, keywords) if verb in _DEFINITIONS else set()


def _defined(listed: Sequence[statements.Token], keywords: Sequence[bytes]) -> set[bytes]:
    """Return the databases that CREATE, DROP, ALTER or RENAME changes, in lower case."""
    kind = next((at for at, word in enumerate(keywords) if word in (*_KINDS, *_DATABASES)), 0)
    if not kind or b"TEMPORARY" in keywords[:kind]:
        return set()
    begin = _name(keywords, kind + 1)
    if keywords[kind] in _DATABASES:
        return {dump_statements.identifier(one).lower() for one in listed[begin : begin + 1]}
    qualifiers = _qualifiers(listed[begin : begin + 2])
    if keywords[0] in (b"DROP", b"RENAME"):
        return qualifiers | _qualifiers(listed[begin:])
    renamed = [
        at for at, word in enumerate(keywords) if keywords[0] == b"ALTER" and word == b"RENAME"
    ]
    return qualifiers.union(*(_qualifiers(listed[at : at + 4]) for at in renamed))


def _outside(listed: Sequence[statements.Token]) -> Iterator[tuple[int, bytes]]:
    """Yield index and keyword of the tokens outside of parentheses."""
    depth = 0
    for at, token in enumerate(listed):
        depth += (token.text == b"(") - (token.text == b")")
        if not depth:
            yield at, token.word


def _tables(listed: Sequence[statements.Token]) -> Iterator[int]:
    """Yield where the names of the tables of an UPDATE or DELETE begin; subqueries are left out."""
    keywords = [token.word for token in listed]
    depth = list_depth = subquery = 0
    is_next = False  # a table, or a list of tables in parentheses
    for at, token in enumerate(listed):
        depth += (token.text == b"(") - (token.text == b")")
        if subquery:
            subquery = subquery if depth >= subquery else 0
        elif token.text == b"(":
            is_select = keywords[at + 1 : at + 2] in ([b"SELECT"], [b"WITH"], [b"VALUES"])
            subquery = depth if is_select else 0
            list_depth += is_next
        elif not depth and token.word in _AFTER_LISTS:
            return
        elif token.word in _LISTS:
            list_depth, is_next = depth, True
        elif token.text == b"," and depth <= list_depth:
            is_next = True
        elif is_next and token.word not in _BEFORE_NAME:
            yield at
            is_next = False


def _after_into(keywords: Sequence[bytes]) -> int:
    return keywords.index(b"INTO") + 1 if b"INTO" in keywords else len(keywords)


def _name(keywords: Sequence[bytes], at: int) -> int:
    """Return the index of the first name, from here."""
    while at < len(keywords) and keywords[at] in _BEFORE_NAME:
        at += 1
    return at


def _qualifiers(listed: Sequence[statements.Token]) -> set[bytes]:
    """Return the names that stand before a dot and another name, in lower case."""
    ends = [token.text for token in listed[2:]]
    pairs = zip(itertools.pairwise(listed), [*ends, b""], strict=False)
    return {
        dump_statements.identifier(one).lower()
        for (one, dot), end in pairs
        if dot.text == b"." and end != b"*"
    }
