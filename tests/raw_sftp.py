"""An sftp client that sends raw requests to a server program on this machine."""

from __future__ import annotations

import subprocess
from types import TracebackType

from storage.ssh_protocol import Kind, u32


class RawSftp:
    """One connection. call: send a request, return the kind of the answer and its fields."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._count = 0
        self._send(bytes([Kind.INIT]) + u32(3))
        self.hello = self._received()

    def __enter__(self) -> RawSftp:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        with self._process as process:
            assert process.stdin
            process.stdin.close()

    def _send(self, body: bytes) -> None:
        assert self._process.stdin
        self._process.stdin.write(u32(len(body)) + body)
        self._process.stdin.flush()

    def _received(self) -> bytes:
        assert self._process.stdout
        size = int.from_bytes(self._process.stdout.read(4), "big")
        return self._process.stdout.read(size)

    def call(self, kind: int, *fields: bytes) -> tuple[int, bytes]:
        """Return the kind of the answer, and its fields."""
        self._count += 1
        self._send(bytes([kind]) + u32(self._count) + b"".join(fields))
        answer = self._received()
        assert int.from_bytes(answer[1:5], "big") == self._count
        return answer[0], answer[5:]

    def code(self, kind: int, *fields: bytes) -> int:
        """Return the code of an answer STATUS; -1 for any other answer."""
        answer, content = self.call(kind, *fields)
        return int.from_bytes(content[:4], "big") if answer == Kind.STATUS else -1
