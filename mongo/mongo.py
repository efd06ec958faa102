"""Back up MongoDB servers: an archive of mongodump, checked while it is read. A plugin."""

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

from mongo import dump_archive
from tools import os_works
from tools.base import foreign, removal
from tools.base.errors import BackupError, ConfigError, SourceError, StoreError
from tools.base.result import Result, Status
from tools.base.secret import Secret
from tools.date_str_utils import count
from tools.flow import dump_stream, item_record, process, stream
from tools.flow.facts import MongoFacts
from tools.flow.item import Item, ItemReport, SourceContext
from tools.modules import contracts, database_plugin, executable
from tools.modules.json_values import Switch
from tools.modules.options import option

KIND = "mongo"
_RESTORED = re.compile(
    r"(?<!\d)(\d+) document\(s\) restored successfully\. (\d+) document\(s\) failed"
)
_SYSTEM = ("admin", "config", "local")
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_WITHOUT_OPLOG = (
    "restored without the oplog, which mongorestore cannot replay under another name: writes "
    "during the dump may be partly included"
)
_FAILED = re.compile(r"(?:^|\t)(Failed: .*|error parsing .*|[^\t]* unknown option .*)$")


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
    oplog: Switch = option(
        "include the oplog, so that the dump is consistent at one point in time (replica sets "
        "only): `True`, `False`, or `auto` (if the host or URI names a replica set)",
        default=Switch.AUTO,
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
        """Raise ConfigError for values that are invalid or cannot be combined."""
        if self.mongo_uri and self.mongo_user:
            raise ConfigError(
                "MONGO_URI and MONGO_USER cannot be combined",
                "Put the user into MONGO_URI and remove MONGO_USER, or remove MONGO_URI.",
            )

    def with_oplog(self) -> bool:
        """Return whether the oplog is dumped."""
        if self.oplog is not Switch.AUTO:
            return self.oplog is Switch.TRUE
        uri = self.mongo_uri.reveal() if self.mongo_uri else ""
        return "/" in self.mongo_host or "replicaSet=" in uri


@dataclass(frozen=True)
class _Login:
    """How to connect to a server; `uri` and `password` are passed in a private file."""

    arguments: tuple[str, ...]
    uri: str = ""
    password: str = ""

    @contextlib.contextmanager
    def command(self, program: str) -> Iterator[list[str]]:
        """Yield the beginning of a command line (--config: MongoDB tools 100.3 and later)."""
        secrets = {"uri": self.uri, "password": self.password}
        with removal.private(Path(tempfile.gettempdir()), "nc-mongo-") as folder:
            file = folder / "login.yaml"
            file.touch(0o600)
            lines = [f"{key}: {yaml_text(text)}\n" for key, text in secrets.items() if text]
            file.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
            yield [program, *([f"--config={file}"] if lines else []), *self.arguments]


def yaml_text(text: str) -> str:
    """Return a text as a double-quoted scalar of YAML 1.2 (7.3.1, 5.1).

    JSON's escapes are valid in YAML, except surrogate pairs, so characters outside the BMP are not
    escaped. Characters that YAML cannot print or treats as a line break are escaped.
    """
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)


def _login(options: Options) -> _Login:
    if options.mongo_uri:
        return _Login((), uri=options.mongo_uri.reveal())
    host = options.mongo_host
    arguments = [f"--host={host}"]
    if "/" not in host and ":" not in host:
        arguments.append(f"--port={options.mongo_port}")
    if not options.mongo_user:
        return _Login(tuple(arguments))
    arguments += [
        f"--username={options.mongo_user}",
        f"--authenticationDatabase={options.auth_database}",
    ]
    return _Login(tuple(arguments), password=options.mongo_pwd.reveal())


def items(options: Options, context: SourceContext) -> tuple[Item, ...]:
    """Return the archive of the server as an item, named after its port."""
    del context
    os_works.refuse_root(options.allow_root)
    dump = _Dump(options)
    return (Item(str(options.mongo_port), KIND, lambda _head: ".archive", dump.read, dump.ended),)


class _Dump:
    """One server."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._program = dump_stream.program(options.mongodump_bin, "mongodump")
        self._facts = MongoFacts()
        self._notes: tuple[str, ...] = ()

    def read(self) -> Iterator[bytes]:
        """Yield the archive. Raises SourceError at its end if it is incomplete."""
        checker = dump_archive.ArchiveChecker()
        oplog = self._options.with_oplog()
        with _login(self._options).command(self._program) as arguments:
            extra_arguments = ["--archive", *(["--oplog"] if oplog else [])]
            yield from dump_archive.check_complete(_output([*arguments, *extra_arguments]), checker)
        if checker.time_series:
            names = ", ".join(checker.time_series)
            self._notes = (f"time series, which older mongorestore cannot restore: {names}",)
        self._facts = MongoFacts(
            tool=version(self._program),
            databases=tuple(checker.databases),
            collections=len(checker.collections),
            documents=checker.documents,
            consistency="oplog" if oplog else "each collection by itself",
        )

    def ended(self) -> ItemReport:
        """Return notes and facts of the archive."""
        note = "not one point in time: writes during the dump may be partly included (OPLOG)"
        notes = () if self._options.with_oplog() else (note,)
        return ItemReport((), (*notes, *self._notes), self._facts)


def _output(argv: list[str]) -> Iterator[bytes]:
    """Yield the output of mongodump. Raises SourceError with its errors, not its progress."""
    try:
        yield from process.output(argv)
    except SourceError as error:
        raise SourceError(str(error), reason(error.hint)) from None


def reason(stderr: str) -> str:
    """Return why a MongoDB tool failed: its `Failed:` lines, or its last lines."""
    lines = foreign.lines(stderr)
    messages = [match[1] for match in map(_FAILED.search, lines) if match]
    return "\n".join(messages or lines[-3:])


def version(program: str) -> str:
    """Return the first line of a program's version output."""
    out = b"".join(process.output([program, "--version"])).decode("utf-8", "replace")
    return out.strip().partition("\n")[0]


