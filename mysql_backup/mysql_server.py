"""A MySQL or MariaDB server: connection, queries and properties."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mysql_backup import login_errors
from tools import os_works
from tools.base import foreign
from tools.base.errors import BackupError, ConfigError, SourceError, StoreError
from tools.flow import dump_stream, process

SYSTEM = ("information_schema", "performance_schema", "sys", "mysql")
NOW = "REPLACE(UTC_TIMESTAMP(), 'T', ' ')"  # to the second, as DATETIME is written
MAX_PACKET_OPTION = (
    "--max-allowed-packet=1G",
)  # a row as SQL may be longer than the client's 16 MiB
_TRANSACTIONAL = ("innodb", "rocksdb", "tokudb", "xpand", "sequence")
_SOCKET = re.compile(r"^[ \t]*socket\s*=", re.M)
_HOST = re.compile(r"^[ \t]*host\s*=(?!\s*[\"']?localhost\b)", re.M)
_TIMEOUT = 20  # seconds to connect
_SOCKETS = ("mysqld.sock", "mysql.sock")  # MySQL has another one, of the X protocol
_EXIT_CODE = re.compile(r"(?<!\S)\S+ ended with exit code \d+")
# Servers may cancel long statements, for example COUNT(*). Each brand reads its own comment.
_NO_STATEMENT_TIMEOUT = (
    "SET @nc = 0%s /*M!100100 , max_statement_time = 0 */ /*!50708 , max_execution_time = 0 */"
)

_ADVICE = {  # by error number of the client or the server
    1045: "Check user and password in the option file (CREDENTIAL_PATH; --to-credentials for a "
    "restore).",
    1698: "Only the system user of that name may use this account, through the server's socket "
    "(socket= in the option file; --to-host /run/mysqld/mysqld.sock for a restore). "
    "If there is no such account yet, create it: docs/guides/mariadb.md.",
    1205: "Another session holds a lock: find it with SHOW FULL PROCESSLIST.",
    2002: "Check that the server is running, and check port and socket.",
    2003: "Check that the server is running, and check port and socket.",
    2005: "Check the host name.",
}


@dataclass(frozen=True)
class MySQLConnection:
    """How to connect to a server.

    credentials: option file with user and password (MySQL manual, option files); None for the
    default files. port: None for that of the file. host: "" for that of the file; a path is a
    socket. lock_timeout: seconds that queries wait for a table that another session has locked;
    None for the setting of the server.
    """

    client: str
    credentials: Path | None
    port: int | None = None
    host: str = ""
    user: str = ""
    lock_timeout: float | None = None

    def arguments(self, program: str) -> list[str]:
        """Return the beginning of a command line; the option file must come first."""
        command = [program]
        if self.credentials is not None:
            command.append(f"--defaults-extra-file={self.credentials}")
        # with a port the clients of MariaDB do not use the socket
        return [
            *command,
            *(["--protocol=socket"] if self._by_socket else []),
            *self.connection_arguments(),
        ]

    @property
    def _by_socket(self) -> bool:
        if self.host.startswith("/"):
            return True
        return not self.host and self.credentials is not None and _by_socket(self.credentials)

    def connection_arguments(self) -> list[str]:
        """Return the arguments for host or socket, port and user."""
        arguments = [f"--host={self.host}"] if self.host else []
        if self.host.startswith("/"):  # overrides a host in the option file, which means TCP
            arguments = ["--host=localhost", f"--socket={self.host}"]
        if self.port is not None and not self._by_socket:
            arguments.append(f"--port={self.port}")
        return arguments + ([f"--user={self.user}"] if self.user else [])

    @property
    def address(self) -> str:
        """Return how messages call the server: host and port, or its socket."""
        if self.host.startswith("/"):
            return f"socket {self.host}"
        host = self.host or login_errors.host_of(self.credentials)
        if self._by_socket:
            return f"{host} (socket of the option file)"
        return f"{host}:{self.port}" if self.port else host

    def command(self, *extra_arguments: str) -> list[str]:
        """Return the command line of the client."""
        # the client of MariaDB would print a failed statement: rows, hashes of passwords
        quiet = (
            ["--loose-skip-print-query-on-error"] if is_mariadb(tool_version(self.client)) else []
        )
        arguments = [*self.arguments(self.client), f"--connect-timeout={_TIMEOUT}"]
        # LOAD DATA LOCAL in a dump or binary log would read files of this machine
        lock_timeout = self.lock_timeout
        locks = "" if lock_timeout is None else f", lock_wait_timeout = {int(lock_timeout)}"
        arguments += [f"--init-command={_NO_STATEMENT_TIMEOUT % locks}", "--local-infile=0"]
        return [*arguments, *quiet, *extra_arguments]

    def query(self, sql: str) -> list[list[str]]:
        """Return the rows of a query whose columns are hexadecimal, numbers or plain words.

        Raises SourceError with the error of the client.
        """
        command = self.command("--batch", "--skip-column-names", f"--execute={sql}")
        with client_errors(self):
            out = b"".join(process.output(command, env=environment()))
        lines = out.decode("utf-8", "surrogateescape").split("\n")[:-1]
        return [line.split("\t") for line in lines]

    def query_records(self, sql: str) -> list[dict[str, str]]:
        """Return the rows of a SHOW statement as dictionaries by column name.

        Raises SourceError with the error of the client.
        """
        with client_errors(self):
            command = self.command("--batch", f"--execute={sql}")
            out = b"".join(process.output(command, env=environment()))
        head, *lines = out.decode("utf-8", "replace").split("\n")[:-1] or [""]
        return [dict(zip(head.split("\t"), line.split("\t"), strict=True)) for line in lines]

    def names(self, sql: str) -> list[list[str]]:
        """Return the decoded rows of a query whose columns are all HEX(...), for any name."""
        return [[_decode_hex(word) for word in row] for row in self.query(sql)]


@contextlib.contextmanager
def client_errors(connection: MySQLConnection) -> Iterator[None]:
    """Make an error of a client begin with its message instead of its exit code.

    A rejected login is named by server and account; the client's line follows in the hint.
    """
    try:
        yield
    except (SourceError, StoreError) as error:
        lines = error.hint.split("\n")
        errors = [line for line in lines if line.startswith("ERROR ")]
        if not errors or not _EXIT_CODE.search(str(error)):
            raise
        others = [line for line in lines if line not in errors]
        advice = _advice(errors[-1])
        rejected = login_errors.explained(errors[-1], connection.address)
        hints = (advice, *others, errors[-1]) if rejected else (*others, advice)
        text = _EXIT_CODE.sub(lambda _: rejected or errors[-1], str(error))
        raise type(error)(text, "\n".join(filter(None, hints))) from None


def _advice(error: str) -> str:
    """Return the hint for an error of a client, or ""."""
    match = re.match(r"ERROR (\d+)", error)
    return _ADVICE.get(int(match[1]), "") if match else ""


def find_socket(host: str) -> str:
    """Return the host of a restore; for a folder, the socket in it. Raises ConfigError."""
    if not host.startswith("/"):
        return host
    path = Path(host)
    try:
        paths = sorted(path.iterdir()) if path.is_dir() else [path]
        sockets = [one for one in paths if one.is_socket()]
    except OSError as error:
        raise ConfigError(f"--to-host: {host}: {error.strerror}") from None
    usual = [one for one in sockets if one.name in _SOCKETS] or sockets
    if len(usual) != 1:
        names = ", ".join(one.name for one in usual)
        problem = f"several sockets ({names})" if usual else "no socket"
        raise ConfigError(
            f"--to-host: {host}: {problem}",
            "Use the path that SELECT @@socket returns on the server.",
        )
    return str(usual[0])


def _by_socket(credentials: Path) -> bool:
    """Return whether an option file sets a socket, and no host but localhost."""
    text = credentials.read_text(encoding="utf-8", errors="replace")
    return bool(_SOCKET.search(text)) and not _HOST.search(text)


def environment() -> dict[str, str]:
    """Return the environment of clients and dump programs: messages in English."""
    return {**os_works.environment({}), "LC_ALL": "C.UTF-8"}


def _decode_hex(word: str) -> str:
    return "" if word == "NULL" else bytes.fromhex(word).decode("utf-8", "surrogateescape")


def quote_identifier(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    return "`" + name.replace("`", "``") + "`"


def hex_literal(name: str) -> str:
    """Return any text as an SQL literal."""
    return f"_utf8mb4 0x{name.encode('utf-8', 'surrogateescape').hex()}" if name else "''"


@dataclass(frozen=True)
class ServerInfo:
    """Properties of a server."""

    version: str
    port: int  # by which it is reached
    binlog: bool
    events: bool  # whether events can be queried: not in MariaDB with event_scheduler DISABLED
    databases: tuple[str, ...]

    @property
    def is_mariadb(self) -> bool:
        """Return whether it is MariaDB."""
        return is_mariadb(self.version)


@dataclass(frozen=True)
class Tables:
    """The tables of a database."""

    base_tables: tuple[str, ...] = ()
    non_tables: tuple[str, ...] = ()  # views and sequences
    non_transactional: tuple[str, ...] = ()  # whose engine knows no transactions
    versioned: tuple[str, ...] = ()  # with a history of their rows (MariaDB, system-versioned)
    charset: str = ""
    collation: str = ""
    facts: dict[str, str] = field(default_factory=dict)


def server_info(connection: MySQLConnection) -> ServerInfo:
    """Query the properties of a server. Raises SourceError if it cannot be reached."""
    ((version, port, binlog, scheduler, client),) = connection.query(
        "SELECT REPLACE(VERSION(), CHAR(9), ' '), @@port, @@log_bin, @@event_scheduler, host "
        "FROM information_schema.processlist WHERE id = CONNECTION_ID()"
    )
    databases = connection.names(
        "SELECT HEX(schema_name) FROM information_schema.schemata ORDER BY 1"
    )
    by_socket = ":" not in client  # clients ignore the port then
    # with skip-networking MariaDB has port 0: then MY_INSTANCES gives the server its number
    other = int(port) not in (0, connection.port)
    if by_socket and connection.port is not None and other:
        raise SourceError(
            f"the server on this socket has port {port}, not {connection.port}",
            "Set socket to the right file in CREDENTIAL_PATH, or host to 127.0.0.1 (localhost "
            "means the socket).",
        )
    number = int(port) if connection.port is None else connection.port
    events = scheduler != "DISABLED" or not is_mariadb(version)
    return ServerInfo(
        version, number, binlog == "1", events, tuple(sorted(row[0] for row in databases))
    )


def gtid_expression(info: ServerInfo) -> str:
    """Return the SQL expression for all GTIDs in the binary logs of a server."""
    if info.is_mariadb:
        return "@@gtid_binlog_pos"
    return (
        "REPLACE(@@gtid_executed, CHAR(10), '')" if major_version(info.version) >= (5, 6) else "''"
    )


def tables(connection: MySQLConnection, database: str) -> Tables:
    """Return the tables of a database. Raises SourceError."""
    literal = hex_literal(database)
    rows = connection.names(
        "SELECT HEX(table_name), HEX(IFNULL(engine, '')), HEX(table_type) "
        f"FROM information_schema.tables WHERE table_schema = {literal} ORDER BY table_name"
    )
    base_tables = [row for row in rows if row[2] in ("BASE TABLE", "SYSTEM VERSIONED")]
    schema = connection.names(
        "SELECT HEX(default_character_set_name), HEX(default_collation_name) "
        f"FROM information_schema.schemata WHERE schema_name = {literal}"
    )
    charset, collation = schema[0] if schema else ("", "")
    return Tables(
        tuple(name for name, _, _ in base_tables),
        tuple(row[0] for row in rows if row not in base_tables),
        tuple(name for name, engine, _ in base_tables if engine.lower() not in _TRANSACTIONAL),
        tuple(name for name, _, kind in base_tables if kind == "SYSTEM VERSIONED"),
        charset,
        collation,
    )


def match_tables(names: Sequence[str], database: str, patterns: Sequence[str]) -> Iterator[str]:
    """Yield the tables that match a `db.table` pattern with globs."""
    for name in names:
        if dump_stream.is_named(f"{database}.{name}", patterns):
            yield name


@functools.cache
def tool_version(program: str) -> str:
    """Return the first line of a program's version output."""
    out = b"".join(process.output([program, "--version"], env=environment()))
    return foreign.decoded(out).strip().partition("\n")[0]


