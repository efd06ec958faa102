"""The command with which an administrator lets the user of the backup read a file of a server."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from pathlib import Path


def hint(path: Path, error: OSError, elsewhere: str) -> str:
    """Return the hint for a path that cannot be read; elsewhere: if it does not exist."""
    denied = error.errno in (errno.EACCES, errno.EPERM)
    return f"Run as root: {command(path)}" if denied else elsewhere


def command(path: Path) -> str:
    """Return the commands that let this user read a path: membership in the group of the obstacle.

    The obstacle is the topmost folder that cannot be entered, or else the path itself. If its
    group may not read it either, the mode is changed first.
    """
    obstacle = _obstacle(path)
    details = obstacle.stat()
    needed = stat.S_IRGRP | (stat.S_IXGRP if stat.S_ISDIR(details.st_mode) else 0)
    permit = f"chmod g+rX {obstacle} && " if details.st_mode & needed != needed else ""
    return f"{permit}usermod -aG {_group(details.st_gid)} {_user()}"


def _obstacle(path: Path) -> Path:
    for folder in reversed(path.parents):
        if not os.access(folder, os.X_OK):
            return folder
    return path


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
