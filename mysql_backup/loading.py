"""Run the client that loads SQL into a server, and provide for its longest statement."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator

from mysql_backup import mysql_server
from tools.base.errors import SourceError, StoreError
from tools.date_str_utils import human_size
from tools.flow import process

MOST = 1 << 30  # bytes: the longest statement that any server accepts
_BESIDE = 4096  # bytes of a statement besides its longest line: INSERT INTO `name` VALUES
_UNIT = 1024  # max_allowed_packet is a multiple of it
_ALWAYS = 1 << 20  # bytes: statements of a dump program with short rows


class LongestLine:
    """Measures the longest line: a row above one megabyte has a separate statement."""

    def __init__(self) -> None:
        self._longest = 0
        self._line = 0

    def read(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass the chunks on unchanged."""
        for chunk in chunks:
            first, newline, rest = chunk.partition(b"\n")
            self._line += len(first)
            if newline:
                self._longest = max(self._longest, self._line, *map(len, rest.split(b"\n")))
                self._line = len(rest) - rest.rfind(b"\n") - 1
            yield chunk

    @property
    def needed(self) -> int:
        """Return the minimum of max_allowed_packet in bytes."""
        return max(self._longest, self._line, _ALWAYS - _BESIDE) + _BESIDE


def packet_limit(server: mysql_server.MySQLConnection) -> int:
    """Return max_allowed_packet of a server in bytes."""
    ((text,),) = server.query("SELECT @@global.max_allowed_packet")
    return int(text)


@contextlib.contextmanager
def raised_packet_limit(target: mysql_server.MySQLConnection, needed: int) -> Iterator[None]:
    """Raise max_allowed_packet during the block if it is too low.

    Raises StoreError if the server does not allow that; nothing was sent then.
    """
    before = packet_limit(target)
    if needed <= before:
        yield
        return
    raised = min(MOST, -(-needed // _UNIT) * _UNIT)
    try:
        target.query(f"SET GLOBAL max_allowed_packet = {raised}")
        if packet_limit(target) < needed:
            raise SourceError("max_allowed_packet was not raised")
    except SourceError:
        raise StoreError(
            f"max_allowed_packet of the server is {before}, but a row of the dump needs {raised} "
            f"bytes ({human_size(raised)})",
            f"Run as an administrator of the server: SET GLOBAL max_allowed_packet = {raised};",
        ) from None
    try:
        yield
    finally:
        target.query(f"SET GLOBAL max_allowed_packet = {before}")


def random_delimiter() -> bytes:
    """Return a delimiter for one session of the client, which no author of a routine knows.

    The client takes 15 characters of it.
    """
    return f"$nc{secrets.token_hex(6)}".encode()


def load(
    target: mysql_server.MySQLConnection,
    chunks: Iterator[bytes],
    name: str,
    *extra_arguments: str,
    notice: Callable[[str], None] | None = None,
    take: Callable[[bytes], None] = lambda _chunk: None,
) -> None:
    """Run statements in a database; take: receives the output of the client. Raises StoreError."""
    arguments = ["--default-character-set=utf8mb4", "--binary-mode", "--local-infile=0"]
    arguments.append("--comments")  # sent as they are: without them words would be joined
    arguments += [
        "--skip-column-names",
        "--batch",
        f"--database={name}",
        *mysql_server.MAX_PACKET_OPTION,
        *extra_arguments,
    ]
    env = mysql_server.environment()
    output = process.output(
        target.command(*arguments), stdin_data=chunks, env=env, failure=StoreError, notice=notice
    )
    for chunk in output:
        take(chunk)
