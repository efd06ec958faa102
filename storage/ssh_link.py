"""A running ssh with a pipe at each end: bytes to and from one program of the server."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import select
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import TypeVar

from storage.ssh_command import Server
from tools.base import foreign, signals
from tools.base.errors import StoreError, TransientError
from tools.flow import pipes, process, task

_ENDING = 5.0  # seconds that ssh has to end once the server has closed the connection
_GRACE = 1.0  # seconds between SIGTERM and SIGKILL
T = TypeVar("T")


@contextlib.contextmanager
def held(lock: threading.Lock) -> Iterator[None]:
    """Hold a lock in the block. Raises StoppedError where the task is stopped meanwhile."""
    while not lock.acquire(timeout=task.TICK):
        task.current().check()
        signals.raise_lost()
    try:
        yield
    finally:
        lock.release()


def result(future: concurrent.futures.Future[T], until: float | None = None) -> T:
    """Wait for a future. Raises what it holds, StoppedError, or TimeoutError.

    until: how long at most, on the monotonic clock
    """
    while True:
        task.current().check()
        try:
            return future.result(task.TICK)
        except concurrent.futures.TimeoutError:
            if future.done():
                raise
        signals.raise_lost()
        if until is not None and time.monotonic() > until:
            raise TimeoutError


class Link:
    """One ssh. It belongs to no item: other items go on where one is stopped."""

    def __init__(self, server: Server, arguments: list[str], *, verbose: bool = False) -> None:
        """Start ssh. arguments: its options, the host, and a command"""
        self.server = server
        self.connected = False  # whether the server has answered; set by the user of the link
        self.fingerprint = ""  # of the server's key, where `verbose`
        self._stderr = process.StderrTail(self._notice)
        self._sending = threading.Lock()
        with signals.deferred(), task.entered(task.Task()):
            self._group = process.Group(
                [*server.argv(verbose=verbose), *arguments], stdin=subprocess.PIPE, name="ssh"
            )
            popen = self._group.popen
            assert popen.stdin and popen.stdout and popen.stderr  # noqa: S101, PT018
            self._group.drain(popen.stderr, self._stderr.take)
        self._out, self._in = popen.stdin, popen.stdout
        for pipe in (self._out, self._in):
            pipes.widen(pipe)
        os.set_blocking(self._out.fileno(), False)

    def _notice(self, line: str) -> None:
        _, marked, rest = line.partition("Server host key: ")
        if marked:
            self.fingerprint = rest.strip()

    def send(self, *pieces: bytes | memoryview) -> None:
        """Write all pieces, in one go. Raises StoreError where the connection has ended."""
        with held(self._sending):
            try:
                self._write([memoryview(piece) for piece in pieces])
            except (OSError, ValueError):
                raise self.failure() from None
            except BaseException:
                self.close()  # half a message: nothing more can follow
                raise

    def _write(self, remaining: list[memoryview]) -> None:
        poll = select.poll()
        descriptor = self._out.fileno()
        poll.register(descriptor, select.POLLOUT)
        while remaining:
            try:
                written = os.writev(descriptor, remaining)
            except BlockingIOError:
                if not poll.poll(task.TICK * 1000):
                    task.current().check()
                    signals.raise_lost()
                continue
            task.current().touch()
            while remaining and written >= len(remaining[0]):
                written -= len(remaining.pop(0))
            if remaining:
                remaining[0] = remaining[0][written:]

    def read(self, size: int) -> bytes:
        """Return exactly so many bytes; fewer at the end. For one thread alone."""
        try:
            return self._in.read(size)
        except (OSError, ValueError):  # closed meanwhile
            return b""

    def readable(self, seconds: float) -> bool:
        """Return whether there are bytes, or the end, within some seconds."""
        return bool(select.select([self._in], [], [], seconds)[0])

    def read_some(self) -> bytes:
        """Return what there is, at least one byte; nothing at the end."""
        return os.read(self._in.fileno(), 1 << 16)

    def failure(self, output: str = "") -> StoreError:
        """End ssh, and return why the connection has ended. output: what the server wrote."""
        try:
            code = self._group.wait(_ENDING)
        except subprocess.TimeoutExpired:
            code = None
        self._group.finish()
        self.close()
        ending = "does not end" if code is None else process.ending_text(code)
        lines = [*foreign.lines(output), *foreign.lines(self._stderr.text())]
        return self.server.error(lines, ending, connected=self.connected)

    def close(self) -> None:
        """End ssh."""
        self._group.end(_GRACE)


def late(server: Server) -> TransientError:
    """Return the error of a server that does not answer in time."""
    return TransientError(f"{server}: no answer from the server", "Check the load of the server.")