def test(options: Options) -> tuple[str, ...]:
    """Read the beginning of a dump to check the connection; return a line for `-t`."""
    os_works.refuse_root(options.allow_root)
    program = dump_stream.program(options.mongodump_bin, "mongodump")
    checker = dump_archive.ArchiveChecker()
    with contextlib.ExitStack() as stack:
        arguments = stack.enter_context(_login(options).command(program))
        chunks = stack.enter_context(stream.closed(_output([*arguments, "--archive"])))
        for chunk in chunks:
            checker.add_chunk(chunk)
            if checker.documents:
                break
    names = ", ".join(checker.databases) or "none"
    return (f"{version(program)}: databases {names}",)


class MongoBackup(database_plugin.Plugin[Options]):
    """The plugin class: writes an archive of the server to PREFIX_FOLDER."""

    declared = Options
    section = "MONGODB"

    def items(self, options: Options, context: SourceContext) -> tuple[Item, ...]:
        """See database_plugin.Plugin."""
        return items(options, context)


def restore_to_server(
    item: item_record.StoredItem, again: contracts.Again, server: contracts.Server
) -> contracts.Steps:
    """Restore an archive, or its one database under another name. Raises BackupError."""
    yield from ()  # it does not depend on other items
    if server.until:
        raise ConfigError(f"--until: not supported for {item.label}", "Restore without --until.")
    facts = MongoFacts.of(item)
    names = [name for name in facts.databases if name not in _SYSTEM]
    if server.database and len(names) != 1:
        raise ConfigError(
            f"--to-database: the archive contains {count(len(names), 'database')} "
            f"({', '.join(names)})",
            "Restore it without --to-database.",
        )
    login = _restore_login(server)
    if not server.overwrite:
        for name in [server.database] if server.database else names:
            _reject_non_empty(login, name)
    with stream.closed(again()) as chunks:
        checker = dump_archive.ArchiveChecker()
        stream.drained(dump_archive.check_complete(chunks, checker))
    if facts.collections is not None:
        checker.check_databases(facts.databases)
    oplog = facts.consistency == "oplog"
    extra = ["--drop"] if server.overwrite else []
    if server.database:  # mongorestore rejects --ns* options together with --oplogReplay
        old, new = dump_archive.pattern(names[0]), dump_archive.pattern(server.database)
        extra += [f"--nsInclude={old}", f"--nsFrom={old}", f"--nsTo={new}"]
    elif oplog:
        extra.append("--oplogReplay")
    documents = _restore(item.label, login, extra, again)
    where = f" as {server.database}" if server.database else ""
    summary = f"{_collections(facts)} collections, {documents} documents{where}"
    warnings = (_WITHOUT_OPLOG,) if oplog and server.database else ()
    status = Status.INCOMPLETE if warnings else Status.OK
    return Result(status, summary, items=1, bytes=item.size or 0, warnings=warnings)


def _collections(facts: MongoFacts) -> str:
    return "?" if facts.collections is None else str(facts.collections)


def _restore(label: str, login: _Login, extra: list[str], again: contracts.Again) -> str:
    """Run mongorestore; return the number of restored documents. Raises StoreError."""
    stderr_lines: list[str] = []
    program = dump_stream.program("mongorestore")
    try:
        with login.command(program) as arguments, stream.closed(again()) as chunks:
            argv = [*arguments, "--archive", "--stopOnError", *extra]
            output = process.output(
                argv, stdin_data=chunks, notice=stderr_lines.append, failure=StoreError
            )
            stream.drained(output)
    except StoreError as error:
        raise StoreError(str(error), reason(error.hint)) from None
    match = next(filter(None, map(_RESTORED.search, reversed(stderr_lines))), None)
    if match is None or match[2] != "0":
        no_count = "no document count in the output of mongorestore"
        problem = f"{match[2]} documents were not restored" if match else no_count
        raise StoreError(f"{label}: {problem}", reason("\n".join(stderr_lines[-5:])))
    return match[1]


def _restore_login(server: contracts.Server) -> _Login:
    """Return the login of a restore; the first line of --to-credentials is the password."""
    arguments = [f"--host={server.host}", *([f"--port={server.port}"] if server.port else [])]
    password = ""
    if server.user:
        arguments += [f"--username={server.user}", "--authenticationDatabase=admin"]
    if server.credentials:
        password = Secret(f"file:{server.credentials}").reveal().partition("\n")[0]
    return _Login(tuple(arguments), password=password)


def _reject_non_empty(login: _Login, name: str) -> None:
    """Raise BackupError if a database has collections, as the beginning of a dump shows."""
    checker = dump_archive.ArchiveChecker()
    program = dump_stream.program("mongodump")
    with contextlib.ExitStack() as stack:
        arguments = stack.enter_context(login.command(program))
        dumped = _output([*arguments, "--archive", f"--db={name}"])
        chunks = stack.enter_context(stream.closed(dumped))
        for chunk in chunks:
            checker.add_chunk(chunk)
            if checker.collections:
                raise BackupError(
                    f"database {name} is not empty",
                    "Choose another name with --to-database, or use --overwrite to drop each "
                    "collection that the archive contains.",
                )
        if not checker.collections:
            return
    raise SourceError(
        f"cannot determine whether database {name} is empty: unexpected output of mongodump"
    )


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.describe(Options, argv)
