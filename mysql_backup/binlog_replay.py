"""Point-in-time recovery: select the binary logs after a dump, and replay their events."""

from __future__ import annotations

import collections
import contextlib
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from mysql_backup import (
    binlog_file,
    binlog_reach,
    binlogs,
    gtid,
    mysql_server,
    name_references,
    replay_check,
)
from tools.base import removal
from tools.base.errors import ConfigError, StoreError
from tools.flow import dump_stream, item_record, process, stream
from tools.flow.facts import BinlogFacts, MysqlFacts
from tools.modules import contracts

_FORMS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M")
_MOST_LOGS = 50_000  # of one run: their names are arguments of tar
_POSITION = re.compile(r"(?P<file>[^/:]+\.\d+):(?P<position>\d+)")
# What mariadb-binlog and mysqlbinlog write before an event so that it keeps its GTID.
_OLD_GTID = re.compile(
    rb"^(?:/\*M?!100001 SET @@session\.(?:gtid_domain_id|server_id|gtid_seq_no)=\d+\*/.*\n"
    rb"|(?P<next>SET @@SESSION\.GTID_NEXT= ')(?!AUTOMATIC)[^']*)",
    re.M,
)


@dataclass(frozen=True)
class RecoveryTarget:
    """The target of a replay: a time (UTC), a position in a log, or a GTID."""

    time: str = ""
    file: str = ""
    position: int = 0
    gtid: str = ""

    @classmethod
    def of(cls, text: str) -> RecoveryTarget:
        """Parse --until. Raises ConfigError."""
        for form in _FORMS:
            with contextlib.suppress(ValueError):
                moment = datetime.strptime(text.replace("T", " "), form)  # noqa: DTZ007  (UTC)
                return cls(time=moment.strftime(_FORMS[0]))
        if match := _POSITION.fullmatch(text):
            return cls(file=match["file"], position=int(match["position"]))
        if gtid.is_gtid(text):
            return cls(gtid=text)
        raise ConfigError(
            f"--until: {text!r}: not a time, position or GTID",
            'Use a UTC time ("2026-01-31 14:30:05"), a position (mysql-bin.000012:3456) or a GTID '
            "(0-1-789, UUID:789).",
        )

    def check_after_dump(self, facts: MysqlFacts) -> None:
        """Raise ConfigError if the dump is newer than the target."""
        file, position = facts.binlog_file, facts.binlog_position or 0
        late = bool(self.time) and self.time < facts.time
        if self.file:
            own_position = (binlogs.split_log_name(self.file)[1], self.position)
            late = own_position < (binlogs.split_log_name(file)[1], position)
        late = late or (bool(self.gtid) and gtid.contains(self.gtid, facts.gtid))
        if late:
            raise ConfigError(
                f"--until: the dump is newer: {facts.time} UTC ({file}:{position})",
                "Choose an earlier run with --restore.",
            )

    def reached(self, facts: BinlogFacts) -> bool:
        """Return whether an item of binary logs contains all events up to the target."""
        if self.time:
            return self.time <= facts.until
        if self.gtid:
            return gtid.contains(self.gtid, facts.gtid)
        last, target_log = (
            binlogs.split_log_name(facts.last)[1],
            binlogs.split_log_name(self.file)[1],
        )
        at_end = last == target_log and self.position <= facts.last_size
        return bool(last > target_log or at_end)

    def end(self, files: Sequence[Path], start: int) -> binlog_reach.Point | None:
        """Return the last event before the target; None if only mysqlbinlog can find it.

        start: position in the first file. Raises ConfigError, StoreError.
        """
        if self.time:
            moment = datetime.strptime(self.time, _FORMS[0]).replace(tzinfo=timezone.utc)
            return binlog_reach.before_time(files, start, int(moment.timestamp()))
        if self.file:
            return binlog_reach.before_position(files, start, self.position)
        if gtid.is_mariadb(self.gtid):
            return binlog_reach.end_of_transaction(files, start, self.gtid)
        return None

    def mysqlbinlog_arguments(self, *, mariadb: bool) -> list[str]:
        """Return the options for mysqlbinlog; that of MySQL cannot stop at a GTID."""
        if self.time:
            return [f"--stop-datetime={self.time}"]
        if self.gtid and not mariadb:
            return []
        return [f"--stop-position={self.gtid or self.position}"]


@dataclass(frozen=True)
class _Piece:
    """The logs of one run that are needed, in order."""

    log_item: contracts.Following
    facts: BinlogFacts
    names: tuple[str, ...]


