"""Two trees, walked side by side: every name of the first, and what has that name in the second.

Symbolic links are never followed, nothing recurses, and no path is longer than one name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from restore.file_status import FileStatus, status
from tools.base.errors import StoreError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Step(NamedTuple):
    """A name in an open folder of the first tree, and what has it in the second.

    path: relative to both trees; source, goal: the open folders; there: None if the name is free,
    and for files if the visitor does not need it
    """

    name: bytes
    path: bytes
    source: int
    goal: int
    is_folder: bool
    there: FileStatus | None

    @property
    def both_folders(self) -> bool:
        """Return whether the name is a folder in both trees."""
        return self.is_folder and self.there is not None and self.there.is_folder


class Visitor(Protocol):
    """What is done on the way. files: whether it needs to know what has the name of a file."""

    @property
    def files(self) -> bool: ...

    def visit(self, step: Step) -> None:
        """Visit a name, in alphabetical order; a folder before what is in it."""

    def denied(self, step: Step, error: OSError) -> None:
        """Handle a folder of both trees that cannot be opened; it is skipped then."""

    def leave(self, path: bytes, source: int, goal: int) -> None:
        """Leave a folder of both trees after everything in it; both are open."""


def walk(source: Path, goal: Path, visitor: Visitor, skip: Collection[bytes] = ()) -> None:
    """Visit everything in `source`. Folders are entered if they are folders in both trees.

    skip: paths of folders that are visited and not entered
    """
    pair = _Pair(os.open(source, _FOLDER), os.open(goal, _FOLDER))
    try:
        _walk(pair, visitor, skip)
    finally:
        pair.close()


def _walk(pair: _Pair, visitor: Visitor, skip: Collection[bytes]) -> None:
    levels: list[tuple[list[bytes], bytes, tuple[int, int]]] = []
    files = visitor.files
    pending, path = pair.names(), b""
    while pending or levels:
        if not pending:
            visitor.leave(path, *pair.folders)
            pending, path, above = levels.pop()
            pair.leave(above)
            continue
        step = pair.step(pending.pop(), path, files=files)
        visitor.visit(step)
        if not step.both_folders or step.path in skip:
            continue
        above = pair.inodes()
        try:
            pair.enter(step.name)
        except PermissionError as error:
            visitor.denied(step, error)
            continue
        levels.append((pending, path, above))
        pending, path = pair.names(), step.path


class _Pair:
    """The same folder in both trees, both open."""

    def __init__(self, source: int, goal: int) -> None:
        self.folders = source, goal

    def close(self) -> None:
        for folder in self.folders:
            os.close(folder)

    def names(self) -> list[bytes]:
        """Return the names in the first tree, the last one first; those of folders end with /."""
        with os.scandir(self.folders[0]) as entries:
            return sorted(map(_name, entries), reverse=True)

    def step(self, listed: bytes, path: bytes, *, files: bool) -> Step:
        name = listed.rstrip(b"/")
        source, goal = self.folders
        full_path = path + b"/" + name if path else name
        is_folder = listed != name
        there = status(name, goal) if is_folder or files else None
        return Step(name, full_path, source, goal, is_folder, there)

    def inodes(self) -> tuple[int, int]:
        return os.fstat(self.folders[0]).st_ino, os.fstat(self.folders[1]).st_ino

    def leave(self, above: tuple[int, int]) -> None:
        """Go back into the parents. Raises StoreError if somebody moved a folder meanwhile."""
        self.enter(b"..")
        if above != self.inodes():
            raise StoreError("a folder of the destination was moved while it was restored into")

    def enter(self, name: bytes) -> None:
        old = self.folders
        source = os.open(name, _FOLDER, dir_fd=old[0])
        try:
            goal = os.open(name, _FOLDER, dir_fd=old[1])
        except OSError:
            os.close(source)
            raise
        if not all(
            os.access("..", os.F_OK, dir_fd=one, effective_ids=True) for one in (source, goal)
        ):
            os.close(source)
            os.close(goal)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)  # no way back
        self.folders = source, goal
        for descriptor in old:
            os.close(descriptor)


def _can_be_left(folder: int) -> bool:
    """Return whether the user may search an open folder, which its `..` needs."""
    return os.access("..", os.F_OK, dir_fd=folder, effective_ids=True)


def _name(entry: os.DirEntry[str]) -> bytes:
    name = os.fsencode(entry.name)
    return name + b"/" if entry.is_dir(follow_symlinks=False) else name


def owner_may_write(folder: int) -> int | None:
    """Let the owner of a folder write it; return its mode before, None if unchanged.

    folder: of `opened_folder`. Its name may belong to something else meanwhile: who owns the
    folder above could put a link to a file of root there.
    """
    mode = stat.S_IMODE(os.fstat(folder).st_mode)
    if mode & stat.S_IRWXU == stat.S_IRWXU:
        return None
    set_mode(folder, mode | stat.S_IRWXU)
    return mode


@contextlib.contextmanager
def opened_folder(name: bytes, folder: int) -> Iterator[int]:
    """Yield the descriptor of a folder in an open one, as far as the user may open it."""
    try:
        descriptor = os.open(name, _FOLDER, dir_fd=folder)
    except PermissionError:
        descriptor = os.open(name, _FOLDER | os.O_PATH, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def set_mode(descriptor: int, mode: int) -> None:
    """Set the mode of a folder of `opened_folder`. Raises OSError."""
    try:
        os.fchmod(descriptor, mode)
    except OSError as error:
        if error.errno != errno.EBADF:  # so fchmod(2) says that it takes no O_PATH
            raise
        Path(f"/proc/self/fd/{descriptor}").chmod(mode)
