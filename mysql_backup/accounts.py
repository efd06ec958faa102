"""Accounts, roles, grants and other objects that databases of a MySQL server share.

The dump program of MySQL has no option for them; that of MariaDB has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mysql_backup import mysql_server, statements

# Prints hashes of caching_sha2_password, which are binary, as hexadecimal (MySQL 8.0.17 and later).
_HEX = "SET SESSION sql_mode = ''; /*!80017 SET print_identified_with_as_hex = ON */; "
_ESCAPES = {"n": "\n", "t": "\t", "0": "\0"}
# Columns of mysql.servers, and the options of CREATE SERVER.
_OPTIONS = {
    "host": "HOST",
    "db": "DATABASE",
    "username": "USER",
    "password": "PASSWORD",
    "socket": "SOCKET",
    "owner": "OWNER",
}


def account_statements(source: mysql_server.MySQLConnection) -> Iterator[bytes]:
    """Yield the statements that create them: first all accounts, then grants and default roles.

    An existing account keeps its password. Raises SourceError.
    """
    yield from extensions(source)
    rows = source.names(
        "SELECT HEX(RTRIM(user)), HEX(RTRIM(host)) FROM mysql.user "
        "WHERE user NOT LIKE 'mysql.%' ORDER BY 1, 2"  # system accounts
    )
    accounts = [
        f"{mysql_server.quote_identifier(user)}@{mysql_server.quote_identifier(host)}"
        for user, host in rows
    ]
    roles = []
    for account in accounts:
        (statement,) = _query_column(source, f"{_HEX}SHOW CREATE USER {account}")
        user, role = _split_default_roles(statement)
        if role:  # it may not exist yet
            roles.append(f"ALTER USER {account} DEFAULT ROLE {role}")
        yield _statement(user)
    for account in accounts:
        yield from map(_statement, _query_column(source, f"SHOW GRANTS FOR {account}"))
    yield from map(_statement, roles)


def _split_default_roles(statement: str) -> tuple[str, str]:
    """Return CREATE USER IF NOT EXISTS without default roles, and these roles."""
    data = statement.encode("utf-8", "surrogateescape")
    tokens = list(statements.tokens(data, statements.Mode()))
    start = data[tokens[1].end :]
    role = b""
    for at, token in enumerate(tokens[:-2]):
        if token.word == b"DEFAULT" and tokens[at + 1].word == b"ROLE":
            last = _end_of_list(tokens, at + 2)
            role = data[tokens[at + 2].start : tokens[last].end]
            start = data[tokens[1].end : token.start] + data[tokens[last].end :].lstrip()
            break
    text = b"CREATE USER IF NOT EXISTS" + start
    return text.decode("utf-8", "surrogateescape"), role.decode("utf-8", "surrogateescape")


def _end_of_list(tokens: Sequence[statements.Token], at: int) -> int:
    """Return the index of the last token of a list of accounts."""
    listed = (statements.Kind.NAME, statements.Kind.MARK)
    while at + 1 < len(tokens) and tokens[at + 1].kind in listed:
        at += 1
    return at


def extensions(source: mysql_server.MySQLConnection) -> Iterator[bytes]:
    """Yield the statements for plugins, user-defined functions and foreign servers.

    Those of mariadb-dump are not used: its INSTALL PLUGIN with --insert-ignore is invalid (10.11).
    """
    yield _statement("SET NAMES utf8mb4")
    yield _statement("SET SESSION sql_mode = ''")
    yield from map(_statement, _extensions(source))


def _extensions(source: mysql_server.MySQLConnection) -> Iterator[str]:
    for name, library in source.names("SELECT HEX(name), HEX(dl) FROM mysql.plugin ORDER BY 1"):
        yield f"INSTALL PLUGIN {mysql_server.quote_identifier(name)} SONAME {_literal(library)}"
    rows = source.names(
        "SELECT HEX(name), HEX(CAST(ret AS CHAR)), HEX(dl), HEX(type) FROM mysql.func ORDER BY 1"
    )
    for name, number, library, kind in rows:
        aggregate = "AGGREGATE " if kind == "aggregate" else ""
        returned = {"0": "STRING", "1": "REAL", "2": "INTEGER"}.get(number, "DECIMAL")
        statement = (
            f"CREATE {aggregate}FUNCTION {mysql_server.quote_identifier(name)} RETURNS {returned}"
        )
        yield f"{statement} SONAME {_literal(library)}"
    columns = ", ".join(f"HEX({name})" for name in ("server_name", "wrapper", *_OPTIONS))
    query = f"SELECT {columns}, HEX(CAST(port AS CHAR)) FROM mysql.servers"  # noqa: S608  (our own)
    for name, wrapper, *values, port in source.names(query):
        pairs = zip(_OPTIONS.values(), values, strict=True)
        options = [f"{key} {_literal(value)}" for key, value in pairs if value]
        options.append(f"PORT {port or 0}")
        statement = f"CREATE SERVER {mysql_server.quote_identifier(name)} FOREIGN DATA WRAPPER"
        yield f"{statement} {mysql_server.quote_identifier(wrapper)} OPTIONS ({', '.join(options)})"


def _literal(text: str) -> str:
    """Return a text as a literal for an sql_mode without NO_BACKSLASH_ESCAPES."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _query_column(source: mysql_server.MySQLConnection, sql: str) -> list[str]:
    """Return the only column of a query, without the escapes of --batch (mysql client, manual)."""
    return [
        re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), row[0])
        for row in source.query(sql)
    ]


def _statement(text: str) -> bytes:
    return f"{text};\n".encode("utf-8", "surrogateescape")
