"""Back up Redis servers: a snapshot (RDB) of each, with redis-cli. A plugin."""

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import functools
import ipaddress
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tools import os_works
from tools.base.errors import ConfigError, SourceError
from tools.base.finding import Finding
from tools.base.secret import Secret
from tools.flow import dump_stream, process, stream, task
from tools.flow.facts import RedisFacts
from tools.flow.item import Item, ItemReport, SourceContext
from tools.modules import database_plugin, executable
from tools.modules import servers as configured
from tools.modules.options import Ports, option
from tools.modules.servers import Configured

KIND = "redis"
_HEAD = re.compile(rb"REDIS\d{4}")  # RDB: five letters and a version
_EOF, _TAIL = 0xFF, 9  # RDB: the mark before a CRC-64 of 8 bytes


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    host: str = option("host name", default="127.0.0.1")
    port: Ports = option("ports of the servers", default=(6379,))
    user: str = option("user name (Redis 6 and later)", default="")
    password: Secret = option("password (`env:NAME` or `file:/path`)", default=Secret(""))
    tls: bool = option("connect with TLS", default=False)
    tls_ca: Path | None = option(
        "TLS: file of the CA certificates (PEM) that verify the server; default: those of the "
        "system",
        default=None,
    )
    tls_cert: Path | None = option("TLS: certificate of the client (PEM)", default=None)
    tls_key: Path | None = option("TLS: private key of the client (PEM)", default=None)
    redis_cli: str = option("path of redis-cli", default="/usr/bin/redis-cli")
    hostname: str = option("name of this server (part of file names in staged runs)", default="")
    destination: Path | None = option(
        "staged runs: folder in which PREFIX_FOLDER is created; default WORK_FOLDER", default=None
    )
    prefix_folder: str = option("staged runs: folder for the snapshots", default="redis")
    work_folder: Path = option(
        "folder for temporary files; holds one snapshot at a time", default=Path("/opt/backup")
    )
    allow_root: bool = option("allow the run as root (for containers)", default=False)

    def __post_init__(self) -> None:
        """Raise ConfigError for values that cannot be combined."""
        if "://" in self.host:
            raise ConfigError(
                "HOST: not a host name",
                "Set HOST to the host name only, and PORT, USER and PASSWORD to the other parts; "
                "for rediss:// also set TLS to True.",
            )
        if not self.tls and (self.tls_ca or self.tls_cert or self.tls_key):
            raise ConfigError("TLS_CA, TLS_CERT and TLS_KEY need TLS", "Set TLS to True.")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError(
                "TLS_CERT and TLS_KEY: only one of them is set", "Set both, or neither."
            )


def _tls(options: Options) -> list[str]:
    """Return the TLS arguments of redis-cli. Raises ConfigError for an unreadable file."""
    if not options.tls:
        return []
    arguments = ["--tls"]
    if not _is_address(options.host):
        arguments += ["--sni", options.host]
    files = (
        ("TLS_CA", "--cacert", options.tls_ca),
        ("TLS_CERT", "--cert", options.tls_cert),
        ("TLS_KEY", "--key", options.tls_key),
    )
    for key, flag, path in files:
        if path is not None:
            _check_readable(key, path)
            arguments += [flag, str(path)]
    return arguments


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _check_readable(key: str, path: Path) -> None:
    """Raise ConfigError with the key; redis-cli only reports an invalid context."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(
            f"{key}: {path}: {str(error.strerror).lower()}",
            "Set it to a file that the user of the backup can read.",
        ) from None


def items(options: Options, context: SourceContext) -> tuple[Item, ...]:
    """Return the snapshot of each server as an item, named after its port."""
    del context
    os_works.refuse_root(options.allow_root)
    servers = [_Server(options, port) for port in options.port]
    return tuple(
        Item(str(server.port), KIND, lambda _head: ".rdb", server.read, server.ended)
        for server in servers
    )


class _Server:
    """One server."""

    def __init__(self, options: Options, port: int) -> None:
        self._options = options
        self.port = port
        self._program = dump_stream.program(options.redis_cli, "redis-cli")
        self._facts = RedisFacts()

    def _query(self, *arguments: str, idle: Callable[[float], None] | None = None) -> str:
        """Return the output of redis-cli. Raises SourceError.

        idle: see process.output
        """
        options = self._options
        command = [
            self._program,
            "-h",
            options.host,
            "-p",
            str(self.port),
            "--no-auth-warning",
            "-e",
        ]
        command += _tls(options)
        command += ["--user", options.user] if options.user else []
        extra = {"LC_ALL": "C.UTF-8"}
        if options.password:
            extra["REDISCLI_AUTH"] = options.password.reveal()
        env = {**os_works.environment({}), **extra}
        output = process.output([*command, *arguments], env=env, idle=idle)
        return b"".join(output).decode("utf-8", "replace")

    def version(self) -> str:
        """Return the version of the server. Raises SourceError if it cannot be reached."""
        match = re.search(r"^redis_version:(\S+)", self._query("INFO", "server"), re.M)
        if match is None:
            raise SourceError(
                f"port {self.port}: not a Redis server, or permission denied",
                "Set USER to a user who may run INFO and SYNC (or PSYNC).",
            )
        return match[1]

    def read(self) -> Iterator[bytes]:
        """Yield the snapshot, which was checked before its first byte.

        It is read from a file: with `--rdb -` redis-cli appends a mark of 40 bytes.
        """
        version = self.version()
        with dump_stream.scratch(self._options.work_folder) as folder:
            file = folder / "dump.rdb"
            self._query("--rdb", str(file), idle=_growth(file))
            _check_snapshot(file, self.port)
            self._facts = RedisFacts(version)
            yield from stream.read(file)

    def ended(self) -> ItemReport:
        """Return the facts of the snapshot."""
        return ItemReport(facts=self._facts)


def _growth(file: Path) -> Callable[[float], None]:
    """Return what notes that a file grows: redis-cli prints nothing meanwhile."""
    last = 0

    def look(_seconds: float) -> None:
        nonlocal last
        size = file.stat().st_size if file.exists() else 0
        if size != last:
            task.current().touch()
        last = size

    return look


def _check_snapshot(file: Path, port: int) -> None:
    """Raise SourceError if the snapshot is incomplete."""
    size = file.stat().st_size if file.exists() else 0
    head, tail = b"", b""
    if size > _TAIL:
        with file.open("rb") as snapshot:
            head = snapshot.read(_TAIL)
            snapshot.seek(size - _TAIL)
            tail = snapshot.read(1)
    if not _HEAD.fullmatch(head) or tail != bytes([_EOF]):
        raise SourceError(
            f"port {port}: incomplete snapshot",
            "Run the backup again; redis-cli exited with 0. Check the log of the Redis server.",
        )
    checker = shutil.which("redis-check-rdb")
    if checker:
        stream.drained(process.output([checker, str(file)]))


def test(options: Options) -> tuple[str | Finding, ...]:
    """Return a finding for each server."""
    os_works.refuse_root(options.allow_root)
    servers = (
        Configured(f"port {port}", functools.partial(_Server, options, port))
        for port in options.port
    )
    return configured.test(servers, lambda one: (f"port {one.port}: Redis {one.version()}",))


class RedisBackup(database_plugin.Plugin[Options]):
    """The plugin class: writes a snapshot of each server to PREFIX_FOLDER."""

    declared = Options
    section = "REDIS"

    def items(self, options: Options, context: SourceContext) -> tuple[Item, ...]:
        """See database_plugin.Plugin."""
        return items(options, context)


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.describe(Options, argv)
