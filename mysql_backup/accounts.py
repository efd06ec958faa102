"""Accounts, roles and grants: of MySQL, whose dump program has no word for them, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tools import plugin

if TYPE_CHECKING:
    from mysql_backup import instance
else:
    instance = plugin.load("mysql_backup/instance.py")

# A hash of caching_sha2_password has bytes that are no text (MySQL 8.0.17 and later).
_HEX = "/*!80017 SET print_identified_with_as_hex = ON */; "
_ACCOUNT = "`(?:[^`]|``)*`@`(?:[^`]|``)*`"
_WORDS = r"(?:[^'`]|'(?:[^'\\]|\\.|'')*')*?"  # texts are passed over
_DEFAULT = re.compile(
    rf"(?P<who>CREATE USER {_ACCOUNT}{_WORDS}) DEFAULT ROLE (?P<roles>{_ACCOUNT}(?:,{_ACCOUNT})*)"
)
# How MariaDB's grants repeat the password, which would change that of an account that is there.
_PASSWORD = re.compile(
    rf"^(GRANT .* ON \*\.\* TO {_ACCOUNT}) IDENTIFIED (?:BY|VIA) {_WORDS}"
    r"(?= REQUIRE | WITH (?:GRANT OPTION|MAX_)|;$)".encode(),
    re.MULTILINE,
)
_ESCAPES = {"n": "\n", "t": "\t", "0": "\0"}


def shown(source: instance.Instance) -> Iterator[bytes]:
    """Statements that make them: first all accounts, then what they may and which roles they have.

    An account that is there keeps its password. Raises SourceError.
    """
    every = source.names(
        "SELECT HEX(RTRIM(user)), HEX(RTRIM(host)) FROM mysql.user "
        "WHERE user NOT LIKE 'mysql.%' ORDER BY 1, 2"  # the server's own, which it has anyway
    )
    accounts = [f"{instance.quoted(user)}@{instance.quoted(host)}" for user, host in every]
    roles = []
    for account in accounts:
        (made,) = _said(source, f"{_HEX}SHOW CREATE USER {account}")
        if found := _DEFAULT.match(made):  # the role may not be there yet
            roles.append(f"ALTER USER {account} DEFAULT ROLE {found['roles']}")
            made = found["who"] + made[found.end() :]
        yield _statement(made.replace("CREATE USER", "CREATE USER IF NOT EXISTS", 1))
    for account in accounts:
        yield from map(_statement, _said(source, f"SHOW GRANTS FOR {account}"))
    yield from map(_statement, roles)


def kept(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A dump of accounts without what would change the password of one that is there."""
    yield _PASSWORD.sub(rb"\1", b"".join(chunks))


def _said(source: instance.Instance, sql: str) -> list[str]:
    """The one column of an answer, without the escapes of --batch (mysql client, manual)."""
    return [
        re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), row[0])
        for row in source.rows(sql)
    ]


def _statement(text: str) -> bytes:
    return f"{text};\n".encode()
