"""A PostgreSQL server: connection, queries and properties."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from postgres import login_errors
from postgres.client_programs import ClientPrograms
from tools import os_works
from tools.base import permissions
from tools.base.errors import ConfigError, SourceError, StoreError
from tools.flow import process, stream

KIND = "postgres"
ROLES = "postgres-roles"
_TABLES_AT_ONCE = 100  # that one psql counts
WRITABLE = "-c default_transaction_read_only=off"  # PGOPTIONS of a restore
# The owner of a database may have set another one, in which names cannot be written.
_ENCODING = (
    "DO $$ BEGIN PERFORM set_config('client_encoding', current_setting('server_encoding'), false); "
    "END $$"
)
_TIMEOUT = "20"  # seconds to connect
# A server that rejects the database, not the login; in other languages at least its name.
_DATABASE_REJECTED = re.compile(r'database "|[»«„“]')
_MAINTENANCE_DATABASES = ("postgres", "template1")  # for queries about the server, in this order


@dataclass(frozen=True)
class PostgresConnection:
    """How to connect to a server; "" and None mean the defaults of libpq.

    host: host name, or directory of the Unix socket. passfile: password file (.pgpass).
    variables: environment variables of libpq, besides those in ENVIRONMENT of the section.
    maintenance_database: the database for queries about the server. lock_timeout: seconds that
    dumps and queries wait for a table that another session has locked; None for no limit.
    """

    programs: ClientPrograms
    host: str = ""
    port: int | None = None
    user: str = ""
    passfile: Path | None = None
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    maintenance_database: str = "postgres"
    lock_timeout: float | None = None

    def arguments(self) -> list[str]:
        """Return the connection arguments; the clients never prompt for a password."""
        arguments_found = ["--no-password"]
        arguments_found += [f"--host={self.host}"] if self.host else []
        arguments_found += [f"--port={self.port}"] if self.port is not None else []
        return arguments_found + ([f"--username={self.user}"] if self.user else [])

    def environment(self) -> dict[str, str]:
        """Return the environment: English messages, password file, TLS, connection time-out."""
        defaults = {"PGCONNECT_TIMEOUT": _TIMEOUT}
        variables = {**defaults, **os_works.environment({}), **self.variables, "LC_ALL": "C"}
        if self.passfile is not None:
            variables["PGPASSFILE"] = str(self.passfile)
        return variables

    def sql(self, *statements: str, database: str = "", columns: int = 0) -> list[list[str]]:
        """Return the rows of the last statement. Raises SourceError with the error of psql.

        Each statement is a separate transaction in one session. columns: number of columns; a
        line with another number (of a wrapper or connection pooler) raises SourceError.
        """
        command = [self.programs.psql, "-X", "-A", "-t", "-q", "--field-separator=\t"]
        connection = conninfo(database or self.maintenance_database)
        command += ["--set=ON_ERROR_STOP=1", *self.arguments(), f"--dbname={connection}"]
        # Counting rows may take long. A user may have put functions and operators of his own into
        # a schema of search_path: they would be executed with the privileges of this session.
        settings = ["SET statement_timeout = 0", "SET search_path = pg_catalog, pg_temp", _ENCODING]
        if self.lock_timeout is not None:
            settings.append(f"SET lock_timeout = {int(self.lock_timeout * 1000)}")
        command += [f"--command={statement}" for statement in (*settings, *statements)]
        out = b"".join(process.output(command, env=self.environment()))
        lines = (
            out.decode("utf-8", "backslashreplace").removesuffix("\n").split("\n") if out else []
        )
        rows = [line.split("\t") for line in lines]
        for row in rows if columns else ():
            if len(row) != columns:
                raise self._unexpected_output("\t".join(row))
        return rows

    def row(self, statement: str, columns: int = 1, database: str = "") -> list[str]:
        """Return the only row of a statement. Raises SourceError for another number of rows."""
        rows = self.sql(statement, database=database, columns=columns)
        if len(rows) != 1:
            raise self._unexpected_output(f"{len(rows)} rows")
        return rows[0]

    def number(self, statement: str, database: str = "") -> int:
        """Return the only value of a statement, a number. Raises SourceError for another text."""
        (value,) = self.row(statement, database=database)
        if not re.fullmatch(r"-?\d+", value):
            raise self._unexpected_output(value)
        return int(value)

    def _unexpected_output(self, line: str) -> SourceError:
        return SourceError(
            f"{self.programs.psql}: unexpected output: {line[:80]!r}",
            "Set PSQL to a psql whose output has no other lines: no wrapper, no connection pooler.",
        )

    def script(self, text: str) -> list[str]:
        """Run constant SQL, with data in hexadecimal only; return the lines of standard error.

        psql reads it from standard input, so its length is not limited; it would obey a backslash
        outside of quotes. Raises StoreError.
        """
        stderr_lines: list[str] = []
        command = [self.programs.psql, "-X", "-q", "--set=ON_ERROR_STOP=1", *self.arguments()]
        command.append(f"--dbname={conninfo(self.maintenance_database)}")
        env, stdin = self.environment(), text.encode("ascii")
        stream.drained(
            process.output(
                command, stdin_data=stdin, notice=stderr_lines.append, env=env, failure=StoreError
            )
        )
        return stderr_lines


def check_passfile(path: Path | None) -> Path | None:
    """Return the absolute path of a password file. Raises ConfigError if libpq would ignore it."""
    if path is None:
        return None
    if not path.is_file():
        raise ConfigError(
            f"PASSFILE: {path}: no such file",
            "Create it (mode 0600) with lines HOST:PORT:DATABASE:USER:PASSWORD.",
        )
    if path.stat().st_mode & 0o077:
        quoted = shlex.quote(str(path))
        raise ConfigError(
            f"PASSFILE: {path}: readable by group or others, so libpq ignores it",
            f"chown {os_works.user()} {quoted} && chmod 0600 {quoted}",
        )
    permissions.check_secret("PASSFILE", path, ("postgres",))
    return path.absolute()


def conninfo(database: str) -> str:
    """Return a connection string of libpq for a database, whatever its name contains."""
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def quote_identifier(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def decode_hex(value: str) -> str:
    """Return the text of a hexadecimal value. Raises SourceError if it is not hexadecimal."""
    try:
        return bytes.fromhex(value).decode("utf-8", "surrogateescape")
    except ValueError:
        raise SourceError(f"psql: unexpected output: {value[:80]!r}") from None


def execute(
    connection: PostgresConnection, template: str, arguments: Sequence[str], database: str = ""
) -> None:
    """Run a statement that the server builds: format(template, arguments). Raises SourceError.

    template: a constant that begins with a word. A string of --command is sent to the server as it
    is: psql reads neither variables nor a backslash in it, unless it begins with a backslash.
    """
    texts = ", ".join(map(text_expression, arguments))
    expression = hex_expression(f"format('{template}', {texts})")
    statement = decode_hex(connection.row(f"SELECT {expression}", database=database)[0])
    connection.sql(statement, database=database)


def text_expression(text: str) -> str:
    """Return an SQL expression for any text, independent of the settings of the session."""
    raw = text.encode("utf-8", "surrogateescape").hex()
    return f"convert_from(decode('{raw}', 'hex'), current_setting('server_encoding'))"


def hex_expression(column: str) -> str:
    """Return an SQL expression for a column in hexadecimal, so that any name is transferred.

    The bytes are in the encoding of the session, as names in other statements are.
    """
    return f"encode(textsend({column}::text), 'hex')"


@dataclass(frozen=True)
class Database:
    """A database and its properties ("CREATE DATABASE", PostgreSQL manual)."""

    name: str
    encoding: str
    collate: str
    ctype: str
    owner: str
    tablespace: str
    provider: str  # of locales: c (libc), i (icu), b (builtin); "" before PostgreSQL 15
    locale: str  # of icu and builtin
    icu_rules: str
    search_path: str  # of sessions whose role does not set it; "" if unknown

    def facts(self) -> dict[str, str]:
        """Return the facts that a restore needs to create it again."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key != "name"}


