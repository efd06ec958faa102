#!/usr/bin/env python3
"""Back up MySQL and MariaDB servers physically: xtrabackup or mariabackup, full and incremental."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import functools
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from mysql_backup import file_access, instance, ports
from tools import os_works
from tools.base import run_ids
from tools.base.errors import ConfigError, SourceError, StoreError
from tools.base.finding import Finding
from tools.base.result import Result, Status
from tools.date_str_utils import count
from tools.flow import dump_stream, item_record, process, stream
from tools.flow.item import Ended, Item, Told
from tools.modules import contracts, database_plugin, executable
from tools.modules import servers as configured
from tools.modules.options import Duration, Paths, Ports, option
from tools.modules.servers import Configured

KIND = "mysql-physical"
_DONE = "completed OK!"
_ELSEWHERE = "Set DATA_DIR to the data directory, or run the backup on the machine that has it."
_HEAD = b"XBSTCK01"  # xbstream: each of its pieces begins so
# What makes a backup, what unpacks its stream.
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
        default=(ports.CREDENTIALS,),
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
    xtrabackup_binary: str = option("path of mariabackup or xtrabackup", default="mariabackup")
    mysql_binary: str = option("path of mysql or mariadb", default="/usr/bin/mysql")
    destination: Path | None = option(
        "staged runs: folder in which PREFIX_FOLDER is created; default WORK_FOLDER", default=None
    )
    prefix_folder: str = option("staged runs: folder for the backups", default="xtrabackup")
    work_folder: Path = option("folder for temporary files", default=Path("/opt/backup"))
    allow_root: bool = option("allow the run as root (for containers)", default=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be a server."""
        ports.each("CREDENTIAL_PATH", self.credential_path, self.my_instances)
        ports.each("CONF_PATH", self.conf_path, self.my_instances)
        ports.each("DATA_DIR", self.data_dir, self.my_instances)


@dataclass(frozen=True)
class _Server:
    """One server, and how its backups are made."""

    source: instance.Instance
    about: instance.About
    program: str
    conf: Path | None
    data: Path
    work_folder: Path

    def identity(self) -> str:
        """What changes when the data are made anew: then nothing can be added to an old backup."""
        try:
            found = (self.data / "ibdata1").stat()
        except OSError as error:
            hint = file_access.hint(self.data / "ibdata1", error, _ELSEWHERE)
            raise SourceError(f"{self.data}: {str(error.strerror).lower()}", hint) from None
        return f"{found.st_dev}:{found.st_ino}"


def servers(options: Options) -> Iterator[Configured[_Server]]:
    """Each server of the config, not asked yet. Raises ConfigError."""
    client = dump_stream.program(options.mysql_binary, "mysql", "mariadb")
    program = _program(options.xtrabackup_binary)
    for number, port in enumerate(options.my_instances):
        connect = functools.partial(_connected, options, number, client, program)
        yield Configured(configured.label(port), connect)


def _connected(options: Options, number: int, client: str, program: str) -> _Server:
    """Ask the server of this number. Raises ConfigError or SourceError."""
    credentials = ports.credentials(options.credential_path, number)
    source = instance.Instance(client, credentials, options.my_instances[number])
    about = instance.about(source)
    data = ports.of(options.data_dir, number)
    if data is None:
        ((where,),) = source.names("SELECT HEX(@@datadir)")
        data = Path(where)
    conf = ports.of(options.conf_path, number)
    return _Server(source, about, program, conf, data, options.work_folder)


def _program(wanted: str) -> str:
    for name in (wanted, *_PROGRAMS):
        if found := shutil.which(name):
            return found
    raise ConfigError(
        f"{wanted}: command not found", "Install mariadb-backup or percona-xtrabackup."
    )


def items(options: Options, told: Told) -> tuple[Item, ...]:
    """The backup of each server, by its port."""
    os_works.refuse_root(options.allow_root)

    def of(server: _Server) -> tuple[Item, ...]:
        one = _Backup(server, told, options.full_every)
        return (Item(str(server.about.port), KIND, lambda _head: ".xbstream", one.read, one.ended),)

    return configured.items(servers(options), of)


class _Backup:
    """One backup of one server."""

    def __init__(self, server: _Server, told: Told, full_every: float) -> None:
        self._server = server
        self._told = told
        self._full_every = full_every
        self._facts: dict[str, str] = {}

    def read(self) -> Iterator[bytes]:
        """The stream; raises SourceError at its end where the program says not that all is well."""
        server = self._server
        identity = server.identity()
        base = self._base(identity)
        said: list[str] = []
        with dump_stream.scratch(server.work_folder) as folder:
            login = folder / "login.cnf"
            login.touch(0o600)
            login.write_text(_as_client(server), encoding="utf-8")
            words = [server.program, f"--defaults-extra-file={login}", "--backup"]
            words += ["--stream=xbstream", f"--datadir={server.data}", f"--target-dir={folder}"]
            words += [f"--extra-lsndir={folder / 'lsn'}", *server.source.where()]
            words += [f"--incremental-lsn={base['to_lsn']}"] if base else []
            chunks = process.output(words, notice=said.append, env=instance.environment())
            head, whole = dump_stream.beginning(chunks, len(_HEAD))
            if head and head != _HEAD:
                raise SourceError(
                    f"{server.program}: output is not an xbstream", "\n".join(said[-5:])
                )
            yield from whole
            if not said or _DONE not in said[-1]:
                raise SourceError(
                    f'{Path(server.program).name}: no "{_DONE}" in its output',
                    "\n".join(said[-5:]),
                )
            self._facts = _checkpoints(folder / "lsn")
        self._facts |= {
            "server": server.about.version,
            "tool": Path(server.program).name,
            "identity": identity,
            "run": self._told.run_id,
            "full": base["full"] if base else self._told.run_id,
            **({"base": base["run"]} if base else {}),
        }

    def _base(self, identity: str) -> Mapping[str, str] | None:
        """What this one is added to; None for a full one."""
        if not self._full_every:
            return None
        stored = self._told.earlier(str(self._server.about.port))
        first = stored[0] if stored else None
        if first is None or any(other is None or other["run"] != first["run"] for other in stored):
            return None
        oldest = datetime.now(timezone.utc) - timedelta(seconds=self._full_every)
        if first["identity"] != identity or run_ids.time_of(first["full"]) <= oldest:
            return None
        return first

    def ended(self) -> Ended:
        """What is worth knowing of the backup."""
        return Ended(facts=self._facts)


