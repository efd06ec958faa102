"""To a point in time: which binary logs follow a dump, and their events played after it."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from mysql_backup import binlog_file, binlog_reach, binlogs, gtid, instance, renamed
from tools.base.errors import ConfigError, StoreError
from tools.flow import dump_stream, item_record, process, stream
from tools.modules import contracts

_FORMS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M")
_POSITION = re.compile(r"(?P<file>[^/:]+\.\d+):(?P<position>\d+)")
# What mariadb-binlog and mysqlbinlog write before an event so that it keeps its GTID.
_OLD_GTID = re.compile(
    rb"^(?:/\*M?!100001 SET @@session\.(?:gtid_domain_id|server_id|gtid_seq_no)=\d+\*/.*\n"
    rb"|(?P<next>SET @@SESSION\.GTID_NEXT= ')(?!AUTOMATIC)[^']*)",
    re.M,
)


@dataclass(frozen=True)
class Goal:
    """How far: before a moment (UTC, as the server writes it), a place in a log, or a GTID."""

    time: str = ""
    file: str = ""
    position: int = 0
    gtid: str = ""

    @classmethod
    def of(cls, text: str) -> Goal:
        """What --until means. Raises ConfigError."""
        for form in _FORMS:
            with contextlib.suppress(ValueError):
                moment = datetime.strptime(text.replace("T", " "), form)  # noqa: DTZ007  (UTC)
                return cls(time=moment.strftime(_FORMS[0]))
        if found := _POSITION.fullmatch(text):
            return cls(file=found["file"], position=int(found["position"]))
        if gtid.is_one(text):
            return cls(gtid=text)
        raise ConfigError(
            f"--until: {text!r}: not a time, position or GTID",
            'Use a UTC time ("2026-01-31 14:30:05"), a position (mysql-bin.000012:3456) or a GTID '
            "(0-1-789, UUID:789).",
        )

    def refuse_before(self, facts: Mapping[str, str]) -> None:
        """Raises ConfigError where the dump itself is later than the goal."""
        file, position = facts["binlog_file"], int(facts["binlog_position"])
        late = bool(self.time) and self.time < facts["time"]
        if self.file:
            ours = (binlogs.parts(self.file)[1], self.position)
            late = ours < (binlogs.parts(file)[1], position)
        late = late or (bool(self.gtid) and gtid.within(self.gtid, facts.get("gtid", "")))
        if late:
            raise ConfigError(
                f"--until: the dump is newer: {facts['time']} UTC ({file}:{position})",
                "Choose an earlier run with --restore.",
            )

    def reached(self, facts: Mapping[str, str]) -> bool:
        """Whether an item of binary logs holds all up to the goal."""
        if self.time:
            return self.time <= facts["until"]
        if self.gtid:
            return gtid.within(self.gtid, facts.get("gtid", ""))
        last, ours = binlogs.parts(facts["last"])[1], binlogs.parts(self.file)[1]
        at_end = last == ours and self.position <= int(facts["last_size"])
        return bool(last > ours or at_end)

    def end(self, files: Sequence[Path], start: int) -> binlog_reach.Point | None:
        """The last event before the goal; None where only mysqlbinlog's output can tell.

        start: where the first file is read from. Raises ConfigError, StoreError.
        """
        if self.time:
            moment = datetime.strptime(self.time, _FORMS[0]).replace(tzinfo=timezone.utc)
            return binlog_reach.before_time(files, start, int(moment.timestamp()))
        if self.file:
            return binlog_reach.before_position(files, start, self.position)
        if gtid.is_mariadb(self.gtid):
            return binlog_reach.end_of_transaction(files, start, self.gtid)
        return None

    def words(self, *, mariadb: bool) -> list[str]:
        """The same for mysqlbinlog; MySQL's does not end at a GTID."""
        if self.time:
            return [f"--stop-datetime={self.time}"]
        if self.gtid and not mariadb:
            return []
        return [f"--stop-position={self.gtid or self.position}"]


@dataclass(frozen=True)
class _Piece:
    """Logs of one run that are needed, in order."""

    found: contracts.Following
    names: tuple[str, ...]


