"""Why an archive is not unpacked: the error, and how a name of it is shown."""

from __future__ import annotations

from tools.base import foreign
from tools.base.errors import BackupError

HINT = (
    "The archive was altered or was not made by nc-backup-py. Nothing was restored from it. "
    "Verify the run in another store (--store)."
)
CORRUPT = "Use another copy of the run (--store), or another run."


class UnsafeArchiveError(BackupError):
    """A member that would be written elsewhere, or that two programs would read differently."""


def printable_name(name: bytes) -> str:
    """Return a name on one line: what cannot be printed is escaped."""
    return foreign.printable(foreign.decoded(name))


def unsafe(name: bytes, problem: str) -> UnsafeArchiveError:
    """Return the error for an entry that must not be unpacked."""
    return UnsafeArchiveError(f"{printable_name(name)}: {problem}", HINT)
