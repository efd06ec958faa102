"""Which configured paths go into an archive, and which do not: every one of those is named."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filesbackup import archive, longnames
from tools import date_str_utils
from tools.base.errors import ConfigError, SourceError
from tools.flow import process, tar

DEFAULTS = (Path("/etc"), Path("/opt/ncscripts"), Path("/var/spool/cron"))
_KEY = "FILESET_INCLUDE"
_SHOWN = 100  # bytes of a long path that are shown of its beginning and of its end
_MOUNTS = Path("/proc/self/mountinfo")  # proc(5): the fifth word is where, escaped in octal


@dataclass(frozen=True)
class Included:
    """What the configured paths come to.

    warnings: configured paths that are not stored; notes: what stays out by a rule of ours
    """

    fileset: archive.Fileset
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def resolved(
    configured: Sequence[Path],
    exclude: tuple[str, ...],
    private: Sequence[Path],
    *,
    one_file_system: bool,
) -> Included:
    """Return the fileset of the configured paths, and which of them are not in it.

    private: paths that must never be backed up. Raises SourceError where no path is left, and
    ConfigError for a path that must not be stored.
    """
    paths = tuple(dict.fromkeys(map(_clean, configured)))
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
        _reject(path, outside)
    fileset = archive.Fileset(include, exclude, outside, one_file_system)
    warnings = () if tuple(configured) == DEFAULTS else lines
    notes = (*(lines if not warnings else ()), *_private_inside(fileset), *_mounts(fileset))
    return Included(fileset, (*warnings, *_excluded(fileset)), notes)


def reject_top(path: Path, real: str) -> None:
    """Raise ConfigError for /, however it is spelled."""
    if real in ("/", "//"):
        also = "" if str(path) == "/" else f" ({_text(path)} is /)"
        raise ConfigError(
            f"FILESET_INCLUDE: / is not allowed{also}", "Name the folders below / that you need."
        )


def _text(path: Path) -> str:
    return archive.shown(os.fsencode(path))


def _clean(path: Path) -> Path:
    """An absolute path without . and ..; `link/..` is what the kernel makes of it."""
    return Path(os.path.realpath(path)) if ".." in path.parts else path.absolute()


def _problem(path: Path) -> str:
    """Why there is nothing to store; where we may not look, tar will (it may have more rights)."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return ""
    except OSError as error:
        return str(error.strerror).lower()
    return "is a socket, which tar does not store" if stat.S_ISSOCK(mode) else ""


def _reject(path: Path, private: Sequence[Path]) -> None:
    real = Path(os.path.realpath(path))
    reject_top(path, str(real))
    inside = next((p for p in private if real.is_relative_to(os.path.realpath(p))), None)
    if inside is not None:
        raise ConfigError(
            f"FILESET_INCLUDE: {_text(path)} is inside {_text(inside)}, which is never backed up",
            f"Remove it: {_text(inside)} is the work folder, a store or a key file.",
        )


def _private_inside(fileset: archive.Fileset) -> tuple[str, ...]:
    """Work folder, stores and key files that a configured path would have brought in."""
    tops = [os.path.realpath(path) for path in fileset.include]
    inside = [
        path
        for path in fileset.private
        if os.path.lexists(path)
        and any(Path(os.path.realpath(path)).is_relative_to(top) for top in tops)
    ]
    reason = "not stored: a work folder, store or key file of the backup"
    return tuple(f"{_text(path)}: {reason}" for path in inside)


def _mounts(fileset: archive.Fileset) -> tuple[str, ...]:
    """Mount points below a configured path that ONE_FILE_SYSTEM leaves out."""
    if not fileset.one_file_system:
        return ()
    tops = [Path(os.path.realpath(path)) for path in fileset.include]
    lines = _MOUNTS.read_bytes().splitlines()
    points = [Path(os.fsdecode(archive.unquoted(os.fsdecode(line.split()[4])))) for line in lines]
    left = [
        point
        for point in dict.fromkeys(points)
        if any(point.is_relative_to(top) for top in tops)
        and not any(top.is_relative_to(point) for top in tops)
    ]
    if not left:
        return ()
    count = date_str_utils.count(len(left), "mount point")
    return (f"{count} not entered (ONE_FILE_SYSTEM): {archive.few([*map(_text, left)])}",)


def _excluded(fileset: archive.Fileset) -> tuple[str, ...]:
    """Configured paths that an exclude removes, also by the name of a folder above them."""
    if not fileset.exclude or not tar.is_there():
        return ()
    names = archive.configured(fileset)
    kept = _kept(names, fileset.exclude)
    gone = [name for name in names if name not in kept]
    if not gone:
        return ()
    gone = [name for name in gone if name in _kept(gone, ())]  # others: tar says why
    lines = []
    for name in gone:
        by = [pattern for pattern in fileset.exclude if name not in _kept([name], (pattern,))]
        patterns = ", ".join(archive.shown(os.fsencode(pattern)) for pattern in by)
        lines.append(
            f"{_KEY}: {archive.shown(b'/' + name)}: excluded by FILESET_EXCLUDE {patterns}"
        )
    return tuple(lines)


def too_long(fileset: archive.Fileset, long: longnames.LongNames) -> list[str]:
    """Return which stored paths are too long to be created again, after the archive's end."""
    long.end()
    members = archive.members(fileset)
    found = [
        name
        for name in long.names
        if any(name.startswith(member + b"/") for member in members) and longnames.is_there(name)
    ]
    kept = _kept([longnames.upper(name) for name in found], fileset.exclude) if found else set()
    lines = [
        f"{_ends_of(name)}: path too long to be restored: {len(name)} bytes, at most "
        f"{longnames.MOST} are allowed"
        for name in found
        if longnames.upper(name) in kept
    ]
    more = f"{long.more} more paths are longer than {longnames.MOST} bytes and cannot be restored"
    return [*lines, *([more] if long.more and lines else [])]


def _ends_of(name: bytes) -> str:
    """The beginning and the end of a long path."""
    return f"{archive.shown(b'/' + name[:_SHOWN])}...{archive.shown(name[-_SHOWN:])}"


def _kept(names: Sequence[bytes], exclude: tuple[str, ...]) -> set[bytes]:
    """The names that tar itself would store, were these the excludes; it reads no file."""
    argv = [tar.program(), "--create", "--file=/dev/null", "--directory=/", *archive.SPOKEN]
    argv += [*archive.excludes(archive.Fileset((), exclude)), "--no-recursion", "--verbose"]
    given = b"".join(name + b"\0" for name in names)
    lines = b"".join(
        process.output(
            [*argv, *archive.FROM_LIST],
            given=given,
            allowed=lambda _code: True,  # what cannot be read is named by the run itself
            env=tar.environment(),
        )
    )
    return {archive.unquoted(line).rstrip(b"/") for line in lines.decode("ascii").splitlines()}
