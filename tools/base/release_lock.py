"""The locks of a release: setup.py removes none while a process runs from it.

A run loads parts of the code when it first needs them. Each process locks both files as far as it
may open them. Python 3.6 can read and run this file: it keeps to the grammar and the library of
that version.
"""

import os

# In each release, and in no clone. Everybody can read it, so everybody can lock it. setup.py of
# earlier versions looks at this one alone.
RECORD = "release.json"
LOCK = "release.lock"  # in each release, for root and the group of the backup alone
_held = []  # type: list[int]  # descriptors that stay open while this process lives


def hold(release: str) -> None:
    """Hold the locks of a release until this process ends; a clone has none.

    Where that fails, as in a Python without its library, the process runs without a lock.
    """
    try:
        import fcntl
    except ImportError:
        return
    for name in (RECORD, LOCK):
        try:
            _held.append(_opened(release, name))
            fcntl.flock(_held[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # not for this user, or a file system without locks
            continue


def is_held(release: str) -> bool:
    """Return whether a process of root or of the backup runs from a release.

    In a release of a version without LOCK: any process. Raises OSError where it cannot be opened.
    """
    locked = os.path.lexists(release + "/" + LOCK)
    return _is_locked(release, LOCK if locked else RECORD)


def is_held_by_anybody(release: str) -> bool:
    """Return whether any process runs from a release, or pretends to. Raises OSError."""
    return _is_locked(release, RECORD)


def _is_locked(release: str, name: str) -> bool:
    import fcntl

    try:
        descriptor = _opened(release, name)
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


def _opened(release: str, name: str) -> int:
    return os.open(release + "/" + name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
