"""A replica: which primary it follows, its position, and whether it is running.

Source of the columns: MariaDB Knowledge Base, "SHOW REPLICA STATUS"; MySQL Reference Manual, the
same page (version 8.0.22 says "replica" and "source").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mysql_backup import mysql_server
from tools.base import foreign
from tools.base.errors import SourceError
from tools.flow.facts import MysqlServerFacts
from tools.flow.item import Item, ItemReport

_RENAMED = (8, 0, 22)  # of MySQL: the first that says "replica"
_DENIED = "ERROR 1227"


@dataclass(frozen=True)
class PrimaryConnection:
    """The connection of a replica to one primary.

    name:     of the connection (MariaDB) or channel (MySQL); "" for the only one
    file, position: of the primary's binary log, up to which its events are executed
    problems: stopped threads and their last errors
    """

    name: str
    host: str
    port: str
    file: str
    position: str
    problems: tuple[str, ...] = ()

    def facts(self) -> dict[str, str | int]:
        """Return the facts for the manifest; a named connection adds its name to the keys."""
        suffix = f"[{self.name}]" if self.name else ""
        values: dict[str, str | int] = {
            "host": self.host,
            "port": _number(self.port),
            "log_file": self.file,
            "log_position": _number(self.position),
        }
        return {f"{key}{suffix}": value for key, value in values.items() if value}

    def __str__(self) -> str:
        name = f" ({self.name})" if self.name else ""
        return f"{self.host}:{self.port}{name}"


@dataclass(frozen=True)
class Replica:
    """The state of a server as a replica.

    connections: empty for a server that is not a replica
    gtid:    the GTIDs that it has executed as a replica
    denied:  whether it is a replica whose connections this user may not query
    """

    connections: tuple[PrimaryConnection, ...] = ()
    gtid: str = ""
    denied: bool = False

    def facts(self, server_facts: MysqlServerFacts, *, mariadb: bool) -> MysqlServerFacts:
        """Return the facts for the manifest, from which a new replica can start."""
        primary: dict[str, str | int] = {}
        for connection in self.connections:
            primary |= connection.facts()
        gtid = self.gtid if primary or self.denied else ""
        if mariadb:
            return dataclasses.replace(server_facts, primary=primary, gtid_slave_pos=gtid)
        return dataclasses.replace(server_facts, primary=primary, gtid_executed=gtid)

    def notes(self) -> tuple[str, ...]:
        """Return a note with the position in the primary's binary log."""
        at_gtid = f", GTID {self.gtid}" if self.gtid else ""
        return tuple(
            f"replica of {one}, executed up to {one.file}:{one.position}{at_gtid}"
            for one in self.connections
        )

    def warnings(self) -> tuple[str, ...]:
        """Return warnings on threads that do not run, and on a missing privilege."""
        problems = [
            f"replica of {one}: {problem}" for one in self.connections for problem in one.problems
        ]
        return (*problems, *((_MISSING_PRIVILEGE,) if self.denied else ()))


_MOVED = (
    "the position of the primary moved during the dump: a new replica that starts from it repeats "
    "changes of the dump (set slave_exec_mode to IDEMPOTENT until it has caught up)"
)
_MISSING_PRIVILEGE = (
    "this server is a replica, but the user may not read the position of its primary (GRANT "
    "SLAVE MONITOR ON *.*; in MySQL REPLICATION CLIENT)"
)


def query_replica(source: mysql_server.MySQLConnection, info: mysql_server.ServerInfo) -> Replica:
    """Query the current state. Raises SourceError."""
    gtid = ""
    if info.is_mariadb:
        ((gtid,),) = source.query("SELECT @@GLOBAL.gtid_slave_pos")
    elif mysql_server.major_version(info.version) >= (5, 6):
        ((gtid,),) = source.query("SELECT REPLACE(@@GLOBAL.gtid_executed, CHAR(10), '')")
    try:
        rows = source.query_records(_statement(info))
    except SourceError as error:
        if _DENIED not in str(error):
            raise
        return Replica(gtid=gtid, denied=info.is_mariadb and bool(gtid))
    return Replica(tuple(_connection(row) for row in rows), gtid)


def with_primary_position(
    item: Item, source: mysql_server.MySQLConnection, info: mysql_server.ServerInfo
) -> Item:
    """Return an item of a replica with the position of the primary in its facts.

    The position is the one before the dump. It is exact if it is the same after the dump.
    """
    states: list[Replica] = []

    def read() -> Iterator[bytes]:
        states[:] = [query_replica(source, info)]
        yield from item.read()
        states.append(query_replica(source, info))

    def ended() -> ItemReport:
        done, before, after = item.report(), states[0], states[-1]
        if not isinstance(done.facts, MysqlServerFacts):
            return done
        facts = before.facts(done.facts, mariadb=info.is_mariadb)
        notes = list(before.notes())
        if before.connections:
            exact = after.facts(done.facts, mariadb=info.is_mariadb) == facts
            position = "exact" if exact else "before the dump began"
            facts = dataclasses.replace(facts, primary={**facts.primary, "position": position})
            notes += [] if exact else [_MOVED]
        return dataclasses.replace(done, notes=(*done.notes, *notes), facts=facts)

    return dataclasses.replace(item, read=read, report=ended)


def _number(text: str) -> str | int:
    """Return a number of a status; "" where the server has none yet."""
    number = foreign.number(text)
    return text if number is None else number


def _statement(info: mysql_server.ServerInfo) -> str:
    if info.is_mariadb:
        return "SHOW ALL SLAVES STATUS"
    renamed = mysql_server.release_version(info.version) >= _RENAMED
    return "SHOW REPLICA STATUS" if renamed else "SHOW SLAVE STATUS"


def _connection(row: Mapping[str, str]) -> PrimaryConnection:
    """Parse one row, with the column names of any version."""
    plain = {
        key.lower().replace("master", "source").replace("slave", "replica"): value
        for key, value in row.items()
    }
    return PrimaryConnection(
        plain.get("connection_name", plain.get("channel_name", "")),
        plain["source_host"],
        plain["source_port"],
        plain["relay_source_log_file"],
        plain["exec_source_log_pos"],
        tuple(_problems(plain)),
    )


def _problems(row: Mapping[str, str]) -> list[str]:
    problems = []
    for thread, effect in (("io", "not receiving"), ("sql", "not applying")):
        if row[f"replica_{thread}_running"] != "Yes":
            error = row.get(f"last_{thread}_error", "")
            state = row[f"replica_{thread}_running"].lower()
            running = "connecting" if state == "connecting" else "stopped"
            problems.append(f"{effect}: {thread.upper()} thread {running}"
                         f"{': ' + error if error else ''}")  # fmt: skip
    return problems
