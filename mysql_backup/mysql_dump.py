#!/usr/bin/env python3
"""Back up MySQL and MariaDB servers: a dump of each database, users and grants."""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mysql_backup import (
    binlog_replay,
    binlogs,
    dumps,
    grants,
    mysql_server,
    privileges,
    replica,
    restore_dump,
    server_paths,
)
from tools import os_works
from tools.base import finding
from tools.base.errors import ConfigError
from tools.base.finding import Finding
from tools.base.result import Result
from tools.date_str_utils import count
from tools.flow import dump_stream, item_record
from tools.flow.facts import MysqlFacts
from tools.flow.item import Item, ItemReport, SourceContext
from tools.modules import contracts, database_plugin, executable
from tools.modules import servers as configured
from tools.modules.options import Duration, Paths, Ports, Strings, option
from tools.modules.servers import Configured

_DUMPS = ("mysqldump", "mariadb-dump")
_CLIENTS = ("mysql", "mariadb")


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    hostname: str = option("name of this server (part of file names in staged runs)", default="")
    my_instances: Ports = option(
        "ports of the servers, separated by spaces or commas", default=(3306,)
    )
    credential_path: Paths = option(
        "option files with [mysqldump] and [mysql] (user, password, host, socket): one per port, "
        "or one for all",
        default=(server_paths.CREDENTIALS,),
    )
    exclude_db: Strings = option("databases to leave out (`*` and `?` allowed)", default=())
    exclude_table: Strings = option(
        "tables, views and sequences to leave out, as `db.table` (`*` and `?` allowed)", default=()
    )
    schema_only_table: Strings = option(
        "tables to dump without rows, as `db.table` (`*` and `?` allowed)", default=()
    )
    lock_timeout: Duration = option(
        "how long to wait for a table that another session has locked (90, 30s, 5m)",
        default=Duration(600.0),
        least=1,
    )
    mysql_dump_binary: str = option(
        "path of mysqldump or mariadb-dump", default="/usr/bin/mysqldump"
    )
    mysql_binary: str = option("path of mysql or mariadb", default="/usr/bin/mysql")
    destination: Path | None = option(
        "staged runs: folder in which PREFIX_FOLDER is created; default WORK_FOLDER", default=None
    )
    prefix_folder: str = option("staged runs: folder for the dumps", default="mydump")
    work_folder: Path = option("folder for temporary files", default=Path("/opt/backup"))
    allow_root: bool = option("allow the run as root (for containers)", default=False)
    conf_path: str = option("ignored here; used by mysql_xtrabackup", default="")
    data_dir: Strings = option("ignored here; used by mysql_xtrabackup", default=())
    binlog_path: Paths = option(
        "folders of the binary logs, one per port; default: asked of the server", default=()
    )
    binlog_file_prefix: str = option(
        "accepted for old configs, ignored: asked of the server", default=""
    )
    binlog_days: int = option(
        "0: no binary logs; otherwise how many days back a first run (and every staged run) goes",
        default=2,
        least=0,
    )
    tar_command: str = option(
        "accepted for old configs, ignored: use a COMPRESSION section", default=""
    )

    def __post_init__(self) -> None:
        """Raise ConfigError for keys whose number of paths is wrong, and for invalid tables."""
        server_paths.check_path_count("CREDENTIAL_PATH", self.credential_path, self.my_instances)
        server_paths.check_path_count("BINLOG_PATH", self.binlog_path, self.my_instances)
        _check_tables("EXCLUDE_TABLE", self.exclude_table)
        _check_tables("SCHEMA_ONLY_TABLE", self.schema_only_table)


def _check_tables(key: str, names: Sequence[str]) -> None:
    """Raise ConfigError for a name without its database."""
    for name in names:
        if "." not in name:
            raise ConfigError(
                f"{key}: {name}: must be db.table", f"Write it as DATABASE.{name} or *.{name}."
            )


@dataclass(frozen=True)
class _Source:
    """One server, and its binary logs if they are backed up."""

    dumps: dumps.MySQLDumps
    logs: binlogs.BinaryLogSource | None
    replica: replica.Replica
    global_privileges: set[str] | None

    def items(self, context: SourceContext) -> Iterator[Item]:
        """Yield the items: users, each database, binary logs."""
        yield from map(self._with_server_warnings, self.dumps.items())
        if self.logs is not None:
            yield self.logs.item(context.previous)

    def _with_server_warnings(self, item: Item) -> Item:
        """Return an item with warnings on missing objects, and the position of the primary."""
        source, info = self.dumps.source, self.dumps.info
        if item.kind == dumps.USERS:
            return _with_warnings(item, self.replica.warnings())
        if self.replica.connections or self.replica.denied:
            item = replica.with_primary_position(item, source, info)
        database = item.name.partition("/")[2]
        return _with_warnings(
            item, privileges.trigger_warnings(source, database, self.global_privileges)
        )

    def test_findings(self) -> Iterator[str | Finding]:
        """Yield the findings for `-t`. Raises SourceError."""
        info, number = self.dumps.info, count(len(self.dumps.databases), "database")
        name = f"port {info.port}"
        yield f"{name}: {info.version}, {number}, {self.dumps.tool}"
        yield from (f"{name}: {note}" for note in self.replica.notes())
        yield from (finding.warning(f"{name}: {line}") for line in self.replica.warnings())
        for line in self.dumps.warnings():
            yield finding.warning(
                f"{name}: {line}",
                "Install the client programs of the server's version, or set MYSQL_DUMP_BINARY to "
                "them.",
            )
        excluded, logs = self.dumps.filter.exclude_table, self.logs is not None
        source, databases = self.dumps.source, self.dumps.databases
        for one in privileges.findings(source, info, databases, excluded, logs=logs):
            yield dataclasses.replace(one, text=f"{name}: {one.text}")
        if self.logs is not None:
            yield from self.logs.test_findings()


