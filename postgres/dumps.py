"""The dumps of one PostgreSQL server: its roles, and each of its databases."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from postgres import cluster, omissions, settings
from tools.base.errors import BackupError, RetryError, SourceError
from tools.base.finding import Finding
from tools.date_str_utils import count
from tools.flow import dump_stream, process, stream
from tools.flow.item import Ended, Item
from tools.flow.stream import Chunks

KIND = "postgres"
ROLES = "postgres-roles"
_END = b"-- PostgreSQL database cluster dump complete"
_WARNING = re.compile(r"(?:pg_dump|pg_dumpall): warning: (.*)")
_MORE = re.compile(r"(?:pg_dump|pg_dumpall): detail: (.*)")
_SUBSCRIPTIONS = "subscriptions not dumped"  # of which the catalogs know the names
# Why a standby ends a statement (procsignal.c, postgres.c); both come with these words.
_CONFLICT = "conflict with recovery"


@dataclass(frozen=True)
class What:
    """What is left out: databases by name, tables by the patterns of pg_dump."""

    exclude_db: Sequence[str] = ()
    exclude_table: Sequence[str] = ()
    exclude_table_data: Sequence[str] = ()

    def words(self) -> list[str]:
        """The options of pg_dump."""
        return [
            *(f"--exclude-table={pattern}" for pattern in self.exclude_table),
            *(f"--exclude-table-data={pattern}" for pattern in self.exclude_table_data),
        ]

    @property
    def all_tables(self) -> bool:
        """Whether no table is left out."""
        return not self.words()


class Warnings:
    """The warnings of a dump program, with their details."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def take(self, line: str) -> None:
        """The next line of its standard error."""
        if found := _WARNING.match(line):
            self.lines.append(found[1])
        elif self.lines and (found := _MORE.match(line)):
            self.lines[-1] += f" {found[1]}"


class Dumps:
    """The items of one server."""

    def __init__(self, server: cluster.Cluster, what: What) -> None:
        """Asks the server. Raises SourceError where it holds nothing, or is newer than we."""
        self._cluster = cluster.reached(server)
        self._what = what
        self.server = cluster.server_version(self._cluster)
        self.tool = cluster.version(self._cluster, server.programs.dump)
        if cluster.major(self.server) > cluster.major(self.tool):
            major = cluster.major(self.server)
            raise SourceError(
                f"server version {self.server} is newer than {self.tool}",
                f"Install the client programs of version {major}, or set PSQLDUMP to them.",
            )
        self.databases = [
            found for found in cluster.databases(self._cluster) if self._is_meant(found)
        ]
        if not self.databases:
            raise SourceError("no database to dump", "Check EXCLUDE_DB.")
        self.port = server.port or self._cluster.number("SHOW port")

    def _is_meant(self, database: cluster.Database) -> bool:
        if dump_stream.is_named(database.name, self._what.exclude_db):
            return False
        if database.name != "template1":
            return True
        return not cluster.is_pristine(self._cluster, database.name)

    def items(self) -> Iterator[Item]:
        """Roles and tablespaces first: a restore needs them first."""
        facts = {"server": self.server, "tool": self.tool}
        roles = _Roles(self._cluster, self._what, facts)
        yield Item(f"roles@{self.port}", ROLES, lambda _head: ".sql", roles.read, roles.ended)
        for database in self.databases:
            one = _Database(self._cluster, self._what, database, facts)
            name = f"{self.port}/{database.name}"
            yield Item(name, KIND, lambda _head: ".pgdump", one.read, one.ended)

    def tested(self) -> Iterator[str | Finding]:
        """What `-t` says of the server: what dumps would leave out, and what they would fail on."""
        label = f"port {self.port}"
        yield (
            f"{label}: PostgreSQL {self.server}, {count(len(self.databases), 'database')}, "
            f"{self.tool}"
        )
        yield from omissions.tested_server(self._cluster, self._what.exclude_db, label)
        for database in self.databases:
            whole = self._what.all_tables
            yield from omissions.tested(self._cluster, database.name, label, whole=whole)


