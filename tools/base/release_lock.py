"""The lock of a release: setup.py removes none while a process runs from it.

A run loads parts of the code when it first needs them. Python 3.6 can read and run this file: it
keeps to the grammar and the library of that version.
"""

import os

RECORD = "release.json"  # in each release, and in no clone
# In each release, for root and the group of the backup alone: whoever can open it can hold it.
# Releases of versions before it lock their record, which everybody can read.
LOCK = "release.lock"
_held = []  # type: list[int]  # descriptors that stay open while this process lives


def hold(release: str) -> None:
    """Hold the lock of a release until this process ends; a clone has none.

    Users other than root and that of the backup cannot: they could keep a release for ever.
    Where that fails, as in a Python without its library, the process runs without a lock.
    """
    try:
        import fcntl

        descriptor = _opened(release)
    except (ImportError, OSError):
        return
    _held.append(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # a file system without locks
        return


def is_held(release: str) -> bool:
    """Return whether a process runs from a release. Raises OSError where it cannot be opened."""
    import fcntl

    try:
        descriptor = _opened(release)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)


def _opened(release: str) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(release + "/" + LOCK, flags)
    except FileNotFoundError:
        return os.open(release + "/" + RECORD, flags)
