"""Paths that root opens in folders of other users, who may change them while it works.

A user who may write to a folder can put a symbolic link in the place of a file or folder in it:
root would remove, write or read where the link leads. So root goes through a path one name at a
time, by descriptors, and follows a link only if root made it, or if what it leads to belongs to
the user who made it. Other users follow every link: the kernel keeps them to what is theirs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tools.base import account_names

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_LINK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40  # of one path, as path_resolution(7)


@contextlib.contextmanager
def folder(path: Path, *, make: bool = False) -> Iterator[int]:
    """Give a descriptor (O_PATH) of a folder, for the dir_fd of calls on names in it.

    make: whether missing folders are made (0700). Raises OSError that names the path.
    """
    if os.geteuid() == 0:
        descriptor = _Walk(path, make=make).opened()
    else:
        if make:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def file(path: Path, flags: int) -> int:
    """Open a file, as open(2) does with the flags; return its descriptor.

    Raises OSError that names the path, also where root finds anything but a regular file: opening
    a device can change what it does.
    """
    if os.geteuid() != 0:
        return os.open(path, flags | os.O_CLOEXEC)
    walk = _Walk(path)
    held = walk.opened_file()
    try:
        if not stat.S_ISREG(os.fstat(held).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if not Path("/proc/self/fd").is_dir():  # a rescue system: nobody else is there
            return os.open(path, flags | os.O_CLOEXEC)
        with naming(path):
            return os.open(f"/proc/self/fd/{held}", flags | os.O_CLOEXEC)
    finally:
        os.close(held)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the whole path in an OSError of a call that knows a name in an open folder alone."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


class _Walk:
    """The way from / to one path."""

    def __init__(self, path: Path, *, make: bool = False) -> None:
        self._path = path
        self._make = make
        self._links = 0

    def opened(self) -> int:
        """Return a descriptor of the folder."""
        with naming(self._path):
            return self._from(os.open("/", _FOLDER), self._path.absolute().parts[1:])

    def opened_file(self) -> int:
        """Return a descriptor (O_PATH) of what is not a folder."""
        path = self._path.absolute()
        with naming(self._path):
            folder_fd = self._from(os.open("/", _FOLDER), path.parts[1:-1])
            try:
                return self._last(folder_fd, path.name)
            finally:
                os.close(folder_fd)

    def _from(self, current: int, names: tuple[str, ...]) -> int:
        """Return a descriptor of the folder that names lead to; `current` is closed."""
        for name in names:
            try:
                following = self._next(current, name)
            finally:
                os.close(current)
            current = following
        return current

    def _next(self, folder_fd: int, name: str) -> int:
        try:
            return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder_fd)
        except NotADirectoryError:
            return self._last(folder_fd, name, folder=True)
        except FileNotFoundError:
            if not self._make:
                raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder_fd)
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder_fd)

    def _last(self, folder_fd: int, name: str, *, folder: bool = False) -> int:
        """Return a descriptor of an entry, or of what it leads to if it is a link."""
        held = os.open(name, _LINK, dir_fd=folder_fd)
        status = os.fstat(held)
        if not stat.S_ISLNK(status.st_mode):
            if not folder:
                return held
            os.close(held)
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        try:
            return self._followed(folder_fd, held, status.st_uid, folder=folder)
        finally:
            os.close(held)

    def _followed(self, folder_fd: int, link: int, owner: int, *, folder: bool) -> int:
        """Return a descriptor of what a link leads to."""
        self._links += 1
        self._make = self._make and owner == 0  # nothing is made where another's link leads
        if self._links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = Path(os.readlink("", dir_fd=link))
        begin = os.open("/" if target.is_absolute() else ".", _FOLDER, dir_fd=folder_fd)
        names = target.parts[1:] if target.is_absolute() else target.parts
        if folder or not names:
            reached = self._from(begin, names)
        else:
            parent = self._from(begin, names[:-1])
            try:
                reached = self._last(parent, names[-1])
            finally:
                os.close(parent)
        if owner not in (0, os.fstat(reached).st_uid):
            os.close(reached)
            raise OSError(errno.ELOOP, _planted(owner))
        return reached


def _planted(owner: int) -> str:
    user = account_names.user(owner)
    return f"{user} has made a symbolic link in it, which leads to files of others"
