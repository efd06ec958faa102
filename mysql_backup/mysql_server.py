"""One MySQL or MariaDB server: how it is asked, and what it holds."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools import os_works
from tools.base.errors import BackupError, ConfigError, SourceError, StoreError
from tools.flow import dump_stream, process

SYSTEM = ("information_schema", "performance_schema", "sys", "mysql")
NOW = "REPLACE(UTC_TIMESTAMP(), 'T', ' ')"  # to the second, as DATETIME is written
MAX_PACKET_OPTION = (
    "--max-allowed-packet=1G",
)  # a row as SQL may be longer than the client's 16 MiB
_TRANSACTIONAL = ("innodb", "rocksdb", "tokudb", "xpand", "sequence")
_SOCKET = re.compile(r"^\s*socket\s*=", re.M)
_HOST = re.compile(r"^\s*host\s*=(?!\s*[\"']?localhost\b)", re.M)
_TIMEOUT = 20  # seconds to connect
_SOCKETS = ("mysqld.sock", "mysql.sock")  # MySQL has another one, of the X protocol
_EXIT_CODE = re.compile(r"\S+ ended with exit code \d+")
# A server may end what takes long, the counting of rows, say. Each brand reads its own part.
_NO_STATEMENT_TIMEOUT = (
    "SET @nc = 0 /*M!100100 , max_statement_time = 0 */ /*!50708 , max_execution_time = 0 */"
)

_ADVICE = {  # by error number of the client or the server
    1045: "Check user and password in the option file.",
    1698: "Log in as the system user of this account (root) through the socket of the server "
    "(--to-host /run/mysqld/mysqld.sock, or socket= in the option file).",
    2002: "Check that the server is running, and check port and socket.",
    2003: "Check that the server is running, and check port and socket.",
    2005: "Check the host name.",
}


@dataclass(frozen=True)
class MySQLConnection:
    """A server as a client reaches it.

    credentials: option file with user and password (option files, MySQL manual); None for the
    client's own. port: None for the file's. host: "" for the file's; a path is a socket.
    """

    client: str
    credentials: Path | None
    port: int | None = None
    host: str = ""
    user: str = ""

    def arguments(self, program: str) -> list[str]:
        """The beginning of a command line: the option file must come first."""
        command = [program]
        if self.credentials is not None:
            command.append(f"--defaults-extra-file={self.credentials}")
        # the clients of MariaDB take a port as "no socket"
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
        """Host or socket, port and user, as every program of the server takes them."""
        arguments = [f"--host={self.host}"] if self.host else []
        if self.host.startswith("/"):  # an option file may name a host, which means TCP
            arguments = ["--host=localhost", f"--socket={self.host}"]
        if self.port is not None and not self._by_socket:
            arguments.append(f"--port={self.port}")
        return arguments + ([f"--user={self.user}"] if self.user else [])

    def command(self, *extra_arguments: str) -> list[str]:
        """The command line of the client."""
        # MariaDB's would print the statement that failed: rows, and hashes of passwords
        quiet = (
            ["--loose-skip-print-query-on-error"] if is_mariadb(tool_version(self.client)) else []
        )
        arguments = [*self.arguments(self.client), f"--connect-timeout={_TIMEOUT}"]
        # a dump or a binary log may hold LOAD DATA LOCAL, which would read files of this machine
        arguments += [f"--init-command={_NO_STATEMENT_TIMEOUT}", "--local-infile=0"]
        return [*arguments, *quiet, *extra_arguments]

    def query(self, sql: str) -> list[list[str]]:
        """The rows of a query whose columns are hexadecimal, numbers or plain words.

        Raises SourceError with what the client said.
        """
        command = self.command("--batch", "--skip-column-names", f"--execute={sql}")
        with client_errors():
            out = b"".join(process.output(command, env=environment()))
        lines = out.decode().split("\n")[:-1]  # str.splitlines would cut at more than line ends
        return [line.split("\t") for line in lines]

    def query_records(self, sql: str) -> list[dict[str, str]]:
        """The rows of a statement that has no choice of columns (SHOW), by their names.

        Raises SourceError with what the client said.
        """
        with client_errors():
            command = self.command("--batch", f"--execute={sql}")
            out = b"".join(process.output(command, env=environment()))
        head, *lines = out.decode("utf-8", "replace").split("\n")[:-1] or [""]
        return [dict(zip(head.split("\t"), line.split("\t"), strict=True)) for line in lines]

    def names(self, sql: str) -> list[list[str]]:
        """The rows of a query whose columns are all HEX(...): any name comes back unharmed."""
        return [[_decode_hex(word) for word in row] for row in self.query(sql)]


@contextlib.contextmanager
def client_errors() -> Iterator[None]:
    """Let an error of a client begin with what the client says, not with its exit code."""
    try:
        yield
    except (SourceError, StoreError) as error:
        lines = error.hint.split("\n")
        errors = [line for line in lines if line.startswith("ERROR ")]
        if not errors or not _EXIT_CODE.search(str(error)):
            raise
        others = [line for line in lines if line not in errors]
        hint = "\n".join(filter(None, (*others, _advice(errors[-1]))))
        raise type(error)(_EXIT_CODE.sub(lambda _: errors[-1], str(error)), hint) from None


def _advice(error: str) -> str:
    """What to do about an error of a client; "" where it says that itself."""
    match = re.match(r"ERROR (\d+)", error)
    return _ADVICE.get(int(match[1]), "") if match else ""


def find_socket(host: str) -> str:
    """Return the host of a restore: of a folder, the socket in it. Raises ConfigError."""
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
    """Whether an option file names a socket, and no other host than this one."""
    text = credentials.read_text(encoding="utf-8", errors="replace")
    return bool(_SOCKET.search(text)) and not _HOST.search(text)


def environment() -> dict[str, str]:
    """For clients and dumps: messages in English."""
    return {**os_works.environment({}), "LC_ALL": "C.UTF-8"}


def _decode_hex(word: str) -> str:
    return "" if word == "NULL" else bytes.fromhex(word).decode("utf-8", "surrogateescape")


def quote_identifier(name: str) -> str:
    """A name as SQL has it."""
    return "`" + name.replace("`", "``") + "`"


def hex_literal(name: str) -> str:
    """A text as a literal of SQL, whatever is in it."""
    return f"_utf8mb4 0x{name.encode('utf-8', 'surrogateescape').hex()}" if name else "''"


@dataclass(frozen=True)
class ServerInfo:
    """What a server says of itself."""

    version: str
    port: int  # by which it is reached
    binlog: bool
    events: bool  # whether they can be asked for: MariaDB refuses that while they are DISABLED
    databases: tuple[str, ...]

    @property
    def is_mariadb(self) -> bool:
        """Of which of the two brands it is."""
        return is_mariadb(self.version)


@dataclass(frozen=True)
class Tables:
    """The tables of one database."""

    base_tables: tuple[str, ...] = ()
    non_tables: tuple[str, ...] = ()  # views and sequences
    non_transactional: tuple[str, ...] = ()  # whose engine knows no transactions
    versioned: tuple[str, ...] = ()  # with a history of their rows (MariaDB, system-versioned)
    charset: str = ""
    collation: str = ""
    facts: dict[str, str] = field(default_factory=dict)


def server_info(connection: MySQLConnection) -> ServerInfo:
    """Ask the server. Raises SourceError where it cannot be reached."""
    ((version, port, binlog, scheduler, client),) = connection.query(
        "SELECT REPLACE(VERSION(), CHAR(9), ' '), @@port, @@log_bin, @@event_scheduler, host "
        "FROM information_schema.processlist WHERE id = CONNECTION_ID()"
    )
    databases = connection.names(
        "SELECT HEX(schema_name) FROM information_schema.schemata ORDER BY 1"
    )
    by_socket = ":" not in client  # clients pass over the port then
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
    """The expression for all GTIDs that are in the binary logs of a server by now."""
    if info.is_mariadb:
        return "@@gtid_binlog_pos"
    return (
        "REPLACE(@@gtid_executed, CHAR(10), '')" if major_version(info.version) >= (5, 6) else "''"
    )


def tables(connection: MySQLConnection, database: str) -> Tables:
    """The tables of a database and what they need."""
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
    """The tables that a `db.table` pattern with globs means."""
    for name in names:
        if dump_stream.is_named(f"{database}.{name}", patterns):
            yield name


@functools.cache
def tool_version(program: str) -> str:
    """What a program says of itself, on one line."""
    out = b"".join(process.output([program, "--version"], env=environment()))
    return out.decode("utf-8", "replace").strip().splitlines()[0]


def is_mariadb(version: str) -> bool:
    """Whether a server or a program is MariaDB's: it says so in its version."""
    return "mariadb" in version.lower()


