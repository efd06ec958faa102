"""Back up Redis servers: a snapshot (RDB) as redis-cli gets it from the server. A plugin."""

from __future__ import annotations

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
from collections.abc import Iterator
from dataclasses import dataclass

from tools import os_works
from tools.base.errors import ConfigError, SourceError
from tools.base.finding import Finding
from tools.base.secret import Secret
from tools.flow import dump_stream, process, stream
from tools.flow.item import Ended, Item, Told
from tools.modules import database_plugin, executable
from tools.modules import servers as configured
from tools.modules.options import Ports, option
from tools.modules.servers import Configured

KIND = "redis"
_HEAD = re.compile(rb"REDIS\d{4}")  # RDB: five letters and a version
_EOF, _END = 0xFF, 9  # RDB: the mark before a CRC-64 of 8 bytes


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
        """Reject what does not go together."""
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
    """Return redis-cli's arguments for TLS. Raises ConfigError for a file it cannot read."""
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
    """Raise ConfigError naming the key; redis-cli says only that its context is invalid."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(
            f"{key}: {path}: {str(error.strerror).lower()}",
            "Set it to a file that the user of the backup can read.",
        ) from None


def items(given: Options, told: Told) -> tuple[Item, ...]:
    """The snapshot of each server, by its port."""
    del told
    os_works.refuse_root(given.allow_root)
    servers = [_Server(given, port) for port in given.port]
    return tuple(
        Item(str(one.port), KIND, lambda _head: ".rdb", one.read, one.ended) for one in servers
    )


class _Server:
    """One server."""

    def __init__(self, given: Options, port: int) -> None:
        self._given = given
        self.port = port
        self._program = dump_stream.program(given.redis_cli, "redis-cli")
        self._facts: dict[str, str] = {}

    def asked(self, *words: str) -> str:
        """What redis-cli says. Raises SourceError."""
        given = self._given
        whole = [self._program, "-h", given.host, "-p", str(self.port), "--no-auth-warning", "-e"]
        whole += _tls(given)
        whole += ["--user", given.user] if given.user else []
        extra = {"LC_ALL": "C.UTF-8"}
        if given.password:
            extra["REDISCLI_AUTH"] = given.password.reveal()
        env = {**os_works.environment({}), **extra}
        return b"".join(process.output([*whole, *words], env=env)).decode("utf-8", "replace")

    def version(self) -> str:
        """The server's version. Raises SourceError where it does not answer."""
        found = re.search(r"^redis_version:(\S+)", self.asked("INFO", "server"), re.M)
        if found is None:
            raise SourceError(
                f"port {self.port}: not a Redis server, or permission denied",
                "Set USER to a user who may run INFO and SYNC (or PSYNC).",
            )
        return found[1]

    def read(self) -> Iterator[bytes]:
        """The snapshot, checked before its first byte goes on.

        It goes by a file: with `--rdb -` redis-cli writes a mark of 40 bytes after its end.
        """
        version = self.version()
        with dump_stream.scratch(self._given.work_folder) as folder:
            file = folder / "dump.rdb"
            self.asked("--rdb", str(file))
            _checked(file, self.port)
            self._facts = {"server": version}
            yield from stream.read(file)

    def ended(self) -> Ended:
        """What is worth knowing of the snapshot."""
        return Ended(facts=self._facts)


def _checked(file: Path, port: int) -> None:
    """Raises SourceError for what is no whole snapshot."""
    size = file.stat().st_size if file.exists() else 0
    head, tail = b"", b""
    if size > _END:
        with file.open("rb") as opened:
            head = opened.read(_END)
            opened.seek(size - _END)
            tail = opened.read(1)
    if not _HEAD.fullmatch(head) or tail != bytes([_EOF]):
        raise SourceError(
            f"port {port}: incomplete snapshot",
            "Run the backup again; redis-cli exited with 0. Check the log of the Redis server.",
        )
    if checker := shutil.which("redis-check-rdb"):
        stream.drained(process.output([checker, str(file)]))


def test(given: Options) -> tuple[str | Finding, ...]:
    """Whether each server answers."""
    os_works.refuse_root(given.allow_root)
    servers = (
        Configured(f"port {port}", functools.partial(_Server, given, port)) for port in given.port
    )
    return configured.test(servers, lambda one: (f"port {one.port}: Redis {one.version()}",))


class RedisBackup(database_plugin.Plugin):
    """The plugin class: leaves a snapshot of each server in PREFIX_FOLDER."""

    declared = Options
    section = "REDIS"

    def items(self, given: Options, told: Told) -> tuple[Item, ...]:
        """See dump.Plugin."""
        return items(given, told)


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.describe(Options, argv)
