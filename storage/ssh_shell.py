"""A shell on the server that takes checksums there: faster than reading the bytes back.

It is asked for nothing that must be true: an answer that is not the expected checksum only means
that the file is read back by sftp. So a shell that sees other folders than sftp does no harm.
"""

from __future__ import annotations

import itertools
import re
import secrets
import threading
import time

from storage import ssh_link
from storage.ssh_command import Server
from storage.ssh_link import Link
from tools.base import foreign
from tools.base.errors import StoreError
from tools.flow import task

_START = 20.0  # seconds beside CONNECT_TIMEOUT; a shell that takes longer is not used
_NOISE = 1 << 16  # bytes before the first answer that are skipped
_SHA256 = re.compile("[0-9a-f]{64}")
# Between single quotes, one line: sh, bash, fish, tcsh and rbash read it alike, as it has no
# single quote, backslash, exclamation mark or line break. Paths come on standard input, each
# byte but the plainest in octal (printf %b), so that no shell interprets them. openssl first:
# it takes a sixth of the time of sha256sum where the processor has instructions for it.
_SCRIPT = (
    "LC_ALL=C; export LC_ALL; "
    "if echo | openssl dgst -sha256 -r >/dev/null 2>&1; then h() {{ openssl dgst -sha256 -r; }}; "
    "elif command -v sha256sum >/dev/null 2>&1; then h() {{ sha256sum; }}; "
    "elif command -v sha256 >/dev/null 2>&1; then h() {{ sha256; }}; "
    "elif command -v shasum >/dev/null 2>&1; then h() {{ shasum -a 256; }}; "
    "else exit 3; fi; "
    'echo "{word} 0 $(date +%s)"; '
    'while read -r n o p; do f=$(printf "%b." "$p"); f=${{f%.}}; r=-; '
    "case $o in "
    'sum) r=$( (h <"$f") 2>/dev/null ) || r=-;; '
    'sync) sync "$f" 2>/dev/null && r=ok;; '
    'free) r=$(df -kP "$f" 2>/dev/null | tail -n 1 | (read -r d t u a x; echo "$a"));; '
    'esac; echo "{word} $n ${{r%% *}}"; done'
)
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-")


class Shell:
    """One shell, asked by several threads in turn."""

    def __init__(self, server: Server) -> None:
        """Log in. Raises StoreError where the account has no shell that we can use."""
        word = secrets.token_hex(8)
        self._word = word.encode("ascii")
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._line = f"exec sh -c '{_SCRIPT.format(word=word)}'"
        self._link = Link(server, ["--", server.host, self._line])
        began = time.time()
        try:
            # a forced sftp ends at once at these bytes: as a length they are far too large
            self._link.send(b"hello sftp /\n")
            clock = self._answer(0, time.monotonic() + server.connect_timeout + _START)
        except BaseException:
            self._link.close()
            raise
        self._link.connected = True
        now = foreign.number(clock)
        self.clock = None if now is None else now - (began + time.time()) / 2

    def sha256(self, path: bytes) -> str:
        """Return the SHA-256 of a file as the server reads it; "" where it cannot."""
        checksum = self._ask(b"sum", path)
        return checksum if _SHA256.fullmatch(checksum) else ""

    def sync(self, path: bytes) -> bool:
        """Write what the server holds of a file or folder to its disk; return whether it did."""
        return self._ask(b"sync", path) == "ok"

    def free(self, path: bytes) -> int | None:
        """Return the bytes that are left at a path, by df."""
        blocks = foreign.number(self._ask(b"free", path))
        return None if blocks is None else blocks << 10

    def close(self) -> None:
        """End the shell."""
        self._link.close()

    def _ask(self, order: bytes, path: bytes) -> str:
        """Return the answer to an order. Raises StoreError where the connection has ended."""
        with ssh_link.held(self._lock):
            number = next(self._numbers)
            self._link.send(b"%d %s %s\n" % (number, order, _escaped(path)))
            return self._answer(number)

    def _answer(self, number: int, until: float | None = None) -> str:
        """Return the answer of this number; those of stopped threads are skipped."""
        begin = b"%s %d " % (self._word, number)
        while True:
            line = self._next_line(until)
            _, mark, answer = line.partition(begin)
            if mark:
                return foreign.decoded(answer).strip()

    def _next_line(self, until: float | None) -> bytes:
        while b"\n" not in self._buffer:
            if self._link.readable(task.TICK):
                piece = self._link.read_some()
                task.current().touch()
                if not piece:
                    raise self._link.failure()
                self._buffer = (self._buffer + piece)[-_NOISE:]
            task.current().check()
            if until is not None and time.monotonic() > until:
                raise StoreError("no answer from the shell")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def _escaped(path: bytes) -> bytes:
    """Return a path for printf %b: every byte that any shell could interpret in octal."""
    return b"".join(bytes([one]) if one in _PLAIN else b"\\0%03o" % one for one in path)
