"""Back up closed binary logs of a server, each once, in the order of the server's list."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mysql_backup import binlog_file, file_access, mysql_server
from tools.base import finding
from tools.base.errors import BackupError, SourceError
from tools.base.finding import Finding
from tools.date_str_utils import count
from tools.flow import process, tar
from tools.flow.facts import BinlogFacts
from tools.flow.item import Item, ItemReport
from tools.flow.item_record import StoredItem

KIND = "mysql-binlogs"
_DAY = 86400  # seconds
_NAME = re.compile(r"(?P<base>.+)\.(?P<number>\d+)")
_WITHOUT_BINLOGS = "To back up without binary logs (no --until), set BINLOG_DAYS to 0."
_ELSEWHERE = "Set BINLOG_PATH to the folder of this server's binary logs."
_ENCRYPTED = "no client program can replay them, so --until is not possible"
_MISSED_STATEMENTS = (
    "--until misses statements of connections without a default database or with another one"
)
_SET_ROW = "Run SET GLOBAL binlog_format = 'ROW' on the server, and set it in its option file."

PreviousItems = Callable[[str], Sequence["StoredItem | None"]]


@dataclass(frozen=True)
class BinaryLog:
    """A binary log as the server lists it; size in bytes."""

    name: str
    size: int

    @property
    def base(self) -> str:
        """Return its name without the number."""
        return split_log_name(self.name)[0]

    @property
    def number(self) -> int:
        """Return its number in the sequence."""
        return split_log_name(self.name)[1]


def split_log_name(name: str) -> tuple[str, int]:
    """Split the name of a log into base and number ("mysql-bin.000012"). Raises SourceError."""
    match = _NAME.fullmatch(name)
    if match is None or "/" in name:
        raise SourceError(f"{name!r}: not a binary log name")
    return match["base"], int(match["number"])


@dataclass(frozen=True)
class _New:
    """The logs that are missing in a store.

    gap:      message on logs that are missing before them; "" for none
    is_reset: whether they are of another sequence than the stored ones
    """

    logs: Sequence[BinaryLog]
    gap: str = ""
    is_reset: bool = False


class BinaryLogSource:
    """The item with the logs that were closed since the newest stored one."""

    def __init__(
        self,
        source: mysql_server.MySQLConnection,
        info: mysql_server.ServerInfo,
        folder: Path | None,
        days: int,
    ) -> None:
        """Read the logs in a folder.

        folder: None to ask the server. days: how far a first run goes back
        """
        self._source = source
        self._info = info
        self._folder = folder
        self._days = days
        self._ended = ItemReport()

    def item(self, earlier: PreviousItems) -> Item:
        """Return the item; earlier: the newest item of a name in each store."""
        name = f"binlogs@{self._info.port}"
        return Item(
            name,
            KIND,
            lambda _head: ".tar",
            lambda: self._read(earlier(name)),
            lambda: self._ended,
        )

    def test_findings(self) -> Iterator[str | Finding]:
        """Yield the findings on the logs for `-t`."""
        name = f"port {self._info.port}"
        folder = self._log_folder()
        try:
            newest = list_binary_logs(self._source)[-1]
            encrypted = _head(folder / newest.name).encrypted
        except BackupError as error:
            yield finding.bad(f"{name}: {error}", error.hint)
        else:
            yield f"{name}: binary logs in {folder}, current file {newest.name}"
            if encrypted:
                yield finding.warning(
                    f"{name}: encrypted binary logs: {_ENCRYPTED}", _WITHOUT_BINLOGS
                )
        ((form,),) = self._source.query("SELECT @@GLOBAL.binlog_format")
        if form != "ROW":
            yield finding.warning(
                f"{name}: binlog_format is {form}: {_MISSED_STATEMENTS}", _SET_ROW
            )

    def _read(self, stored: Sequence[StoredItem | None]) -> Iterator[bytes]:
        folder = self._log_folder()
        # before the flush, so all of these are in closed logs after it
        executed = mysql_server.gtid_expression(self._info)
        ((until, gtid, form),) = self._source.query(
            f"SELECT {mysql_server.NOW}, {executed}, @@GLOBAL.binlog_format"
        )
        self._source.query("FLUSH BINARY LOGS")
        *closed, in_use = list_binary_logs(self._source)
        new = self._new(closed, stored, folder)
        for log in new.logs:
            size = _file_size(folder / log.name)
            if size != log.size:
                raise SourceError(
                    f"{folder / log.name}: {size} bytes on disk, but {log.size} bytes according "
                    "to the server",
                    "Check that BINLOG_PATH belongs to this server; otherwise the file is "
                    "truncated.",
                )
        heads = [_head(folder / log.name) for log in (*new.logs, in_use)]
        facts = BinlogFacts(
            server=self._info.version,
            first=new.logs[0].name,
            last=new.logs[-1].name,
            last_size=new.logs[-1].size,
            until=until,
            format=form,
            gtid=gtid,
            created=_created(heads),
            encrypted=_encrypted(new.logs, heads),
            anew=new.is_reset,
        )
        command = [tar.program(), "--create", f"--directory={folder}", "--format=posix"]
        names = [log.name for log in new.logs]
        yield from tar.whole(
            process.output([*command, "--", *names], env=mysql_server.environment())
        )
        self._ended = _report(facts, new.gap)

    def _log_folder(self) -> Path:
        if self._folder is not None:
            return self._folder
        ((basename,),) = self._source.names("SELECT HEX(@@log_bin_basename)")
        return Path(basename).parent

    def _new(
        self, closed: Sequence[BinaryLog], stored: Sequence[StoredItem | None], folder: Path
    ) -> _New:
        """Return the logs that are not in every store yet."""
        if not closed:
            raise SourceError(
                "no closed binary log on the server",
                "Run the backup again: RESET MASTER may have been executed meanwhile.",
            )
        lasts = [BinlogFacts.of(item) for item in stored if item is not None]
        if not lasts or len(lasts) < len(stored):
            first = time.time() - self._days * _DAY
            recent = [
                number for number, log in enumerate(closed) if _modified_at(folder, log) >= first
            ]
            return _New(closed[recent[0] if recent else -1 :])
        # the store with most missing logs decides; a gap in any store is reported
        return max(
            (_new_logs(facts, closed, folder) for facts in lasts),
            key=lambda new: (new.is_reset, bool(new.gap), len(new.logs)),
        )


def _created(heads: Sequence[binlog_file.Head]) -> tuple[int, ...]:
    """Return when the server began each log, the one in use last; () where one is unknown."""
    times = tuple(one.created for one in heads if one.created is not None)
    return times if len(times) == len(heads) else ()


def _encrypted(logs: Sequence[BinaryLog], heads: Sequence[binlog_file.Head]) -> tuple[str, ...]:
    """Return the names of the encrypted logs."""
    return tuple(log.name for log, one in zip(logs, heads[:-1], strict=True) if one.encrypted)


def _report(facts: BinlogFacts, gap: str) -> ItemReport:
    number, form = len(facts.encrypted), facts.format
    return ItemReport(
        (f"{count(number, 'encrypted binary log')}: {_ENCRYPTED}",) if number else (),
        (f"binlog_format is {form}: {_MISSED_STATEMENTS}",) if form != "ROW" else (),
        facts,
        (gap,) if gap else (),
    )


def _new_logs(stored: BinlogFacts, closed: Sequence[BinaryLog], folder: Path) -> _New:
    """Return the logs after the newest stored item, which has these facts. Raises SourceError."""
    last = BinaryLog(stored.last, stored.last_size)
    by_number = {log.number: log for log in closed}
    same = last.base == closed[0].base and last.number <= closed[-1].number
    new = [log for log in closed if log.number > last.number]
    if (
        not same
        or by_number.get(last.number, last) != last
        or not _is_same_sequence(stored, new, folder)
    ):
        summary = f"binary logs were reset: {closed[0].name} follows {last.name}"
        return _New(closed, f"{summary}: changes in between are not in any backup", is_reset=True)
    if not new:
        raise SourceError(f"no binary log was closed after {last.name}", "Run the backup again.")
    if new[0].number > last.number + 1:
        number_missing = count(new[0].number - last.number - 1, "binary log")
        summary = f"{number_missing} between {last.name} and {new[0].name} missing"
        return _New(new, f"{summary}: purged before they were backed up")
    return _New(new)


def _is_same_sequence(stored: BinlogFacts, new: Sequence[BinaryLog], folder: Path) -> bool:
    """Return whether new logs are of the stored sequence.

    Numbers are not enough: they start again after RESET MASTER. The log that was current when the
    others were stored is identified by its creation time.
    """
    known = stored.created[-1:]
    if not known or not new or new[0].number != split_log_name(stored.last)[1] + 1:
        return True
    return (_head(folder / new[0].name).created,) == known


def list_binary_logs(source: mysql_server.MySQLConnection) -> list[BinaryLog]:
    """Return the list of the server, the current log last. Raises SourceError for a gap."""
    logs = [BinaryLog(row[0], int(row[1])) for row in source.query("SHOW BINARY LOGS")]
    if not logs:
        raise SourceError(
            "the server lists no binary logs",
            "Enable log_bin on the server (it needs a restart), or set BINLOG_DAYS to 0.",
        )
    for one, other in itertools.pairwise(logs):
        if (other.base, other.number) != (one.base, one.number + 1):
            raise SourceError(
                f"binary logs between {one.name} and {other.name} are missing from the server's "
                "index",
                f"Set BINLOG_DAYS to 0 until the server has expired the logs before {other.name}: "
                "dumps continue without binary logs, and a later dump starts point-in-time "
                "recovery again.",
            )
    return logs


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from None


def _modified_at(folder: Path, log: BinaryLog) -> float:
    path = folder / log.name
    try:
        return path.stat().st_mtime
    except OSError as error:
        raise _unreadable(path, error) from None


def _head(path: Path) -> binlog_file.Head:
    try:
        return binlog_file.head(path)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> SourceError:
    """Return the error for a log that cannot be read, with the command that grants access."""
    hint = file_access.hint(path, error, _ELSEWHERE)
    return SourceError(f"{path}: {str(error.strerror).lower()}", f"{hint}\n{_WITHOUT_BINLOGS}")
