"""Back up PostgreSQL servers: a dump of each database, roles and tablespaces. A plugin."""

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from postgres import client_programs, dumps, login, pg_server, restore_dump, roles, stored_facts
from tools import os_works
from tools.base.errors import ConfigError
from tools.base.finding import Finding
from tools.base.result import Result
from tools.flow import dump_stream, item_record
from tools.flow.facts import PostgresFacts
from tools.flow.item import Item, SourceContext
from tools.modules import contracts, database_plugin, executable
from tools.modules import servers as configured
from tools.modules.options import Duration, Strings, option
from tools.modules.servers import Configured


@dataclass(frozen=True)
class Options(login.Login):
    """The keys of the section."""

    hostname: str = option("name of this server (part of file names in staged runs)", default="")
    exclude_db: Strings = option("databases to leave out (`*` and `?` allowed)", default=())
    exclude_table: Strings = option("tables to leave out (patterns of pg_dump)", default=())
    exclude_table_data: Strings = option("tables to dump without rows", default=())
    lock_timeout: Duration = option(
        "how long to wait for a table that another session has locked (90, 30s, 5m)",
        default=Duration(600.0),
        least=1,
    )
    psqldump: str = option("path of pg_dump", default="/usr/bin/pg_dump")
    psql: str = option("path of psql", default="/usr/bin/psql")
    destination: Path | None = option(
        "staged runs: folder in which PREFIX_FOLDER is created; default WORK_FOLDER", default=None
    )
    prefix_folder: str = option("staged runs: folder for the dumps", default="pgdump")
    work_folder: Path = option("folder for temporary files", default=Path("/opt/backup"))
    allow_root: bool = option("allow the run as root (for containers)", default=False)


def servers(options: Options) -> Iterator[Configured[dumps.PostgresDumps]]:
    """Yield each server of the config, not connected yet. Raises ConfigError."""
    programs = client_programs.for_host(
        dump_stream.program(options.psql, "psql"),
        dump_stream.program(options.psqldump, "pg_dump"),
        options.host,
    )
    dump_filter = dumps.DumpFilter(
        options.exclude_db, options.exclude_table, options.exclude_table_data
    )
    passfile, variables = pg_server.check_passfile(options.passfile), login.variables(options)
    for port in options.port or (None,):
        server = pg_server.PostgresConnection(
            programs,
            options.host,
            port,
            options.user,
            passfile,
            variables,
            lock_timeout=options.lock_timeout,
        )
        label = configured.label(port, options.host)
        yield Configured(label, functools.partial(dumps.PostgresDumps, server, dump_filter))


def items(options: Options, context: SourceContext) -> tuple[Item, ...]:
    """Return the roles and each database of each server as items."""
    os_works.refuse_root(options.allow_root)
    return configured.items(servers(options), dumps.PostgresDumps.items)


def test(options: Options) -> tuple[str | Finding, ...]:
    """Return the findings on each server and its databases."""
    os_works.refuse_root(options.allow_root)
    return configured.test(servers(options), dumps.PostgresDumps.test_findings)


class PostgresBackup(database_plugin.Plugin[Options]):
    """The plugin class: writes a dump of each database to PREFIX_FOLDER."""

    declared = Options
    section = "POSTGRES"

    def items(self, options: Options, context: SourceContext) -> tuple[Item, ...]:
        """See database_plugin.Plugin."""
        return items(options, context)


def restore_to_server(
    item: item_record.StoredItem, again: contracts.Again, server: contracts.Server
) -> contracts.Steps:
    """Restore an item into a server. Raises BackupError."""
    yield from ()  # items do not depend on each other
    if server.until:
        raise ConfigError(
            f"--until: not supported for {item.label}",
            "Restore without --until; it replays binary logs of MySQL and MariaDB only.",
        )
    target = pg_server.find_maintenance(_restore_connection(server))
    if item.kind == dumps.ROLES:
        facts, more = stored_facts.read(again)
        result: Result = roles.restore(target, facts, more, tablespaces=server.tablespaces)
        return result
    source = item.name.partition("/")[2]
    restored: Result = restore_dump.restore_database(
        target,
        server.database or source,
        restore_dump.StoredDatabase(
            PostgresFacts.of(item),
            again,
            functools.partial(stored_facts.restore_properties, item, server),
        ),
        overwrite=server.overwrite,
        tablespaces=server.tablespaces,
    )
    return dataclasses.replace(restored, bytes=item.size or 0)


def _restore_connection(server: contracts.Server) -> pg_server.PostgresConnection:
    """Return the connection of a restore, with the programs of the section of the dump."""
    options = server.options if isinstance(server.options, Options) else Options()
    programs = client_programs.for_host(
        _program(options.psql, Options.psql),
        _program(options.psqldump, Options.psqldump),
        server.host,
    )
    passfile = pg_server.check_passfile(server.credentials)
    variables = login.shell_variables()
    variables["PGOPTIONS"] = f"{variables.get('PGOPTIONS', '')} {pg_server.WRITABLE}".strip()
    return pg_server.PostgresConnection(
        programs, server.host, server.port, server.user, passfile, variables
    )


def _program(configured_path: str, default_path: str) -> str:
    """Return the program in the config, or else the first one in PATH."""
    name = Path(default_path).name
    return (
        dump_stream.program(name, default_path)
        if configured_path == default_path
        else dump_stream.program(configured_path, name)
    )


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.describe(Options, argv)