def servers(options: Options) -> Iterator[Configured[_Source]]:
    """Yield each server of the config, not connected yet. Raises ConfigError."""
    programs = (
        dump_stream.program(options.mysql_dump_binary, *_DUMPS),
        _client(options.mysql_binary),
    )
    for number, port in enumerate(options.my_instances):
        connect = functools.partial(_connect, options, number, programs)
        yield Configured(configured.label(port), connect)


def _connect(options: Options, number: int, programs: tuple[str, str]) -> _Source:
    """Connect to the server of this number. Raises ConfigError or SourceError."""
    program, client = programs
    credentials = server_paths.credentials_for(options.credential_path, number)
    port, lock_timeout = options.my_instances[number], options.lock_timeout
    source = mysql_server.MySQLConnection(client, credentials, port, lock_timeout=lock_timeout)
    dump_filter = dumps.DumpFilter(
        options.exclude_db, options.exclude_table, options.schema_only_table
    )
    server = dumps.MySQLDumps(source, program, dump_filter)
    logs = None
    if options.binlog_days and server.info.binlog:
        folder = server_paths.path_for(options.binlog_path, number)
        logs = binlogs.BinaryLogSource(source, server.info, folder, options.binlog_days)
    replica_state, privileges_found = (
        replica.query_replica(source, server.info),
        privileges.global_privileges(source, server.info),
    )
    return _Source(server, logs, replica_state, privileges_found)


def _with_warnings(item: Item, warnings: tuple[str, ...]) -> Item:
    """Return the item with additional warnings."""

    def ended() -> ItemReport:
        done = item.report()
        return dataclasses.replace(done, warnings=(*done.warnings, *warnings))

    return dataclasses.replace(item, report=ended) if warnings else item


def _client(configured_path: str) -> str:
    return dump_stream.program(configured_path, *_CLIENTS)


def items(options: Options, context: SourceContext) -> tuple[Item, ...]:
    """Return users, each database and the binary logs of each server as items."""
    os_works.refuse_root(options.allow_root)
    return configured.items(servers(options), lambda source: source.items(context))


def work(options: Options) -> Result:
    """Write a dump of each database to PREFIX_FOLDER."""
    source_items = items(
        options, SourceContext(dump_stream.run_id(), os.environ.get("NC_BACKUP_SECTION", "MYSQL"))
    )
    top = options.destination or options.work_folder
    day = dump_stream.run_id()

    def named(item: str) -> str:
        port, _, name = item.partition("/")
        suffix = (
            f"{port}_{item_record.quoted(name)}.sql" if name else f"{item_record.quoted(item)}.sql"
        )
        if item.startswith("binlogs@"):
            suffix = f"{item.partition('@')[2]}.bin-log.tar"
        return f"{day}_{options.hostname}_{options.prefix_folder}_{suffix}"

    return database_plugin.staged(source_items, top / options.prefix_folder, named, print)


def test(options: Options) -> tuple[str | Finding, ...]:
    """Return the findings on each server."""
    os_works.refuse_root(options.allow_root)
    return configured.test(servers(options), _Source.test_findings)


def restore_to_server(
    item: item_record.StoredItem, again: contracts.Again, server: contracts.Server
) -> contracts.Steps:
    """Restore an item into a server. Raises BackupError."""
    host = mysql_server.find_socket(server.host)
    client = _client(_CLIENTS[0])
    target = mysql_server.MySQLConnection(
        client, server.credentials, server.port, host, server.user
    )
    with mysql_server.client_errors(target):
        return (yield from _steps(item, again, server, target))


def _steps(
    item: item_record.StoredItem,
    again: contracts.Again,
    server: contracts.Server,
    target: mysql_server.MySQLConnection,
) -> contracts.Steps:
    steps: contracts.Steps
    if item.kind == dumps.USERS:
        steps = grants.restore_users(target, again)
        return (yield from steps)
    old = item.name.partition("/")[2]
    name = server.database or old
    facts = MysqlFacts.of(item)
    point_in_time = (
        binlog_replay.Replay(item, server.until, server.following()) if server.until else None
    )
    steps = restore_dump.restore_database(
        target,
        name,
        old,
        facts,
        again,
        size=item.size or 0,
        overwrite=server.overwrite,
        directories=server.tablespaces,
        replay=point_in_time,
    )
    return (yield from steps)


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.run(Options, work, argv)
