"""Dumps of a PostgreSQL server: its roles, and each of its databases."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from postgres import catalogs, locks, omissions, pg_server, server_facts
from tools.base import fixes
from tools.base.errors import BackupError, RetryError, SourceError
from tools.base.finding import Finding
from tools.date_str_utils import count
from tools.flow import dump_stream, process, stream
from tools.flow.facts import PostgresFacts, PostgresServerFacts
from tools.flow.item import Item, ItemReport
from tools.flow.stream import Chunks

KIND = "postgres"
ROLES = "postgres-roles"
ROLES_ENDING = ".json"  # items of earlier versions are SQL
_WARNING = re.compile(r"pg_dump: warning: (.*)")
_MORE = re.compile(r"pg_dump: detail: (.*)")
_SUBSCRIPTIONS = "subscriptions not dumped"  # of which the catalogs know the names
# Message of a standby that cancels a statement (procsignal.c, postgres.c).
_CONFLICT = "conflict with recovery"
_LOCK_TIMEOUT = re.compile(r"due to (?:statement|lock) timeout")


@dataclass(frozen=True)
class DumpFilter:
    """What to leave out: databases by name, tables by the patterns of pg_dump."""

    exclude_db: Sequence[str] = ()
    exclude_table: Sequence[str] = ()
    exclude_table_data: Sequence[str] = ()

    def arguments(self) -> list[str]:
        """Return the options of pg_dump."""
        return [
            *(f"--exclude-table={pattern}" for pattern in self.exclude_table),
            *(f"--exclude-table-data={pattern}" for pattern in self.exclude_table_data),
        ]

    @property
    def all_tables(self) -> bool:
        """Return whether no table is left out."""
        return not self.arguments()


class Warnings:
    """Collects the warnings of a dump program, with their details."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add_line(self, line: str) -> None:
        """Parse the next line of its standard error."""
        if match := _WARNING.match(line):
            self.lines.append(match[1])
        elif self.lines and (match := _MORE.match(line)):
            self.lines[-1] += f" {match[1]}"


class PostgresDumps:
    """The items of one server."""

    def __init__(self, server: pg_server.PostgresConnection, dump_filter: DumpFilter) -> None:
        """Query the server. Raises SourceError if it has no database or is newer than pg_dump."""
        self._connection = pg_server.find_maintenance(server)
        self._filter = dump_filter
        self.server = pg_server.server_version(self._connection)
        self.tool = pg_server.tool_version(self._connection, server.programs.dump)
        if pg_server.major_version(self.server) > pg_server.major_version(self.tool):
            major = pg_server.major_version(self.server)
            raise SourceError(
                f"server version {self.server} is newer than {self.tool}",
                f"Install the client programs of version {major}, or set PSQLDUMP to them.",
                fixes.install_version("postgresql-client", major),
            )
        self.databases = [
            database
            for database in pg_server.list_databases(self._connection)
            if self._is_selected(database)
        ]
        if not self.databases:
            raise SourceError("no database to dump", "Check EXCLUDE_DB.")
        self.port = server.port or self._connection.number("SHOW port")

    def _is_selected(self, database: pg_server.Database) -> bool:
        if dump_stream.is_named(database.name, self._filter.exclude_db):
            return False
        if database.name != "template1":
            return True
        return not pg_server.is_pristine(self._connection, database.name)

    def items(self) -> Iterator[Item]:
        """Yield roles and tablespaces first, as a restore needs them first."""
        roles = _Roles(self._connection, self._filter, PostgresServerFacts(self.server, self.tool))
        yield Item(f"roles@{self.port}", ROLES, lambda _head: ROLES_ENDING, roles.read, roles.ended)
        for database in self.databases:
            facts = PostgresFacts(self.server, self.tool, **database.facts())
            dump = _Database(self._connection, self._filter, database, facts)
            name = f"{self.port}/{database.name}"
            yield Item(name, KIND, lambda _head: ".pgdump", dump.read, dump.ended)

    def test_findings(self) -> Iterator[str | Finding]:
        """Yield the findings for `-t`: what dumps would leave out, and what they would fail on."""
        label = f"port {self.port}"
        yield (
            f"{label}: PostgreSQL {self.server}, {count(len(self.databases), 'database')}, "
            f"{self.tool}"
        )
        yield from omissions.server_findings(self._connection, self._filter.exclude_db, label)
        for database in self.databases:
            all_tables = self._filter.all_tables
            yield from omissions.database_findings(
                self._connection, database.name, label, all_tables=all_tables
            )