class Replay:
    """The binary logs after a dump: selected and checked first, replayed after the dump."""

    def __init__(
        self, database: item_record.StoredItem, until: str, following: Iterable[contracts.Following]
    ) -> None:
        """Plan a replay. Raises ConfigError, StoreError if the logs do not reach."""
        facts = MysqlFacts.of(database)
        port, _, self._old = database.name.partition("/")
        if not facts.binlog_file:
            raise ConfigError(
                "--until: the dump has no binary log position",
                "Restore without --until: log_bin was off on the server.",
            )
        self._target = RecoveryTarget.of(until)
        self._facts = facts
        self._target.check_after_dump(facts)
        self._pieces = list(self._chain(port, following))

    def _chain(self, port: str, following: Iterable[contracts.Following]) -> Iterator[_Piece]:
        """Yield the logs from the dump to the target. Raises StoreError if one is missing."""
        base, needed = binlogs.split_log_name(self._facts.binlog_file)
        reach, own_run = self._facts.time, ""
        sequence = _Sequence(base, needed, self._facts.time)
        for log_item in following:
            own_run = own_run or log_item.run_id
            if log_item.item.kind != binlogs.KIND or log_item.item.name != f"binlogs@{port}":
                continue
            facts = BinlogFacts.of(log_item.item)
            other, first = binlogs.split_log_name(facts.first)
            last = binlogs.split_log_name(facts.last)[1]
            is_reset = facts.anew and log_item.run_id != own_run
            if other != base or first > needed or is_reset or not sequence.continues(facts):
                raise StoreError(
                    f"--until: gap in the binary logs: number {needed} of {base} is needed, but "
                    f"run {log_item.run_id} begins at {facts.first}",
                    f'Use --until "{reach}" (UTC) or an earlier time.',
                )
            if last < needed:
                continue  # closed before the dump, or had already
            width = len(facts.first) - len(base) - 1
            end = (
                min(last, binlogs.split_log_name(self._target.file)[1])
                if self._target.file
                else last
            )
            if end - needed >= _MOST_LOGS:
                raise StoreError(
                    f"--until: {log_item.run_id} has {end - needed} binary logs",
                    "Do not use these logs: the manifest was altered.",
                )
            names = tuple(f"{base}.{number:0{width}}" for number in range(needed, end + 1))
            _reject_encrypted(names, facts.encrypted, reach)
            yield _Piece(log_item, facts, names)
            needed, reach = last + 1, facts.until
            if self._target.reached(facts):
                return
        raise StoreError(
            f"--until: the stored binary logs end at {reach} UTC",
            "Use an earlier time. If the server is still running, run a backup first.",
        )

    def check_name(self, name: str) -> None:
        """Raise ConfigError for a name that mysqlbinlog cannot parse (--rewrite-db)."""
        for one in (self._old, name):
            if name != self._old and (re.search(r"\s|->", one) or not one):
                raise ConfigError(
                    f"--until: {one!r}: unsupported database name for the replay of binary logs",
                    "Choose a --to-database without spaces, or restore under the original name.",
                )

    def warnings(self) -> tuple[str, ...]:
        """Return a warning on statements that may be missing from the replay."""
        forms = {piece.facts.format for piece in self._pieces} - {"ROW"}
        if not forms:
            return ()
        return (
            f"binlog_format was {' and '.join(sorted(forms))}: statements written to {self._old} "
            "from another default database were not replayed",
        )

    def check_logs(self) -> None:
        """Read all logs to check that they contain every event up to the target.

        Raises BackupError.
        """
        with self._unpacked() as files:
            self._end(files)

    def apply(self, target: mysql_server.MySQLConnection, name: str) -> str:
        """Replay the events of the database into `name`, in one session of the client.

        Return the first and last log for messages. Raises StoreError, also if the target was not
        reached, and WouldOverwriteError if a statement would change the database of the old name.
        """
        with self._unpacked() as files:
            reached = binlog_reach.ReachCheck(self._end(files))
            if name != self._old:
                with stream.closed(self._events(name, files)) as events:
                    name_references.reject_events_naming(events, self._old)
            arguments = ("--binary-mode", "--comments", f"--database={name}")
            client = target.command(*arguments, *mysql_server.MAX_PACKET_OPTION)
            env = mysql_server.environment()
            with stream.closed(self._events(name, files)) as events:
                collections.deque(
                    replay_check.checked(events, name), maxlen=0
                )  # nothing is sent yet
            events = _without_gtids(reached.watch(self._events(name, files)))
            events = replay_check.checked(events, name)
            with stream.closed(events):
                output = process.output(client, stdin_data=events, env=env, failure=StoreError)
                stream.drained(output)
            reached.raise_if_not_reached(files)
        return f"{files[0].name} to {files[-1].name}"

    @contextlib.contextmanager
    def _unpacked(self) -> Iterator[Sequence[Path]]:
        """Yield the files of the logs in a private folder, in order. Raises StoreError."""
        with removal.private(Path(tempfile.gettempdir()), "nc-binlogs-") as folder:
            for piece in self._pieces:
                unpack = ["tar", "--extract", f"--directory={folder}", "--", *piece.names]
                with stream.closed(piece.log_item.again()) as chunks:
                    done = process.output(unpack, stdin_data=chunks, failure=StoreError)
                    stream.drained(done)
                _require_files(folder, piece)
            yield [Path(folder, name) for piece in self._pieces for name in piece.names]

    def _end(self, files: Sequence[Path]) -> binlog_reach.Point | None:
        encrypted = [file.name for file in files if binlog_file.head(file).encrypted]
        _reject_encrypted([file.name for file in files], encrypted, self._facts.time)
        return self._target.end(files, self._facts.binlog_position or 0)

    def _events(self, name: str, files: Sequence[Path]) -> Iterator[bytes]:
        """Yield the output of mysqlbinlog for one database."""
        mariadb = mysql_server.is_mariadb(self._facts.server)
        program = _program(mariadb=mariadb)
        command = [program, "--no-defaults", f"--start-position={self._facts.binlog_position}"]
        command += self._target.mysqlbinlog_arguments(mariadb=mariadb)
        # MySQL compares the new name
        command.append(f"--database={self._old if mariadb else name}")
        if name != self._old:
            command.append(f"--rewrite-db={self._old}->{name}")
        env = {**mysql_server.environment(), "TZ": "UTC"}
        events = process.output([*command, *map(str, files)], env=env, failure=StoreError)
        if self._target.gtid and not mariadb:
            return gtid.events_until(events, self._target.gtid)
        return events


