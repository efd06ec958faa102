"""Maps of sparse files in tar archives: where the stored bytes belong.

Formats: GNU tar manual, "Storing Sparse Files": the old GNU format and 0.0, 0.1, 1.0 of pax.
A map must account for every stored byte and end within the file, or two readers could disagree.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence

from tools.base import foreign

_PAIRS = re.compile(rb"(?:\d{1,19},\d{1,19}(?:,|$))*")
_BLOCK = 512
MOST = 1 << 24  # regions of one file
_LINE = 20  # bytes of a number in a map of version 1.0, with its line feed

PREFIX = b"GNU.sparse."
OFFSET, SIZE = b"GNU.sparse.offset", b"GNU.sparse.numbytes"  # repeated, in version 0.0
Number = Callable[[bytes], int]
Regions = Iterator[tuple[int, int]]  # offset and size of each


def version(records: Mapping[bytes, bytes]) -> str:
    """Return the version of the map that an extended header names: "" for no sparse file.

    Raises ValueError for one that is not known, or a header with half of what it needs.
    """
    keys = {key.removeprefix(PREFIX) for key in records if key.startswith(PREFIX)}
    if not keys:
        return ""
    number = (records.get(PREFIX + b"major", b"0"), records.get(PREFIX + b"minor", b""))
    forms: dict[str, tuple[bool, set[bytes]]] = {
        "1.0": (number == (b"1", b"0"), {b"major", b"minor", b"name", b"realsize"}),
        "0.1": (number in ((b"0", b"1"), (b"0", b"")), {b"size", b"numblocks", b"map"}),
        "0.0": (number in ((b"0", b"0"), (b"0", b"")), {b"size", b"numblocks", b"offset"}),
    }
    for name, (fits, needed) in forms.items():
        if fits and needed <= keys <= needed | {b"major", b"minor", b"name", b"numbytes"}:
            return name
    raise ValueError("sparse map of an unknown version")


def in_records(records: Mapping[bytes, bytes], which: str) -> Regions:
    """Return the regions (offset, size) of versions 0.0 and 0.1. Raises ValueError."""
    key = OFFSET if which == "0.0" else PREFIX + b"map"
    keys = list(records)
    if keys.index(PREFIX + b"numblocks") > keys.index(key):  # GNU tar ignores what precedes it
        raise ValueError("sparse map in front of its number of regions")
    written = records[key]
    if not _PAIRS.fullmatch(written):
        raise ValueError("corrupt sparse map")
    numbers = [int(word) for word in written.split(b",") if word]
    regions = list(zip(numbers[::2], numbers[1::2], strict=True))
    if records[PREFIX + b"numblocks"] != str(len(regions)).encode():
        raise ValueError("sparse map with a wrong number of regions")
    return iter(regions)


def in_data(block: Callable[[], bytes]) -> tuple[Regions, bytes]:
    """Return the regions of version 1.0, and the blocks of data with them. Raises ValueError."""
    raw = bytearray(block())
    at = 0

    def number() -> int:
        nonlocal at
        while (end := raw.find(b"\n", at, at + _LINE)) < 0:
            if len(raw) > at + _LINE:
                raise ValueError("corrupt sparse map")
            raw.extend(block())
        word = bytes(raw[at:end])
        at = end + 1
        if (value := foreign.number(word)) is None:
            raise ValueError("corrupt sparse map")
        return value

    count = number()
    if count > MOST:
        raise ValueError("sparse map with too many regions")
    numbers = iter(array("Q", (number() for _ in range(2 * count))))  # a tenth of a list's memory
    return zip(numbers, numbers, strict=True), bytes(raw)


def old(blocks: Sequence[tuple[bytes, int, int]], number: Number) -> Regions:
    """Return the regions of the old GNU format.

    blocks: (block, where they begin, how many there can be)
    Raises ValueError.
    """
    for block, start, count in blocks:
        for at in range(start, start + 24 * count, 24):
            if block[at + 12 : at + 13] == b"\0":
                if block is not blocks[-1][0]:  # GNU tar does not read on
                    raise ValueError("sparse map that ends early")
                return
            yield number(block[at : at + 12]), number(block[at + 12 : at + 24])


def judge(regions: Regions, size: int, stored: int) -> None:
    """Raise ValueError where the map does not fit the file's size or its stored bytes."""
    end = total = 0
    partial = False
    for offset, length in regions:
        if offset < end or offset + length > size or (partial and length):
            raise ValueError("sparse map does not fit the size")
        end = offset + length
        total += length
        partial = partial or bool(length % _BLOCK)
    if end != size:  # GNU tar makes the file as long as its map
        raise ValueError("sparse map does not fit the size")
    if total != stored:
        raise ValueError("sparse map does not fit the stored bytes")
