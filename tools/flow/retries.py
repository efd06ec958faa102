"""Calling again what failed: five attempts, each wait longer than the last."""

from __future__ import annotations

import contextlib
import contextvars
import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

from tools.base.errors import TransientError, UnreachableError, in_words
from tools.base.log import logger

ATTEMPTS = 5
_GROWTH = 3.0  # each wait is about so many times the last one
# Errors that another attempt cannot fix: no space, no permission, no such name.
_PERMANENT_ERRORS = {
    errno.ENOENT,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.EINVAL,
}
T = TypeVar("T")
_attempts: contextvars.ContextVar[int] = contextvars.ContextVar("attempts", default=ATTEMPTS)


@contextlib.contextmanager
def once() -> Iterator[None]:
    """Let each call of the block, and of the threads that it starts, be made once.

    For a test, which tells at once what does not answer.
    """
    token = _attempts.set(1)
    try:
        yield
    finally:
        _attempts.reset(token)


def is_transient(error: BaseException) -> bool:
    """Return whether the same call may succeed a moment later."""
    if isinstance(error, OSError):
        return error.errno not in _PERMANENT_ERRORS
    return isinstance(error, TransientError)


def _reason(error: Exception) -> str:
    return in_words(error)[0] if isinstance(error, OSError) else str(error)


class Contact:
    """Whether a server has answered before: one that never did is not waited for (reachability).

    The sections of a run need not ask: the run itself has reached the stores.
    """

    def __init__(self, *, is_made: bool = False) -> None:
        self.is_made = is_made or bool(os.environ.get("NC_BACKUP_RUN_ID"))


@dataclass(frozen=True)
class Retries:
    """How often and after which waits a call is repeated.

    first_wait: seconds before the second attempt
    say:        gets a line for each attempt that failed
    wait:       waits so many seconds, or until the event is set
    contact:    whether the server has answered; until then a lack of connection is raised at once
    """

    first_wait: float = 5.0
    say: Callable[[str], None] = lambda line: logger.warning("%s", line)
    wait: Callable[[threading.Event, float], object] = threading.Event.wait
    contact: Contact = field(default_factory=Contact, compare=False)

    def call(
        self,
        name: str,
        attempt: Callable[[], T],
        abandoned: threading.Event | None = None,
        is_worth: Callable[[BaseException], bool] = is_transient,
    ) -> T:
        """Return what `attempt` returns. Raises what its last attempt raised.

        name: of the object, for the log. abandoned: once it is set, nothing is repeated.
        is_worth: whether an error is worth another attempt.
        """
        for number in range(1, _attempts.get()):
            try:
                result = attempt()
            except Exception as error:
                never = abandoned or threading.Event()
                if not is_worth(error) or never.is_set() or self._is_absent(error):
                    raise
                seconds = self._seconds(number)
                self.say(
                    f"{name}: attempt {number} of {ATTEMPTS} failed: {_reason(error)}; "
                    f"retrying in {seconds:.1f} s"
                )
                self.wait(never, seconds)
                if never.is_set():
                    raise
            else:
                self.contact.is_made = True
                return result
        return attempt()

    def _is_absent(self, error: Exception) -> bool:
        """Return whether a server has never answered, and there is no connection to it."""
        return isinstance(error, UnreachableError) and not self.contact.is_made

    def _seconds(self, number: int) -> float:
        """Return how long to wait after this attempt; programs that fail together spread out."""
        jitter = random.uniform(0.75, 1.25)  # noqa: S311  (no secret)
        return self.first_wait * _GROWTH ** (number - 1) * jitter


@runtime_checkable
class SelfRetrying(Protocol):
    """A store that repeats its puts and publications itself, in smaller steps."""

    retries: Retries
