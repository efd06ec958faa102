"""Encrypted files in parts: NAME.age.000, NAME.age.001 ... 999, 1000 ..., joined by number.

A set of parts is complete if and only if its first part exists: it gets its name last.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tools.base.errors import ConfigError, DamagedError, StageError, TruncatedError, WrongKeyError

MIB = 1 << 20
_MEANT = "Name one part, or the common beginning of the names of all parts."
_NUMBERED = re.compile(r"(?P<stem>.+)\.(?P<number>[0-9]{3,})", re.DOTALL)


def parse_part_name(path: Path) -> tuple[str, int] | None:
    """Return the common beginning and the number of a part's name; None for another name."""
    match = _NUMBERED.fullmatch(path.name)
    return (match["stem"], int(match["number"])) if match else None


def find_parts(folder: Path, stem: str) -> dict[int, Path]:
    """Return the parts of a set, in numeric order. Raises StageError for a number twice."""
    parts: dict[int, Path] = {}
    for path in folder.iterdir():
        part = parse_part_name(path)
        if part is not None and part[0] == stem:
            if part[1] in parts:
                raise StageError(
                    f"part {part[1]:03} exists twice: {parts[part[1]]}, {path}",
                    "Compare both with the store and move the wrong one to another folder.",
                )
            parts[part[1]] = path
    return dict(sorted(parts.items()))


def resolve_objective(objective: Path, magics: Sequence[bytes]) -> tuple[str, list[Path]]:
    """Return the common beginning of the names and the parts in numeric order.

    objective: one part, one file, or the common beginning of all parts. magics: how encrypted
    files begin, to recognize a lone file whose name only looks numbered. Raises ConfigError
    for no set or several sets, StageError naming a missing part.
    """
    folder = objective.parent
    if objective.is_file():
        part = parse_part_name(objective)
        beside = find_parts(folder, part[0]) if part else {}
        if len(beside) > 1:
            raise ConfigError(
                f"{objective} is one of {len(beside)} parts",
                f"Name the common beginning of all parts: {folder / objective.stem}",
            )
        with objective.open("rb") as file:
            begins = file.read(max(map(len, magics))).startswith(tuple(magics))
        if part is None or begins:
            return (part[0] if part else objective.name), [objective]
        return part[0], complete_parts(folder, part[0])
    if objective.is_dir() or not folder.is_dir():
        problem = "is a directory" if objective.is_dir() else "no such file or directory"
        raise ConfigError(f"OBJECTIVES: {objective}: {problem}", _MEANT)
    begun = [path for path in folder.iterdir() if path.name.startswith(objective.name)]
    stems = sorted({part[0] for path in begun if (part := parse_part_name(path))})
    exact = [stem for stem in stems if stem == objective.name.rstrip(".")]
    stems = exact or stems
    if not stems:
        raise ConfigError(f"OBJECTIVES: no file name begins with {objective}", _MEANT)
    if len(stems) > 1:
        raise ConfigError(
            f"OBJECTIVES: {objective} is the beginning of {len(stems)} backups",
            f"Choose one: {', '.join(stems)}",
        )
    return stems[0], complete_parts(folder, stems[0])


def complete_parts(folder: Path, stem: str) -> list[Path]:
    """Return the parts in numeric order. Raises StageError naming the first missing one."""
    parts = find_parts(folder, stem)
    missing = next((number for number in range(max(parts)) if number not in parts), None)
    if missing is not None:
        raise StageError(
            f"part {missing:03} is missing: {folder / stem}.{missing:03}",
            "Fetch it from the store.",
        )
    return list(parts.values())


def check_sizes(files: Sequence[Path]) -> None:
    """Raise TruncatedError if the sizes of a set of the old format prove that a part is truncated.

    The format itself cannot tell. All parts but the last have one size; the predecessor of this
    program wrote a first part that is up to 1 + FILE_SIZE / 50 bytes shorter than the others.
    """
    if len(files) == 1:
        return
    sizes = [path.stat().st_size for path in files]
    full = max(sizes[:-1] if len(files) > 2 else sizes)  # noqa: PLR2004  (one between the ends)
    for number, (path, size) in enumerate(zip(files[:-1], sizes[:-1], strict=True)):
        if size < (full if number else _least_first(full)):
            raise _truncated(path, size, full)
    if sizes[-1] > full:
        raise DamagedError(
            f"{files[-1]} is longer than a full part: {sizes[-1]} bytes, the others have {full}",
            "Fetch the parts from the store again.",
        )


def _least_first(full: int) -> int:
    """Return the least size of a first part of the old format if the others have `full` bytes."""
    return full - 1 - full // MIB // 50


def _truncated(path: Path, size: int, full: int) -> TruncatedError:
    return TruncatedError(
        f"{path} is truncated: {size} bytes, the other parts have {full}",
        "Fetch the file from the store again.",
    )


def next_missing(files: Sequence[Path], stem: str) -> Path | None:
    """Return the path of the part that would follow if the last one has the full size."""
    sizes = [path.stat().st_size for path in files]
    full = sizes[-1] == max(sizes) if len(files) > 1 else sizes[0] % MIB == 0 and sizes[0] > 0
    if not full or parse_part_name(files[-1]) is None:
        return None
    return files[0].parent / f"{stem}.{len(files):03}"


def diagnose(error: StageError, files: Sequence[Path], stem: str, *, old: bool) -> StageError:
    """Return the same error, or a more precise one that the sizes of the parts give.

    old: the old format, whose sizes have been checked before. With age a wrong key is certain;
    with the old format it looks like a missing end.
    """
    following = next_missing(files, stem)
    if isinstance(error, WrongKeyError):
        if not old or following is None:
            return error
        return WrongKeyError(
            f"wrong key, or part {len(files):03} is missing: {following}",
            f"The last part that is here has the size of a full part ({error}). {error.hint}",
        )
    sizes = [path.stat().st_size for path in files]
    for path, size in zip(files[:-1], sizes[:-1], strict=True):
        if size < max(sizes) and not old:
            return _truncated(path, size, max(sizes))
    if isinstance(error, DamagedError) or following is None:
        return error
    return type(error)(
        f"part {len(files):03} seems to be missing: {following}",
        f"Fetch it from the store: the last part that is here has the size of a full part "
        f"({error}).",
    )
