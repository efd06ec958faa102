"""One tree moved into another: folders are merged, and a file is replaced only where that is asked.

Every conflict is found before anything is moved. Symbolic links are never followed, nothing
recurses, and no path is longer than one name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from tools.base.errors import ConfigError, StoreError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SHOWN = 5  # conflicts that are named


def merge(
    source: Path, goal: Path, implied: Collection[bytes], *, overwrite: bool
) -> tuple[str, ...]:
    """Move everything in `source` into the folder `goal`; a line for each folder left different.

    Folders that are in both are merged and get owner, mode, attributes and times of the source's,
    except those of `implied` (paths relative to `source`). Raises ConfigError naming every
    conflict, before anything has been moved.
    """
    conflicts = []
    for step in _steps(source, goal):
        if step.there is not None and (not overwrite or step.is_folder or step.there_is_folder):
            conflicts.append(os.fsdecode(step.path))
    if conflicts:
        named = ", ".join(f"{goal}/{name}" for name in conflicts[:_SHOWN])
        more = f" and {len(conflicts) - _SHOWN} more" if len(conflicts) > _SHOWN else ""
        raise ConfigError(
            f"DESTINATION: {named}{more} exists and is of another type",
            "Move it to another place, then restore again.",
        )
    troubles: list[str] = []
    for step in _steps(source, goal, implied, troubles):
        try:
            os.rename(step.name, step.name, src_dir_fd=step.source, dst_dir_fd=step.goal)
        except OSError as error:
            where = f"{goal}/{os.fsdecode(step.path)}"
            raise StoreError(
                f"{where}: cannot be replaced: {(error.strerror or str(error)).lower()}",
                "Restore into a new folder: a mount point or an immutable file (lsattr) cannot be "
                "replaced. Files before it in the alphabet are replaced already.",
            ) from None
    return tuple(troubles)


class _Step(NamedTuple):
    """A name to move from one open folder into another; `there`: mode of what has the name."""

    name: bytes
    path: bytes
    source: int
    goal: int
    is_folder: bool
    there: int | None

    @property
    def there_is_folder(self) -> bool:
        return self.there is not None and stat.S_ISDIR(self.there)


class _Level(NamedTuple):
    """A pair of folders in the middle of a merge, and what their parents were."""

    pending: list[bytes]
    path: bytes
    wanted: os.stat_result
    before: os.stat_result
    above: tuple[int, int]


def _steps(
    source: Path,
    goal: Path,
    implied: Collection[bytes] = (),
    troubles: list[str] | None = None,
) -> Iterator[_Step]:
    """Everything that takes a place, in order; with `troubles` the folders are changed, too."""
    with contextlib.ExitStack() as stack:
        pair = _Pair(os.open(source, _FOLDER), os.open(goal, _FOLDER))
        stack.callback(pair.close)
        levels: list[_Level] = []
        pending, path = pair.names(), b""
        while pending or levels:
            if not pending:
                level = levels.pop()
                if troubles is not None:
                    try:
                        pair.finish(level, implied=path in implied)
                    except OSError as error:
                        why = (error.strerror or str(error)).lower()
                        troubles.append(f"{os.fsdecode(path)}: differs from the backup: {why}")
                pair.leave(level.above)
                pending, path = level.pending, level.path
                continue
            name = pending.pop()
            step = pair.step(name, path + b"/" + name if path else name)
            if not (step.is_folder and step.there_is_folder):
                yield step
                continue
            try:
                entered = pair.enter(name, change=troubles is not None)
            except PermissionError:
                raise StoreError(
                    f"{goal}/{os.fsdecode(step.path)}: cannot be merged: permission denied",
                    "Restore as root, or into a new folder.",
                ) from None
            levels.append(_Level(pending, path, *entered))
            pending, path = pair.names(), step.path


class _Pair:
    """The same folder in the source and in the goal, both open."""

    def __init__(self, source: int, goal: int) -> None:
        self._source = source
        self._goal = goal

    def close(self) -> None:
        os.close(self._source)
        os.close(self._goal)

    def names(self) -> list[bytes]:
        """The names in the source, the last one first."""
        with os.scandir(self._source) as entries:
            return sorted((os.fsencode(entry.name) for entry in entries), reverse=True)

    def step(self, name: bytes, path: bytes) -> _Step:
        """What is to be done with a name."""
        mode = os.lstat(name, dir_fd=self._source).st_mode
        try:
            there: int | None = os.lstat(name, dir_fd=self._goal).st_mode
        except FileNotFoundError:
            there = None
        return _Step(name, path, self._source, self._goal, stat.S_ISDIR(mode), there)

    def enter(
        self, name: bytes, *, change: bool
    ) -> tuple[os.stat_result, os.stat_result, tuple[int, int]]:
        """Go down into a folder of both; how both were, and the inodes of their parents.

        change: the owner may write both from now on.
        """
        above = (os.fstat(self._source).st_ino, os.fstat(self._goal).st_ino)
        wanted = os.lstat(name, dir_fd=self._source)
        before = os.lstat(name, dir_fd=self._goal)
        for folder, status in ((self._source, wanted), (self._goal, before)):
            mode = stat.S_IMODE(status.st_mode)
            if change and mode & stat.S_IRWXU != stat.S_IRWXU:
                os.chmod(name, mode | stat.S_IRWXU, dir_fd=folder)
        self._go(name)
        return wanted, before, above

    def leave(self, above: tuple[int, int]) -> None:
        """Back into the parents. Raises StoreError where somebody has moved a folder meanwhile."""
        self._go(b"..")
        if above != (os.fstat(self._source).st_ino, os.fstat(self._goal).st_ino):
            raise StoreError("a folder of the destination was moved while it was restored into")

    def _go(self, name: bytes) -> None:
        old = self._source, self._goal
        source = os.open(name, _FOLDER, dir_fd=self._source)
        try:
            goal = os.open(name, _FOLDER, dir_fd=self._goal)
        except OSError:
            os.close(source)
            raise
        self._source, self._goal = source, goal
        for descriptor in old:
            os.close(descriptor)

    def finish(self, level: _Level, *, implied: bool) -> None:
        """Give the goal's folder what the source's had, after all of it has been moved.

        implied: what it had itself. Raises OSError at the first thing that cannot be set.
        """
        wanted = level.before if implied else level.wanted
        now = os.fstat(self._goal)
        if (now.st_uid, now.st_gid) != (wanted.st_uid, wanted.st_gid):
            os.fchown(self._goal, wanted.st_uid, wanted.st_gid)
        if not implied:
            _attributes(self._source, self._goal)
        os.fchmod(self._goal, stat.S_IMODE(wanted.st_mode))
        os.utime(self._goal, ns=(wanted.st_atime_ns, wanted.st_mtime_ns))


def _attributes(source: int, goal: int) -> None:
    """The extended attributes and ACLs of one folder for another; none that it had before."""
    try:
        wanted = {name: os.getxattr(source, name) for name in os.listxattr(source)}
        old = set(os.listxattr(goal))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return  # a file system without attributes: there is nothing to carry over
        raise
    for name in old - set(wanted):
        os.removexattr(goal, name)
    for name, value in wanted.items():
        os.setxattr(goal, name, value)
