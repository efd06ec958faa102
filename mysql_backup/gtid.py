"""Global transaction IDs: 0-1-789 in MariaDB, UUID:789 or UUID:tag:789 in MySQL.

Sources: MariaDB Knowledge Base, "Global Transaction ID"; MySQL Reference Manual, "GTID Format and
Storage".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tools.base import foreign
from tools.base.errors import StoreError

_MARIADB = re.compile(r"(?P<domain>\d+)-\d+-(?P<number>\d+)")
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_MYSQL = re.compile(rf"(?P<source>{_UUID}(?::[a-z_][a-z0-9_]{{0,31}})?):(?P<number>\d+)")
_INTERVAL = re.compile(r"(?P<first>\d+)(?:-(?P<last>\d+))?")
_NEXT = re.compile(rb"SET @@SESSION\.GTID_NEXT= '([^']+:\d+)'")


def is_gtid(text: str) -> bool:
    """Return whether a text is one GTID of MariaDB or MySQL."""
    return bool(_MARIADB.fullmatch(text) or _MYSQL.fullmatch(text))


def is_mariadb(text: str) -> bool:
    """Return whether a text is a GTID of MariaDB."""
    return bool(_MARIADB.fullmatch(text))


def contains(gtid: str, executed: str) -> bool:
    """Return whether a set ("0-1-99,1-1-3", "UUID:1-57:60") contains a GTID."""
    if searched := _MARIADB.fullmatch(gtid):
        intervals = (_MARIADB.fullmatch(one.strip()) for one in executed.split(","))
        return any(
            one["domain"] == searched["domain"] and int(one["number"]) >= int(searched["number"])
            for one in intervals
            if one is not None
        )
    source, _, number = gtid.lower().rpartition(":")
    return any(
        one == source and first <= int(number) <= last for one, first, last in _intervals(executed)
    )


def _intervals(executed: str) -> Iterator[tuple[str, int, int]]:
    """Yield source ("UUID" or "UUID:tag"), first and last number of each interval of a set."""
    for part in executed.lower().split(","):
        uuid, *parts = part.strip().split(":")
        source = uuid
        for word in parts:
            if match := _INTERVAL.fullmatch(word):
                first = int(match["first"])
                yield source, first, int(match["last"] or first)
            else:
                source = f"{uuid}:{word}"


def events_until(events: Iterable[bytes], gtid: str) -> Iterator[bytes]:
    """Yield the output of mysqlbinlog up to the end of the transaction with this GTID.

    Raises StoreError at the end if the GTID was not found.
    """
    seen, tail = False, b""
    for chunk in events:
        *lines, tail = (tail + chunk).split(b"\n")
        complete_lines: list[bytes] = []
        for line in lines:
            if match := _NEXT.match(line):
                if seen:
                    yield b"".join(complete_lines)
                    return
                seen = foreign.decoded(match[1]).lower() == gtid.lower()
            complete_lines.append(line + b"\n")
        yield b"".join(complete_lines)
    if not seen:
        raise StoreError(
            f"--until: GTID {gtid} is not in the binary logs after the dump",
            "Check the GTID: it may be part of the dump already, or belong to another server.",
        )
    yield tail
