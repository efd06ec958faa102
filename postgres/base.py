"""Back up whole PostgreSQL servers: base backups with their WAL, by pg_basebackup. A plugin."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import functools
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from postgres import cluster, login
from tools import os_works
from tools.base import finding
from tools.base.errors import StoreError
from tools.base.finding import Finding
from tools.base.result import Result, Status
from tools.date_str_utils import count
from tools.flow import dump_stream, item_record, process, stream, tar
from tools.flow.item import Ended, Item, Told
from tools.modules import contracts, database_plugin, executable
from tools.modules import servers as configured
from tools.modules.options import option
from tools.modules.servers import Configured

KIND = "postgres-base"
_MANIFEST = b'"Manifest-Checksum"'
_POINT = re.compile(
    r"write-ahead log (start|end) point: ([0-9A-F]+/[0-9A-F]+)(?: on timeline (\d+))?"
)


@dataclass(frozen=True)
class Options(login.Login):
    """The keys of the section."""

    pg_basebackup: str = option("path of pg_basebackup", default="/usr/bin/pg_basebackup")
    psql: str = option("path of psql", default="/usr/bin/psql")
    hostname: str = option("name of this server (part of file names in staged runs)", default="")
    destination: Path | None = option(
        "staged runs: folder in which PREFIX_FOLDER is created; default WORK_FOLDER", default=None
    )
    prefix_folder: str = option("staged runs: folder for the backups", default="pgbase")
    work_folder: Path = option("folder for temporary files", default=Path("/opt/backup"))
    allow_root: bool = option("allow the run as root (for containers)", default=False)


def servers(given: Options, label: str) -> Iterator[Configured[_Base]]:
    """Each server of the config, not asked yet; label: of its backup. Raises ConfigError."""
    programs = cluster.Programs(
        dump_stream.program(given.psql, "psql"),
        dump_stream.program(given.pg_basebackup, "pg_basebackup"),
    )
    passfile, variables = cluster.passfile(given.passfile), login.variables(given)
    for port in given.port or (None,):
        server = cluster.Cluster(programs, given.host, port, given.user, passfile, variables)
        name = configured.label(port, given.host)
        yield Configured(name, functools.partial(_Base, server, label))


def items(given: Options, told: Told) -> tuple[Item, ...]:
    """The base backup of each server, by its port."""
    os_works.refuse_root(given.allow_root)
    return configured.items(servers(given, told.run_id), _Base.items)


class _Base:
    """One server."""

    def __init__(self, server: cluster.Cluster, label: str) -> None:
        """Asks the server. Raises SourceError."""
        self._server = server = cluster.reached(server)
        self._label = label
        self.version, port = server.row(
            "SELECT current_setting('server_version'), current_setting('port')", columns=2
        )
        self.name = str(port if server.port is None else server.port)
        self._facts: dict[str, str] = {}

    def items(self) -> tuple[Item, ...]:
        """The one item of the server."""
        return (Item(self.name, KIND, lambda _head: ".tar", self.read, self.ended),)

    def tested(self) -> tuple[str | Finding, ...]:
        """What `-t` says of the server. Raises SourceError."""
        may, user = self._server.row(
            "SELECT rolreplication OR rolsuper, quote_ident(rolname) FROM pg_roles "
            "WHERE rolname = current_user",
            columns=2,
        )
        text = f"port {self.name}: PostgreSQL {self.version}, role {user}"
        if may != "t":
            hint = f"Run as a superuser: ALTER ROLE {user} REPLICATION;"
            return (finding.warning(f"{text} lacks REPLICATION", hint),)
        return (f"{text} has REPLICATION",)

    def read(self) -> Iterator[bytes]:
        """One tar with the data and all WAL that makes it whole; a second tablespace is refused."""
        said: list[str] = []
        words = [self._server.programs.dump, "--pgdata=-", "--format=tar", "--wal-method=fetch"]
        words += ["--checkpoint=fast", "--verbose", f"--label=nc-backup-py {self._label}"]
        chunks = process.output(
            [*words, *self._server.words()], notice=said.append, env=self._server.environment()
        )
        # the archive ends with the backup manifest (PostgreSQL 13 and later)
        yield from dump_stream.ended_by(tar.whole(chunks), _MANIFEST, f"port {self.name}")
        self._facts = {"server": self.version}
        for found in filter(None, map(_POINT.search, said)):
            self._facts[f"wal_{found[1]}"] = found[2]
            self._facts |= {"timeline": found[3]} if found[3] else {}

    def ended(self) -> Ended:
        """What is worth knowing of the backup."""
        return Ended(facts=self._facts)


def test(given: Options) -> tuple[str | Finding, ...]:
    """Whether each server answers, and the role may replicate."""
    os_works.refuse_root(given.allow_root)
    return configured.test(servers(given, ""), _Base.tested)


class PostgresBaseBackup(database_plugin.Plugin):
    """The plugin class: leaves a base backup of each server in PREFIX_FOLDER."""

    declared = Options
    section = "POSTGRES_BASE"

    def items(self, given: Options, told: Told) -> tuple[Item, ...]:
        """See dump.Plugin."""
        return items(given, told)


def laid_out(
    item: item_record.StoredItem,
    again: contracts.Again,
    place: Path,
    _stored: Callable[[], Iterator[contracts.Following]],
) -> Result:
    """Unpack a base backup into a folder that a server can start on. Raises BackupError."""
    place.chmod(0o700)  # a server refuses a folder that others can read
    unpack = [tar.program(), "--extract", f"--directory={place}", "--same-permissions"]
    with stream.closed(again()) as chunks:
        stream.drained(process.output(unpack, given=chunks, failure=StoreError))
    verify = shutil.which("pg_verifybackup") or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_verifybackup"))),
        "",
    )
    told = "not verified: pg_verifybackup is not installed"
    if verify:
        stream.drained(process.output([verify, "--no-parse-wal", str(place)], failure=StoreError))
        told = "verified against backup_manifest"
    files = sum(1 for path in place.rglob("*") if path.is_file())
    return Result(Status.OK, f"{count(files, 'file')}, {told}", items=1, bytes=item.size or 0)


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.describe(Options, argv)
