"""Definers: the users as whom triggers, routines, events and views run."""

from __future__ import annotations

from mysql_backup import mysql_server, statements
from tools.base.errors import SourceError

# Error for a user who may not set another definer.
DENIED = "ERROR 1227 "
_OBJECTS = frozenset((b"TRIGGER", b"EVENT", b"PROCEDURE", b"FUNCTION", b"PACKAGE", b"VIEW"))
_KINDS = {"views": "table", "routines": "routine", "triggers": "trigger", "events": "event"}


def strip_definers(statement: statements.Statement) -> bytes:
    """Return the text of a statement without the definer of the object that it creates."""
    text: bytes = statement.text
    if statement.words[:1] != (b"CREATE",):
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
