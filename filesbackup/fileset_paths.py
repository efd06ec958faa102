"""Resolve the configured paths to a fileset, and report each path that is not in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filesbackup import archive_members, tar_archive
from filesbackup.archive_members import ArchiveMembers
from tools import date_str_utils
from tools.base import hung_mount
from tools.base.errors import ConfigError, SourceError

DEFAULTS = (Path("/etc"), Path("/opt/ncscripts"), Path("/var/spool/cron"))
_KEY = "FILESET_INCLUDE"
_SHOWN = 100  # bytes that are shown of the beginning and of the end of a long path
_MOUNTS = Path("/proc/self/mountinfo")  # proc(5): the fifth field is the path, escaped in octal


@dataclass(frozen=True)
class ResolvedFileset:
    """A fileset, and the configured paths that are not in it.

    warnings: configured paths that are not stored; notes: paths that are never stored
    """

    fileset: tar_archive.Fileset
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def resolve(
    configured: Sequence[Path],
    exclude: tuple[str, ...],
    private: Sequence[Path],
    *,
    one_file_system: bool,
) -> ResolvedFileset:
    """Return the fileset of the configured paths, and the paths that are not in it.

    private: paths that are never backed up. Raises SourceError if no path is left, and
    ConfigError for a path that must not be stored.
    """
    paths = tuple(dict.fromkeys(map(_normalize, configured)))
    problems = {path: problem for path in paths if (problem := _problem(path))}
    lines = tuple(f"{_KEY}: {_text(path)}: {problem}" for path, problem in problems.items())
    include = tuple(path for path in paths if path not in problems)
    if not include:
        raise SourceError(
            "; ".join(lines),
            f"Mount the file system, or remove the path from {_KEY}. Paths with spaces or quotes "
            f'need a JSON list: "{_KEY}": ["/a b", "/c"].',
        )
    outside = tuple(dict.fromkeys(path.absolute() for path in private))
    for path in include:
        _reject_private(path, outside)
    fileset = tar_archive.Fileset(include, exclude, outside, one_file_system)
    warnings = () if tuple(configured) == DEFAULTS else lines
    notes = (*(lines if not warnings else ()), *_private_notes(fileset), *_mount_notes(fileset))
    return ResolvedFileset(fileset, (*warnings, *_exclude_warnings(fileset)), notes)


def reject_top(path: Path, real: str) -> None:
    """Raise ConfigError for /, however it is spelled."""
    if real in ("/", "//"):
        also = "" if str(path) == "/" else f" ({_text(path)} is /)"
        raise ConfigError(
            f"FILESET_INCLUDE: / is not allowed{also}", "Name the folders below / that you need."
        )


def _text(path: Path) -> str:
    return tar_archive.printable_name(os.fsencode(path))


def _normalize(path: Path) -> Path:
    """Return an absolute path without . and ..; `link/..` is resolved as the kernel does."""
    return Path(os.path.realpath(path)) if ".." in path.parts else path.absolute()


def _problem(path: Path) -> str:
    """Return why a path cannot be stored; "" if it can, or if only tar may be able to read it."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return ""
    except OSError as error:
        return str(error.strerror).lower()
    return "is a socket, which tar does not store" if stat.S_ISSOCK(mode) else ""


def _reject_private(path: Path, private: Sequence[Path]) -> None:
    real = Path(os.path.realpath(path))
    reject_top(path, str(real))
    inside = next((p for p in private if real.is_relative_to(tar_archive.private_path(p))), None)
    if inside is not None:
        raise ConfigError(
            f"FILESET_INCLUDE: {_text(path)} is inside {_text(inside)}, which is never backed up",
            f"Remove it: {_text(inside)} is the work folder, a store or a key file.",
        )


def _private_notes(fileset: tar_archive.Fileset) -> tuple[str, ...]:
    """Return notes on work folder, stores and key files below the configured paths."""
    tops = [os.path.realpath(path) for path in fileset.include]
    inside = [
        path
        for path in fileset.private
        if any(tar_archive.private_path(path).is_relative_to(top) for top in tops) and _exists(path)
    ]
    reason = "not stored: a work folder, store or key file of the backup"
    return tuple(f"{_text(path)}: {reason}" for path in inside)


def _exists(path: Path) -> bool:
    try:
        return hung_mount.answer(path, lambda: os.path.lexists(path), hung_mount.OTHERS)
    except TimeoutError:
        return True


def _mount_notes(fileset: tar_archive.Fileset) -> tuple[str, ...]:
    """Return a note on mount points below a configured path that ONE_FILE_SYSTEM leaves out."""
    if not fileset.one_file_system:
        return ()
    tops = [Path(os.path.realpath(path)) for path in fileset.include]
    lines = [line.split(b" ") for line in _MOUNTS.read_bytes().split(b"\n") if line]
    points = [
        Path(os.fsdecode(tar_archive.unquote_name(os.fsdecode(fields[4])))) for fields in lines
    ]
    excluded = [
        point
        for point in dict.fromkeys(points)
        if any(point.is_relative_to(top) for top in tops)
        and not any(top.is_relative_to(point) for top in tops)
    ]
    if not excluded:
        return ()
    count = date_str_utils.count(len(excluded), "mount point")
    names = tar_archive.first_names([*map(_text, excluded)])
    return (f"{count} not entered (ONE_FILE_SYSTEM): {names}",)


def _exclude_warnings(fileset: tar_archive.Fileset) -> tuple[str, ...]:
    """Return warnings on configured paths that an exclude removes, or a folder above them."""
    lines = []
    for name in tar_archive.configured_names(fileset):
        excluding = [
            tar_archive.printable_name(os.fsencode(text))
            for text in fileset.exclude
            if _is_excluded(name, (text,))
        ]
        if excluding:
            path = tar_archive.printable_name(b"/" + name)
            patterns = ", ".join(excluding)
            lines.append(f"{_KEY}: {path}: excluded by {tar_archive.EXCLUDE} {patterns}")
    return tuple(lines)


def _is_excluded(name: bytes, exclude: Sequence[str]) -> bool:
    """Return whether one of the excludes matches a name (without a leading /)."""
    return any(pattern.matches(name) for text in exclude for pattern in tar_archive.compiled(text))


def long_path_warnings(members: ArchiveMembers) -> list[str]:
    """Return warnings on stored paths that are too long to be restored.

    Call it after the end of the archive.
    """
    limit = f"at most {archive_members.MAX_PATH} are allowed"
    lines = [
        f"{_shorten(name)}: path too long to be restored: {len(name)} bytes, {limit}"
        for name in members.long
    ]
    if members.more:
        text = f"more paths are longer than {archive_members.MAX_PATH} bytes"
        lines.append(f"{members.more} {text} and cannot be restored")
    return lines


def _shorten(name: bytes) -> str:
    """Return the beginning and the end of a long path."""
    begin = tar_archive.printable_name(b"/" + name[:_SHOWN])
    return f"{begin}...{tar_archive.printable_name(name[-_SHOWN:])}"