class _Database:
    """The dump of one database."""

    def __init__(
        self,
        server: pg_server.PostgresConnection,
        dump_filter: DumpFilter,
        database: pg_server.Database,
        facts: PostgresFacts,
    ) -> None:
        self._connection = server
        self._filter = dump_filter
        self._database = database
        self._facts = facts
        self._warnings = Warnings()
        self._omissions = omissions.Omissions()

    def read(self) -> Iterator[bytes]:
        """Yield the dump in the custom format of pg_dump. Raises SourceError, RetryError."""
        name = self._database.name
        self._warnings = Warnings()
        self._omissions = omissions.of_database(self._connection, name)
        command = [self._connection.programs.dump, "--format=custom", "--compress=0"]
        if (patience := self._connection.lock_timeout) is not None:
            command.append(f"--lock-wait-timeout={int(patience * 1000)}")
        # by default that of the session, which the owner of the database may have set
        command.append(f"--encoding={self._database.encoding}")
        command += [*self._filter.arguments(), *self._connection.arguments()]
        command.append(f"--dbname={pg_server.conninfo(name)}")
        yield from stream.watched(self._run(command), self._check_complete)

    def _run(self, command: Sequence[str]) -> Iterator[bytes]:
        try:
            yield from _run(self._connection, command, self._database.name, self._warnings.add_line)
        except SourceError as error:
            raise self._explain(error) from None

    def _explain(self, error: SourceError) -> SourceError:
        """Return the error with its cause, if queries on the server find it."""
        name = self._database.name
        if _CONFLICT in error.hint:
            return RetryError(f"{name}: {_CONFLICT} on a standby", self._standby_hint())
        if _LOCK_TIMEOUT.search(error.hint):
            return locks.lock_error(self._connection, name, error)
        try:
            problem, hint = omissions.row_security(self._connection, name)
        except BackupError:
            return error
        return SourceError(f"{name}: {problem}", f"{hint}\n{error.hint}") if problem else error

    def _standby_hint(self) -> str:
        """Return the hint on the settings of a standby that give a dump more time."""
        names = ("max_standby_streaming_delay", "max_standby_archive_delay", "hot_standby_feedback")
        expressions = ", ".join(f"current_setting('{name}')" for name in names)
        try:
            values = self._connection.row(f"SELECT {expressions}", columns=len(names))
        except BackupError:
            values = ["?"] * len(names)
        current = ", ".join(f"{name} = {value}" for name, value in zip(names, values, strict=True))
        return (
            "On the standby, set max_standby_streaming_delay (and max_standby_archive_delay) "
            "above the duration of a dump, or hot_standby_feedback to on. "
            f"Current values: {current}."
        )

    def _check_complete(self, chunks: Chunks) -> None:
        """Read a dump to its end with pg_restore. Its list alone is valid for half a dump."""
        command = [self._connection.programs.sibling("pg_restore"), f"--file={os.devnull}"]
        environment = self._connection.environment()
        name = self._database.name
        try:
            stream.drained(process.output(command, stdin_data=chunks, env=environment))
        except SourceError as error:
            raise SourceError(f"{name}: incomplete dump: {error}", error.hint) from None

    def ended(self) -> ItemReport:
        """Return warnings, notes and facts of the dump."""
        known = any("subscriptions" in line for line in self._omissions.warnings)
        warnings = [
            line for line in self._warnings.lines if not (known and line.startswith(_SUBSCRIPTIONS))
        ]
        return ItemReport(
            (*self._omissions.warnings, *warnings), self._omissions.notes, self._facts
        )


class _Roles:
    """Roles, settings, tablespaces, and properties of databases."""

    def __init__(
        self,
        server: pg_server.PostgresConnection,
        dump_filter: DumpFilter,
        facts: PostgresServerFacts,
    ) -> None:
        self._connection = server
        self._filter = dump_filter
        self._facts = facts
        self._omissions = omissions.Omissions()

    def read(self) -> Iterator[bytes]:
        """Yield the facts of the server as JSON. Raises SourceError."""
        self._omissions = omissions.of_server(self._connection, self._filter.exclude_db)
        passwords = omissions.reads_passwords(self._connection)
        yield server_facts.to_bytes(catalogs.server(self._connection, passwords=passwords))

    def ended(self) -> ItemReport:
        """Return warnings, notes and facts of the item."""
        return ItemReport(self._omissions.warnings, self._omissions.notes, self._facts)


def _run(
    server: pg_server.PostgresConnection,
    command: Sequence[str],
    label: str,
    notice: Callable[[str], None],
) -> Iterator[bytes]:
    """Yield the output of a dump program. Raises SourceError with the label."""
    try:
        yield from process.output(command, env=server.environment(), notice=notice)
    except SourceError as error:
        raise SourceError(f"{label}: {error}", error.hint) from None
