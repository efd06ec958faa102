"""Find the last event before a target in binary logs, and check whether a replay reached it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mysql_backup import binlog_file
from tools.base.errors import ConfigError, StoreError

_FIRST = 4  # position of the first event of every binary log
# mysqlbinlog writes this before every event, also of other databases
_AT = re.compile(rb"^# at (\d+)$", re.M)


@dataclass(frozen=True)
class Point:
    """An event: the index of its file, and its position."""

    file: int
    start: int


def _events(files: Sequence[Path], start: int) -> Iterator[tuple[int, binlog_file.Event]]:
    """Yield the events that mysqlbinlog reads: not those before `start` in the first file."""
    for number, file in enumerate(files):
        for event in binlog_file.events(file):
            if number or event.start == _FIRST or event.start >= start:
                yield number, event


def before_time(files: Sequence[Path], start: int, moment: int) -> Point | None:
    """Return the last event before the first one at or after a moment (Unix time)."""
    point = None
    for number, event in _events(files, start):
        if event.time >= moment:
            break
        point = Point(number, event.start)
    return point


def before_position(files: Sequence[Path], start: int, position: int) -> Point | None:
    """Return the event that ends at a position of the last file.

    Raises ConfigError if there is none.
    """
    last = len(files) - 1
    point, end = None, _FIRST
    for number, event in _events(files, start):
        if number == last and event.end > position:
            break
        point, end = Point(number, event.start), event.end
    if position not in (end, _FIRST) and not (last == 0 and position == start):
        raise ConfigError(
            f"--until: no event ends at {files[-1].name}:{position}",
            f"Use --until {files[-1].name}:{end}, where the last event before it ends.",
        )
    return point


def end_of_transaction(files: Sequence[Path], start: int, gtid: str) -> Point:
    """Return the last event of the transaction with a GTID of MariaDB.

    Raises StoreError if it is not in the files.
    """
    point = None
    for number, event in _events(files, start):
        if point is not None and (event.gtid or event.kind in binlog_file.BETWEEN):
            break
        if point is not None or event.gtid == gtid:
            point = Point(number, event.start)
    if point is None:
        raise StoreError(
            f"--until: GTID {gtid} is not in the binary logs after the dump",
            "Check the GTID: it may be part of the dump already, or belong to another server.",
        )
    return point


class ReachCheck:
    """Checks whether the output of mysqlbinlog reaches an event."""

    def __init__(self, end: Point | None) -> None:
        """Check up to `end`, the last event of the replay; None if it is not checked here."""
        self._end = end
        self._file = -1
        self._reached = end is None
        self._last = _FIRST

    def watch(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass the output on unchanged."""
        tail = b""
        for chunk in chunks:
            block = tail + chunk
            cut = block.rfind(b"\n") + 1
            self._note(block[:cut])
            tail = block[cut:]
            yield chunk
        self._note(tail)

    def _note(self, text: bytes) -> None:
        for match in _AT.finditer(text):
            self._last = int(match[1])
            self._file += self._last == _FIRST
            self._reached = self._reached or Point(self._file, self._last) == self._end

    def raise_if_not_reached(self, files: Sequence[Path]) -> None:
        """Raise StoreError if the output did not reach the event."""
        if self._reached or self._end is None:
            return
        name = files[max(self._file, 0)].name
        raise StoreError(
            f"--until: the binary logs were replayed to {name}:{self._last} only, not to "
            f"{files[self._end.file].name}:{self._end.start}",
            "Install the client programs of the server's version: mysqlbinlog stopped early but "
            "exited with 0.",
        )
