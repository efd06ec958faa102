"""Owner, mode, ACL, attributes and times of a folder that was there before a restore."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from tools import os_works


def restore_own(folder: int, before: os.stat_result) -> None:
    """Set an open folder to the mode and times that it had. Raises OSError."""
    mode = stat.S_IMODE(before.st_mode)
    if stat.S_IMODE(os.fstat(folder).st_mode) != mode:
        os.fchmod(folder, mode)
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def copy(source: int, original: os.stat_result, goal: int) -> list[str]:
    """Copy all attributes of an open folder to another one; return what could not be set.

    original: the status that the source had before it was emptied. As an ordinary user the owner
    stays: nobody else's was restored.
    """
    mode = stat.S_IMODE(original.st_mode)
    times = original.st_atime_ns, original.st_mtime_ns
    actions: list[tuple[str, Callable[[], object]]] = [
        ("owner", lambda: _set_owner(goal, original)),
        ("attributes", lambda: _copy_attributes(source, goal)),
        ("mode", lambda: os.fchmod(goal, mode)),
        ("times", lambda: os.utime(goal, ns=times)),
    ]
    problems: list[str] = []
    for attribute, action in actions:
        try:
            action()
        except OSError as error:
            problems.append(f"{attribute}: not set: {(error.strerror or str(error)).lower()}")
    return problems


def _set_owner(folder: int, original: os.stat_result) -> None:
    now = os.fstat(folder)
    if os_works.is_root() and (now.st_uid, now.st_gid) != (original.st_uid, original.st_gid):
        os.fchown(folder, original.st_uid, original.st_gid)


def _copy_attributes(source: int, goal: int) -> None:
    """Set the extended attributes and ACLs of one folder on another; remove the other's own."""
    try:
        new = {name: os.getxattr(source, name) for name in os.listxattr(source)}
        old = {name: os.getxattr(goal, name) for name in os.listxattr(goal)}
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return  # a file system without attributes: there is nothing to copy
        raise
    for name in old.keys() - new.keys():
        os.removexattr(goal, name)
    for name, value in new.items():
        if old.get(name) != value:
            os.setxattr(goal, name, value)
