"""Owner, mode, ACL, attributes and times of a folder that was there before a restore."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from tools import os_works


def restore_own(folder: int, before: os.stat_result) -> None:
    """Give an open folder the mode and times that it had. Raises OSError."""
    mode = stat.S_IMODE(before.st_mode)
    if stat.S_IMODE(os.fstat(folder).st_mode) != mode:
        os.fchmod(folder, mode)
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def copy(source: int, wanted: os.stat_result, goal: int) -> list[str]:
    """Give an open folder everything that another one has; return what could not be set.

    wanted: the status that the other one had before it was emptied. As an ordinary user the
    owner stays: nobody else's was restored.
    """
    mode = stat.S_IMODE(wanted.st_mode)
    times = wanted.st_atime_ns, wanted.st_mtime_ns
    actions: list[tuple[str, Callable[[], object]]] = [
        ("owner", lambda: _set_owner(goal, wanted)),
        ("attributes", lambda: _copy_attributes(source, goal)),
        ("mode", lambda: os.fchmod(goal, mode)),
        ("times", lambda: os.utime(goal, ns=times)),
    ]
    problems: list[str] = []
    for called, action in actions:
        try:
            action()
        except OSError as error:
            problems.append(f"{called}: not set: {(error.strerror or str(error)).lower()}")
    return problems


def _set_owner(folder: int, wanted: os.stat_result) -> None:
    now = os.fstat(folder)
    if os_works.is_root() and (now.st_uid, now.st_gid) != (wanted.st_uid, wanted.st_gid):
        os.fchown(folder, wanted.st_uid, wanted.st_gid)


def _copy_attributes(source: int, goal: int) -> None:
    """Set the extended attributes and ACLs of one folder on another; remove the other's own."""
    try:
        wanted = {name: os.getxattr(source, name) for name in os.listxattr(source)}
        old = {name: os.getxattr(goal, name) for name in os.listxattr(goal)}
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return  # a file system without attributes: there is nothing to copy
        raise
    for name in old.keys() - wanted.keys():
        os.removexattr(goal, name)
    for name, value in wanted.items():
        if old.get(name) != value:
            os.setxattr(goal, name, value)
