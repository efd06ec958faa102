"""The statements that dump programs write for one database; nothing else is loaded.

Source: client/mysqldump.c of MariaDB 10.11 and 11.8, client/mysqldump.cc of MySQL 9.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mysql_backup import readings
from mysql_backup.statements import Kind, Statement, Token
from tools.base.errors import StoreError

_BODIES = frozenset((b"PROCEDURE", b"FUNCTION", b"TRIGGER", b"EVENT", b"PACKAGE", b"LIBRARY"))
_OBJECTS = _BODIES | {b"TABLE", b"VIEW", b"SEQUENCE"}
_HEAD = frozenset(b"OR REPLACE ALGORITHM UNDEFINED MERGE TEMPTABLE DEFINER SQL SECURITY".split())
_HEAD |= {b"INVOKER", b"AGGREGATE", b"CURRENT_USER"}
_SCOPES = (b"SESSION", b"LOCAL")
_WHOLE = ((b"COMMIT",), (b"BEGIN",), (b"START", b"TRANSACTION"), (b"UNLOCK", b"TABLES"))
_ROCKSDB = b"ROCKSDB_"  # Percona Server: a prepared statement that speeds the load up
_UNKNOWN_OPTIONS = re.compile(
    rb"/\*\s*(?:`(?:[^`]|``)*`=(?:'(?:[^'\\]|\\.|'')*'|\w+)\s*)*\*/", re.DOTALL
)
# What dump programs write after a routine, trigger or event, whose text they cut at a zero byte: a
# string or comment that was left open would go on to a place of its author's choice.
_END = re.compile(rb";;[ \t]*\r?\nDELIMITER ;\r?\n", re.IGNORECASE)
INCOMPLETE = "the dump program wrote it incompletely (a zero byte?)"
_SHOWN = 120  # bytes of a statement that are shown


def check(statement: Statement, old: str, new: str) -> None:
    """Raise StoreError for a statement that no dump program writes for this database.

    Also for one that client and server may read in different ways. old, new: see DumpReader
    """
    if not (reason := rejection(statement, old, new)):
        return
    shown = statement.text[statement.start :][:_SHOWN].decode("utf-8", "replace").strip()
    raise StoreError(
        f"the dump has a statement that is rejected: {shown!r}: {reason}",
        "Nothing was sent to the server. Restore the item into a folder (--destination) and "
        "examine the statement; remove the object from the source if you do not know it.",
    )


def rejection(statement: Statement, old: str, new: str) -> str:
    """Return why a statement is rejected, or ""."""
    listed = tokens(statement)
    if not listed or statement.command:
        return ""
    if part := readings.difference(statement):
        return f"a client and a server may read {part} in different ways"
    if _END.search(statement.text):
        return INCOMPLETE
    database = old.encode("utf-8", "surrogateescape")
    names = _Names(database, renamed=old != new)
    allowed = _CHECKS.get(listed[0].word, _whole)
    kind = next((token.word for token in listed if token.word in _OBJECTS), b"")
    if _is_commented(statement, kind) or not (allowed(listed, names) or is_skipped(statement)):
        return "no dump program writes this for one database"
    return ""


def object_name(statement: Statement) -> str:
    """Return the kind and name of the object that a statement creates, or ""."""
    listed = tokens(statement)
    at = next((at for at, token in enumerate(listed) if token.word in _OBJECTS), 0)
    if not at or listed[0].word != b"CREATE":
        return ""
    kind = [listed[at].word] + [b"BODY"] * (_word(listed, at + 1) == b"BODY")
    at += len(kind)
    at += 3 if [_word(listed, at), _word(listed, at + 1)] == [b"IF", b"NOT"] else 0
    at += 2 if b"".join(token.text for token in listed[at + 1 : at + 2]) == b"." else 0
    name = identifier(listed[at]) if at < len(listed) else b""
    return b" ".join((*map(bytes.lower, kind), name)).decode("utf-8", "replace") if name else ""


def _is_commented(statement: Statement, kind: bytes) -> bool:
    """Return whether a definition has comments; MariaDB writes unknown options of tables in one."""
    if not kind or kind in _BODIES:
        return False
    comments = readings.comments(statement)
    return not all(kind == b"TABLE" and _UNKNOWN_OPTIONS.fullmatch(one) for one in comments)


def tokens(statement: Statement) -> list[Token]:
    """Return its tokens without the marks of comments that the server executes."""
    return [one for one in statement.tokens if one.kind not in (Kind.OPEN, Kind.CLOSE)]


def is_skipped(statement: Statement) -> bool:
    """Return whether a restore needs no such statement."""
    keywords = [token.word for token in tokens(statement)]
    if keywords[:1] and keywords[0] in (b"SET", b"SELECT", b"PREPARE"):
        return any(word.startswith(_ROCKSDB) for word in keywords)
    return keywords in ([b"EXECUTE", b"S"], [b"DEALLOCATE", b"PREPARE", b"S"])


class _Names:
    """The names that a statement may create, drop or change."""

    def __init__(self, database: bytes, *, renamed: bool) -> None:
        self.database = database
        self._renamed = renamed

    def end(self, listed: Sequence[Token], at: int, *, verbatim: bool = False) -> int:
        """Return the index after a name of this database; 0 if it is another one.

        verbatim: whether the name is as its author wrote it, maybe with the database.
        """
        if at >= len(listed) or not _is_name(listed[at]):
            return 0
        if at + 1 >= len(listed) or listed[at + 1].text != b".":
            return at + 1
        is_same = identifier(listed[at]).lower() == self.database.lower()
        return at + 3 if is_same and (verbatim or not self._renamed) else 0


def _is_name(token: Token) -> bool:
    return token.kind in (Kind.NAME, Kind.WORD) or token.text[:1] == b'"'


def identifier(token: Token) -> bytes:
    """Return a name, also in double quotes (ANSI_QUOTES)."""
    return token.text[1:-1].replace(b'""', b'"') if token.text[:1] == b'"' else token.name


def _word(listed: Sequence[Token], at: int) -> bytes:
    return listed[at].word if at < len(listed) else b""


def _whole(listed: Sequence[Token], names: _Names) -> bool:
    del names
    return tuple(token.word for token in listed) in _WHOLE


def _set(listed: Sequence[Token], names: _Names) -> bool:
    del names
    return sets_variables(listed)


def sets_variables(listed: Sequence[Token]) -> bool:
    """Return whether it is SET NAMES, or sets variables of the session to variables or literals."""
    if not listed or listed[0].word != b"SET":
        return False
    if listed[1:2] and listed[1].word in (b"NAMES", b"CHARACTER"):
        return all(token.kind in (Kind.WORD, Kind.STRING) for token in listed)
    part: list[Token] = []
    for token in (*listed[1:], None):
        if token is not None and token.text != b",":
            part.append(token)
        elif not _is_assignment(part):
            return False
        else:
            part = []
    return True


def _is_assignment(part: Sequence[Token]) -> bool:
    at = next((at for at, token in enumerate(part) if token.text == b"="), 0)
    left, right = part[:at], part[at + 1 :]
    keywords = [token.word for token in left if token.word]
    marks = b"".join(token.text for token in left if token.kind is Kind.MARK)
    if keywords[:1] and keywords[0] in _SCOPES and len(keywords) > 1:
        del keywords[0]
    values = b"".join(token.text for token in right if token.kind is Kind.MARK)
    return (
        len(keywords) == 1
        and keywords[0] not in (b"PASSWORD", b"GLOBAL")
        and marks in (b"", b"@", b"@@", b"@@.")
        and all(token.kind in (Kind.WORD, Kind.MARK) for token in left)
        and bool(right)
        and values in (b"", b"@", b"@@", b"@@.", b"-", b"+")
    )


def _drop(listed: Sequence[Token], names: _Names) -> bool:
    """Return whether it is the DROP of one object."""
    at = 1 + (_word(listed, 1) in _OBJECTS) + (_word(listed, 2) == b"BODY")
    at += 2 if _word(listed, at) == b"IF" else 0
    return at > 1 and names.end(listed, at) == len(listed)


def _create(listed: Sequence[Token], names: _Names) -> bool:
    """Return whether it is the CREATE of an object, with its definer."""
    at = next((at for at, token in enumerate(listed) if token.word in _OBJECTS), 0)
    if not at or not _is_head(listed[1:at]):
        return False
    kind = listed[at].word
    at += 1 + (kind == b"PACKAGE" and _word(listed, at + 1) == b"BODY")
    at += 3 if _word(listed, at) == b"IF" and _word(listed, at + 1) == b"NOT" else 0
    end = names.end(listed, at, verbatim=kind == b"TRIGGER")
    if kind in _BODIES:
        return bool(end) and not any(token.word == b"SONAME" for token in listed[end : end + 3])
    definition = listed[end:]
    single = all(token.text != b";" for token in definition)
    return bool(end) and single and (kind != b"TABLE" or _is_definition(definition))


def _is_head(head: Sequence[Token]) -> bool:
    """Return whether only the usual clauses stand between CREATE and the kind of an object."""
    marks = {token.text for token in head if token.kind is Kind.MARK}
    keywords = {token.word for token in head if token.kind is Kind.WORD}
    return marks <= {b"=", b"@"} and keywords <= _HEAD


def _is_definition(definition: Sequence[Token]) -> bool:
    """Return whether a table is only defined, and not filled by a query."""
    keywords = [token.word for token in definition]
    return (
        b"SELECT" not in keywords
        and _word(definition, 0) != b"LIKE"
        and _word(definition, 1) != b"LIKE"
    )


def _alter(listed: Sequence[Token], names: _Names) -> bool:
    """Return whether it is ALTER TABLE ... KEYS, or ALTER DATABASE with a character set."""
    if _word(listed, 1) == b"DATABASE":
        named = len(listed) > 2 and identifier(listed[2]).lower() == names.database.lower()  # noqa: PLR2004
        return named and _word(listed, 3) == b"CHARACTER" and _only_words(listed[3:])
    end = names.end(listed, 2) if _word(listed, 1) == b"TABLE" else 0
    keywords = [token.word for token in listed[end:]]
    return bool(end) and keywords in ([b"DISABLE", b"KEYS"], [b"ENABLE", b"KEYS"])


def _only_words(listed: Sequence[Token]) -> bool:
    return all(token.kind is Kind.WORD for token in listed)


def _setval(listed: Sequence[Token], names: _Names) -> bool:
    """Return whether it is DO or SELECT SETVAL(sequence, number, number)."""
    end = names.end(listed, 3) if _word(listed, 1) == b"SETVAL" and listed[2].text == b"(" else 0
    arguments = b"".join(token.text for token in listed[end:])
    return bool(end) and arguments.strip(b"0123456789,-") == b")"


def _analyze(listed: Sequence[Token], names: _Names) -> bool:
    """Return whether it is ANALYZE TABLE ... UPDATE HISTOGRAM (MySQL)."""
    end = names.end(listed, 2) if _word(listed, 1) == b"TABLE" else 0
    return bool(end) and [token.word for token in listed[end : end + 2]] == [
        b"UPDATE",
        b"HISTOGRAM",
    ]


def _lock(listed: Sequence[Token], names: _Names) -> bool:
    """Return whether it is LOCK TABLES, which is not sent."""
    del names
    return _word(listed, 1) == b"TABLES"


_CHECKS: dict[bytes, Callable[[Sequence[Token], _Names], bool]] = {
    b"SET": _set,
    b"DROP": _drop,
    b"CREATE": _create,
    b"ALTER": _alter,
    b"DO": _setval,
    b"SELECT": _setval,
    b"ANALYZE": _analyze,
    b"LOCK": _lock,
}
