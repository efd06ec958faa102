"""Back up PostgreSQL servers: a dump of each database, roles and tablespaces. A plugin."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from postgres import back, cluster, dumps, login, roles
from tools import os_works
from tools.base.errors import ConfigError
from tools.base.finding import Finding
from tools.base.result import Result
from tools.flow import dump_stream, item_record
from tools.flow.item import Item, Told
from tools.modules import contracts, database_plugin, executable
from tools.modules import servers as configured
from tools.modules.options import Words, option
from tools.modules.servers import Configured


@dataclass(frozen=True)
class Options(login.Login):
    """The keys of the section."""

    hostname: str = option("name of this server (part of file names in staged runs)", default="")
    exclude_db: Words = option("databases to leave out (`*` and `?` allowed)", default=())
    exclude_table: Words = option("tables to leave out (patterns of pg_dump)", default=())
    exclude_table_data: Words = option("tables to dump without rows", default=())
    psqldump: str = option("path of pg_dump", default="/usr/bin/pg_dump")
    psql: str = option("path of psql", default="/usr/bin/psql")
    destination: Path | None = option(
        "staged runs: folder in which PREFIX_FOLDER is created; default WORK_FOLDER", default=None
    )
    prefix_folder: str = option("staged runs: folder for the dumps", default="pgdump")
    work_folder: Path = option("folder for temporary files", default=Path("/opt/backup"))
    allow_root: bool = option("allow the run as root (for containers)", default=False)


def servers(given: Options) -> Iterator[Configured[dumps.Dumps]]:
    """Each server of the config, not asked yet. Raises ConfigError."""
    programs = cluster.Programs(
        dump_stream.program(given.psql, "psql"), dump_stream.program(given.psqldump, "pg_dump")
    )
    what = dumps.What(given.exclude_db, given.exclude_table, given.exclude_table_data)
    passfile, variables = cluster.passfile(given.passfile), login.variables(given)
    for port in given.port or (None,):
        found = cluster.Cluster(programs, given.host, port, given.user, passfile, variables)
        label = configured.label(port, given.host)
        yield Configured(label, functools.partial(dumps.Dumps, found, what))


def items(given: Options, told: Told) -> tuple[Item, ...]:
    """Roles, and each database of each server."""
    os_works.refuse_root(given.allow_root)
    return configured.items(servers(given), dumps.Dumps.items)


def test(given: Options) -> tuple[str | Finding, ...]:
    """Whether each server answers, and what it holds."""
    os_works.refuse_root(given.allow_root)
    return configured.test(servers(given), dumps.Dumps.tested)


class PostgresBackup(database_plugin.Plugin):
    """The plugin class: leaves a dump of each database in PREFIX_FOLDER."""

    declared = Options
    section = "POSTGRES"

    def items(self, given: Options, told: Told) -> tuple[Item, ...]:
        """See dump.Plugin."""
        return items(given, told)


def into(
    item: item_record.StoredItem, again: contracts.Again, server: contracts.Server
) -> contracts.Steps:
    """Restore an item into a server. Raises BackupError."""
    yield from ()  # no item waits for another
    if server.until:
        raise ConfigError(
            f"--until: not supported for {item.called}",
            "Restore without --until; it replays binary logs of MySQL and MariaDB only.",
        )
    target = cluster.reached(_target(server))
    if item.kind == dumps.ROLES:
        found: Result = roles.restore(target, again, tablespaces=server.tablespaces)
        return found
    name = server.database or item.name.partition("/")[2]
    facts = {**item.facts, "size": str(item.size or 0)}
    loaded: Result = back.database(
        target, name, facts, again, overwrite=server.overwrite, tablespaces=server.tablespaces
    )
    return loaded


def _target(server: contracts.Server) -> cluster.Cluster:
    """The server that is restored into, by the programs that the section of the dump names."""
    given = server.options if isinstance(server.options, Options) else Options()
    programs = cluster.Programs(
        _program(given.psql, Options.psql), _program(given.psqldump, Options.psqldump)
    )
    passfile = cluster.passfile(server.credentials)
    variables = login.of_the_shell()
    return cluster.Cluster(programs, server.host, server.port, server.user, passfile, variables)


def _program(wanted: str, usual: str) -> str:
    """A program that the config names; where it names none, the first on the path."""
    name = Path(usual).name
    return (
        dump_stream.program(name, usual) if wanted == usual else dump_stream.program(wanted, name)
    )


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.describe(Options, argv)
