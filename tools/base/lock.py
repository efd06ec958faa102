"""One run at a time: a kernel lock that ends with the process that holds it (flock(2))."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from tools.base.errors import BackupError, LockedError

_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "ceph")
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")  # \040 stands for a space
_FIELDS = 3  # of a line of mounts that are used


def file_system(path: Path, mounts: bytes) -> str:
    """Return the type of the file system of `path`, from the content of /proc/self/mounts."""
    mount_point, kind = "", ""
    for line in mounts.split(b"\n"):
        fields = line.split(b" ")
        if len(fields) < _FIELDS:
            continue
        folder = os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), fields[1]))
        if path.is_relative_to(folder) and len(folder) >= len(mount_point):
            mount_point, kind = folder, os.fsdecode(fields[2])
    return kind


def on_network(folder: Path) -> bool:
    """Return whether a folder is, or may be, on a network file system."""
    try:
        return _file_system_of(folder) in _NETWORK
    except OSError:  # without /proc nobody knows
        return True


def _file_system_of(folder: Path) -> str:
    return file_system(folder.resolve(), Path("/proc/self/mounts").read_bytes())


@contextlib.contextmanager
def waiting(file: Path) -> Iterator[None]:
    """Wait for a lock that is only held for moments, and hold it for the block."""
    descriptor = _open_lock_file(file)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open_lock_file(file: Path) -> int:
    """Open for reading and writing; never through a link, which another user may have made."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            text = "is a symbolic link: remove it"
            raise OSError(error.errno, text, str(file)) from None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "is not a regular file: remove it", str(file))


@contextlib.contextmanager
def hold(file: Path) -> Iterator[None]:
    """Hold the lock in `file` for the length of the block; children do not inherit it.

    Raises LockedError if another process holds it, BackupError on a network file system, where
    locks are not reliable.
    """
    kind = _file_system_of(file.parent)
    if kind in _NETWORK:
        raise BackupError(
            f"{file.parent}: {kind} file system: locks are not reliable",
            hint="Set WORK_FOLDER to a folder on a local disk.",
        )
    descriptor = _open_lock_file(file)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode("utf-8", "replace").strip()
            raise LockedError(
                f"another run is in progress ({holder or 'just started'})",
                hint=f"Wait until it ends. Do not delete {file}: two runs would overlap.",
            ) from None
        since = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}, since {since} UTC\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
