#!/usr/bin/env python3
"""Back up MySQL and MariaDB servers physically: xtrabackup or mariabackup, full and incremental."""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import dataclasses
import functools
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from mysql_backup import file_access, lock_waits, mysql_server, server_paths
from tools import os_works
from tools.base import fixes, foreign, removal, run_ids
from tools.base.errors import ConfigError, SourceError, StoreError
from tools.base.finding import Finding
from tools.base.result import Result, Status
from tools.date_str_utils import count
from tools.flow import dump_stream, item_record, process, stream
from tools.flow.facts import Facts, FileFacts, PhysicalFacts
from tools.flow.item import Item, ItemReport, SourceContext
from tools.modules import contracts, database_plugin, executable
from tools.modules import servers as configured
from tools.modules.options import Duration, Paths, Ports, option
from tools.modules.servers import Configured

KIND = "mysql-physical"
_SUCCESS_LINE = "completed OK!"
_ELSEWHERE = "Set DATA_DIR to the data directory, or run the backup on the machine that has it."
_HEAD = b"XBSTCK01"  # first bytes of each chunk of an xbstream
# Backup program, and the program that unpacks its stream.
_PROGRAMS = {"mariabackup": "mbstream", "mariadb-backup": "mbstream", "xtrabackup": "xbstream"}


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    hostname: str = option("name of this server (part of file names in staged runs)", default="")
    my_instances: Ports = option(
        "ports of the servers, separated by spaces or commas", default=(3306,)
    )
    credential_path: Paths = option(
        "option files with [mysql] (user, password, host, socket): one per port, or one for all",
        default=(server_paths.CREDENTIALS,),
    )
    conf_path: Paths = option(
        "option files of the servers (my.cnf) with settings that the servers do not report: one "
        "per port, or one for all",
        default=(),
    )
    data_dir: Paths = option(
        "data directories, one per port; default: asked of the server", default=()
    )
    full_every: Duration = option(
        "streamed runs: incremental backups until the last full one is this old; 0: always full",
        default=Duration(0),
    )
    lock_timeout: Duration = option(
        "how long to wait for a lock that another session holds (90, 30s, 5m)",
        default=Duration(600.0),
        least=1,
    )
    xtrabackup_binary: str = option("path of mariabackup or xtrabackup", default="mariabackup")
    mysql_binary: str = option("path of mysql or mariadb", default="/usr/bin/mysql")
    destination: Path | None = option(
        "staged runs: folder in which PREFIX_FOLDER is created; default WORK_FOLDER", default=None
    )
    prefix_folder: str = option("staged runs: folder for the backups", default="xtrabackup")
    work_folder: Path = option("folder for temporary files", default=Path("/opt/backup"))
    allow_root: bool = option("allow the run as root (for containers)", default=False)

    def __post_init__(self) -> None:
        """Raise ConfigError for keys whose number of paths is wrong."""
        server_paths.check_path_count("CREDENTIAL_PATH", self.credential_path, self.my_instances)
        server_paths.check_path_count("CONF_PATH", self.conf_path, self.my_instances)
        server_paths.check_path_count("DATA_DIR", self.data_dir, self.my_instances)


@dataclass(frozen=True)
class _Server:
    """One server, and the settings of its backups."""

    source: mysql_server.MySQLConnection
    info: mysql_server.ServerInfo
    program: str
    conf: Path | None
    data: Path
    work_folder: Path

    def identity(self) -> str:
        """Return a value that differs for a new data directory: it needs a full backup."""
        try:
            status = (self.data / "ibdata1").stat()
        except OSError as error:
            hint = file_access.hint(self.data / "ibdata1", error, _ELSEWHERE)
            raise SourceError(f"{self.data}: {str(error.strerror).lower()}", hint) from None
        return f"{status.st_dev}:{status.st_ino}"


def servers(options: Options) -> Iterator[Configured[_Server]]:
    """Yield each server of the config, not connected yet. Raises ConfigError."""
    client = dump_stream.program(options.mysql_binary, "mysql", "mariadb")
    program = _program(options.xtrabackup_binary)
    for number, port in enumerate(options.my_instances):
        connect = functools.partial(_connect, options, number, client, program)
        yield Configured(configured.label(port), connect)


