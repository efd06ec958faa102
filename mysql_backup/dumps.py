"""Dumps of one server: a database an item, users and grants as another, judged in the stream."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mysql_backup import accounts, instance, loading, omissions, variables
from tools.base.errors import RetryError, SourceError
from tools.date_str_utils import count
from tools.flow import dump_stream, process
from tools.flow.item import Ended, Item

KIND = "mysql"
USERS = "mysql-users"
MARK = b"-- Dump completed"
_RENAMED = (8, 4)  # of MySQL: the first that says only "source" instead of "master"
_HISTORY = (10, 11)  # of MariaDB: the first that dumps the history of versioned tables
_HEAD = 1 << 16  # bytes in which the position stands
_POSITION = re.compile(rb"(?:MASTER|SOURCE)_LOG_FILE='([^']+)', (?:MASTER|SOURCE)_LOG_POS=(\d+)")
# A table that was altered, truncated, renamed or dropped while it was dumped (RELIABILITY M5).
_CALLED = re.compile(r"execute command denied .* for routine '(.+)'")
_CHANGED = re.compile(r"\b(?:1412|1146|1932|1051)\b")


@dataclass(frozen=True)
class What:
    """What of a server is dumped. Tables are `database.table`, with globs."""

    exclude_db: Sequence[str] = ()
    exclude_table: Sequence[str] = ()
    schema_only: Sequence[str] = ()


class Dumps:
    """The items of one server."""

    def __init__(self, source: instance.Instance, program: str, what: What) -> None:
        """Asks the server. Raises SourceError where it holds nothing or cannot be asked."""
        self.source = source
        self._program = program
        self._what = what
        self.about = instance.about(source)
        self.tool = instance.version(program)
        self.variables = variables.facts(source)
        left_out = {name.lower() for name in instance.SYSTEM}
        self.databases = [
            name
            for name in self.about.databases
            if name.lower() not in left_out and not dump_stream.is_named(name, what.exclude_db)
        ]
        if not self.databases:
            raise SourceError(
                f"port {self.about.port}: no database to dump",
                "Check EXCLUDE_DB and the privileges of the user in CREDENTIAL_PATH.",
            )

    def items(self) -> Iterator[Item]:
        """Users and grants first: a restore needs them first."""
        port = self.about.port
        yield Item(f"users@{port}", USERS, lambda _head: ".sql", self._users, self._ended_users)
        for name in self.databases:
            one = _Database(self, name)
            yield Item(f"{port}/{name}", KIND, lambda _head: ".sql", one.read, one.ended)

    def warnings(self) -> tuple[str, ...]:
        """A dump program that is older than the server may not know all it has."""
        server, tool = instance.major(self.about.version), instance.of_tool(self.tool)
        if (0, 0) < tool < server:
            return (f"{self.tool} is older than the server ({self.about.version})",)
        return ()

    def facts(self) -> dict[str, str]:
        """What every item of this server says of it."""
        return {"server": self.about.version, "tool": self.tool, **self.variables}

    def _users(self) -> Iterator[bytes]:
        if self.about.is_mariadb and instance.is_mariadb(self.tool):
            yield from accounts.extensions(self.source)
            yield from self.run(["--system=users", "--insert-ignore"], "users and grants")
            return
        yield from accounts.shown(self.source)
        yield MARK + b"\n"

    def _ended_users(self) -> Ended:
        return Ended(self.warnings(), (omissions.SYSTEM,), self.facts())

    def run(self, more: Sequence[str], what: str) -> Iterator[bytes]:
        """The output of the dump program; raises at its end where it is not whole."""
        said: list[str] = []
        chunks = process.output(
            [*self.source.words(self._program), *more],
            notice=said.append,
            env=instance.environment(),
        )
        try:
            yield from dump_stream.ended_by(chunks, MARK, what)
        except SourceError as error:
            if any(_CHANGED.search(line) for line in said):
                raise RetryError(
                    f"{what}: definition changed during the dump", error.hint
                ) from None
            hint = error.hint
            for found in filter(None, map(_CALLED.search, said)):
                hint += f"\nA view calls this function: GRANT EXECUTE ON FUNCTION {found[1]} TO "
                hint += "the user of the backup, or add the view to EXCLUDE_TABLE."
            raise SourceError(f"{what}: {error}", hint) from None

    def tables(self, database: str) -> instance.Tables:
        """The tables of a database."""
        return instance.tables(self.source, database)

    def position(self, file: str, place: str) -> dict[str, str]:
        """A position as the manifest has it, with the server's time now: it is not earlier."""
        facts = {"binlog_file": file, "binlog_position": place}
        ((facts["time"],),) = self.source.rows(f"SELECT {instance.NOW}")
        if self.about.is_mariadb:
            where = f"{instance.hexed(file)}, {place}"
            ((facts["gtid"],),) = self.source.rows(f"SELECT BINLOG_GTID_POS({where})")
        return facts

    def executed(self) -> dict[str, str]:
        """The GTIDs that are in every dump that begins now (MySQL)."""
        if self.about.is_mariadb or not self.about.binlog:
            return {}
        ((gtid,),) = self.source.rows(f"SELECT {instance.executed(self.about)}")
        return {"gtid": gtid}

    @property
    def what(self) -> What:
        """What is left out."""
        return self._what


