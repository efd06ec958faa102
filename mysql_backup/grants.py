"""Users, roles, grants and server objects back into a server: each statement judged by itself."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from mysql_backup import dump_reader, instance, loading, statements, views
from tools.base.errors import StoreError
from tools.base.result import Result, Status
from tools.date_str_utils import count
from tools.flow import stream
from tools.modules import contracts

_ERROR = re.compile(r"ERROR (?P<number>\d+) .*?at line (?P<line>\d+)")
_CLIENT = range(2000, 3000)  # errors of the client: the server is gone, say
_ABSENT = (1049, 1054, 1146, 1305)  # what a grant names: a database, table, column or routine
_THERE = (1125, 1477, 1968)  # a function, server or plugin that the server has already
_DENIED = (1044, 1045, 1142, 1227)
# A user that could not be made is not made by a GRANT: it would have no password (MariaDB).
_NO_USERS = b"\n/*M!100000 SET SESSION sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_CREATE_USER') */;\n"
_SHOWN = 120  # bytes of a statement that are shown


@dataclass
class _Script:
    """The statements of an item as they are sent, and at which line each begins."""

    lines: list[int] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)

    def read(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """A user who is there keeps the password: what would change it is left out."""
        line = 1
        for statement in statements.Reader().read(chunks):
            text = without_password(statement)[statement.start :]
            self.lines.append(line)
            self.texts.append(text)
            after = _NO_USERS if dump_reader.begins(statement) else b"\n"
            yield text + statement.delimiter + after
            line += text.count(b"\n") + after.count(b"\n")

    def at(self, line: int) -> bytes:
        """The statement of a line."""
        return self.texts[bisect.bisect(self.lines, line) - 1]


@dataclass(frozen=True)
class _Refused:
    """A statement that the server refused."""

    number: int
    error: str
    statement: bytes

    @property
    def makes_user(self) -> bool:
        """Whether a user is lacking now."""
        return self.statement[:11].upper() == b"CREATE USER"

    def __str__(self) -> str:
        return f"statement failed: {shown(self.statement)!r}: {self.error}"


def users(target: instance.Instance, again: contracts.Again) -> contracts.Steps:
    """Users, grants and server objects; users that are there keep their passwords.

    A grant on a table or routine that is not there is refused by the server: it is made once
    more when the databases are there. What is refused then, and all else that the server refuses
    to this user (the right to be another one, say), is a warning each. Raises StoreError where
    the user may make no users.
    """
    instance.about(target)
    with stream.closed(again()) as chunks:
        stream.drained(chunks)
    refused = _sent(target, again)
    if lacking := [one for one in refused if one.makes_user and one.number in _DENIED]:
        raise StoreError(
            f"users and grants: {lacking[0].error} ({count(len(lacking), 'user')} not created)",
            "Restore as a user with CREATE USER and with GRANT OPTION for all privileges.",
        )
    others = tuple(str(one) for one in refused if one.number not in _ABSENT)
    ((number,),) = target.rows("SELECT COUNT(*) FROM mysql.user")
    status = Status.INCOMPLETE if others else Status.OK
    told = f"{number} users and roles on the server"
    yield Result(status, told, items=1, warnings=others)
    # once more in any case: a database that was restored has new routines, without grants
    seen, absent = -1, refused
    while seen < 0 or (absent and seen != views.made.number):  # views are made beside these steps
        seen = views.made.number
        absent = [one for one in _sent(target, again) if one.number in _ABSENT]
        if absent:
            yield Result(Status.OK, f"{count(len(absent), 'grant')} waiting for their databases")
    status = Status.INCOMPLETE if absent else Status.OK
    left = len(absent) + len(others)
    told = f"all grants but {left}" if left else "all grants"
    return Result(status, told, warnings=tuple(map(str, absent)))


def _sent(target: instance.Instance, again: contracts.Again) -> list[_Refused]:
    """Send all statements; gives those that the server refused. Raises StoreError."""
    said: list[str] = []
    script = _Script()
    with stream.closed(again()) as chunks:
        loading.load(target, script.read(chunks), "mysql", "--force", notice=said.append)
    refused = []
    for error in (line for line in said if line.startswith("ERROR")):
        found = _ERROR.match(error)
        if found is None or int(found["number"]) in _CLIENT:
            raise StoreError("users and grants: restore failed", error)
        if int(found["number"]) not in _THERE:
            statement = script.at(int(found["line"]))
            refused.append(_Refused(int(found["number"]), error, statement))
    return refused


def without_password(statement: statements.Statement) -> bytes:
    """Return the text of a statement; a GRANT without the password that it repeats (MariaDB)."""
    text: bytes = statement.text
    if statement.words[:1] != (b"GRANT",):
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


def shown(statement: bytes) -> str:
    """The beginning of a statement, up to where a password may stand."""
    end = min(len(statement), _SHOWN)
    for token in statements.tokens(statement, statements.Mode()):
        if token.word in (b"IDENTIFIED", b"OPTIONS", b"USING", b"BY"):
            end = min(end, token.start)
            break
    return statement[:end].decode("utf-8", "replace").strip()
