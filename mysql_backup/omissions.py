"""What is missing from a dump of a database, or changed in it: reported in each run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from mysql_backup import mysql_server
from tools.base.errors import SourceError

# Engines whose rows the dump programs leave out (mysqldump.c, check_if_ignore_table).
_REMOTE = ("FEDERATED", "SPIDER", "VP")  # rows of another server, which has its own backup
_OUTSIDE = ("CONNECT", "OQGRAPH")
SYSTEM = (
    "system databases: only users, roles, grants, plugins, user-defined functions and foreign "
    "servers are dumped, not time zones, statistics, logs and replication settings"
)


@dataclass(frozen=True)
class Omissions:
    """Tables of a database that a dump does not contain completely.

    broken:  the server does not have their engine, so they cannot be read; with the error
    precise: versioned by transactions: their history cannot be dumped (MariaDB)
    floats:  with columns FLOAT, which are dumped with 6 digits
    """

    broken: dict[str, str] = field(default_factory=dict)
    remote: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    precise: tuple[str, ...] = ()
    floats: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def warnings(self, without: Collection[str]) -> Iterator[str]:
        """Yield what is missing from the backup; without: tables that the config leaves out."""
        for name, error in self.broken.items():
            if name not in without:
                yield f"table {name} not dumped: {error}"
        for name in _selected(self.outside, without):
            yield f"rows of {name} not dumped: its engine stores them outside the server"
        for name in _selected(self.precise, without):
            yield (
                f"history of {name} not dumped, only current rows: it is versioned by transactions "
                "(a column ROW START of type BIGINT)"
            )

    def notes(self, without: Collection[str]) -> Iterator[str]:
        """Yield what is left out on purpose."""
        for name in _selected(self.remote, without):
            yield f"rows of {name} not dumped, only its definition: they are on another server"


def _selected(names: Sequence[str], without: Collection[str]) -> list[str]:
    return [name for name in names if name not in without]


def find_omissions(
    source: mysql_server.MySQLConnection, database: str, versioned: Sequence[str]
) -> Omissions:
    """Query a server. Raises SourceError."""
    literal = mysql_server.hex_literal(database)
    engines = source.names(
        "SELECT HEX(table_name), HEX(IFNULL(engine, '')), HEX(IFNULL(table_comment, '')) "  # noqa: S608  (our own)
        f"FROM information_schema.tables WHERE table_schema = {literal} "
        "AND table_type <> 'VIEW' ORDER BY table_name"
    )
    available = {
        row[0].upper()
        for row in source.names(
            "SELECT HEX(engine) FROM information_schema.engines WHERE support IN ('YES', 'DEFAULT')"
        )
    }
    floats: dict[str, tuple[str, ...]] = {}
    columns = source.names(
        "SELECT HEX(table_name), HEX(column_name) FROM information_schema.columns "  # noqa: S608  (our own)
        f"WHERE table_schema = {literal} AND data_type = 'float' "
        "AND column_type NOT LIKE '%(%' ORDER BY table_name, ordinal_position"
    )
    for table, column in columns:
        floats[table] = (*floats.get(table, ()), column)
    return Omissions(
        {
            name: comment
            for name, engine, comment in engines
            if engine.upper() not in available and comment.startswith("Unknown storage engine")
        },
        tuple(name for name, engine, _ in engines if engine.upper() in _REMOTE),
        tuple(name for name, engine, _ in engines if engine.upper() in _OUTSIDE),
        _precise(source, literal) if versioned else (),
        floats,
    )


def endless_events(source: mysql_server.MySQLConnection, database: str) -> tuple[str, ...]:
    """Return the events with `;;`, in whose dump mariadb-dump 10.11 never ends."""
    rows = source.names(
        "SELECT HEX(event_name) FROM information_schema.events "  # noqa: S608  (our own)
        f"WHERE event_schema = {mysql_server.hex_literal(database)} AND LOCATE(';;', "
        "CONCAT_WS(' ', event_name, event_comment, event_definition, definer)) ORDER BY event_name"
    )
    return tuple(row[0] for row in rows)


def _precise(source: mysql_server.MySQLConnection, literal: str) -> tuple[str, ...]:
    rows = source.names(
        "SELECT HEX(table_name) FROM information_schema.columns "  # noqa: S608  (our own)
        f"WHERE table_schema = {literal} AND data_type = 'bigint' "
        "AND generation_expression = 'ROW START'"
    )
    return tuple(row[0] for row in rows)


def float_warnings(
    source: mysql_server.MySQLConnection, database: str, floats: dict[str, tuple[str, ...]]
) -> Iterator[str]:
    """Yield warnings on tables with a FLOAT that has more digits. Reads their rows."""
    for table, columns in floats.items():
        names = map(mysql_server.quote_identifier, columns)
        differs = " OR ".join(f"{name} <> CAST(CAST({name} AS CHAR) AS FLOAT)" for name in names)
        table_name = ".".join(map(mysql_server.quote_identifier, (database, table)))
        where = f"{table_name} WHERE {differs}"
        try:
            ((has_more,),) = source.query(f"SELECT EXISTS (SELECT 1 FROM {where})")  # noqa: S608  (our own)
        except SourceError:  # the server does not support CAST to FLOAT
            has_more = "1"
        if has_more == "1":
            column_names = ", ".join(columns)
            yield f"FLOAT values of {table} are dumped with 6 digits but have more: {column_names}"