class _Database:
    """One database."""

    def __init__(self, dumps: Dumps, name: str) -> None:
        self._dumps = dumps
        self._name = name
        self._facts: dict[str, str] = {}
        self._notes: list[str] = []
        self._warnings: tuple[str, ...] = ()

    def read(self) -> Iterator[bytes]:
        """The dump: first what needs a run of its own, then all else."""
        tables = self._dumps.tables(self._name)
        source, what = self._dumps.source, self._dumps.what
        lacks = omissions.of(source, self._name, tables.versioned)
        named = (*tables.every, *tables.others)
        excluded = list(instance.matching(named, self._name, what.exclude_table))
        without = [*excluded, *(name for name in lacks.broken if name not in excluded)]
        empty = [
            name
            for name in instance.matching(tables.every, self._name, what.schema_only)
            if name not in without
        ]
        left = (*without, *empty)
        unsafe = [name for name in tables.unsafe if name not in left]
        self._facts = {
            **self._dumps.facts(),
            **self._dumps.executed(),
            "charset": tables.charset,
            "collation": tables.collation,
            "consistency": "locked" if unsafe else "single transaction",
            "excluded": " ".join(excluded),
            "schema_only": " ".join(empty),
        }
        floats = {name: some for name, some in lacks.floats.items() if name not in left}
        self._warnings = (
            *self._hidden(),
            *lacks.warnings((*excluded, *empty)),
            *omissions.rounded(source, self._name, floats),
        )
        self._notes = [*lacks.notes(left)]
        if unsafe:
            self._notes.append(f"tables locked during the dump: {', '.join(unsafe)}")
        measured = loading.Longest()
        yield from measured.read(self._dumped(tables, lacks, left, empty, unsafe=bool(unsafe)))
        self._judge(measured.needed)

    def _dumped(
        self,
        tables: instance.Tables,
        lacks: omissions.Omissions,
        left: Sequence[str],
        empty: Sequence[str],
        *,
        unsafe: bool,
    ) -> Iterator[bytes]:
        """What the dump program gives, one run after the other."""
        if empty:
            plain = ["--no-data", "--triggers", "--default-character-set=utf8mb4"]
            yield from self._dumps.run([*plain, "--", self._name, *empty], self._name)
        history = [name for name in tables.versioned if name not in (*left, *lacks.precise)]
        alone = [name for name in lacks.precise if name not in left] if history else []
        if alone:  # the program dumps no history beside them
            self._notes.append(f"tables dumped in a separate transaction: {', '.join(alone)}")
            rows = self._rows(unsafe=unsafe)
            yield from self._dumps.run([*rows, "--", self._name, *alone], self._name)
        words = [*self._words(unsafe=unsafe), *self._history(history)]
        words += [f"--ignore-table={self._name}.{name}" for name in (*left, *alone)]
        chunks = self._dumps.run([*words, "--", self._name], self._name)
        head, whole = dump_stream.beginning(chunks, _HEAD)
        if found := _POSITION.search(head):
            self._facts.update(self._dumps.position(found[1].decode(), found[2].decode()))
        yield from whole

    def _judge(self, needed: int) -> None:
        """A warning where the server that has a row would not take it back."""
        self._facts["longest_statement"] = str(needed)
        limit = loading.limit(self._dumps.source)
        if needed > limit:
            self._warnings += (
                f"max_allowed_packet of the server is {limit}, but a row of {self._name} needs "
                f"{needed} bytes as SQL: the restore needs an administrator, who may raise it",
            )

    def _hidden(self) -> tuple[str, ...]:
        """A warning of events that the server does not let anybody dump."""
        source = self._dumps.source
        number = 0 if self._dumps.about.events else instance.hidden_events(source, self._name)
        hidden = f"{count(number, 'event')} not dumped: event_scheduler is DISABLED; set it to OFF"
        return (hidden,) if number else ()

    def _history(self, versioned: Sequence[str]) -> list[str]:
        """The word for the history of versioned tables, where program and server know it."""
        if not versioned:
            return []
        tool = self._dumps.tool
        versions = (instance.of_tool(tool), instance.major(self._dumps.about.version))
        if instance.is_mariadb(tool) and min(versions) >= _HISTORY:
            return ["--dump-history"]
        self._warnings += (
            f"history of {', '.join(versioned)} not dumped: {tool} does not support it",
        )
        return []

    def _rows(self, *, unsafe: bool) -> list[str]:
        """The words for tables and their rows, whatever else is dumped."""
        return [
            "--lock-tables" if unsafe else "--single-transaction",
            *instance.ROOM,
            "--skip-add-locks",  # a default that names a sequence needs another table meanwhile
            *("--quick", "--triggers", "--hex-blob", "--default-character-set=utf8mb4"),
        ]

    def _words(self, *, unsafe: bool) -> list[str]:
        about, tool = self._dumps.about, self._dumps.tool
        words = [*self._rows(unsafe=unsafe), "--routines"]
        old = instance.is_mariadb(tool) or instance.of_tool(tool) < _RENAMED
        if about.binlog:
            # without a single transaction, this locks all tables of the server
            words.append("--master-data=2" if old else "--source-data=2")
        if not instance.is_mariadb(tool):
            # else a server that has some of them refuses the dump, or logs nothing of it
            words.append("--set-gtid-purged=OFF")
            foreign = about.is_mariadb or instance.major(about.version) < (8, 0)
            if foreign and instance.of_tool(tool) >= (8, 0):
                words.append("--skip-column-statistics")
        return [*words, *(["--events"] if about.events else [])]

    def ended(self) -> Ended:
        """What is worth knowing of the dump."""
        facts = {key: value for key, value in self._facts.items() if value}
        warnings = (*self._dumps.warnings(), *self._warnings)
        return Ended(warnings, tuple(self._notes), facts)
