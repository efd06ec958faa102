"""One PostgreSQL server: how it is asked, and what it holds."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools import os_works
from tools.base import permissions
from tools.base.errors import BackupError, ConfigError, SourceError, StoreError
from tools.flow import process, stream
from tools.flow.stream import Chunks

KIND = "postgres"
ROLES = "postgres-roles"
_TIMEOUT = "20"  # seconds to connect
# A server that rejects the database, not the login; in other languages at least its name.
_OF_DATABASE = re.compile(r'database "|[»«„“]')
_MAINTENANCE = ("postgres", "template1")  # databases in which a server is asked, the first first


@dataclass(frozen=True)
class Programs:
    """psql, pg_dump, and what lies beside it."""

    psql: str
    dump: str

    def beside(self, name: str) -> str:
        """Another program of the same version. Raises ConfigError where there is none."""
        named = Path(self.dump)
        for near in (named.with_name(name), named.resolve().with_name(name)):
            if named.is_absolute() and near.is_file():
                return str(near)
        found = shutil.which(name)
        if not found:
            raise ConfigError(
                f"{name}: command not found",
                "Install the PostgreSQL client programs (Debian: postgresql-client).",
            )
        return found


@dataclass(frozen=True)
class Cluster:
    """A server as clients reach it; "" and None mean the clients' own defaults.

    host: a name, or a folder of sockets. passfile: the client's file of logins (.pgpass).
    variables: of libpq, beside those that the section names in ENVIRONMENT.
    maintenance: the database in which the server is asked.
    """

    programs: Programs
    host: str = ""
    port: int | None = None
    user: str = ""
    passfile: Path | None = None
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    maintenance: str = "postgres"

    def words(self) -> list[str]:
        """Where the server is; a password is never asked for."""
        found = ["--no-password"]
        found += [f"--host={self.host}"] if self.host else []
        found += [f"--port={self.port}"] if self.port is not None else []
        return found + ([f"--username={self.user}"] if self.user else [])

    def environment(self) -> dict[str, str]:
        """Messages in English, the file of logins, TLS, no waiting for ever."""
        usual = {"PGCONNECT_TIMEOUT": _TIMEOUT}
        found = {**usual, **os_works.environment({}), **self.variables, "LC_ALL": "C"}
        if self.passfile is not None:
            found["PGPASSFILE"] = str(self.passfile)
        return found

    def sql(self, *statements: str, database: str = "", columns: int = 0) -> list[list[str]]:
        """The rows of the last statement. Raises SourceError with what psql said.

        Each statement is a transaction of its own, in one session. columns: how many each row
        has; a line of another shape (of a wrapper, of a pooler) raises SourceError.
        """
        words = [self.programs.psql, "-X", "-A", "-t", "-q", "--field-separator=\t"]
        where = conninfo(database or self.maintenance)
        words += ["--set=ON_ERROR_STOP=1", *self.words(), f"--dbname={where}"]
        patient = "SET statement_timeout = 0"  # the counting of rows may take long
        words += [f"--command={statement}" for statement in (patient, *statements)]
        out = b"".join(process.output(words, env=self.environment()))
        lines = (
            out.decode("utf-8", "backslashreplace").removesuffix("\n").split("\n") if out else []
        )
        rows = [line.split("\t") for line in lines]
        for row in rows if columns else ():
            if len(row) != columns:
                raise self._misshapen("\t".join(row))
        return rows

    def row(self, statement: str, columns: int = 1, database: str = "") -> list[str]:
        """The one row of a statement. Raises SourceError where there is another number of rows."""
        rows = self.sql(statement, database=database, columns=columns)
        if len(rows) != 1:
            raise self._misshapen(f"{len(rows)} rows")
        return rows[0]

    def number(self, statement: str, database: str = "") -> int:
        """The one number that a statement gives. Raises SourceError where it gives another text."""
        (word,) = self.row(statement, database=database)
        if not re.fullmatch(r"-?\d+", word):
            raise self._misshapen(word)
        return int(word)

    def _misshapen(self, line: str) -> SourceError:
        return SourceError(
            f"{self.programs.psql}: unexpected output: {line[:80]!r}",
            "Set PSQL to a psql whose output has no other lines: no wrapper, no connection pooler.",
        )

    def script(self, chunks: Chunks) -> list[str]:
        """What psql says of a script; it goes on after an error. Raises StoreError."""
        said: list[str] = []
        words = [self.programs.psql, "-X", "-q", *self.words()]
        words.append(f"--dbname={conninfo(self.maintenance)}")
        env = self.environment()
        stream.drained(
            process.output(words, given=chunks, notice=said.append, env=env, failure=StoreError)
        )
        return said


def passfile(path: Path | None) -> Path | None:
    """The file of logins, if one is named; the clients ignore one that others can read."""
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
    """A database's name as clients take it whatever is in it (libpq, connection strings)."""
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def identifier(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def text(word: str) -> str:
    """What was asked for in hexadecimal. Raises SourceError where it is none."""
    try:
        return bytes.fromhex(word).decode("utf-8", "surrogateescape")
    except ValueError:
        raise SourceError(f"psql: unexpected output: {word[:80]!r}") from None


def literal(word: str) -> str:
    """The expression for any text, whatever the settings of the session are."""
    raw = word.encode("utf-8", "surrogateescape").hex()
    return f"convert_from(decode('{raw}', 'hex'), current_setting('server_encoding'))"


def hexed(column: str) -> str:
    """The expression for a column in hexadecimal: any name comes back unharmed.

    As the session has it, in the encoding of the database: so it is also sent.
    """
    return f"encode(textsend({column}::text), 'hex')"


@dataclass(frozen=True)
class Database:
    """A database and how it was made ("CREATE DATABASE", PostgreSQL manual)."""

    name: str
    encoding: str
    collate: str
    ctype: str
    owner: str
    tablespace: str
    provider: str  # of locales: c (libc), i (icu), b (builtin); "" before PostgreSQL 15
    locale: str  # of icu and builtin
    icu_rules: str
    search_path: str  # of sessions whose role has none of its own; "" where it is not known

    def facts(self) -> dict[str, str]:
        """What a restore needs to make it again."""
        found = {key: value for key, value in dataclasses.asdict(self).items() if value}
        del found["name"]
        return found


_SETTING = (
    "(SELECT substr(setting, 13) FROM pg_db_role_setting, unnest(setconfig) AS setting "
    "WHERE setdatabase = {0} AND setrole = 0 AND setting LIKE 'search\\_path=%')"
)
_SEARCH_PATH = (
    f"coalesce({_SETTING.format('d.oid')}, {_SETTING.format('0')}, "
    "(SELECT reset_val FROM pg_settings WHERE name = 'search_path' "
    "AND source IN ('default', 'configuration file', 'command line')))"
)


def databases(cluster: Cluster) -> list[Database]:
    """All that take connections, templates too, but for template0."""
    columns = ", ".join(
        hexed(name)
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
    where = "datallowconn AND datconnlimit <> -2 AND datname <> 'template0'"
    rows = cluster.sql(
        f"SELECT {columns} FROM pg_database d WHERE {where} ORDER BY datname",
        columns=len(dataclasses.fields(Database)),
    )
    return [Database(*map(text, row)) for row in rows]


def exists(cluster: Cluster, name: str) -> bool:
    """Whether there is a database of this name, a template or a closed one too."""
    rows = cluster.sql(f"SELECT {hexed('datname')} FROM pg_database", columns=1)
    return name in {text(row[0]) for row in rows}


def reached(cluster: Cluster) -> Cluster:
    """The server, asked in a database that it has: not all have one that is called postgres.

    Raises SourceError with the answer for the first database that was tried.
    """
    named = cluster.environment().get("PGDATABASE", "")
    first: BackupError | None = None
    for name in dict.fromkeys(filter(None, (named, *_MAINTENANCE, cluster.user))):
        asked = dataclasses.replace(cluster, maintenance=name)
        try:
            asked.sql("SELECT 1")
        except SourceError as error:
            first = first or error
            if not _OF_DATABASE.search(error.hint):
                break  # another database would get the same answer
        else:
            return asked
    assert first is not None  # noqa: S101  (at least one was tried)
    raise first


def elsewhere(cluster: Cluster, name: str) -> Cluster:
    """The same server, asked in another database than this one."""
    if name != cluster.maintenance:
        return cluster
    other = next(one for one in _MAINTENANCE if one != name)
    return dataclasses.replace(cluster, maintenance=other)


def roles(cluster: Cluster) -> set[str]:
    """The names of all roles, as a dump of them has these."""
    rows = cluster.sql(f"SELECT {hexed('quote_ident(rolname)')} FROM pg_roles", columns=1)
    return {text(row[0]) for row in rows}


def server_version(cluster: Cluster) -> str:
    """As the server says it ("15.18 (Debian ...)")."""
    return cluster.row("SHOW server_version")[0]


def version(cluster: Cluster, program: str) -> str:
    """What a client program says of itself."""
    words = [program, "--version"]
    return b"".join(process.output(words, env=cluster.environment())).decode().strip()


def major(said: str) -> int:
    """The first number in a version."""
    found = re.search(r"\d+", said)
    return int(found[0]) if found else 0


def counts(cluster: Cluster, name: str) -> tuple[int, int]:
    """How many tables a database has, and how many rows are in them all."""
    rows = cluster.sql(
        f"SELECT {hexed('oid::regclass')} FROM pg_class WHERE relkind = 'r' AND {_OWN}",
        database=name,
        columns=1,
    )
    total = 0
    for row in rows:
        total += cluster.number(f"SELECT count(*) FROM ONLY {text(row[0])}", database=name)
    return len(rows), total


_OWN = (
    "relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_' "
    "OR nspname = 'information_schema')"
)


def is_empty(cluster: Cluster, name: str) -> bool:
    """Whether a database has no table, view, sequence or function of its own."""
    number = cluster.number(
        f"SELECT (SELECT count(*) FROM pg_class WHERE {_OWN}) + (SELECT count(*) FROM pg_proc "
        f"WHERE {_OWN.replace('relnamespace', 'pronamespace')})",
        database=name,
    )
    return number == 0


def is_pristine(cluster: Cluster, name: str) -> bool:
    """Whether a template is as initdb made it: it holds no object of a user."""
    catalogs = (
        *("pg_class", "pg_proc", "pg_type", "pg_namespace", "pg_extension", "pg_operator"),
        *("pg_cast", "pg_language", "pg_foreign_server", "pg_event_trigger", "pg_ts_config"),
        *("pg_collation", "pg_conversion", "pg_default_acl", "pg_largeobject_metadata"),
    )
    some = " UNION ALL ".join(f"SELECT oid FROM {catalog}" for catalog in catalogs)
    number = cluster.number(f"SELECT count(*) FROM ({some}) AS o WHERE oid >= 16384", database=name)
    return number == 0
