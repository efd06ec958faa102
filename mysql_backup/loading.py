"""The client that loads SQL into a server, and the longest statement that it may send."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

from mysql_backup import instance
from tools.base.errors import SourceError, StoreError
from tools.date_str_utils import human_size
from tools.flow import process

MOST = 1 << 30  # bytes: no server takes a longer statement
_BESIDE = 4096  # bytes of a statement beside its longest line: INSERT INTO `name` VALUES
_UNIT = 1024  # max_allowed_packet is a multiple of it
_ALWAYS = 1 << 20  # bytes: what a dump program puts into one statement, where rows are short


class Longest:
    """Measures the longest line: a row with more than a megabyte has a statement of its own."""

    def __init__(self) -> None:
        self._longest = 0
        self._line = 0

    def read(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Change nothing."""
        for chunk in chunks:
            first, newline, rest = chunk.partition(b"\n")
            self._line += len(first)
            if newline:
                self._longest = max(self._longest, self._line, *map(len, rest.split(b"\n")))
                self._line = len(rest) - rest.rfind(b"\n") - 1
            yield chunk

    @property
    def needed(self) -> int:
        """Bytes that max_allowed_packet must have at least."""
        return max(self._longest, self._line, _ALWAYS - _BESIDE) + _BESIDE


def limit(server: instance.Instance) -> int:
    """Return the length of the longest statement that a server takes."""
    ((text,),) = server.rows("SELECT @@global.max_allowed_packet")
    return int(text)


@contextlib.contextmanager
def room(target: instance.Instance, needed: int) -> Iterator[None]:
    """Raise max_allowed_packet meanwhile where it is too low.

    Raises StoreError where the server does not allow that: nothing was sent then.
    """
    before = limit(target)
    if needed <= before:
        yield
        return
    wanted = min(MOST, -(-needed // _UNIT) * _UNIT)
    try:
        target.rows(f"SET GLOBAL max_allowed_packet = {wanted}")
        if limit(target) < needed:
            raise SourceError("max_allowed_packet was not raised")
    except SourceError:
        raise StoreError(
            f"max_allowed_packet of the server is {before}, but a row of the dump needs {wanted} "
            f"bytes ({human_size(wanted)})",
            f"Run as an administrator of the server: SET GLOBAL max_allowed_packet = {wanted};",
        ) from None
    try:
        yield
    finally:
        target.rows(f"SET GLOBAL max_allowed_packet = {before}")


def load(
    target: instance.Instance,
    chunks: Iterator[bytes],
    name: str,
    *more: str,
    notice: Callable[[str], None] | None = None,
    take: Callable[[bytes], None] = lambda _chunk: None,
) -> None:
    """Give statements to a client of a database; take: what it prints. Raises StoreError."""
    words = ["--default-character-set=utf8mb4", "--binary-mode", "--local-infile=0"]
    words += ["--skip-column-names", "--batch", f"--database={name}", *instance.ROOM, *more]
    env = instance.environment()
    output = process.output(
        target.command(*words), given=chunks, env=env, failure=StoreError, notice=notice
    )
    for chunk in output:
        take(chunk)
