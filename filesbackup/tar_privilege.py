"""Which tar reads the files, and by what it may read all of them (docs/privileges.md).

In this order: the copy of tar with a capability, the ambient capability of a service, the exact
line of sudoers, and plain tar. Each is tried on a file without read permission before it is used.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from filesbackup import tar_sudo
from tools.base import capability, fixed_tar, removal
from tools.base.errors import SourceError
from tools.flow import process, stream, tar

COPY = capability.TAR
_STATUS = Path("/proc/self/status")  # proc(5)


class Way(Enum):
    """By what tar may read everything."""

    COPY = "the capability of its copy"
    AMBIENT = "the ambient capability of the service"
    SUDO = "the exact line of sudoers"
    PLAIN = "nothing"


@dataclass(frozen=True)
class Reader:
    """The tar that reads the files.

    problem: why its copy cannot be used although it is there; "" if another way reads everything
    """

    program: str
    way: Way
    problem: str = ""

    @property
    def raised(self) -> bool:
        """Return whether the capability of this process is raised for it."""
        return self.way is Way.AMBIENT

    @property
    def reads_everything(self) -> bool:
        """Return whether it may read every file."""
        return self.way is not Way.PLAIN


def reader() -> Reader:
    """Return the tar of this process. Raises ConfigError where there is none."""
    plain = tar.program()
    return Reader(plain, Way.PLAIN) if os.geteuid() == 0 else tried(plain)


@functools.cache
def tried(plain: str) -> Reader:
    """Return the tar that may read most, tried once in a process. plain: the one on PATH"""
    problem = unusable()
    if os.path.exists(COPY) and not problem:  # noqa: PTH110  (it does not raise)
        return Reader(str(COPY), Way.COPY)
    if capability.held() and _reads_everything(plain, raised=True):
        return Reader(plain, Way.AMBIENT)
    if tar_sudo.allowed():
        return Reader(fixed_tar.program(), Way.SUDO)
    return Reader(plain, Way.PLAIN, problem)


def unusable() -> str:
    """Return why the copy cannot read everything; "" if it can, or if there is none."""
    if not os.path.exists(COPY):  # noqa: PTH110  (it does not raise)
        return ""
    reason = _not_executable()
    if not reason and not _reads_everything(str(COPY)):
        reason = _powerless(_STATUS.read_text("ascii", "replace"))
    return f"{COPY}: {reason}" if reason else ""


def _reads_everything(program: str, *, raised: bool = False) -> bool:
    """Return whether a tar can read a file that has no read permission for anyone.

    True where no temporary file can be made to try it: tar itself reports what it cannot read.
    """
    try:
        with _closed_file() as closed:
            command = [program, "--create", "--file=-", "--directory=/", str(closed)[1:]]
            chunks = process.output(command, env=tar.environment(), capable=raised)
            stream.drained(chunks)
    except SourceError:
        return False
    except OSError:  # the temporary folder is full, or cannot be written
        return True
    return True


@contextmanager
def _closed_file() -> Iterator[Path]:
    with removal.private(Path(tempfile.gettempdir()), "nc-backup-") as folder:
        closed = folder / "closed"
        closed.touch(0o000)
        yield closed


def _not_executable() -> str:
    """Return why the copy cannot be started: the kernel starts no program without what it needs."""
    try:
        subprocess.run(
            [COPY, "--version"], capture_output=True, stdin=subprocess.DEVNULL, check=False
        )
    except PermissionError as error:
        if error.errno == errno.EPERM:
            return "its capability is outside the bounding set of this process"
        return "permission denied: this user is not in its group"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def _powerless(status: str) -> str:
    """Return why the copy runs without its capability. status: /proc/PID/status of this process."""
    try:
        os.getxattr(COPY, "security.capability")
    except OSError:
        return "it has lost its capability (cap_dac_read_search)"
    if re.search(r"^NoNewPrivs:\s*1$", status, re.M):
        return "NoNewPrivs is set for this process, so that the copy gets no capability"
    if os.statvfs(COPY).f_flag & os.ST_NOSUID:
        return "its file system is mounted with nosuid, so that it gets no capability"
    return "it cannot read a file without read permission (see the log of the security module)"