def major_version(text: str) -> tuple[int, int]:
    """The first two numbers of a server's version; (0, 0) where there are none."""
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def release_version(text: str) -> tuple[int, int, int]:
    """The first three numbers of a server's version; zeros where there are none."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else (0, 0, 0)


def tool_server_version(text: str) -> tuple[int, int]:
    """The version of the server that a dump program belongs to."""
    for word in ("Distrib", "from", "Ver"):  # beside "Distrib", "Ver" is the program's own
        if match := re.search(rf"\b{word} (\d+\.\d+)", text):
            return major_version(match[1])
    return (0, 0)


def count_tables_and_rows(connection: MySQLConnection, database: str) -> tuple[int, int]:
    """How many tables a database has, and how many rows are in them all."""
    names = tables(connection, database).base_tables
    rows = 0
    for name in names:
        where = f"{quote_identifier(database)}.{quote_identifier(name)}"
        rows += int(connection.query(f"SELECT COUNT(*) FROM {where}")[0][0])
    return len(names), rows


def is_empty(connection: MySQLConnection, database: str) -> bool:
    """Whether a database has neither tables, views, routines nor events."""
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
    """How many events a database has, where they cannot be asked for (About.events)."""
    where = f"db = {hex_literal(database)}"
    ((number,),) = connection.query(f"SELECT COUNT(*) FROM mysql.event WHERE {where}")
    return int(number)


class WouldOverwriteError(BackupError):
    """A restore that would harm what is there."""
