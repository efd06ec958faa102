"""Servers that cannot be reached yet: a run waits for them at its beginning (CONNECT_WAIT).

A timer fires before the network is there, before a database has started or a disk is mounted. All
stores and databases of a run share one time: what is down for good costs the run this time once.
Nothing waits where `allow` was not called: -t, restores and other commands fail at once.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from tools.base.errors import (
    BackupError,
    SourceError,
    UnmountedError,
    UnreachableError,
    in_words,
)
from tools.base.log import logger
from tools.flow import task

T = TypeVar("T")
_VARIABLE = "NC_BACKUP_CONNECT_UNTIL"  # for sections: on the monotonic clock, which all share
_FIRST, _LONGEST = 1.0, 10.0  # seconds between two attempts
_BOOTING = 600.0  # seconds after a boot in which a disk may still be mounted (nofail in fstab)
# How clients of databases, ssh, rclone and the C library say that there is no connection.
_NO_CONNECTION = re.compile(
    r"connection refused|connection timed out|connect(?:ion)? timeout|dial .*i/o timeout"
    r"|no route to host|(?:network|host) is (?:unreachable|down)|network unreachable"
    r"|name or service not known|temporary failure in name resolution|name does not resolve"
    r"|no address associated with hostname|could not resolve host|could not translate host name"
    r"|no such host|server misbehaving|unknown (?:mysql |mariadb )?server host"
    r"|can't connect to (?:local )?(?:mysql |mariadb |local )*server"
    r"|failed to resolve|connection to server on socket .* failed: no such file",
    re.I,
)
# The server answers: waiting does not help.
_ANSWERED = re.compile(r"certificate|x509|\btls\b|\bssl\b|authenticat|password|access denied", re.I)


class _Until:
    """When waiting ends, on the monotonic clock; 0.0 where nobody may wait."""

    moment = 0.0
    tell: Callable[[str], None] | None = None


_until = _Until()


def allow(seconds: float, tell: Callable[[str], None] | None = None) -> None:
    """Let this process and its sections wait from now on, at most so many seconds in all.

    tell: gets the lines of the log, for people who look on
    """
    _until.moment = time.monotonic() + seconds
    _until.tell = tell


def variables() -> Mapping[str, str]:
    """Return what the environment of a section says of it."""
    return {_VARIABLE: repr(_until.moment)} if _until.moment else {}


def _moment() -> float:
    try:
        return _until.moment or float(os.environ.get(_VARIABLE, "0"))
    except ValueError:
        return 0.0


def tells_no_connection(text: str) -> bool:
    """Return whether a message of a program says that there is no connection to a server."""
    return bool(_NO_CONNECTION.search(text)) and not _ANSWERED.search(text)


def _since_boot() -> float:
    """Return the seconds since boot, with the time that the machine slept (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def is_unreachable(error: BaseException) -> bool:
    """Return whether an error says that a store or a database may not be there yet."""
    if isinstance(error, UnmountedError):
        return _since_boot() < _BOOTING
    if isinstance(error, SourceError):  # in the words of the client of the database
        return tells_no_connection(f"{error}\n{error.hint}")
    return isinstance(error, UnreachableError)


def waited(name: str, attempt: Callable[[], T]) -> T:
    """Return what an attempt returns. It is repeated while its server cannot be reached.

    name: of the server or section, for the log. Raises what the last attempt raises, and
    StoppedError where the task is stopped.
    """
    began = time.monotonic()
    pause = 0.0
    while True:
        try:
            result = attempt()
        except (BackupError, OSError) as error:
            remaining = _moment() - time.monotonic()
            absent = is_unreachable(error)
            if remaining <= 0 or not absent:
                if pause:
                    _ended(name, began, absent=absent)
                raise
            if not pause:
                reason = in_words(error)[0]
                _say(f"{name}: {reason}; waiting for it, {remaining:.0f} s at most (CONNECT_WAIT)")
            pause = min(_LONGEST, max(_FIRST, pause * 2))
            _sleep(min(pause, remaining))
        else:
            if pause:
                _ended(name, began, absent=False)
            return result


def _ended(name: str, began: float, *, absent: bool) -> None:
    """Tell that a wait is over. absent: the server has not been reached"""
    how = "not reached within" if absent else "reached after"
    _say(f"{name}: {how} {time.monotonic() - began:.0f} s")


def _say(line: str) -> None:
    logger.warning("%s", line)
    if _until.tell is not None:
        _until.tell(line)


def _sleep(seconds: float) -> None:
    """Sleep, unless the task is stopped. Nothing is stalled meanwhile."""
    until = time.monotonic() + seconds
    while (remaining := until - time.monotonic()) > 0:
        task.current().check()
        task.current().touch()
        time.sleep(min(task.TICK, remaining))
