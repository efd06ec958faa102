"""The one power of a run: reading every file (CAP_DAC_READ_SEARCH, capabilities(7)).

A service gets it as an ambient capability (`AmbientCapabilities=`), which every program that it
starts would have too. `lower` takes it out of that set at the start of a run; `raised` puts it
back while one program is started, and only in the thread that starts it. Python 3.6 can read
this file, because the launcher may need it.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

TAR = Path("/usr/local/libexec/nc-backup-py/tar")  # the copy of tar that has it as a file
DAC_READ_SEARCH = 2  # its number in linux/capability.h
MASK = 1 << DAC_READ_SEARCH
_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3, capget(2)
_PR_CAP_AMBIENT = 47  # prctl(2), and its operations
_IS_SET, _RAISE, _LOWER = 1, 2, 3


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    """32 capabilities of this thread; version 3 has two of these."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_lowered = False  # whether this process was started with it


def lower() -> None:
    """Take the capability out of what this process can use and what its programs inherit.

    It stays permitted, so that `raised` can put it back. Call this before the first thread is
    started. Root is left as it is: it has every capability.
    """
    global _lowered  # noqa: PLW0603  (a fact of the process, as its user is)
    if os.geteuid() != 0 and _ambient(_IS_SET) == 1:
        _ambient(_LOWER)
        _set(on=False)
        _lowered = True


def held() -> bool:
    """Return whether this process was started with the capability, and so can raise it."""
    return _lowered


@contextlib.contextmanager
def raised() -> "Iterator[None]":
    """Let the programs that this thread starts in the block have the capability, if it is held.

    Capabilities belong to threads: programs that other threads start meanwhile do not get it.
    """
    if not held():
        yield
        return
    _set(on=True)
    try:
        _ambient(_RAISE)
        yield
    finally:
        _ambient(_LOWER)
        _set(on=False)


@contextlib.contextmanager
def withheld() -> "Iterator[None]":
    """Keep it from the programs that start in the block, before `lower`; it is back afterwards."""
    inherited = os.geteuid() != 0 and _ambient(_IS_SET) == 1
    if inherited:
        _ambient(_LOWER)
    try:
        yield
    finally:
        if inherited:
            _ambient(_RAISE)


def _ambient(operation: int) -> int:
    """Call prctl(2) for the capability; return -1 where the kernel has no ambient set."""
    return int(_libc.prctl(_PR_CAP_AMBIENT, operation, DAC_READ_SEARCH, 0, 0))


def _set(*, on: bool) -> None:
    """Make the permitted capability inheritable and effective, or neither."""
    sets = (_Sets * 2)()
    _call("capget", sets)
    for name in ("effective", "inheritable"):
        value = getattr(sets[0], name)
        setattr(sets[0], name, value | MASK if on else value & ~MASK)
    _call("capset", sets)


def _call(name: str, sets: "ctypes.Array[_Sets]") -> None:
    """Call capget(2) or capset(2) for this thread. Raises OSError."""
    if getattr(_libc, name)(ctypes.byref(_Header(_VERSION, 0)), sets) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
