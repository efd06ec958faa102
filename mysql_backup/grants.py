"""Restore users, roles, grants and server objects; each statement that fails is reported."""

from __future__ import annotations

import bisect
import collections
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from mysql_backup import (
    account_check,
    deferred_views,
    dump_reader,
    loading,
    mysql_server,
    readings,
    statements,
)
from tools.base.errors import StoreError
from tools.base.result import Result, Status
from tools.date_str_utils import count
from tools.flow import stream
from tools.modules import contracts

_ERROR = re.compile(r"ERROR (?P<number>\d+) .*?at line (?P<line>\d+)")
_CLIENT = range(2000, 3000)  # errors of the client, for example a lost connection
_MISSING_OBJECT = (1049, 1054, 1146, 1305)  # database, table, column or routine of a grant
_ALREADY_EXISTS = (1125, 1477, 1968)  # function, server or plugin
_DENIED = (1044, 1045, 1142, 1227)
# A GRANT must not create a user, which would have no password (MariaDB).
_NO_USERS = b"\n/*M!100000 SET SESSION sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_CREATE_USER') */;\n"
_SHOWN = 120  # bytes of a statement that are shown


@dataclass
class _Script:
    """The statements of an item as they are sent, and the line at which each begins."""

    lines: list[int] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)

    def read(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the statements without clauses that would change the password of a user."""
        line = 1
        for statement in statements.Reader().read(chunks):
            text = without_password(statement)[statement.start :]
            text = readings.unwrapped(text, statement.mode)
            self.lines.append(line)
            self.texts.append(text)
            after = _NO_USERS if dump_reader.sets_sql_mode(statement) else b"\n"
            yield text + statement.delimiter + after
            line += text.count(b"\n") + after.count(b"\n")

    def at(self, line: int) -> bytes:
        """Return the statement of a line."""
        return self.texts[bisect.bisect(self.lines, line) - 1]


@dataclass(frozen=True)
class _FailedStatement:
    """A statement that the server rejected."""

    number: int
    error: str
    statement: bytes

    @property
    def creates_user(self) -> bool:
        """Return whether it should have created a user."""
        return self.statement[:11].upper() == b"CREATE USER"

    def __str__(self) -> str:
        return f"statement failed: {shorten_statement(self.statement)!r}: {self.error}"


def restore_users(target: mysql_server.MySQLConnection, again: contracts.Again) -> contracts.Steps:
    """Restore users, grants and server objects; existing users keep their passwords.

    The server rejects a grant on a table or routine that does not exist, so all are repeated when
    the databases are restored. Grants that fail then, and others that this user may not make (for
    example PROXY), are warnings. Raises StoreError if the user may not create users.
    """
    mysql_server.server_info(target)
    with stream.closed(again()) as chunks:
        collections.deque(account_check.checked(chunks), maxlen=0)
    failed = _send(target, again)
    if not_created := [one for one in failed if one.creates_user and one.number in _DENIED]:
        raise StoreError(
            f"users and grants: {not_created[0].error} "
            f"({count(len(not_created), 'user')} not created)",
            "Restore as a user with CREATE USER and with GRANT OPTION for all privileges.",
        )
    others = tuple(str(one) for one in failed if one.number not in _MISSING_OBJECT)
    ((number,),) = target.query("SELECT COUNT(*) FROM mysql.user")
    status = Status.INCOMPLETE if others else Status.OK
    summary = f"{number} users and roles on the server"
    yield Result(status, summary, items=1, warnings=others)
    # repeat in any case: routines of restored databases have no grants yet
    seen, absent = -1, failed
    while seen < 0 or (
        absent and seen != deferred_views.created.number
    ):  # views are made beside these steps
        seen = deferred_views.created.number
        absent = [one for one in _send(target, again) if one.number in _MISSING_OBJECT]
        if absent:
            yield Result(Status.OK, f"{count(len(absent), 'grant')} waiting for their databases")
    status = Status.INCOMPLETE if absent else Status.OK
    remaining = len(absent) + len(others)
    summary = f"all grants but {remaining}" if remaining else "all grants"
    return Result(status, summary, warnings=tuple(map(str, absent)))


def _send(target: mysql_server.MySQLConnection, again: contracts.Again) -> list[_FailedStatement]:
    """Send all statements; return those that the server rejected. Raises StoreError."""
    stderr_lines: list[str] = []
    script = _Script()
    with stream.closed(again()) as chunks:
        loading.load(target, script.read(chunks), "mysql", "--force", notice=stderr_lines.append)
    failed = []
    for error in (line for line in stderr_lines if line.startswith("ERROR")):
        match = _ERROR.match(error)
        if match is None or int(match["number"]) in _CLIENT:
            raise StoreError("users and grants: restore failed", error)
        if int(match["number"]) not in _ALREADY_EXISTS:
            statement = script.at(int(match["line"]))
            failed.append(_FailedStatement(int(match["number"]), error, statement))
    return failed


def without_password(statement: statements.Statement) -> bytes:
    """Return the text of a statement; a GRANT without the password clause (MariaDB)."""
    text: bytes = statement.text
    if statement.keywords[:1] != (b"GRANT",):
        return text
    begin = end = 0
    for token in statement.tokens:
        if token.word == b"IDENTIFIED":
            begin = token.start
        elif begin and token.word in (b"REQUIRE", b"WITH"):
            end = token.start
            break
    if not begin:
        return text
    return text[:begin].rstrip() + (b" " + text[end:] if end else b"")


def shorten_statement(statement: bytes) -> str:
    """Return the beginning of a statement, up to a possible password."""
    end = min(len(statement), _SHOWN)
    for token in statements.tokens(statement, statements.Mode()):
        if token.word in (b"IDENTIFIED", b"OPTIONS", b"USING", b"BY"):
            end = min(end, token.start)
            break
    return statement[:end].decode("utf-8", "replace").strip()