def _connect(options: Options, number: int, client: str, program: str) -> _Server:
    """Connect to the server of this number. Raises ConfigError or SourceError."""
    credentials = server_paths.credentials_for(options.credential_path, number)
    port, lock_timeout = options.my_instances[number], options.lock_timeout
    source = mysql_server.MySQLConnection(client, credentials, port, lock_timeout=lock_timeout)
    info = mysql_server.server_info(source)
    data = server_paths.path_for(options.data_dir, number)
    if data is None:
        ((where,),) = source.names("SELECT HEX(@@datadir)")
        data = Path(where)
    conf = server_paths.path_for(options.conf_path, number)
    return _Server(source, info, program, conf, data, options.work_folder)


def _program(configured_path: str) -> str:
    for name in (configured_path, *_PROGRAMS):
        path = shutil.which(name)
        if path:
            return path
    raise ConfigError(
        f"{configured_path}: command not found",
        "Install mariadb-backup or percona-xtrabackup.",
        fixes.install("mariadb-backup"),
    )


def items(options: Options, context: SourceContext) -> tuple[Item, ...]:
    """Return the backup of each server as an item, named after its port."""
    os_works.refuse_root(options.allow_root)

    def of(server: _Server) -> tuple[Item, ...]:
        one = _Backup(server, context, options.full_every)
        return (Item(str(server.info.port), KIND, lambda _head: ".xbstream", one.read, one.ended),)

    return configured.items(servers(options), of)


class _Backup:
    """One backup of one server."""

    def __init__(self, server: _Server, context: SourceContext, full_every: float) -> None:
        self._server = server
        self._context = context
        self._full_every = full_every
        self._facts: Facts = FileFacts()
        self._base_run: str | None = None

    def read(self) -> Iterator[bytes]:
        """Yield the stream. Raises SourceError at its end if the backup did not succeed."""
        server = self._server
        identity = server.identity()
        base = self._base(identity)
        stderr_lines: list[str] = []
        with dump_stream.scratch(server.work_folder) as folder:
            login = folder / "login.cnf"
            login.touch(0o600)
            login.write_text(_client_option_file(server), encoding="utf-8")
            command = [server.program, f"--defaults-extra-file={login}", "--backup"]
            command += ["--stream=xbstream", f"--datadir={server.data}", f"--target-dir={folder}"]
            command += [f"--extra-lsndir={folder / 'lsn'}", *server.source.connection_arguments()]
            command += [f"--incremental-lsn={base.to_lsn}"] if base else []
            source = server.source
            chunks = process.output(
                command,
                notice=stderr_lines.append,
                idle=lock_waits.LockWatch(source, source.lock_timeout or math.inf),
                env=mysql_server.environment(),
            )
            head, all_chunks = dump_stream.beginning(chunks, len(_HEAD))
            if head and head != _HEAD:
                raise SourceError(
                    f"{server.program}: output is not an xbstream", "\n".join(stderr_lines[-5:])
                )
            yield from all_chunks
            if not stderr_lines or _SUCCESS_LINE not in stderr_lines[-1]:
                raise SourceError(
                    f'{Path(server.program).name}: no "{_SUCCESS_LINE}" in its output',
                    "\n".join(stderr_lines[-5:]),
                )
            checkpoints = _checkpoints(folder / "lsn")
        self._base_run = base.run if base else None
        self._facts = dataclasses.replace(
            checkpoints,
            server=server.info.version,
            tool=Path(server.program).name,
            identity=identity,
            run=self._context.run_id,
            full=base.full if base else self._context.run_id,
        )

    def _base(self, identity: str) -> PhysicalFacts | None:
        """Return the facts of the base of an incremental backup; None for a full one."""
        if not self._full_every:
            return None
        stored = [
            None if item is None else PhysicalFacts.of(item)
            for item in self._context.previous(str(self._server.info.port))
        ]
        first = stored[0] if stored else None
        if first is None or any(other is None or other.run != first.run for other in stored):
            return None
        oldest = datetime.now(timezone.utc) - timedelta(seconds=self._full_every)
        known = first.run and first.full and first.identity == identity
        return first if known and run_ids.time_of(first.full) > oldest else None

    def ended(self) -> ItemReport:
        """Return the facts of the backup."""
        return ItemReport(facts=self._facts, base=self._base_run)


def _client_option_file(server: _Server) -> str:
    """Return an option file with the login as [client], for a program that ignores [mysql]."""
    text = f"!include {server.conf}\n" if server.conf else ""
    credentials = server.source.credentials
    if credentials is not None:
        option_file = credentials.read_text(encoding="utf-8", errors="surrogateescape")
        text += re.sub(r"^\s*\[mysql\]", "[client]", option_file, flags=re.MULTILINE)
    return text