def _require_files(folder: Path, piece: _Piece) -> None:
    """Raise StoreError unless a log is a regular file: a link or a FIFO is never opened."""
    for name in piece.names:
        status = Path(folder, name).lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise StoreError(
                f"--until: {name} of run {piece.log_item.run_id} is not a file, but a link or a "
                "special file",
                "Do not use these logs: anyone who can write to the store may have made them.",
            )


class _Sequence:
    """The sequence of binary logs since the last RESET MASTER, after which numbers repeat.

    Each log is identified by its creation time, which is in the facts of the items.
    """

    def __init__(self, base: str, number: int, time: str) -> None:
        """Begin with a log.

        base, number: the log at `time`, that of the dump (UTC), before which it was created
        """
        self._base = base
        self._number = number
        moment = datetime.strptime(time, _FORMS[0]).replace(tzinfo=timezone.utc)
        self._latest = int(moment.timestamp())
        self._created: dict[int, int] = {}

    def continues(self, facts: BinlogFacts) -> bool:
        """Return whether the logs of a later item are of the same sequence, as far as known."""
        first = binlogs.split_log_name(facts.first)[1]
        created_by_number = dict(enumerate(facts.created, first))
        same = all(
            self._created.get(number, time) == time for number, time in created_by_number.items()
        )
        before = created_by_number.get(self._number, self._latest) <= self._latest
        self._created |= created_by_number
        return same and before


def _reject_encrypted(names: Sequence[str], encrypted: Sequence[str], reach: str) -> None:
    """Raise StoreError if one of the needed logs is encrypted."""
    needed = [name for name in names if name in encrypted]
    if needed:
        raise StoreError(
            f"--until: binary log {needed[0]} is encrypted: no client program can replay it",
            f"Restore without --until, or use --until '{reach}' (UTC) or earlier. Only the "
            "server itself can read the log (mariadb-binlog --read-from-remote-server).",
        )


def _program(*, mariadb: bool) -> str:
    """Return the mysqlbinlog of the brand that wrote the logs. Raises ConfigError."""
    program = dump_stream.program(*(("mariadb-binlog",) if mariadb else ()), "mysqlbinlog")
    if mysql_server.is_mariadb(mysql_server.tool_version(program)) != mariadb:
        brand = "MariaDB" if mariadb else "MySQL"
        raise ConfigError(
            f"--until: {program} cannot read binary logs of {brand}",
            f"Install the client programs of {brand}, or put them first in PATH.",
        )
    return program


def _without_gtids(events: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the events without their GTIDs, so that the server assigns new ones.

    A server with gtid_strict_mode would reject the old ones (MariaDB), or skip known ones (MySQL).
    """
    tail = b""
    for chunk in events:
        block = tail + chunk
        cut = block.rfind(b"\n") + 1
        yield _OLD_GTID.sub(_new_gtid, block[:cut])
        tail = block[cut:]
    yield _OLD_GTID.sub(_new_gtid, tail)


def _new_gtid(match: re.Match[bytes]) -> bytes:
    return match["next"] + b"AUTOMATIC" if match["next"] else b""
