"""The errors that reach the user: one line, a hint, and the exit code of their class."""

from __future__ import annotations


class BackupError(Exception):
    """Anything the user can mend: printed as one line and a hint, without a traceback."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(BackupError):
    """The configuration or the arguments say something impossible; nothing was started."""

    exit_code = 2
    others: tuple[ConfigError, ...] = ()  # further errors of the same config


class LockedError(BackupError):
    """Another run holds the lock."""

    exit_code = 11


class SourceError(BackupError):
    """What was to be backed up could not be read whole."""


class RetryError(SourceError):
    """The source changed under the dump: a whole new one may be good."""


class StageError(BackupError):
    """A stage (compression, encryption) could not do its work, or its input is damaged."""


class WrongKeyError(StageError):
    """The key does not open what was encrypted."""


class DamagedError(StageError):
    """The data is not what was written."""


class TruncatedError(StageError):
    """The end of the data is missing."""


class StoreError(BackupError):
    """A store did not take, or does not hold, what it was given."""


class TransientError(StoreError):
    """A store failed in a way that may be over a moment later: the call is worth another try."""


class ManifestError(BackupError):
    """A manifest that is not one, is incomplete or altered, or is of a later version."""


class TakenError(StoreError):
    """A name is taken in a store, by another content."""


class Cancelled(BaseException):
    """A signal asked the program to end; not an Exception, so that nobody swallows it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"cancelled by signal {signal_number}")
        self.signal_number = signal_number
