"""What `backup.py -t` finds about the account of a store and its clock; nothing is left there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Protocol

from tools.base import fixes
from tools.base.errors import BackupError, ForbiddenError, StoreError, in_words
from tools.base.finding import Finding, bad, warning
from tools.date_str_utils import human_time
from tools.flow.block_backend import PendingUpload

_FAR = 180.0  # seconds between two clocks
_NAME = "nc-backup-py.store.test"  # of an object that is never there, in the folder of a host


class Removing(Protocol):
    """What removes the objects of a bucket."""

    def allowed(self, __name: str) -> bool:
        """See Probed."""


class Bucket(Protocol):
    """What the objects of a bucket are."""

    @property
    def removal(self) -> Removing:
        """Return what removes objects of the bucket."""

    def uploads(self, __folder: str) -> Iterable[PendingUpload]:
        """See BlockBackend."""

    def try_upload(self, __name: str) -> None:
        """Begin an upload, send a part of it, and abort it: no object is ever visible.

        Raises ForbiddenError where it cannot be aborted, StoreError, OSError.
        """


def name_in(host: str) -> str:
    """Return the name of the object that tests ask for: it is never visible."""
    return f"{host}/{_NAME}"


def of_bucket(bucket: Bucket, host: str) -> Iterator[Finding]:
    """Yield whether this account may write and remove objects of a host."""
    yield from _writing(bucket, host)
    try:
        yield removing(bucket, allowed=bucket.removal.allowed(name_in(host)))
    except (BackupError, OSError) as error:
        yield warning(f"{bucket}: whether objects can be removed: {in_words(error)[0]}")


def _writing(bucket: Bucket, host: str) -> Iterator[Finding]:
    """Yield whether this account may write; an upload that stays is never joined by another."""
    name = name_in(host)
    if _is_begun(bucket, host, name):
        yield _unaborted(bucket, f"upload {name} of an earlier test is still there")
        return
    try:
        bucket.try_upload(name)
    except ForbiddenError as error:
        yield _unaborted(bucket, str(error))
    except (BackupError, OSError) as error:
        problem, hint = in_words(error)
        yield bad(problem, hint, getattr(error, "fix", ""))
    else:
        yield Finding(f"{bucket}: objects can be written")


def _is_begun(bucket: Bucket, host: str, name: str) -> bool:
    with contextlib.suppress(StoreError, OSError):
        return any(one.upload.name == name for one in bucket.uploads(host))
    return False


def _unaborted(bucket: Bucket, problem: str) -> Finding:
    return warning(
        f"{bucket}: an upload cannot be aborted: {problem}",
        "Let the account abort uploads (AbortMultipartUpload), or what interrupted runs leave "
        "takes space until a lifecycle rule of the bucket aborts it.",
    )


def removing(store: object, *, allowed: bool) -> Finding:
    """Return what it means whether an account may remove objects."""
    if allowed:
        who = "by clean-up, and by an intruder on this machine"
        return Finding(f"{store}: objects can be removed: {who}")
    return Finding(
        f"{store}: append-only: this account cannot remove objects. No intruder on this machine "
        "can, and clean-up has to run elsewhere with another account"
    )


def clock(store: object, ahead: float | None) -> Iterator[Finding]:
    """Yield how far the clocks of a store and of this machine are apart.

    ahead: seconds of the clock of the store; None where it has not told
    """
    if ahead is None:
        return
    if abs(ahead) < _FAR:
        yield Finding(f"{store}: its clock and that of this machine agree")
        return
    direction = "ahead of" if ahead > 0 else "behind"
    yield bad(
        f"{store}: its clock is {human_time(abs(ahead))} {direction} that of this machine: the "
        "IDs of runs are times, and clean-up and restore go by them",
        "Find out which of the two is wrong (date -u), and set that one.",
        fixes.synchronise_clock(),
    )
