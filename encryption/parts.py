"""Encrypted files in parts: NAME.age.000, NAME.age.001 ... 999, 1000 ..., joined by number.

A set of parts is whole if and only if its first part is there: parts get their names from
the last to the first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tools import filesystem_handling
from tools.base.errors import ConfigError, DamagedError, StageError, TruncatedError, WrongKeyError
from tools.flow import stream

MIB = 1 << 20
_MEANT = "It names one part, or how the names of all parts begin."
_NUMBERED = re.compile(r"(?P<stem>.+)\.(?P<number>[0-9]{3,})", re.DOTALL)


def numbered(path: Path) -> tuple[str, int] | None:
    """The common beginning and the number of a part's name; None for another name."""
    found = _NUMBERED.fullmatch(path.name)
    return (found["stem"], int(found["number"])) if found else None


def parts_of(folder: Path, stem: str) -> dict[int, Path]:
    """The parts of a set that are there, in numeric order. Raises StageError for a number twice."""
    found: dict[int, Path] = {}
    for path in folder.iterdir():
        part = numbered(path)
        if part is not None and part[0] == stem:
            if part[1] in found:
                raise StageError(
                    f"part {part[1]:03} is there twice: {found[part[1]]}, {path}", "Keep one."
                )
            found[part[1]] = path
    return dict(sorted(found.items()))


def write(chunks: Iterable[bytes], folder: Path, stem: str, size: int) -> list[Path]:
    """Write a stream as parts of `size` bytes; none has its name before all are written.

    Then an older set of that name goes, its first part before the others, and the new one
    comes, its first part after the others: what a kill leaves at any moment is no whole set.
    On any exception nothing of the new one is left.
    """
    clear(folder, stem)
    written: list[Path] = []
    named: list[Path] = []
    try:
        for number, part in enumerate(stream.split(chunks, size)):
            written.append(folder / f".{stem}.{number:03}{filesystem_handling.PART}{os.getpid()}")
            _write(part, written[-1])
        for old in parts_of(folder, stem).values():
            old.unlink()
        for number in reversed(range(len(written))):
            path = folder / f"{stem}.{number:03}"
            filesystem_handling.publish(written[number], path)
            named.insert(0, path)
            written[number].unlink(missing_ok=True)
    except BaseException:
        for path in (*named, *written):
            path.unlink(missing_ok=True)
        raise
    return named


