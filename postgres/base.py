"""Back up whole PostgreSQL servers: base backups with their WAL, with pg_basebackup. A plugin."""

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
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from postgres import client_programs, login, pg_server
from tools import filesystem_handling, os_works
from tools.base import finding, foreign
from tools.base.errors import StoreError
from tools.base.finding import Finding
from tools.base.result import Result, Status
from tools.date_str_utils import count
from tools.flow import dump_stream, item_record, process, stream, tar
from tools.flow.facts import BaseBackupFacts
from tools.flow.item import Item, ItemReport, SourceContext
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


def servers(options: Options, label: str) -> "Iterator[Configured[_Base]]":
    """Yield each server of the config, not connected yet. Raises ConfigError.

    label: label of the backup
    """
    programs = client_programs.for_host(
        dump_stream.program(options.psql, "psql"),
        dump_stream.program(options.pg_basebackup, "pg_basebackup"),
        options.host,
    )
    passfile, variables = pg_server.check_passfile(options.passfile), login.variables(options)
    for port in options.port or (None,):
        server = pg_server.PostgresConnection(
            programs, options.host, port, options.user, passfile, variables
        )
        name = configured.label(port, options.host)
        yield Configured(name, functools.partial(_Base, server, label))


def items(options: Options, context: SourceContext) -> tuple[Item, ...]:
    """Return the base backup of each server as an item, named after its port."""
    os_works.refuse_root(options.allow_root)
    return configured.items(servers(options, context.run_id), _Base.items)


class _Base:
    """One server."""

    def __init__(self, server: pg_server.PostgresConnection, label: str) -> None:
        """Query the server. Raises SourceError."""
        self._server = server = pg_server.find_maintenance(server)
        self._label = label
        self.version, port = server.row(
            "SELECT current_setting('server_version'), current_setting('port')", columns=2
        )
        self.name = str(port if server.port is None else server.port)
        self._facts = BaseBackupFacts()

    def items(self) -> tuple[Item, ...]:
        """Return the only item of the server."""
        return (Item(self.name, KIND, lambda _head: ".tar", self.read, self.ended),)

    def test_findings(self) -> tuple[str | Finding, ...]:
        """Return the findings on the server for `-t`. Raises SourceError."""
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
        """Yield a tar with the data and its WAL; a server with more tablespaces fails."""
        stderr_lines: list[str] = []
        command = [self._server.programs.dump, "--pgdata=-", "--format=tar", "--wal-method=fetch"]
        command += ["--checkpoint=fast", "--verbose", f"--label=nc-backup-py {self._label}"]
        chunks = process.output(
            [*command, *self._server.arguments()],
            notice=stderr_lines.append,
            env=self._server.environment(),
        )
        # the archive ends with the backup manifest (PostgreSQL 13 and later)
        yield from dump_stream.ended_by(tar.whole(chunks), _MANIFEST, f"port {self.name}")
        matches = list(filter(None, map(_POINT.search, stderr_lines)))
        points = {match[1]: match[2] for match in matches}
        timelines = [int(match[3]) for match in matches if match[3]]
        self._facts = BaseBackupFacts(
            self.version,
            points.get("start", ""),
            points.get("end", ""),
            timelines[-1] if timelines else None,
        )

    def ended(self) -> ItemReport:
        """Return the facts of the backup."""
        return ItemReport(facts=self._facts)


def test(options: Options) -> tuple[str | Finding, ...]:
    """Return the findings on each server: the connection and REPLICATION."""
    os_works.refuse_root(options.allow_root)
    return configured.test(servers(options, ""), _Base.test_findings)


class PostgresBaseBackup(database_plugin.Plugin[Options]):
    """The plugin class: writes a base backup of each server to PREFIX_FOLDER."""

    declared = Options
    section = "POSTGRES_BASE"

    def items(self, options: Options, context: SourceContext) -> tuple[Item, ...]:
        """See database_plugin.Plugin."""
        return items(options, context)


def restore_to_folder(
    item: item_record.StoredItem,
    again: contracts.Again,
    destination: Path,
    _stored: Callable[[], Iterator[contracts.Following]],
) -> Result:
    """Unpack a base backup into a folder on which a server can start. Raises BackupError."""
    destination.chmod(0o700)  # a server rejects a folder that others can read
    unpack = [tar.program(), "--extract", f"--directory={destination}", "--same-permissions"]
    with stream.closed(again()) as chunks:
        stream.drained(process.output(unpack, stdin_data=chunks, failure=StoreError))
    files = _count_files(destination)
    verify = shutil.which("pg_verifybackup") or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_verifybackup"))),
        "",
    )
    verified = "not verified: pg_verifybackup is not installed"
    if verify:
        stream.drained(
            process.output([verify, "--no-parse-wal", str(destination)], failure=StoreError)
        )
        verified = "verified against backup_manifest"
    return Result(Status.OK, f"{count(files, 'file')}, {verified}", items=1, bytes=item.size or 0)


def _count_files(folder: Path) -> int:
    """Return the number of files. Raises StoreError for what no server has in its data directory.

    As root, tar also makes device nodes and sets set-user-ID bits: a forged backup may have them.
    """
    number = 0
    for entry in filesystem_handling.entries_below(folder):
        mode = entry.stat(follow_symlinks=False).st_mode
        is_file = stat.S_ISREG(mode) and not mode & (stat.S_ISUID | stat.S_ISGID)
        if not (is_file or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            name = foreign.printable(str(Path(entry.path).relative_to(folder)))
            raise StoreError(
                f"{name}: unexpected type or mode {stat.filemode(mode)}",
                "The backup was not made by nc-backup-py. Use another run, or another store.",
            )
        number += is_file
    return number


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.describe(Options, argv)
