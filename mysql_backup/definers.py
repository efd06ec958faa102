"""Definers: the users as whom triggers, routines, events and views run."""

from __future__ import annotations

import itertools

from mysql_backup import mysql_server, statements
from tools.base.errors import SourceError

# Error for a user who may not set another definer.
DENIED = "ERROR 1227 "
_OBJECTS = frozenset((b"TRIGGER", b"EVENT", b"PROCEDURE", b"FUNCTION", b"PACKAGE", b"VIEW"))
_KINDS = {"views": "table", "routines": "routine", "triggers": "trigger", "events": "event"}


_ROUTINES = (b"PROCEDURE", b"FUNCTION")
_INVOKER = b"SQL SECURITY INVOKER"


def without_privileges(statement: statements.Statement) -> bytes:
    """Return a statement without its definer, for a restoring user who becomes the definer.

    The author of an object must not get the privileges of this user: views and packages run with
    those of their callers, and events are disabled. See also `invoker_statement`.
    """
    text = strip_definers(statement)
    removed = len(statement.text) - len(text)
    tokens = [one for one in statement.tokens if one.kind is not statements.Kind.OPEN]
    kind = next((at for at, one in enumerate(tokens) if one.word in _OBJECTS), len(tokens) - 1)
    if statement.keywords[:1] != (b"CREATE",) or kind + 1 >= len(tokens):
        return text
    match tokens[kind].word:
        case b"VIEW":
            pairs = itertools.pairwise(tokens[:kind])
            matches = [one for word, one in pairs if word.word == b"SECURITY"]
            edit = (matches[0].start, matches[0].end, b"INVOKER") if matches else None
        case b"EVENT":
            matches = [one for one in tokens[kind:] if one.word in (b"ENABLE", b"DO")][:1]
            enabled = bool(matches) and matches[0].word == b"ENABLE"
            edit = (matches[0].start, matches[0].end, b"DISABLE") if enabled else None
        case b"PACKAGE":
            name = tokens[kind + 1 + (tokens[kind + 1].word == b"BODY")]
            edit = (name.end, name.end, b" " + _INVOKER)
        case _:
            edit = None
    if edit is None:
        return text
    start, end, replacement = edit
    return text[: start - removed] + replacement + text[end - removed :]


def invoker_statement(statement: statements.Statement) -> bytes:
    """Return what lets a routine run with the privileges of its callers; b"" for other objects."""
    tokens = statement.tokens
    kind = next((at for at, one in enumerate(tokens) if one.word in _OBJECTS), len(tokens) - 1)
    is_routine = statement.keywords[:1] == (b"CREATE",) and tokens[kind].word in _ROUTINES
    if not is_routine or kind + 1 >= len(tokens):
        return b""
    return b" ".join((b"ALTER", tokens[kind].word, tokens[kind + 1].text, _INVOKER))


def strip_definers(statement: statements.Statement) -> bytes:
    """Return the text of a statement without the definer of the object that it creates."""
    text: bytes = statement.text
    if statement.keywords[:1] != (b"CREATE",):
        return text
    for at, token in enumerate(statement.tokens):
        if token.word in _OBJECTS:
            break
        if token.word == b"DEFINER":
            end = _account_end(statement.tokens, at + 2)
            return text[: token.start] + text[end:].lstrip(b" ")
    return text


def _account_end(tokens: tuple[statements.Token, ...], at: int) -> int:
    """Return the end of an account that begins with this token: user, or user@host."""
    if at + 2 < len(tokens) and tokens[at + 1].text == b"@":
        return tokens[at + 2].end
    return tokens[at].end


def missing_definers(target: mysql_server.MySQLConnection, name: str) -> tuple[str, ...]:
    """Return the definers in a database that do not exist; () if accounts cannot be read."""
    condition = f"= {mysql_server.hex_literal(name)}"
    query = " UNION ".join(
        f"SELECT HEX(definer) FROM information_schema.{kind} WHERE {column}_schema {condition}"  # noqa: S608  (our own)
        for kind, column in _KINDS.items()
        if kind != "events" or mysql_server.server_info(target).events
    )
    definers = {row[0] for row in target.names(query)}
    try:
        rows = target.names("SELECT HEX(RTRIM(user)), HEX(RTRIM(host)) FROM mysql.user")
    except SourceError:
        return ()
    existing = {f"{user}@{host}" for user, host in rows} | {user for user, host in rows if not host}
    return tuple(sorted(definers - existing))
