"""Trying again: a class round any store."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterable

from tools.flow import store

TRIES = 5
_GROWTH = 3.0  # each wait is about so many times the last one
# What no further try can mend: no room, no right, no name, no source.
_FINAL = {
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


class Retry:
    """Puts a part up to five times; each try reads the chunks anew from the part itself."""

    def __init__(
        self,
        inner: store.Store,
        say: Callable[[str], None],
        *,
        first_wait: float = 5.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """say: gets a line for each try that failed; first_wait: seconds."""
        self._inner = inner
        self._say = say
        self._first_wait = first_wait
        self._sleep = sleep

    def put(self, name: str, chunks: Callable[[], Iterable[bytes]]) -> store.Stored:
        """Like Store.put, with a function that gives the chunks once more for each try."""
        for number in range(1, TRIES):
            try:
                return self._inner.put(name, chunks())
            except OSError as error:
                if error.errno in _FINAL:
                    raise
                wait = self._first_wait * _GROWTH ** (number - 1) * random.uniform(0.75, 1.25)  # noqa: S311  (no secret)
                self._say(
                    f"warning: try {number} of {TRIES} failed for {name}: {error}; "
                    f"next in {wait:.1f} s"
                )
                self._sleep(wait)
        return self._inner.put(name, chunks())
