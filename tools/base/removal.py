"""Removal of trees of any depth, and private folders that end with their process.

Nothing here recurses and no path is longer than one name: a tree of 10,000 levels is removed
with one open folder at a time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from tools.base import signals
from tools.base.log import logger

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
T = TypeVar("T")
_UNLOCKED = ".new"  # ends the name of a private folder until it is locked
_TRIES = 10
_RANDOM = 16  # hexadecimal digits at the end of a private folder's name


def tree(path: Path) -> None:
    """Remove a folder and everything below it, or one file; a missing one is not an error.

    Symbolic links are removed and never followed. Folders that their owner may not write are made
    writable first. What cannot be removed stays, the rest goes; raises the first OSError then,
    with the path of the tree.
    """
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return
    except FileNotFoundError:
        return
    errors: list[OSError] = []
    with opened(path.parent, _FOLDER & ~os.O_NOFOLLOW) as parent:
        _tree(parent, path.name, errors)
    if errors:
        first = errors[0]
        raise OSError(first.errno, first.strerror, f"{path} ({first.filename!r})")


@contextlib.contextmanager
def opened(path: Path, flags: int = _FOLDER) -> Iterator[int]:
    """Give the descriptor of an opened folder."""
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _tree(parent: int, top: str, errors: list[OSError]) -> None:
    """Remove the folder `top` of the open folder `parent`, level by level."""
    here = os.dup(parent)
    levels: list[_Level] = []
    pending = [top]
    try:
        while pending or levels:
            if pending:
                name = pending.pop()
                below = _try(_entered, name, here, errors)
                if below is not None:
                    levels.append(_Level(name, pending, os.fstat(here).st_ino))
                    here = _replaced(here, below)
                    pending = _emptied(here, errors)
                continue
            level = levels.pop()
            pending = level.pending
            here = _replaced(here, os.open("..", _FOLDER, dir_fd=here))
            if os.fstat(here).st_ino != level.inode:
                raise OSError(errno.EBUSY, "was moved while it was removed", level.name)
            _try(_rmdir, level.name, here, errors)
    except OSError as error:
        errors.append(error)
    finally:
        os.close(here)


class _Level(NamedTuple):
    """A folder that is being emptied: its name; of the folder above: what is left, its inode."""

    name: str
    pending: list[str]
    inode: int


def _rmdir(name: str, folder: int) -> None:
    os.rmdir(name, dir_fd=folder)


def _unlink(name: str, folder: int) -> None:
    os.unlink(name, dir_fd=folder)


def _replaced(old: int, new: int) -> int:
    os.close(old)
    return new


def _try(
    action: Callable[[str, int], T], name: str, folder: int, errors: list[OSError]
) -> T | None:
    """Call a function for a name in an open folder; on failure add to `errors`, return None."""
    try:
        return action(name, folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        error.filename = name
        errors.append(error)
        return None


def _entered(name: str, parent: int) -> int:
    """Return a folder, opened, which its owner may change."""
    try:
        below = os.open(name, _FOLDER, dir_fd=parent)
    except PermissionError:
        _make_writable(name, parent)
        below = os.open(name, _FOLDER, dir_fd=parent)
    if os.fstat(below).st_mode & stat.S_IRWXU != stat.S_IRWXU:
        with contextlib.suppress(PermissionError):  # another's folder: its entries will say so
            os.fchmod(below, stat.S_IRWXU)
    return below


def _make_writable(name: str, parent: int) -> None:
    """Let the owner of a folder change it, and never what a link leads to that replaced it."""
    descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        # fchmod(2) takes no such descriptor
        Path(f"/proc/self/fd/{descriptor}").chmod(stat.S_IRWXU)
    finally:
        os.close(descriptor)


def _emptied(folder: int, errors: list[OSError]) -> list[str]:
    """Remove the files of an open folder, and return the names of the folders in it."""
    with os.scandir(folder) as entries:
        listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in listed:
        if not is_folder:
            _try(_unlink, name, folder, errors)
    return [name for name, is_folder in listed if is_folder]


@contextlib.contextmanager
def private(
    parent: Path, prefix: str, complain: Callable[[str], None] | None = None
) -> Iterator[Path]:
    """Give a new folder (0700) that is locked during the block and removed at its end.

    The lock ends with the process, however that ends: `sweep` finds what was left then. A folder
    that cannot be removed is told to `complain` (default: the log) and is no error.
    """
    with contextlib.ExitStack() as stack:
        with signals.deferred():
            folder, descriptor = _locked(parent, prefix)
            stack.callback(_remove_private, folder, descriptor, complain or logger.warning)
        yield folder


def _remove_private(folder: Path, descriptor: int, complain: Callable[[str], None]) -> None:
    """Remove a private folder to its end, whatever signal comes meanwhile."""
    with signals.deferred():
        try:
            tree(folder)
        except OSError as error:
            complain(f"{folder} could not be removed: {error.strerror}")
        finally:
            os.close(descriptor)


def _locked(parent: Path, prefix: str) -> tuple[Path, int]:
    """Return a new folder, and its descriptor, which holds the lock.

    Its first name is another one. Another process may sweep the folder before it is locked.
    """
    for _ in range(_TRIES):
        folder = parent / f"{prefix}{uuid.uuid4().hex[:_RANDOM]}"
        unlocked = folder.with_name(folder.name + _UNLOCKED)
        unlocked.mkdir(mode=0o700)
        try:
            return folder, _lock_as(unlocked, folder)
        except FileNotFoundError:
            continue
        except BaseException:
            with contextlib.suppress(OSError):
                unlocked.rmdir()
            raise
    raise FileNotFoundError(errno.ENOENT, "a new folder was removed by another process", parent)


def _lock_as(unlocked: Path, folder: Path) -> int:
    """Lock a folder, give it its name, and return its descriptor."""
    descriptor = os.open(unlocked, _FOLDER)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: it is never swept
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # at most for as long as `sweep` looks
        unlocked.rename(folder)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def sweep(parent: Path, prefix: str) -> list[Path]:
    """Remove the private folders of killed processes of this user, and return them."""
    removed = []
    for folder in abandoned(parent, prefix):
        with contextlib.suppress(OSError):  # it went meanwhile
            tree(folder)
            removed.append(folder)
    return removed


def abandoned(parent: Path, prefix: str) -> list[Path]:
    """Return the private folders of killed processes of this user.

    Only folders with a name of `private`, owned by this user, and whose lock nobody holds.
    """
    folders = []
    pattern = re.compile(re.escape(prefix) + rf"[0-9a-f]{{{_RANDOM}}}(?:{re.escape(_UNLOCKED)})?")
    try:
        names = sorted(entry.name for entry in parent.iterdir() if pattern.fullmatch(entry.name))
    except OSError:
        return []  # whoever needs the folder says why it cannot be read
    for name in names:
        with contextlib.suppress(OSError):  # it is another's, or went meanwhile
            if _abandoned(parent / name):
                folders.append(parent / name)
    return folders


def _abandoned(folder: Path) -> bool:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return False
    with opened(folder) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where somebody has it
    return True
