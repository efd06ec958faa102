"""Back up MongoDB servers: an archive of mongodump, looked through while it passes. A plugin."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from mongo import archive
from tools import os_works
from tools.base.errors import BackupError, ConfigError, SourceError, StoreError
from tools.base.result import Result, Status
from tools.base.secret import Secret
from tools.date_str_utils import count
from tools.flow import dump_stream, item_record, process, stream
from tools.flow.item import Ended, Item, Told
from tools.modules import contracts, database_plugin, executable
from tools.modules.options import option

KIND = "mongo"
_RESTORED = re.compile(r"(\d+) document\(s\) restored successfully\. (\d+) document\(s\) failed")
_SYSTEM = ("admin", "config", "local")
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_WITHOUT_OPLOG = (
    "restored without the oplog, which mongorestore cannot replay under another name: writes "
    "during the dump may be partly included"
)
_FAILED = re.compile(r"(?:^|\t)(Failed: .*|error parsing .*|.* unknown option .*)$")


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    mongo_host: str = option("host name, or `NAME/HOST:PORT,...` for a replica set", "127.0.0.1")
    mongo_port: int = option("port", default=27017, least=1)
    mongo_user: str = option("user name", default="")
    mongo_pwd: Secret = option("password (`env:NAME` or `file:/path`)", default=Secret(""))
    auth_database: str = option("authentication database", default="admin")
    mongo_uri: Secret = option(
        "connection URI (mongodb://...), instead of the keys above", default=Secret("")
    )
    oplog: str = option(
        "include the oplog, so that the dump is consistent at one point in time (replica sets "
        "only): `True`, `False`, or `auto` (if the host or URI names a replica set)",
        default="auto",
    )
    mongodump_bin: str = option("path of mongodump", default="/usr/bin/mongodump")
    hostname: str = option("name of this server (part of file names in staged runs)", default="")
    destination: Path | None = option(
        "staged runs: folder in which PREFIX_FOLDER is created; default WORK_FOLDER", default=None
    )
    prefix_folder: str = option("staged runs: folder for the dumps", default="mongodump")
    work_folder: Path = option("folder for temporary files", default=Path("/opt/backup"))
    allow_root: bool = option("allow the run as root (for containers)", default=False)
    tar_command: str = option(
        "accepted for old configs, ignored: the dump is a single archive", default=""
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.oplog.lower() not in ("true", "false", "auto"):
            raise ConfigError(
                f"OPLOG: {self.oplog!r}: must be True, False or auto", "Set it to auto."
            )
        if self.mongo_uri and self.mongo_user:
            raise ConfigError(
                "MONGO_URI and MONGO_USER cannot be combined",
                "Put the user into MONGO_URI and remove MONGO_USER, or remove MONGO_URI.",
            )

    def with_oplog(self) -> bool:
        """Whether the oplog is dumped."""
        if self.oplog.lower() != "auto":
            return self.oplog.lower() == "true"
        uri = self.mongo_uri.reveal() if self.mongo_uri else ""
        return "/" in self.mongo_host or "replicaSet=" in uri


@dataclass(frozen=True)
class _Login:
    """How a server is reached; `uri` and `password` go by a file that only we may read."""

    words: tuple[str, ...]
    uri: str = ""
    password: str = ""

    @contextlib.contextmanager
    def command(self, program: str) -> Iterator[list[str]]:
        """The beginning of a command line (--config: MongoDB tools 100.3 and later)."""
        given = {"uri": self.uri, "password": self.password}
        with tempfile.TemporaryDirectory(prefix="nc-mongo-") as folder:
            file = Path(folder, "login.yaml")
            file.touch(0o600)
            lines = [f"{key}: {yaml_text(text)}\n" for key, text in given.items() if text]
            file.write_text("".join(lines), encoding="utf-8")
            yield [program, *([f"--config={file}"] if lines else []), *self.words]


def yaml_text(text: str) -> str:
    """Return a text as a double-quoted scalar of YAML 1.2 (7.3.1, 5.1).

    JSON's escapes are YAML's, but for surrogate pairs: characters outside the BMP stand as they
    are. What YAML does not print, or takes for a line break, is escaped.
    """
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


def _login(given: Options) -> _Login:
    if given.mongo_uri:
        return _Login((), uri=given.mongo_uri.reveal())
    host = given.mongo_host
    words = [f"--host={host}"]
    if "/" not in host and ":" not in host:
        words.append(f"--port={given.mongo_port}")
    if not given.mongo_user:
        return _Login(tuple(words))
    words += [f"--username={given.mongo_user}", f"--authenticationDatabase={given.auth_database}"]
    return _Login(tuple(words), password=given.mongo_pwd.reveal())


def items(given: Options, told: Told) -> tuple[Item, ...]:
    """The archive of the server, by its port."""
    del told
    os_works.refuse_root(given.allow_root)
    one = _Dump(given)
    return (Item(str(given.mongo_port), KIND, lambda _head: ".archive", one.read, one.ended),)


class _Dump:
    """One server."""

    def __init__(self, given: Options) -> None:
        self._given = given
        self._program = dump_stream.program(given.mongodump_bin, "mongodump")
        self._facts: dict[str, str] = {}
        self._notes: tuple[str, ...] = ()

    def read(self) -> Iterator[bytes]:
        """The archive; raises SourceError at its end where it is not whole."""
        found = archive.Archive()
        oplog = self._given.with_oplog()
        with _login(self._given).command(self._program) as words:
            more = ["--archive", *(["--oplog"] if oplog else [])]
            yield from archive.whole(_output([*words, *more]), found)
        if found.time_series:
            names = ", ".join(found.time_series)
            self._notes = (f"time series, which older mongorestore cannot restore: {names}",)
        self._facts = {
            "tool": version(self._program),
            "databases": " ".join(found.databases),
            "collections": str(len(found.collections)),
            "documents": str(found.documents),
            "consistency": "oplog" if oplog else "each collection by itself",
        }

    def ended(self) -> Ended:
        """What is worth knowing of the archive."""
        note = "not one point in time: writes during the dump may be partly included (OPLOG)"
        notes = () if self._given.with_oplog() else (note,)
        return Ended((), (*notes, *self._notes), self._facts)


def _output(argv: list[str]) -> Iterator[bytes]:
    """What mongodump writes. Raises SourceError with its reason alone, not its progress."""
    try:
        yield from process.output(argv)
    except SourceError as error:
        raise SourceError(str(error), reason(error.hint)) from None


def reason(stderr: str) -> str:
    """Return why a MongoDB tool failed: its `Failed:` lines, or its last lines."""
    lines = stderr.splitlines()
    found = [match[1] for line in lines if (match := _FAILED.search(line))]
    return "\n".join(found or lines[-3:])


def version(program: str) -> str:
    """What a program says of itself, on one line."""
    out = b"".join(process.output([program, "--version"])).decode("utf-8", "replace")
    return out.strip().partition("\n")[0]


def test(given: Options) -> tuple[str, ...]:
    """Whether the server answers: the beginning of a dump."""
    os_works.refuse_root(given.allow_root)
    program = dump_stream.program(given.mongodump_bin, "mongodump")
    found = archive.Archive()
    with (
        _login(given).command(program) as words,
        stream.closed(_output([*words, "--archive"])) as chunks,
    ):
        for chunk in chunks:
            found.take(chunk)
            if found.documents:
                break
    names = ", ".join(found.databases) or "none"
    return (f"{version(program)}: databases {names}",)


class MongoBackup(database_plugin.Plugin):
    """The plugin class: leaves an archive of the server in PREFIX_FOLDER."""

    declared = Options
    section = "MONGODB"

    def items(self, given: Options, told: Told) -> tuple[Item, ...]:
        """See dump.Plugin."""
        return items(given, told)


def into(
    item: item_record.StoredItem, again: contracts.Again, server: contracts.Server
) -> contracts.Steps:
    """Restore an archive, or its one database under another name. Raises BackupError."""
    yield from ()  # it waits for no other item
    if server.until:
        raise ConfigError(f"--until: not supported for {item.called}", "Restore without --until.")
    names = [name for name in item.facts.get("databases", "").split() if name not in _SYSTEM]
    if server.database and len(names) != 1:
        raise ConfigError(
            f"--to-database: the archive contains {count(len(names), 'database')} "
            f"({', '.join(names)})",
            "Restore it without --to-database.",
        )
    login = _target(server)
    if not server.overwrite:
        for name in [server.database] if server.database else names:
            _refuse_filled(login, name)
    with stream.closed(again()) as chunks:
        stream.drained(archive.whole(chunks, archive.Archive()))
    oplog = item.facts.get("consistency") == "oplog"
    extra = ["--drop"] if server.overwrite else []
    if server.database:  # mongorestore refuses names together with --oplogReplay
        extra += [f"--nsInclude={names[0]}.*", f"--nsFrom={names[0]}.*"]
        extra.append(f"--nsTo={server.database}.*")
    elif oplog:
        extra.append("--oplogReplay")
    documents = _restore(item.called, login, extra, again)
    where = f" as {server.database}" if server.database else ""
    told = f"{item.facts.get('collections', '?')} collections, {documents} documents{where}"
    warnings = (_WITHOUT_OPLOG,) if oplog and server.database else ()
    status = Status.INCOMPLETE if warnings else Status.OK
    return Result(status, told, items=1, bytes=item.size or 0, warnings=warnings)


def _restore(called: str, login: _Login, extra: list[str], again: contracts.Again) -> str:
    """Run mongorestore; how many documents it restored. Raises StoreError."""
    said: list[str] = []
    program = dump_stream.program("mongorestore")
    try:
        with login.command(program) as words, stream.closed(again()) as chunks:
            argv = [*words, "--archive", "--stopOnError", *extra]
            output = process.output(argv, given=chunks, notice=said.append, failure=StoreError)
            stream.drained(output)
    except StoreError as error:
        raise StoreError(str(error), reason(error.hint)) from None
    found = next(filter(None, map(_RESTORED.search, reversed(said))), None)
    if found is None or found[2] != "0":
        no_count = "no document count in the output of mongorestore"
        lost = f"{found[2]} documents were not restored" if found else no_count
        raise StoreError(f"{called}: {lost}", reason("\n".join(said[-5:])))
    return found[1]


def _target(server: contracts.Server) -> _Login:
    """--to-credentials holds the password alone, on its first line."""
    words = [f"--host={server.host}", *([f"--port={server.port}"] if server.port else [])]
    password = ""
    if server.user:
        words += [f"--username={server.user}", "--authenticationDatabase=admin"]
    if server.credentials:
        password = Secret(f"file:{server.credentials}").reveal().partition("\n")[0]
    return _Login(tuple(words), password=password)


def _refuse_filled(login: _Login, name: str) -> None:
    """Raises BackupError where a database has collections: asked by the beginning of a dump."""
    found = archive.Archive()
    program = dump_stream.program("mongodump")
    with (
        login.command(program) as words,
        stream.closed(_output([*words, "--archive", f"--db={name}"])) as chunks,
    ):
        for chunk in chunks:
            found.take(chunk)
            if found.collections:
                raise BackupError(
                    f"database {name} is not empty",
                    "Choose another name with --to-database, or use --overwrite to drop each "
                    "collection that the archive contains.",
                )
        if not found.collections:
            return
    raise SourceError(
        f"cannot determine whether database {name} is empty: unexpected output of mongodump"
    )


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.describe(Options, argv)
