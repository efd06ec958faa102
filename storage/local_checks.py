"""What `backup.py -t` finds about the folder of a local store."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from storage import account_checks
from tools import filesystem_handling, os_works
from tools.base import account_names, fixes, trusted_path
from tools.base.errors import StoreError
from tools.base.finding import Finding

_SIZE = 4096  # bytes of the file of a test
_NAME = f".test{filesystem_handling.PART}0"  # one name: where it cannot be removed, no other joins
_one = threading.Lock()  # store and clean-up of a config are tested at once
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def tested(folder: Path, host: str) -> Iterator[str | Finding]:
    """Yield what is found about a folder. Raises StoreError where it cannot be written, OSError."""
    parent = filesystem_handling.nearest(folder)
    if not parent.is_dir():
        raise StoreError(
            f"LOCAL_BACKUP: {folder} is not writable: {parent} is not a directory",
            "Set LOCAL_BACKUP to a directory.",
        )
    if os.statvfs(parent).f_flag & os.ST_RDONLY:
        raise StoreError(
            f"LOCAL_BACKUP: {parent}: read-only file system",
            "Check the kernel log for errors of its disk, and its mount options.",
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        hint, command = _unwritable(folder, parent)
        raise StoreError(f"LOCAL_BACKUP: {parent} is not writable", hint, command)
    free = f"{filesystem_handling.free_percent(parent):.0f} % free"
    if parent != folder:
        yield f"{folder} is writable (it will be created), {free}"
        return
    removable, ahead = tried(folder, host)
    yield f"{folder} is writable, {free}"
    yield account_checks.removing(folder, allowed=removable)
    yield from account_checks.clock(folder, ahead)


def tried(folder: Path, host: str) -> tuple[bool, float | None]:
    """Write a hidden file beside the objects of a host, and remove it. Raises OSError.

    Return whether it could be removed, and how many seconds the clock of the disk is ahead: that
    of the server of a share.
    """
    host_folder = folder / host
    with _one, trusted_path.folder(host_folder if host_folder.is_dir() else folder) as held:
        return _tried(held)


def _tried(folder: int) -> tuple[bool, float | None]:
    if not _is_removed(folder):  # an earlier test could not remove it either
        return False, None
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(_NAME, flags, 0o600, dir_fd=folder)
    except FileExistsError:  # another test is at work: it can write and remove
        return True, None
    try:
        filesystem_handling.write_all(descriptor, bytes(_SIZE))
        os.fsync(descriptor)
        ahead = os.fstat(descriptor).st_mtime - time.time()
    finally:
        os.close(descriptor)
        removed = _is_removed(folder)
    return removed, ahead


def _is_removed(folder: int) -> bool:
    try:
        os.unlink(_NAME, dir_fd=folder)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in _FORBIDDEN:
            raise
        return False
    return True


def _unwritable(folder: Path, parent: Path) -> tuple[str, str]:
    """Return a hint that is safe while the disk is not mounted: it never opens /mnt to others.

    And the command, where it creates nothing but the folder.
    """
    if filesystem_handling.unmounted(folder):
        return "Is its disk mounted?", ""
    user = os_works.user()
    if parent == folder:
        return _unowned(folder, user)
    command = fixes.command("install", "-d", "-m", "0700", "-o", user, folder)
    return f"Is its disk mounted? Otherwise create it as root: {command}", fixes.as_root(command)


def _unowned(folder: Path, user: str) -> tuple[str, str]:
    """Return the same for a folder that exists: a disk that was just mounted belongs to root."""
    owner = folder.stat().st_uid
    if not os.path.ismount(folder):
        return f"Is its disk mounted? Then let the user {user} write to it.", ""
    if owner != 0:
        command = fixes.command("chown", "-R", f"{user}:", folder)
        whose = f"It belongs to {account_names.user(owner)}."
        return f"{whose} If this server takes the place of its old one, as root: {command}", ""
    command = fixes.command("chown", f"{user}:", folder)
    return f"Let the user {user} write to it, as root: {command}", fixes.as_root(command)
