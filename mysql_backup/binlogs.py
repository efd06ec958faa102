"""Binary logs of one server: closed ones, each stored once, in the order of the server's list."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tools import plugin, process, tar
from tools.date_str_utils import count
from tools.errors import SourceError
from tools.item import Ended, Item

if TYPE_CHECKING:
    from mysql_backup import instance
else:
    instance = plugin.load("mysql_backup/instance.py")

KIND = "mysql-binlogs"
_DAY = 86400  # seconds
_NAME = re.compile(r"(?P<base>.+)\.(?P<number>\d+)")
_HINT = "Name their folder in BINLOG_PATH and let us read it, or say BINLOG_DAYS 0."

Earlier = Callable[[str], Sequence["Mapping[str, str] | None"]]


@dataclass(frozen=True)
class Log:
    """A binary log as the server lists it; size in bytes."""

    name: str
    size: int

    @property
    def base(self) -> str:
        """Its name without its number."""
        return parts(self.name)[0]

    @property
    def number(self) -> int:
        """Its place in the sequence."""
        return parts(self.name)[1]


def parts(name: str) -> tuple[str, int]:
    """A log's base and number ("mysql-bin.000012"). Raises SourceError for another name."""
    found = _NAME.fullmatch(name)
    if found is None or "/" in name:
        raise SourceError(f"{name!r} is no name of a binary log")
    return found["base"], int(found["number"])


class Binlogs:
    """The item that holds what was closed since the last one that is stored."""

    def __init__(
        self, source: instance.Instance, about: instance.About, folder: Path | None, days: int
    ) -> None:
        """folder: where the logs are; None for where the server says. days: of a first time."""
        self._source = source
        self._about = about
        self._folder = folder
        self._days = days
        self._facts: dict[str, str] = {}
        self._failures: tuple[str, ...] = ()

    def item(self, earlier: Earlier) -> Item:
        """earlier: what each store's newest item of a name says of itself."""
        name = f"binlogs@{self._about.port}"
        return Item(
            name,
            KIND,
            lambda _head: ".tar",
            lambda: self._read(earlier(name)),
            lambda: Ended((), (), self._facts, self._failures),
        )

    def readable(self) -> str:
        """Where the logs are, for a test. Raises SourceError where they cannot be read."""
        folder = self._where()
        newest = listed(self._source)[-1]
        _sized(folder / newest.name)
        return f"binary logs in {folder}, {newest.name} is in use"

    def _read(self, stored: Sequence[Mapping[str, str] | None]) -> Iterator[bytes]:
        folder = self._where()
        # before the flush: what is in there is in a closed log then
        executed = instance.executed(self._about)
        ((until, gtid, form),) = self._source.rows(
            f"SELECT {instance.NOW}, {executed}, @@binlog_format"
        )
        self._source.rows("FLUSH BINARY LOGS")
        closed = listed(self._source)[:-1]
        logs, gap, anew = self._new(closed, stored, folder)
        self._failures = (gap,) if gap else ()
        for log in logs:
            found = _sized(folder / log.name)
            if found != log.size:
                raise SourceError(
                    f"{folder / log.name} has {found} bytes, and the server says {log.size}",
                    "It was cut, or BINLOG_PATH is another server's.",
                )
        self._facts = {
            "server": self._about.version,
            "first": logs[0].name,
            "last": logs[-1].name,
            "last_size": str(logs[-1].size),
            "until": until,
            "format": form,
            **({"gtid": gtid} if gtid else {}),
            **({"anew": "yes"} if anew else {}),
        }
        words = [tar.program(), "--create", f"--directory={folder}", "--format=posix"]
        names = [log.name for log in logs]
        yield from tar.whole(process.output([*words, "--", *names], env=instance.environment()))

    def _where(self) -> Path:
        if self._folder is not None:
            return self._folder
        ((where,),) = self._source.names("SELECT HEX(@@log_bin_basename)")
        return Path(where).parent

    def _new(
        self, closed: Sequence[Log], stored: Sequence[Mapping[str, str] | None], folder: Path
    ) -> tuple[Sequence[Log], str, bool]:
        """The logs that are not in every store yet, what is missing before, whether all is anew."""
        if not closed:
            raise SourceError("the server lists no closed binary log", "Was it reset just now?")
        lasts = [facts for facts in stored if facts is not None]
        if not lasts or len(lasts) < len(stored):
            first = time.time() - self._days * _DAY
            recent = [number for number, log in enumerate(closed) if _old(folder, log) >= first]
            return closed[recent[0] if recent else -1 :], "", False
        last = min((Log(facts["last"], int(facts["last_size"])) for facts in lasts), key=_order)
        by_number = {log.number: log for log in closed}
        same = last.base == closed[0].base and last.number <= closed[-1].number
        if not same or by_number.get(last.number, last) != last:
            what = f"the binary logs begin anew at {closed[0].name}, after {last.name}"
            return closed, f"{what}: what was written between is in no backup", True
        new = [log for log in closed if log.number > last.number]
        if not new:
            raise SourceError(f"no binary log was closed after {last.name}")
        if new[0].number > last.number + 1:
            lost = count(new[0].number - last.number - 1, "binary log")
            what = f"{lost} between {last.name} and {new[0].name} are gone"
            return new, f"{what}: purged before they were stored", False
        return new, "", False


def _order(log: Log) -> int:
    return log.number


def listed(source: instance.Instance) -> list[Log]:
    """The server's own list, the one in use last. Raises SourceError where a number is missing."""
    found = [Log(row[0], int(row[1])) for row in source.rows("SHOW BINARY LOGS")]
    if not found:
        raise SourceError("the server lists no binary logs", "Is log_bin on?")
    for one, other in itertools.pairwise(found):
        if (other.base, other.number) != (one.base, one.number + 1):
            raise SourceError(
                f"between {one.name} and {other.name} binary logs are missing",
                "They were removed by hand. Say PURGE BINARY LOGS, so that the list is true.",
            )
    return found


def _sized(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}", _HINT) from None


def _old(folder: Path, log: Log) -> float:
    try:
        return (folder / log.name).stat().st_mtime
    except OSError as error:
        raise SourceError(f"{folder / log.name}: {error.strerror}", _HINT) from None
