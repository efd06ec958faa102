"""Dumps of a server: one item per database, and one for users and grants, checked as they pass."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mysql_backup import (
    accounts,
    definition_check,
    loading,
    lock_waits,
    mysql_server,
    omissions,
    server_variables,
)
from tools.base.errors import RetryError, SourceError
from tools.date_str_utils import count
from tools.flow import dump_stream, process
from tools.flow.facts import MysqlFacts, MysqlServerFacts
from tools.flow.item import Item, ItemReport

KIND = "mysql"
USERS = "mysql-users"
END_MARK = b"-- Dump completed"
_SOURCE_OPTIONS_SINCE = (8, 4)  # of MySQL: the first that says only "source" instead of "master"
_HISTORY_SINCE = (10, 11)  # of MariaDB: the first that dumps the history of versioned tables
_HEAD = 1 << 16  # bytes that contain the position
_POSITION = re.compile(rb"(?:MASTER|SOURCE)_LOG_FILE='([^']+)', (?:MASTER|SOURCE)_LOG_POS=(\d+)")
# A table was altered, truncated, renamed or dropped during the dump.
_MISSING_EXECUTE = re.compile(r"execute command denied .* for routine '(.+)'")
_DEFINITION_CHANGED = re.compile(r"\b(?:1412|1146|1932|1051)\b")


@dataclass(frozen=True)
class DumpFilter:
    """What to leave out of dumps. Tables are `database.table`, with globs."""

    exclude_db: Sequence[str] = ()
    exclude_table: Sequence[str] = ()
    schema_only: Sequence[str] = ()


class MySQLDumps:
    """The items of one server."""

    def __init__(
        self, source: mysql_server.MySQLConnection, program: str, dump_filter: DumpFilter
    ) -> None:
        """Query the server. Raises SourceError if it has no database or cannot be reached."""
        self.source = source
        self._program = program
        self._filter = dump_filter
        self.info = mysql_server.server_info(source)
        self.tool = mysql_server.tool_version(program)
        self.variables = server_variables.facts(source)
        system_databases = {name.lower() for name in mysql_server.SYSTEM}
        self.databases = [
            name
            for name in self.info.databases
            if name.lower() not in system_databases
            and not dump_stream.is_named(name, dump_filter.exclude_db)
        ]
        if not self.databases:
            raise SourceError(
                "no database to dump",
                "Check EXCLUDE_DB, and the privileges of the user in CREDENTIAL_PATH "
                "(docs/modules/mysql_dump.md, Requirements).",
            )

    def items(self) -> Iterator[Item]:
        """Yield users and grants first, as a restore needs them first."""
        port = self.info.port
        yield Item(f"users@{port}", USERS, lambda _head: ".sql", self._users, self._users_report)
        for name in self.databases:
            dump = _Database(self, name)
            yield Item(f"{port}/{name}", KIND, lambda _head: ".sql", dump.read, dump.ended)

    def warnings(self) -> tuple[str, ...]:
        """Return a warning if the dump program is older than the server."""
        server, tool = (
            mysql_server.major_version(self.info.version),
            mysql_server.tool_server_version(self.tool),
        )
        if (0, 0) < tool < server:
            return (f"{self.tool} is older than the server ({self.info.version})",)
        return ()

    def facts(self) -> MysqlServerFacts:
        """Return the facts of every item of this server."""
        return MysqlServerFacts(self.info.version, self.tool, self.variables)

    def _users(self) -> Iterator[bytes]:
        if self.info.is_mariadb and mysql_server.is_mariadb(self.tool):
            yield from accounts.extensions(self.source)
            yield from self.run(["--system=users", "--insert-ignore"], "users and grants")
            return
        yield from accounts.account_statements(self.source)
        yield END_MARK + b"\n"

    def _users_report(self) -> ItemReport:
        return ItemReport(self.warnings(), (omissions.SYSTEM,), self.facts())

    def run(self, extra_arguments: Sequence[str], label: str) -> Iterator[bytes]:
        """Yield the output of the dump program. Raises SourceError if it is incomplete."""
        stderr_lines: list[str] = []
        chunks = process.output(
            [*self.source.arguments(self._program), *extra_arguments],
            notice=stderr_lines.append,
            idle=self._lock_watch(label),
            env=mysql_server.environment(),
        )
        try:
            yield from dump_stream.ended_by(chunks, END_MARK, label)
        except SourceError as error:
            if any(_DEFINITION_CHANGED.search(line) for line in stderr_lines):
                raise RetryError(
                    f"{label}: definition changed during the dump", error.hint
                ) from None
            hint = error.hint
            for match in filter(None, map(_MISSING_EXECUTE.search, stderr_lines)):
                hint += f"\nA view calls this function: GRANT EXECUTE ON FUNCTION {match[1]} TO "
                hint += "the user of the backup, or add the view to EXCLUDE_TABLE."
            raise SourceError(f"{label}: {error}", hint) from None

    def _lock_watch(self, label: str) -> lock_waits.LockWatch | None:
        """Return what ends a wait for locks."""
        patience = self.source.lock_timeout
        database = label if label in self.databases else ""
        return lock_waits.LockWatch(self.source, patience, database) if patience else None

    def tables(self, database: str) -> mysql_server.Tables:
        """Return the tables of a database."""
        return mysql_server.tables(self.source, database)

    def at_position(self, facts: MysqlFacts, file: str, position: int) -> MysqlFacts:
        """Return a position for the manifest, with the current time of the server."""
        ((time,),) = self.source.query(f"SELECT {mysql_server.NOW}")
        gtid = facts.gtid
        if self.info.is_mariadb:
            arguments = f"{mysql_server.hex_literal(file)}, {position}"
            ((gtid,),) = self.source.query(f"SELECT BINLOG_GTID_POS({arguments})")
        return dataclasses.replace(
            facts, binlog_file=file, binlog_position=position, time=time, gtid=gtid
        )

    def gtid_executed(self) -> str:
        """Return the GTIDs that every dump that begins now contains (MySQL)."""
        if self.info.is_mariadb or not self.info.binlog:
            return ""
        ((gtid,),) = self.source.query(f"SELECT {mysql_server.gtid_expression(self.info)}")
        return gtid

    @property
    def filter(self) -> DumpFilter:
        """Return what is left out."""
        return self._filter


class _Database:
    """The dump of one database."""

    def __init__(self, dumps: MySQLDumps, name: str) -> None:
        self._dumps = dumps
        self._name = name
        self._facts = MysqlFacts()
        self._notes: list[str] = []
        self._warnings: tuple[str, ...] = ()
        self._endless_events: tuple[str, ...] = ()

    def read(self) -> Iterator[bytes]:
        """Yield the dump: first what needs a separate run of the program, then the rest."""
        tables = self._dumps.tables(self._name)
        source, dump_filter = self._dumps.source, self._dumps.filter
        gaps = omissions.find_omissions(source, self._name, tables.versioned)
        if self._dumps.info.events and mysql_server.is_mariadb(self._dumps.tool):
            self._endless_events = omissions.endless_events(source, self._name)
        names = (*tables.base_tables, *tables.non_tables)
        excluded = list(mysql_server.match_tables(names, self._name, dump_filter.exclude_table))
        excluded_or_broken = [*excluded, *(name for name in gaps.broken if name not in excluded)]
        without_rows = [
            name
            for name in mysql_server.match_tables(
                tables.base_tables, self._name, dump_filter.schema_only
            )
            if name not in excluded_or_broken
        ]
        left_out = (*excluded_or_broken, *without_rows)
        locked = [name for name in tables.non_transactional if name not in left_out]
        self._facts = MysqlFacts(
            self._dumps.info.version,
            self._dumps.tool,
            self._dumps.variables,
            gtid=self._dumps.gtid_executed(),
            charset=tables.charset,
            collation=tables.collation,
            consistency="locked" if locked else "single transaction",
            excluded=tuple(excluded),
            schema_only=tuple(without_rows),
        )
        floats = {name: columns for name, columns in gaps.floats.items() if name not in left_out}
        self._warnings = (
            *self._event_warnings(),
            *gaps.warnings((*excluded, *without_rows)),
            *omissions.float_warnings(source, self._name, floats),
        )
        self._notes = [*gaps.notes(left_out)]
        if locked:
            self._notes.append(f"tables locked during the dump: {', '.join(locked)}")
        measured, definitions = loading.LongestLine(), definition_check.DefinitionCheck(self._name)
        runs = self._dump_runs(tables, gaps, left_out, without_rows, unsafe=bool(locked))
        yield from definitions.read(measured.read(runs))
        self._warnings += definitions.warnings()
        self._check_packet_size(measured.needed)

    def _dump_runs(
        self,
        tables: mysql_server.Tables,
        gaps: omissions.Omissions,
        left_out: Sequence[str],
        without_rows: Sequence[str],
        *,
        unsafe: bool,
    ) -> Iterator[bytes]:
        """Yield the output of the dump program, one run after the other."""
        if without_rows:
            plain = ["--no-data", "--triggers", "--default-character-set=utf8mb4"]
            yield from self._dumps.run([*plain, "--", self._name, *without_rows], self._name)
        history = [name for name in tables.versioned if name not in (*left_out, *gaps.precise)]
        separate = [name for name in gaps.precise if name not in left_out] if history else []
        if separate:  # the program dumps no history beside them
            self._notes.append(f"tables dumped in a separate transaction: {', '.join(separate)}")
            rows = self._row_arguments(unsafe=unsafe)
            yield from self._dumps.run([*rows, "--", self._name, *separate], self._name)
        arguments = [*self._dump_arguments(unsafe=unsafe), *self._history_arguments(history)]
        arguments += [f"--ignore-table={self._name}.{name}" for name in (*left_out, *separate)]
        chunks = self._dumps.run([*arguments, "--", self._name], self._name)
        head, all_chunks = dump_stream.beginning(chunks, _HEAD)
        if match := _POSITION.search(head):
            file, position = match[1].decode("utf-8", "surrogateescape"), int(match[2])
            self._facts = self._dumps.at_position(self._facts, file, position)
        yield from all_chunks

    def _check_packet_size(self, needed: int) -> None:
        """Add a warning if a row is larger than the server would accept in a restore."""
        self._facts = dataclasses.replace(self._facts, longest_statement=needed)
        limit = loading.packet_limit(self._dumps.source)
        if needed > limit:
            self._warnings += (
                f"max_allowed_packet of the server is {limit}, but a row of {self._name} needs "
                f"{needed} bytes as SQL: the restore needs an administrator, who may raise it",
            )

    def _event_warnings(self) -> tuple[str, ...]:
        """Return a warning on events that the server does not allow to be dumped."""
        source = self._dumps.source
        if self._endless_events:
            names = ", ".join(self._endless_events)
            return (
                "events not dumped: mariadb-dump never ends for an event that contains ;; "
                f"({names})",
            )
        number = 0 if self._dumps.info.events else mysql_server.hidden_events(source, self._name)
        hidden = f"{count(number, 'event')} not dumped: event_scheduler is DISABLED; set it to OFF"
        return (hidden,) if number else ()

    def _history_arguments(self, versioned: Sequence[str]) -> list[str]:
        """Return the option for the history of versioned tables, if it is supported."""
        if not versioned:
            return []
        tool = self._dumps.tool
        versions = (
            mysql_server.tool_server_version(tool),
            mysql_server.major_version(self._dumps.info.version),
        )
        if mysql_server.is_mariadb(tool) and min(versions) >= _HISTORY_SINCE:
            return ["--dump-history"]
        self._warnings += (
            f"history of {', '.join(versioned)} not dumped: {tool} does not support it",
        )
        return []

    def _row_arguments(self, *, unsafe: bool) -> list[str]:
        """Return the options for tables and their rows."""
        return [
            "--lock-tables" if unsafe else "--single-transaction",
            *mysql_server.MAX_PACKET_OPTION,
            "--skip-add-locks",  # defaults may need a sequence that is not locked
            *("--quick", "--triggers", "--hex-blob", "--default-character-set=utf8mb4"),
        ]

    def _dump_arguments(self, *, unsafe: bool) -> list[str]:
        info, tool = self._dumps.info, self._dumps.tool
        arguments = [*self._row_arguments(unsafe=unsafe), "--routines"]
        master_options = (
            mysql_server.is_mariadb(tool)
            or mysql_server.tool_server_version(tool) < _SOURCE_OPTIONS_SINCE
        )
        if info.binlog:
            # without a single transaction, this locks all tables of the server
            arguments.append("--master-data=2" if master_options else "--source-data=2")
        if not mysql_server.is_mariadb(tool):
            # otherwise a server with GTIDs rejects the dump, or does not log it
            arguments.append("--set-gtid-purged=OFF")
            foreign = info.is_mariadb or mysql_server.major_version(info.version) < (8, 0)
            if foreign and mysql_server.tool_server_version(tool) >= (8, 0):
                arguments.append("--skip-column-statistics")
        events = info.events and not self._endless_events
        return [*arguments, *(["--events"] if events else [])]

    def ended(self) -> ItemReport:
        """Return warnings, notes and facts of the dump."""
        warnings = (*self._dumps.warnings(), *self._warnings)
        return ItemReport(warnings, tuple(self._notes), self._facts)
