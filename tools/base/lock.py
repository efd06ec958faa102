"""One run at a time: a kernel lock that dies with the process that holds it (flock(2))."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from tools.base.errors import BackupError, LockedError

_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "ceph")


def file_system(path: Path, mounts: str) -> str:
    """The type of the file system that `path` lies on, read from /proc/self/mounts."""
    found, kind = "", ""
    for line in mounts.splitlines():
        _, place, this_kind, *_ = line.split(" ")
        place = place.encode().decode("unicode_escape")  # \040 stands for a space
        inside = path.is_relative_to(place)
        if inside and len(place) >= len(found):
            found, kind = place, this_kind
    return kind


@contextlib.contextmanager
def waiting(file: Path) -> Iterator[None]:
    """Wait for a lock that is only ever held for moments, and hold it for the block."""
    descriptor = _opened(file)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _opened(file: Path) -> int:
    """Open for reading and writing; never through a link, which somebody may have planted."""
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            text = "is a symbolic link: remove it"
            raise OSError(error.errno, text, str(file)) from None
        raise


@contextlib.contextmanager
def hold(file: Path) -> Iterator[None]:
    """Hold the lock in `file` for the length of the block; children do not inherit it.

    Raises LockedError where another process has it, BackupError where the file lies on a
    network file system, on which a lock proves nothing.
    """
    kind = file_system(file.parent.resolve(), Path("/proc/self/mounts").read_text(encoding="utf-8"))
    if kind in _NETWORK:
        raise BackupError(
            f"{file.parent} lies on {kind}, where a lock proves nothing",
            hint="Set WORK_FOLDER to a folder on a disk of this machine.",
        )
    descriptor = _opened(file)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode("utf-8", "replace").strip()
            raise LockedError(
                f"another run is already running ({holder or 'just started'})",
                hint=f"Wait until it ends. Do not delete {file}: two runs would overlap.",
            ) from None
        since = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}, since {since} UTC\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