_SEARCH_PATH_SETTING = (
    "(SELECT substr(setting, 13) FROM pg_db_role_setting, unnest(setconfig) AS setting "
    "WHERE setdatabase = {0} AND setrole = 0 AND setting LIKE 'search\\_path=%')"
)
_SEARCH_PATH = (
    f"coalesce({_SEARCH_PATH_SETTING.format('d.oid')}, {_SEARCH_PATH_SETTING.format('0')}, "
    "(SELECT reset_val FROM pg_settings WHERE name = 'search_path' "
    "AND source IN ('default', 'configuration file', 'command line')))"
)


def list_databases(connection: PostgresConnection) -> list[Database]:
    """Return all databases that allow connections, including templates but not template0."""
    columns = ", ".join(
        hex_expression(name)
        for name in (
            "datname",
            "pg_encoding_to_char(encoding)",
            "datcollate",
            "datctype",
            "pg_get_userbyid(datdba)",
            "(SELECT nullif(spcname, 'pg_default') FROM pg_tablespace t "
            "WHERE t.oid = d.dattablespace)",
            # columns of later versions
            "row_to_json(d)->>'datlocprovider'",
            "coalesce(row_to_json(d)->>'datlocale', row_to_json(d)->>'daticulocale')",
            "row_to_json(d)->>'daticurules'",
            _SEARCH_PATH,
        )
    )
    where = (
        "datallowconn AND datconnlimit <> -2 AND datname <> 'template0' "
        "AND datname !~ '^nc_(new|keys)_[0-9a-f]{12}$'"  # of restores that are in progress
    )
    rows = connection.sql(
        f"SELECT {columns} FROM pg_database d WHERE {where} ORDER BY datname",
        columns=len(dataclasses.fields(Database)),
    )
    return [Database(*map(decode_hex, row)) for row in rows]