def _as_client(server: _Server) -> str:
    """The login, for a program that reads [client] and not [mysql]."""
    text = f"!include {server.conf}\n" if server.conf else ""
    credentials = server.source.credentials
    if credentials is not None:
        given = credentials.read_text(encoding="utf-8")
        text += re.sub(r"^\s*\[mysql\]", "[client]", given, flags=re.MULTILINE)
    return text


def _checkpoints(folder: Path) -> dict[str, str]:
    """What the program wrote of the backup: its kind and how far it goes."""
    found = {}
    for name in ("xtrabackup_checkpoints", "mariadb_backup_checkpoints"):
        if (folder / name).exists():
            for line in (folder / name).read_text(encoding="utf-8").splitlines():
                key, _, value = line.partition("=")
                found[key.strip()] = value.strip()
    if "to_lsn" not in found:
        raise SourceError("xtrabackup_checkpoints: no to_lsn")
    return {key: found[key] for key in ("backup_type", "from_lsn", "to_lsn") if key in found}


def work(options: Options) -> Result:
    """Leave a backup of each server in PREFIX_FOLDER; staged runs make full ones."""
    section = os.environ.get("NC_BACKUP_SECTION", "XTRABACKUP")
    found = items(options, Told(dump_stream.run_id(), section))
    prefix = f"{dump_stream.run_id()}_{options.hostname}_{options.prefix_folder}"
    top = options.destination or options.work_folder
    return database_plugin.staged(
        found, top / options.prefix_folder, lambda item: f"{prefix}_{item}.xbstream", print
    )


def test(options: Options) -> tuple[str | Finding, ...]:
    """Whether each server answers and its data can be read."""
    os_works.refuse_root(options.allow_root)
    return configured.test(servers(options), _tested)


def _tested(server: _Server) -> tuple[str, ...]:
    server.identity()
    if not os.access(file := server.data / "ibdata1", os.R_OK):
        raise SourceError(f"{file}: permission denied", f"Run as root: {file_access.command(file)}")
    return (f"port {server.about.port}: {server.about.version}, {server.data} is readable",)


def laid_out(
    item: item_record.StoredItem,
    again: contracts.Again,
    place: Path,
    stored: Callable[[], Iterator[contracts.Following]],
) -> Result:
    """Unpack a backup, and what it was added to, and prepare it. Raises BackupError."""
    chain = _chain(item, stored)
    program = _program(item.facts.get("tool", "mariabackup"))
    unpack = shutil.which(_PROGRAMS[Path(program).name])
    if unpack is None:
        raise ConfigError(
            f"{_PROGRAMS[Path(program).name]}: command not found",
            f"Install it; it is part of the same package as {Path(program).name}.",
        )
    apart = [] if "maria" in Path(program).name else ["--apply-log-only"]
    steps = [*(found.again for found in chain), again]
    for number, source in enumerate(steps):
        folder = place if number == 0 else place.with_name(f"{place.name}.{number}")
        folder.mkdir(mode=0o700, exist_ok=True)
        with stream.closed(source()) as chunks:
            words = [unpack, "-x", "-C", str(folder)]
            stream.drained(process.output(words, given=chunks, failure=StoreError))
        more = apart if number < len(steps) - 1 else []
        prepare = [program, "--prepare", f"--target-dir={place}", *more]
        prepare += [f"--incremental-dir={folder}"] if number else []
        said: list[str] = []
        stream.drained(process.output(prepare, notice=said.append, failure=StoreError))
        if not said or _DONE not in said[-1]:
            raise StoreError(
                f'{program} --prepare: no "{_DONE}" in its output', "\n".join(said[-5:])
            )
        if number:
            shutil.rmtree(folder)
    told = "full backup"
    if len(steps) > 1:
        told += f" and {count(len(steps) - 1, 'incremental backup')}"
    return Result(Status.OK, f"{told}, prepared", items=1, bytes=item.size or 0)


def _chain(
    item: item_record.StoredItem, stored: Callable[[], Iterator[contracts.Following]]
) -> Sequence[contracts.Following]:
    """The backups that this one was added to, the full one first. Raises StoreError."""
    runs = {found.run_id: found for found in stored() if found.item.name == item.name}
    chain: list[contracts.Following] = []
    wanted = item.facts.get("base", "")
    while wanted:
        found = runs.get(wanted)
        if found is None:
            raise StoreError(
                f"{item.called}: base run {wanted} is not in this store",
                f"Restore from a store that has run {wanted}, or restore an earlier run.",
            )
        chain.insert(0, found)
        wanted = found.item.facts.get("base", "")
    return chain


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.run(Options, work, argv)
