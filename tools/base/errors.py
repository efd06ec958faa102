"""The errors that reach the user: one line, a hint, and the exit code of their class."""

from __future__ import annotations

import errno
import os
import signal

from tools.base import foreign


class BackupError(Exception):
    """An error that the user can fix: printed as one line and a hint, without a traceback.

    fix: the command that does what the hint says, safe to run as it stands; "" where there is none
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "", fix: str = "") -> None:
        super().__init__(foreign.shortened(message))
        self.hint = foreign.shortened(hint)
        self.fix = fix


class ConfigError(BackupError):
    """The config or the arguments are invalid; nothing was started."""

    exit_code = 2
    others: tuple[ConfigError, ...] = ()  # further errors of the same config


class LockedError(BackupError):
    """Another run holds the lock."""

    exit_code = 11


class SourceError(BackupError):
    """The source could not be read completely."""


class RetryError(SourceError):
    """The source changed during the dump: a new dump may succeed."""


class StageError(BackupError):
    """A stage (compression, encryption) failed, or its input is corrupt."""


class WrongKeyError(StageError):
    """The key does not decrypt the data."""


class DamagedError(StageError):
    """The data is corrupt."""


class TruncatedError(StageError):
    """The data is truncated."""


class StoreError(BackupError):
    """A store rejected or lost data."""


class ForbiddenError(StoreError):
    """A store does not let this account remove an object.

    Its rights, a lock or a retention, an append-only server, a read-only file system. The store
    was reached, and another attempt would not help.
    """


class UnsupportedError(ForbiddenError):
    """A store does not have this operation at all."""


class TransientError(StoreError):
    """A store failed temporarily: the call is worth a retry."""


class UnmountedError(StoreError):
    """A store is not where its disk would be mounted: after a boot that may come late."""


class UnreachableError(TransientError):
    """There is no connection to a server: it, or the network, may not be there yet."""


class ManifestError(BackupError):
    """A manifest that is not one, is incomplete or altered, or is of a later version."""


class TakenError(StoreError):
    """A name exists in a store, with other content."""


class Cancelled(BaseException):
    """A signal asked the program to end. Not an Exception, so that no handler swallows it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"cancelled by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number


_ROOM = "Free space there, or use a larger disk."
_HINTS = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EACCES: "Check owner and mode of it and of the folders above it (namei -l).",
    errno.EPERM: "Check its owner, the sticky bit of its folder, and its attributes (lsattr).",
    errno.EROFS: "Check the mount options of this file system and the kernel log.",
}
_LOOP = "Symlink loop from "


def in_words(error: BackupError | OSError) -> tuple[str, str]:
    """Return an error as one line and its hint: of an OSError the path and the system's words."""
    if isinstance(error, BackupError) or not error.strerror:
        return str(error), getattr(error, "hint", "")
    named = (error.filename, error.filename2)  # a number where a descriptor was read
    paths = [os.fsdecode(name) for name in named if isinstance(name, str | bytes | os.PathLike)]
    line = ": ".join(filter(None, (" -> ".join(map(str, paths)), error.strerror.lower())))
    if error.errno == errno.ETIMEDOUT and paths:
        return line, "Check the mount of this path: its file system does not answer."
    return line, _HINTS.get(error.errno or 0, "")


def of_system(error: BaseException) -> BackupError | None:
    """Return what is no bug but a limit of the system, in words; None for anything else."""
    if isinstance(error, MemoryError) or "not enough memory" in str(error):  # as of zstandard
        return BackupError(
            "out of memory",
            "Raise the memory limit (ulimit -v, systemd MemoryMax), or set PARALLEL to 1.",
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return BackupError(
            "no more threads: the limit of processes and threads is reached",
            "Raise the limit (ulimit -u, systemd TasksMax, pids.max of the container).",
        )
    if isinstance(error, RuntimeError) and str(error).startswith(_LOOP):  # Path.resolve
        return BackupError(f"{str(error)[len(_LOOP) :]}: {os.strerror(errno.ELOOP).lower()}")
    return None
