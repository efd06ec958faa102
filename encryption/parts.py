"""Encrypted files in parts: NAME.age.000, NAME.age.001 ... 999, 1000 ..., joined by number.

A set of parts is whole if and only if its first part is there: parts get their names from
the last to the first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from tools import filesystem_handling, stream
from tools.errors import ConfigError, StageError

MIB = 1 << 20
_NUMBERED = re.compile(r"(?P<stem>.+)\.(?P<number>\d{3,})")


def numbered(path: Path) -> tuple[str, int] | None:
    """The common beginning and the number of a part's name; None for another name."""
    found = _NUMBERED.fullmatch(path.name)
    return (found["stem"], int(found["number"])) if found else None


def parts_of(folder: Path, stem: str) -> dict[int, Path]:
    """The parts of a set that are there, in numeric order."""
    found = {}
    for path in folder.iterdir():
        part = numbered(path)
        if part is not None and part[0] == stem:
            found[part[1]] = path
    return dict(sorted(found.items()))


def write(chunks: Iterable[bytes], folder: Path, stem: str, size: int) -> list[Path]:
    """Write a stream as parts of `size` bytes; none has its name before all are written.

    On any exception nothing is left, and the next call clears what a kill left.
    """
    for leftover in parts_of(folder, stem).values():
        leftover.unlink()
    written: list[Path] = []
    named: list[Path] = []
    try:
        for number, part in enumerate(stream.split(chunks, size)):
            temporary = folder / f".{stem}.{number:03}{filesystem_handling.PART}{os.getpid()}"
            written.append(temporary)
            with filesystem_handling.create(temporary, durable=False) as put:
                for chunk in part:
                    put(chunk)
        for number in reversed(range(len(written))):
            named.insert(0, folder / f"{stem}.{number:03}")
            filesystem_handling.publish(written[number], named[0])
            written[number].unlink()
    except BaseException:
        for path in (*written, *named):
            path.unlink(missing_ok=True)
        raise
    return named


def find(objective: Path) -> tuple[str, list[Path]]:
    """What a command line means: one part, one file, or the common beginning of all parts.

    Gives the common beginning of the names, and the parts in numeric order. Raises
    ConfigError where nothing or more than one set is meant, StageError naming a missing part.
    """
    folder = objective.parent
    if objective.is_file():
        part = numbered(objective)
        if part is None:
            return objective.name, [objective]
        beside = parts_of(folder, part[0])
        if len(beside) > 1:
            raise ConfigError(
                f"{objective} is one of {len(beside)} parts", f"Name them all: {folder / part[0]}"
            )
        return part[0], _complete(folder, part[0], beside)
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is no folder", "OBJECTIVES names a part, or how all parts begin."
        )
    begun = [path for path in folder.iterdir() if path.name.startswith(objective.name)]
    stems = sorted({part[0] for path in begun if (part := numbered(path))})
    exact = [stem for stem in stems if stem in (objective.name, objective.name.rstrip("."))]
    stems = exact or stems
    if not stems:
        raise ConfigError(
            f"nothing begins with {objective}", "OBJECTIVES names a part, or how all parts begin."
        )
    if len(stems) > 1:
        raise ConfigError(
            f"{objective} begins the names of {len(stems)} backups", f"Name one: {', '.join(stems)}"
        )
    return stems[0], _complete(folder, stems[0], parts_of(folder, stems[0]))


def _complete(folder: Path, stem: str, found: dict[int, Path]) -> list[Path]:
    missing = next((number for number in range(max(found)) if number not in found), None)
    if missing is not None:
        raise StageError(
            f"part {missing:03} is missing: {folder / stem}.{missing:03}",
            "Fetch it from the store too.",
        )
    return list(found.values())
