"""Back up PostgreSQL servers: a dump of each database, roles and tablespaces. A plugin."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # spawned by path: look from the root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools import dump, manifest, module, os_works, plugin
from tools import servers as configured
from tools.date_str_utils import count
from tools.errors import ConfigError
from tools.finding import Finding
from tools.item import Item, Told
from tools.options import Ports, Words, option
from tools.result import Result
from tools.servers import Configured

if TYPE_CHECKING:
    from postgres import back, cluster, roles
else:
    back = plugin.load("postgres/back.py")
    cluster = plugin.load("postgres/cluster.py")
    roles = plugin.load("postgres/roles.py")


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    hostname: str = option("name of this server, in names of staged files", default="")
    host: str = option("name of the server, or folder of its socket", default="")
    port: Ports = option("ports, one server each; default: the clients' own", default=())
    user: str = option("the role that dumps", default="")
    passfile: Path | None = option("file of logins; default ~/.pgpass", default=None)
    exclude_db: Words = option("databases that are left out, with * and ?", default=())
    exclude_table: Words = option("tables that are left out (pg_dump's patterns)", default=())
    exclude_table_data: Words = option("tables without their rows", default=())
    psqldump: str = option("the dump program", default="/usr/bin/pg_dump")
    psql: str = option("the client", default="/usr/bin/psql")
    destination: Path | None = option(
        "staged: PREFIX_FOLDER is made in it; default WORK_FOLDER", default=None
    )
    prefix_folder: str = option("staged: folder of the dumps", default="pgdump")
    work_folder: Path = option("temporary work", default=Path("/opt/backup"))
    allow_root: bool = option("run as root all the same", default=False)


def servers(given: Options) -> Iterator[Configured[cluster.Dumps]]:
    """Each server of the config, not asked yet. Raises ConfigError."""
    programs = cluster.Programs(
        dump.program(given.psql, "psql"), dump.program(given.psqldump, "pg_dump")
    )
    what = cluster.What(given.exclude_db, given.exclude_table, given.exclude_table_data)
    passfile = cluster.passfile(given.passfile)
    for port in given.port or (None,):
        found = cluster.Cluster(programs, given.host, port, given.user, passfile)
        label = configured.label(port, given.host)
        yield Configured(label, functools.partial(cluster.Dumps, found, what))


def items(given: Options, told: Told) -> tuple[Item, ...]:
    """Roles, and each database of each server."""
    os_works.refuse_root(given.allow_root)
    return configured.items(servers(given), cluster.Dumps.items)


def test(given: Options) -> tuple[str | Finding, ...]:
    """Whether each server answers, and what it holds."""
    os_works.refuse_root(given.allow_root)
    return configured.test(servers(given), _tested)


def _tested(server: cluster.Dumps) -> tuple[str, ...]:
    return (
        f"port {server.port}: PostgreSQL {server.server}, "
        f"{count(len(server.databases), 'database')}, {server.tool}",
    )


class PostgresBackup(dump.Plugin):
    """The plugin class: leaves a dump of each database in PREFIX_FOLDER."""

    declared = Options
    section = "POSTGRES"

    def items(self, given: Options, told: Told) -> tuple[Item, ...]:
        """See dump.Plugin."""
        return items(given, told)


def into(item: manifest.Item, again: dump.Again, server: dump.Server) -> dump.Steps:
    """Restore an item into a server. Raises BackupError."""
    yield from ()  # no item waits for another
    if server.until:
        raise ConfigError(
            f"--until: {item.called} is a dump of its own moment only",
            "Leave it out; --until plays the binary logs of MySQL and MariaDB.",
        )
    programs = cluster.Programs(dump.program("psql"), dump.program("pg_dump"))
    passfile = cluster.passfile(server.credentials)
    target = cluster.Cluster(programs, server.host, server.port, server.user, passfile)
    if item.kind == cluster.ROLES:
        found: Result = roles.restore(target, again, tablespaces=server.tablespaces)
        return found
    name = server.database or item.name.partition("/")[2]
    facts = {**item.facts, "size": str(item.size or 0)}
    loaded: Result = back.database(
        target, name, facts, again, overwrite=server.overwrite, tablespaces=server.tablespaces
    )
    return loaded


if __name__ == "__main__":
    sys.exit(module.describe(Options))