def _checkpoints(folder: Path) -> PhysicalFacts:
    """Return type and log sequence numbers of the backup. Raises SourceError."""
    values = {}
    for name in ("xtrabackup_checkpoints", "mariadb_backup_checkpoints"):
        if (folder / name).exists():
            for line in foreign.lines(foreign.decoded((folder / name).read_bytes())):
                key, _, value = line.partition("=")
                values[key.strip()] = value.strip()
    end = foreign.number(values.get("to_lsn", ""))
    if end is None:
        raise SourceError("xtrabackup_checkpoints: no to_lsn")
    start = foreign.number(values.get("from_lsn", ""))
    return PhysicalFacts(end, start, values.get("backup_type", ""))


def work(options: Options) -> Result:
    """Write a backup of each server to PREFIX_FOLDER; staged runs make full ones."""
    section = os.environ.get("NC_BACKUP_SECTION", "XTRABACKUP")
    source_items = items(options, SourceContext(dump_stream.run_id(), section))
    prefix = f"{dump_stream.run_id()}_{options.hostname}_{options.prefix_folder}"
    top = options.destination or options.work_folder
    return database_plugin.staged(
        source_items, top / options.prefix_folder, lambda item: f"{prefix}_{item}.xbstream", print
    )


def test(options: Options) -> tuple[str | Finding, ...]:
    """Return the findings on each server and its data directory."""
    os_works.refuse_root(options.allow_root)
    return configured.test(servers(options), _test_server)


def _test_server(server: _Server) -> tuple[str, ...]:
    server.identity()
    file = server.data / "ibdata1"
    if not os.access(file, os.R_OK):
        raise SourceError(f"{file}: permission denied", f"Run as root: {file_access.command(file)}")
    return (f"port {server.info.port}: {server.info.version}, {server.data} is readable",)


def restore_to_folder(
    item: item_record.StoredItem,
    again: contracts.Again,
    destination: Path,
    stored: Callable[[], Iterator[contracts.Following]],
) -> Result:
    """Unpack a backup with its bases, and prepare it. Raises BackupError."""
    chain = _chain(item, stored)
    tool = PhysicalFacts.of(item).tool or "mariabackup"
    if tool not in _PROGRAMS:  # a name from the store, which is not trusted
        raise StoreError(f"{item.label}: unknown backup program {tool!r}")
    program = _program(tool)
    unpack = shutil.which(_PROGRAMS[Path(program).name])
    if unpack is None:
        raise ConfigError(
            f"{_PROGRAMS[Path(program).name]}: command not found",
            f"Install it; it is part of the same package as {Path(program).name}.",
        )
    apart = [] if "maria" in Path(program).name else ["--apply-log-only"]
    steps = [*(base.again for base in chain), again]
    for number, source in enumerate(steps):
        folder = (
            destination if number == 0 else destination.with_name(f"{destination.name}.{number}")
        )
        folder.mkdir(mode=0o700, exist_ok=True)
        with stream.closed(source()) as chunks:
            command = [unpack, "-x", "-C", str(folder)]
            stream.drained(process.output(command, stdin_data=chunks, failure=StoreError))
        options = apart if number < len(steps) - 1 else []
        prepare = [program, "--prepare", f"--target-dir={destination}", *options]
        prepare += [f"--incremental-dir={folder}"] if number else []
        stderr_lines: list[str] = []
        stream.drained(process.output(prepare, notice=stderr_lines.append, failure=StoreError))
        if not stderr_lines or _SUCCESS_LINE not in stderr_lines[-1]:
            raise StoreError(
                f'{program} --prepare: no "{_SUCCESS_LINE}" in its output',
                "\n".join(stderr_lines[-5:]),
            )
        if number:
            removal.tree(folder)
    summary = "full backup"
    if len(steps) > 1:
        summary += f" and {count(len(steps) - 1, 'incremental backup')}"
    return Result(Status.OK, f"{summary}, prepared", items=1, bytes=item.size or 0)


def _chain(
    item: item_record.StoredItem, stored: Callable[[], Iterator[contracts.Following]]
) -> Sequence[contracts.Following]:
    """Return the bases of a backup, the full one first. Raises StoreError."""
    runs = {base.run_id: base for base in stored() if base.item.name == item.name}
    chain: list[contracts.Following] = []
    base_run = item.base
    while base_run:
        base = runs.get(base_run)
        if base is None:
            raise StoreError(
                f"{item.label}: base run {base_run} is not in this store",
                f"Restore from a store that has run {base_run}, or restore an earlier run.",
            )
        chain.insert(0, base)
        base_run = base.item.base
    return chain


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.run(Options, work, argv)
