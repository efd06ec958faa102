"""Parse the event headers of binary log files: creation time, encryption, positions of events.

Sources: MySQL Internals, "Binlog Event Header" (version 4); MariaDB Knowledge Base, "Replication
Protocol": GTID_EVENT, START_ENCRYPTION_EVENT.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.base.errors import StoreError

_MAGIC = b"\xfebin"
_ENCRYPTED = b"\xfdbin"  # MySQL: a header with the key's name follows
_HEADER = struct.Struct("<IBIIIH")  # time, type, server, length, end of the event, flags
_GTID = struct.Struct("<QI")  # number and domain
_FORMAT, _START_ENCRYPTION, _MARIADB_GTID = 15, 164, 162
# stop, rotate, checkpoint, list of GTIDs: events outside of transactions
BETWEEN = (3, 4, 161, 163)
_HEAD = 4096  # bytes that contain the first two events


@dataclass(frozen=True)
class Event:
    """An event: its begin and end in the file, its time (Unix) and type."""

    start: int
    end: int
    time: int
    kind: int
    gtid: str = ""  # of an event that begins a transaction (MariaDB)


@dataclass(frozen=True)
class Head:
    """The beginning of a file.

    created:   when the server created the file (Unix time); None if it cannot be read
    encrypted: whether its events can be read only with a key of the server
    """

    created: int | None
    encrypted: bool


def head(path: Path) -> Head:
    """Parse the beginning of a binary log. Raises OSError."""
    with path.open("rb") as file:
        data = file.read(_HEAD)
    if data.startswith(_ENCRYPTED):
        return Head(None, encrypted=True)
    if not data.startswith(_MAGIC) or len(data) < len(_MAGIC) + _HEADER.size:
        return Head(None, encrypted=False)
    created, kind, _, length, _, _ = _HEADER.unpack_from(data, len(_MAGIC))
    second = len(_MAGIC) + length
    encrypted = (
        kind == _FORMAT
        and second + _HEADER.size <= len(data)
        and _HEADER.unpack_from(data, second)[1] == _START_ENCRYPTION
    )
    return Head(created, encrypted)


def events(path: Path) -> Iterator[Event]:
    """Yield every event of a binary log that is not encrypted.

    Raises StoreError if an event does not end within the file, or the file is not a binary log.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(len(_MAGIC)) != _MAGIC:
            raise StoreError(f"{path.name}: not a binary log, or encrypted")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield from _events(path.name, data, size)


def _events(name: str, data: mmap.mmap, size: int) -> Iterator[Event]:
    position = len(_MAGIC)
    while position < size:
        complete = position + _HEADER.size <= size
        time, kind, server, length = (
            _HEADER.unpack_from(data, position)[:4] if complete else (0,) * 4
        )
        end = position + length
        if length < _HEADER.size or end > size:
            raise StoreError(
                f"{name}: unexpected end of file in the event at {position}",
                f"Use --until {name}:{position} or an earlier position: the server crashed while "
                "it wrote the file, or the file is corrupt.",
            )
        gtid = ""
        if kind == _MARIADB_GTID and length >= _HEADER.size + _GTID.size:
            number, domain = _GTID.unpack_from(data, position + _HEADER.size)
            gtid = f"{domain}-{server}-{number}"
        yield Event(position, end, time, kind, gtid)
        position = end
