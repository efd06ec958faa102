"""Errors that nobody foresaw: each fails one section or item, and the others continue."""

from __future__ import annotations

import traceback

from tools.base.errors import BackupError, of_system
from tools.base.log import logger

HINT = "This is a bug of nc-backup-py: report it with the traceback in the log."


def reportable(error: Exception) -> BackupError | OSError:
    """Return an error as it can be kept and reported, without its frames and what they hold.

    Anything but BackupError, OSError and a limit of the system is a bug: the log gets its
    traceback.
    """
    if isinstance(error, BackupError | OSError):
        error.__cause__ = error.__context__ = error.__traceback__ = None
        return error
    if (known_limit := of_system(error)) is not None:
        return known_limit
    trace = traceback.format_exception(type(error), error, error.__traceback__)
    logger.critical("%s", "".join(trace))
    return BackupError(f"internal error: {type(error).__name__}: {error}", HINT)