def exists(connection: PostgresConnection, name: str) -> bool:
    """Return whether a database exists, also a template or one that allows no connections."""
    rows = connection.sql(f"SELECT {hex_expression('datname')} FROM pg_database", columns=1)
    return name in {decode_hex(row[0]) for row in rows}


def find_maintenance(connection: PostgresConnection) -> PostgresConnection:
    """Return the connection with an existing maintenance database; not all have `postgres`.

    Raises SourceError with the error for the first database that was tried.
    """
    configured = connection.environment().get("PGDATABASE", "")
    first: SourceError | None = None
    for name in dict.fromkeys(filter(None, (configured, *_MAINTENANCE_DATABASES, connection.user))):
        candidate = dataclasses.replace(connection, maintenance_database=name)
        try:
            candidate.sql("SELECT 1")
        except SourceError as error:
            first = first or error
            if not _DATABASE_REJECTED.search(error.hint):
                break  # another database would get the same answer
        else:
            return candidate
    assert first is not None  # noqa: S101  (at least one was tried)
    raise login_errors.explained(first, connection.host, connection.port, connection.user)


def owner(connection: PostgresConnection, name: str) -> str:
    """Return the owner of a database."""
    expression = hex_expression("pg_get_userbyid(datdba)")
    where = f"datname = {text_expression(name)}"
    return decode_hex(connection.row(f"SELECT {expression} FROM pg_database WHERE {where}")[0])


def outside_of(connection: PostgresConnection, name: str) -> PostgresConnection:
    """Return the connection with another maintenance database than this one."""
    if name != connection.maintenance_database:
        return connection
    other = next(one for one in _MAINTENANCE_DATABASES if one != name)
    return dataclasses.replace(connection, maintenance_database=other)


def server_version(connection: PostgresConnection) -> str:
    """Return the version of the server ("15.18 (Debian ...)")."""
    return connection.row("SHOW server_version")[0]


def tool_version(connection: PostgresConnection, program: str) -> str:
    """Return the version output of a client program."""
    command = [program, "--version"]
    return (
        b"".join(process.output(command, env=connection.environment()))
        .decode("utf-8", "replace")
        .strip()
    )


def major_version(version: str) -> int:
    """Return the first number in a version, or 0."""
    match = re.search(r"\d+", version)
    return int(match[0]) if match else 0


def count_tables_and_rows(connection: PostgresConnection, name: str) -> tuple[int, int]:
    """Return the number of tables of a database, and of their rows, without our own."""
    rows = connection.sql(
        f"SELECT {hex_expression('oid::regclass')} FROM pg_class "
        f"WHERE relkind = 'r' AND {_USER_OBJECTS} AND relnamespace <> ALL "
        "(SELECT oid FROM pg_namespace WHERE nspname ~ '^nc_backup_[0-9a-f]{12}$')",
        database=name,
        columns=1,
    )
    queries = [f"SELECT count(*) FROM ONLY {decode_hex(row[0])}" for row in rows]
    total = 0
    for start in range(0, len(queries), _TABLES_AT_ONCE):
        numbers = connection.sql(
            *queries[start : start + _TABLES_AT_ONCE], database=name, columns=1
        )
        total += sum(int(row[0]) for row in numbers)
    return len(rows), total


_USER_OBJECTS = (
    "relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_' "
    "OR nspname = 'information_schema')"
)


def is_empty(connection: PostgresConnection, name: str) -> bool:
    """Return whether a database has no table, view, sequence or function of a user."""
    number = connection.number(
        f"SELECT (SELECT count(*) FROM pg_class WHERE {_USER_OBJECTS}) "
        "+ (SELECT count(*) FROM pg_proc "
        f"WHERE {_USER_OBJECTS.replace('relnamespace', 'pronamespace')})",
        database=name,
    )
    return number == 0


def is_pristine(connection: PostgresConnection, name: str) -> bool:
    """Return whether a template is unchanged since initdb: it has no object of a user."""
    catalogs = (
        *("pg_class", "pg_proc", "pg_type", "pg_namespace", "pg_extension", "pg_operator"),
        *("pg_cast", "pg_language", "pg_foreign_server", "pg_event_trigger", "pg_ts_config"),
        *("pg_collation", "pg_conversion", "pg_default_acl", "pg_largeobject_metadata"),
    )
    some = " UNION ALL ".join(f"SELECT oid FROM {catalog}" for catalog in catalogs)
    number = connection.number(
        f"SELECT count(*) FROM ({some}) AS o WHERE oid >= 16384", database=name
    )
    return number == 0