def is_mariadb(version: str) -> bool:
    """Return whether the version of a server or program is one of MariaDB."""
    return "mariadb" in version.lower()


def major_version(text: str) -> tuple[int, int]:
    """Return the first two numbers of a server's version; (0, 0) if there are none."""
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def release_version(text: str) -> tuple[int, int, int]:
    """Return the first three numbers of a server's version; zeros if there are none."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else (0, 0, 0)


def tool_server_version(text: str) -> tuple[int, int]:
    """Return the version of the server to which a dump program belongs."""
    for word in ("Distrib", "from", "Ver"):  # with "Distrib", "Ver" is that of the program
        if match := re.search(rf"\b{word} (\d+\.\d+)", text):
            return major_version(match[1])
    return (0, 0)


def count_tables_and_rows(connection: MySQLConnection, database: str) -> tuple[int, int]:
    """Return the number of tables of a database, and of their rows."""
    names = tables(connection, database).base_tables
    rows = 0
    for name in names:
        where = f"{quote_identifier(database)}.{quote_identifier(name)}"
        rows += int(connection.query(f"SELECT COUNT(*) FROM {where}")[0][0])
    return len(names), rows


def is_empty(connection: MySQLConnection, database: str) -> bool:
    """Return whether a database has no tables, views, routines or events."""
    literal = hex_literal(database)
    kinds = [("tables", "table"), ("routines", "routine")]
    kinds += [("events", "event")] if server_info(connection).events else []
    numbers = (
        f"(SELECT COUNT(*) FROM information_schema.{kind} WHERE {column}_schema = {literal})"
        for kind, column in kinds
    )
    ((number,),) = connection.query(f"SELECT {' + '.join(numbers)}")
    return number == "0"


def hidden_events(connection: MySQLConnection, database: str) -> int:
    """Return the number of events of a database that cannot be queried (ServerInfo.events)."""
    where = f"db = {hex_literal(database)}"
    ((number,),) = connection.query(f"SELECT COUNT(*) FROM mysql.event WHERE {where}")
    return int(number)


class WouldOverwriteError(BackupError):
    """A restore would change data that it must not change."""