def _write(chunks: Iterable[bytes], path: Path) -> None:
    """A new file of mode 0600; not synced, for it can be made again from its source."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with (
        filesystem_handling.naming(path.parent),
        os.fdopen(os.open(path, flags, 0o600), "wb", buffering=stream.CHUNK) as file,
    ):
        for chunk in chunks:
            file.write(chunk)


def clear(folder: Path, stem: str) -> None:
    """Remove what a killed run left of a set: unfinished parts, and parts without the first."""
    for path in folder.iterdir():
        of_ours = path.name.startswith(f".{stem}.")
        if of_ours and filesystem_handling.is_temporary(path.name):
            path.unlink()
    left = parts_of(folder, stem)
    if 0 not in left:
        for path in left.values():
            path.unlink()


def find(objective: Path, magics: Sequence[bytes]) -> tuple[str, list[Path]]:
    """What a command line means: one part, one file, or the common beginning of all parts.

    Gives the common beginning of the names, and the parts in numeric order. `magics`: how an
    encrypted file begins, so that a lone file whose name only looks numbered is known. Raises
    ConfigError where nothing or more than one set is meant, StageError naming a missing part.
    """
    folder = objective.parent
    if objective.is_file():
        part = numbered(objective)
        beside = parts_of(folder, part[0]) if part else {}
        if len(beside) > 1:
            raise ConfigError(
                f"{objective} is one of {len(beside)} parts",
                f"Name how all of them begin: {folder / objective.stem}",
            )
        with objective.open("rb") as file:
            begins = file.read(max(map(len, magics))).startswith(tuple(magics))
        if part is None or begins:
            return (part[0] if part else objective.name), [objective]
        return part[0], complete(folder, part[0])
    if objective.is_dir() or not folder.is_dir():
        what = "is a folder" if objective.is_dir() else "does not exist"
        raise ConfigError(f"OBJECTIVES: {objective} {what}", _MEANT)
    begun = [path for path in folder.iterdir() if path.name.startswith(objective.name)]
    stems = sorted({part[0] for path in begun if (part := numbered(path))})
    exact = [stem for stem in stems if stem == objective.name.rstrip(".")]
    stems = exact or stems
    if not stems:
        raise ConfigError(f"OBJECTIVES: nothing begins with {objective}", _MEANT)
    if len(stems) > 1:
        raise ConfigError(
            f"OBJECTIVES: {objective} begins the names of {len(stems)} backups",
            f"Name one: {', '.join(stems)}",
        )
    return stems[0], complete(folder, stems[0])


def complete(folder: Path, stem: str) -> list[Path]:
    """The parts of a set in numeric order. Raises StageError naming the first that is missing."""
    found = parts_of(folder, stem)
    missing = next((number for number in range(max(found)) if number not in found), None)
    if missing is not None:
        raise StageError(
            f"part {missing:03} is missing: {folder / stem}.{missing:03}",
            "Fetch it from the store too.",
        )
    return list(found.values())


def check_sizes(files: Sequence[Path]) -> None:
    """Raise TruncatedError where the sizes of a set of the old format prove that a part is cut.

    Nothing in that format would tell. All parts but the last have one size; the predecessor of
    this program wrote a first part that is shorter than the others by up to
    1 + FILE_SIZE / 50 bytes.
    """
    if len(files) == 1:
        return
    sizes = [path.stat().st_size for path in files]
    whole = max(sizes[:-1] if len(files) > 2 else sizes)  # noqa: PLR2004  (one between the ends)
    for number, (path, size) in enumerate(zip(files[:-1], sizes[:-1], strict=True)):
        if size < (whole if number else _least_first(whole)):
            raise _cut(path, size, whole)
    if sizes[-1] > whole:
        raise DamagedError(
            f"{files[-1]} is longer than a whole part: {sizes[-1]} bytes, other parts have {whole}",
            "Fetch the parts from the store again.",
        )


def _least_first(whole: int) -> int:
    """The least size of a first part of the old format, where others have so many bytes."""
    return whole - 1 - whole // MIB // 50


def _cut(path: Path, size: int, whole: int) -> TruncatedError:
    return TruncatedError(
        f"{path} is cut off: {size} bytes, other parts have {whole}",
        "Fetch it from the store again.",
    )


def next_missing(files: Sequence[Path], stem: str) -> Path | None:
    """The part that would follow, where the last one is as long as a whole one."""
    sizes = [path.stat().st_size for path in files]
    full = sizes[-1] == max(sizes) if len(files) > 1 else sizes[0] % MIB == 0 and sizes[0] > 0
    if not full or numbered(files[-1]) is None:
        return None
    return files[0].parent / f"{stem}.{len(files):03}"


def explain(trouble: StageError, files: Sequence[Path], stem: str, *, old: bool) -> StageError:
    """The same trouble, or what the sizes of the parts tell of it.

    old: of the old format, whose sizes have been checked before. Of age a wrong key is known
    for certain; of the old format it looks like a missing end.
    """
    following = next_missing(files, stem)
    if isinstance(trouble, WrongKeyError):
        if not old or following is None:
            return trouble
        return WrongKeyError(
            f"wrong key, or part {len(files):03} is missing: {following}",
            f"The last part found is as long as a whole one ({trouble}). {trouble.hint}",
        )
    sizes = [path.stat().st_size for path in files]
    for path, size in zip(files[:-1], sizes[:-1], strict=True):
        if size < max(sizes) and not old:
            return _cut(path, size, max(sizes))
    if isinstance(trouble, DamagedError) or following is None:
        return trouble
    return type(trouble)(
        f"part {len(files):03} seems to be missing: {following}",
        f"Fetch it from the store: the last part found is as long as a whole one ({trouble}).",
    )