class Replay:
    """What follows a dump: chosen and checked first, played when the dump is loaded."""

    def __init__(
        self, dumped: item_record.StoredItem, until: str, following: Iterable[contracts.Following]
    ) -> None:
        """dumped: the database. Raises ConfigError, StoreError where the logs do not reach."""
        facts = dumped.facts
        port, _, self._old = dumped.name.partition("/")
        if "binlog_file" not in facts:
            raise ConfigError(
                "--until: the dump has no binary log position",
                "Restore without --until: log_bin was off on the server.",
            )
        self._goal = Goal.of(until)
        self._facts = facts
        self._goal.refuse_before(facts)
        self._pieces = list(self._chain(port, following))

    def _chain(self, port: str, following: Iterable[contracts.Following]) -> Iterator[_Piece]:
        """The logs from the dump to the goal, none of them missing."""
        base, needed = binlogs.parts(self._facts["binlog_file"])
        reach, own_run = self._facts["time"], ""
        sequence = _Sequence(base, needed, self._facts["time"])
        for found in following:
            own_run = own_run or found.run_id
            facts = found.item.facts
            if found.item.kind != binlogs.KIND or found.item.name != f"binlogs@{port}":
                continue
            other, first = binlogs.parts(facts["first"])
            last = binlogs.parts(facts["last"])[1]
            anew = "anew" in facts and found.run_id != own_run
            if other != base or first > needed or anew or not sequence.goes_on(facts):
                raise StoreError(
                    f"--until: gap in the binary logs: number {needed} of {base} is needed, but "
                    f"run {found.run_id} begins at {facts['first']}",
                    f'Use --until "{reach}" (UTC) or an earlier time.',
                )
            if last < needed:
                continue  # closed before the dump, or had already
            width = len(facts["first"]) - len(base) - 1
            end = min(last, binlogs.parts(self._goal.file)[1]) if self._goal.file else last
            names = tuple(f"{base}.{number:0{width}}" for number in range(needed, end + 1))
            _refuse_encrypted(names, facts.get("encrypted", "").split(), reach)
            yield _Piece(found, names)
            needed, reach = last + 1, facts["until"]
            if self._goal.reached(facts):
                return
        raise StoreError(
            f"--until: the stored binary logs end at {reach} UTC",
            "Use an earlier time. If the server is still running, run a backup first.",
        )

    def refuse_name(self, name: str) -> None:
        """Raises ConfigError for a name that mysqlbinlog would not take whole (--rewrite-db)."""
        for one in (self._old, name):
            if name != self._old and (re.search(r"\s|->", one) or not one):
                raise ConfigError(
                    f"--until: {one!r}: unsupported database name for the replay of binary logs",
                    "Choose a --to-database without spaces, or restore under the original name.",
                )

    def warnings(self) -> tuple[str, ...]:
        """What may be missing from what was played."""
        forms = {piece.found.item.facts["format"] for piece in self._pieces} - {"ROW"}
        if not forms:
            return ()
        return (
            f"binlog_format was {' and '.join(sorted(forms))}: statements written to {self._old} "
            "from another default database were not replayed",
        )

    def refuse_damaged(self) -> None:
        """Read all of it once, before anything is done: every event up to the goal is there.

        Raises BackupError.
        """
        with self._unpacked() as files:
            self._end(files)

    def play(self, target: instance.Instance, name: str) -> str:
        """Play the events of the database into the one called `name`, in one session of the client.

        Gives what was played, for people. Raises StoreError, also where the goal was not reached;
        RefusedError where a statement would reach the database of the old name instead.
        """
        with self._unpacked() as files:
            reached = binlog_reach.Reached(self._end(files))
            if name != self._old:
                with stream.closed(self._events(name, files)) as events:
                    renamed.refuse_events(events, self._old)
            client = target.command("--binary-mode", f"--database={name}", *instance.ROOM)
            env = instance.environment()
            with stream.closed(_anew(reached.watch(self._events(name, files)))) as events:
                played = process.output(client, given=events, env=env, failure=StoreError)
                stream.drained(played)
            reached.judge(files)
        return f"{files[0].name} to {files[-1].name}"

    @contextlib.contextmanager
    def _unpacked(self) -> Iterator[Sequence[Path]]:
        """The files of the logs, in a private folder, in order. Raises StoreError."""
        with tempfile.TemporaryDirectory(prefix="nc-binlogs-") as folder:
            for piece in self._pieces:
                unpack = ["tar", "--extract", f"--directory={folder}", "--", *piece.names]
                with stream.closed(piece.found.again()) as chunks:
                    done = process.output(unpack, given=chunks, failure=StoreError)
                    stream.drained(done)
            yield [Path(folder, name) for piece in self._pieces for name in piece.names]

    def _end(self, files: Sequence[Path]) -> binlog_reach.Point | None:
        encrypted = [file.name for file in files if binlog_file.head(file).encrypted]
        _refuse_encrypted([file.name for file in files], encrypted, self._facts["time"])
        return self._goal.end(files, int(self._facts["binlog_position"]))

    def _events(self, name: str, files: Sequence[Path]) -> Iterator[bytes]:
        """What mysqlbinlog makes of the logs for one database."""
        mariadb = instance.is_mariadb(self._facts["server"])
        program = _program(mariadb=mariadb)
        words = [program, "--no-defaults", f"--start-position={self._facts['binlog_position']}"]
        words += self._goal.words(mariadb=mariadb)
        # MySQL looks at the new name
        words.append(f"--database={self._old if mariadb else name}")
        if name != self._old:
            words.append(f"--rewrite-db={self._old}->{name}")
        env = {**instance.environment(), "TZ": "UTC"}
        events = process.output([*words, *map(str, files)], env=env, failure=StoreError)
        if self._goal.gtid and not mariadb:
            return gtid.until(events, self._goal.gtid)
        return events