class _Database:
    """The dump of one database."""

    def __init__(
        self,
        server: cluster.Cluster,
        what: What,
        database: cluster.Database,
        facts: dict[str, str],
    ) -> None:
        self._cluster = server
        self._what = what
        self._database = database
        self._facts = {**facts, **database.facts()}
        self._warnings = Warnings()
        self._omissions = omissions.Omissions()

    def read(self) -> Iterator[bytes]:
        """The dump in pg_dump's custom format. Raises SourceError, RetryError."""
        name = self._database.name
        self._warnings = Warnings()
        self._omissions = omissions.of_database(self._cluster, name)
        words = [self._cluster.programs.dump, "--format=custom", "--compress=0"]
        words += [*self._what.words(), *self._cluster.words()]
        words.append(f"--dbname={cluster.conninfo(name)}")
        yield from stream.watched(self._run(words), self._whole)

    def _run(self, words: Sequence[str]) -> Iterator[bytes]:
        try:
            yield from _run(self._cluster, words, self._database.name, self._warnings.take)
        except SourceError as error:
            raise self._explained(error) from None

    def _explained(self, error: SourceError) -> SourceError:
        """The error, with what its cause is where the server can tell."""
        name = self._database.name
        if _CONFLICT in error.hint:
            return RetryError(f"{name}: {_CONFLICT} on a standby", self._delays())
        try:
            what, hint = omissions.row_security(self._cluster, name)
        except BackupError:
            return error
        return SourceError(f"{name}: {what}", f"{hint}\n{error.hint}") if what else error

    def _delays(self) -> str:
        """How a standby gives a dump more time."""
        names = ("max_standby_streaming_delay", "max_standby_archive_delay", "hot_standby_feedback")
        asked = ", ".join(f"current_setting('{name}')" for name in names)
        try:
            values = self._cluster.row(f"SELECT {asked}", columns=len(names))
        except BackupError:
            values = ["?"] * len(names)
        now = ", ".join(f"{name} = {value}" for name, value in zip(names, values, strict=True))
        return (
            "On the standby, set max_standby_streaming_delay (and max_standby_archive_delay) "
            f"above the duration of a dump, or hot_standby_feedback to on. Current values: {now}."
        )

    def _whole(self, chunks: Chunks) -> None:
        """A full pass of pg_restore: its list alone is good for half a dump (RELIABILITY P2)."""
        words = [self._cluster.programs.beside("pg_restore"), f"--file={os.devnull}"]
        environment = self._cluster.environment()
        name = self._database.name
        try:
            stream.drained(process.output(words, given=chunks, env=environment))
        except SourceError as error:
            raise SourceError(f"{name}: incomplete dump: {error}", error.hint) from None

    def ended(self) -> Ended:
        """What is not in it, and how the database was made."""
        known = any("subscriptions" in line for line in self._omissions.warnings)
        told = [
            line for line in self._warnings.lines if not (known and line.startswith(_SUBSCRIPTIONS))
        ]
        return Ended((*self._omissions.warnings, *told), self._omissions.notes, self._facts)


class _Roles:
    """The dump of roles, tablespaces and settings of roles."""

    def __init__(self, server: cluster.Cluster, what: What, facts: dict[str, str]) -> None:
        self._cluster = server
        self._what = what
        self._facts = facts
        self._warnings = Warnings()
        self._omissions = omissions.Omissions()

    def read(self) -> Iterator[bytes]:
        """The SQL of pg_dumpall, and of what it leaves out. Raises SourceError."""
        self._warnings = Warnings()
        self._omissions = omissions.of_server(self._cluster, self._what.exclude_db)
        settings_of_all = settings.of_all_roles(self._cluster)
        words = [self._cluster.programs.beside("pg_dumpall"), "--globals-only"]
        if not omissions.reads_passwords(self._cluster):
            words.append("--no-role-passwords")
        words += [*self._cluster.words(), f"--dbname={cluster.conninfo(self._cluster.maintenance)}"]
        chunks = _run(self._cluster, words, "roles", self._warnings.take)
        yield from dump_stream.ended_by(chunks, _END, "roles and tablespaces")
        if settings_of_all:
            yield settings_of_all

    def ended(self) -> Ended:
        """What is not in it."""
        warnings = (*self._omissions.warnings, *self._warnings.lines)
        return Ended(warnings, self._omissions.notes, self._facts)


def _run(
    server: cluster.Cluster, words: Sequence[str], what: str, notice: Callable[[str], None]
) -> Iterator[bytes]:
    """The output of a dump program. Raises SourceError naming what was dumped."""
    try:
        yield from process.output(words, env=server.environment(), notice=notice)
    except SourceError as error:
        raise SourceError(f"{what}: {error}", error.hint) from None