class _Sequence:
    """Binary logs of one server since its last RESET MASTER: a number may come again after it.

    Each log is known by the time at which the server began it, as the items of runs have it.
    """

    def __init__(self, base: str, number: int, time: str) -> None:
        """The log in which a dump was made, and when (UTC): the log is older."""
        self._base = base
        self._number = number
        moment = datetime.strptime(time, _FORMS[0]).replace(tzinfo=timezone.utc)
        self._latest = int(moment.timestamp())
        self._created: dict[int, int] = {}

    def goes_on(self, facts: Mapping[str, str]) -> bool:
        """Whether the logs of a later item are of the same sequence, as far as is known."""
        first = binlogs.parts(facts["first"])[1]
        found = {
            number: int(created)
            for number, created in enumerate(facts.get("created", "").split(), first)
        }
        same = all(self._created.get(number, time) == time for number, time in found.items())
        before = found.get(self._number, self._latest) <= self._latest
        self._created |= found
        return same and before


def _refuse_encrypted(names: Sequence[str], encrypted: Sequence[str], reach: str) -> None:
    """Raises StoreError where one of the logs that are needed is encrypted."""
    found = [name for name in names if name in encrypted]
    if found:
        raise StoreError(
            f"--until: binary log {found[0]} is encrypted: no client program can replay it",
            f"Restore without --until, or use --until '{reach}' (UTC) or earlier. Only the "
            "server itself can read the log (mariadb-binlog --read-from-remote-server).",
        )


def _program(*, mariadb: bool) -> str:
    """The mysqlbinlog of the brand that wrote the logs. Raises ConfigError."""
    found = dump_stream.program(*(("mariadb-binlog",) if mariadb else ()), "mysqlbinlog")
    if instance.is_mariadb(instance.version(found)) != mariadb:
        brand = "MariaDB" if mariadb else "MySQL"
        raise ConfigError(
            f"--until: {found} cannot read binary logs of {brand}",
            f"Install the client programs of {brand}, or put them first in PATH.",
        )
    return found


def _anew(events: Iterable[bytes]) -> Iterator[bytes]:
    """The events without the GTIDs that they had: the server gives them new ones.

    With the old ones a server in gtid_strict_mode refuses them (MariaDB), or passes over those
    that it has seen (MySQL).
    """
    tail = b""
    for chunk in events:
        block = tail + chunk
        cut = block.rfind(b"\n") + 1
        yield _OLD_GTID.sub(_new_gtid, block[:cut])
        tail = block[cut:]
    yield _OLD_GTID.sub(_new_gtid, tail)


def _new_gtid(found: re.Match[bytes]) -> bytes:
    return found["next"] + b"AUTOMATIC" if found["next"] else b""
