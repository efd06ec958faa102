"""The pipes of a program: no wait for them outlasts the program or its task."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import time
from collections.abc import Callable, Iterator
from typing import IO, Protocol

from tools.flow import task
from tools.flow.stream import CHUNK

LINGER = 1.0  # seconds that a pipe may stay open and silent after its program has ended
_GATHERING = 0.1  # seconds after which bytes are handed on, however few they are
_ENOUGH = 1 << 18  # bytes that are handed on at once: joining them costs a copy


class Living(Protocol):
    """A program that may have ended."""

    @property
    def has_ended(self) -> bool:
        """Return whether its first process has ended."""


def widen(pipe: IO[bytes]) -> None:
    """Give a pipe the capacity of a chunk, so that neither side waits for every page."""
    with contextlib.suppress(OSError):  # not allowed, no memory, unknown here: it stays small
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, CHUNK)


class _Wait:
    """Waits for one end of a pipe, as long as there is somebody at the other one."""

    def __init__(self, program: Living, descriptor: int, event: int) -> None:
        self._program = program
        self._task = task.current()
        self._poll = select.poll()
        self._poll.register(descriptor, event)
        self._ended: float | None = None

    def ready(self, seconds: float) -> bool:
        """Return whether the pipe is ready within some seconds. Raises StoppedError."""
        self._task.check()
        if not self._poll.poll(seconds * 1000):
            return False
        self._task.touch()
        self._ended = None
        return True

    @property
    def abandoned(self) -> bool:
        """Return whether the program ended a while ago, and another one holds the silent pipe."""
        if self._ended is None and self._program.has_ended:
            self._ended = time.monotonic()
        return self._ended is not None and time.monotonic() - self._ended >= LINGER


class Reader:
    """The chunks that a program writes.

    held: whether it ended while another program kept its output open
    """

    def __init__(
        self, program: Living, pipe: IO[bytes], idle: Callable[[float], None] | None = None
    ) -> None:
        """Read a pipe of a program.

        idle: gets the seconds of silence every now and then; what it raises is raised
        """
        self.held = False
        self._pipe = pipe.fileno()
        self._wait = _Wait(program, self._pipe, select.POLLIN)
        self._idle = idle or (lambda _seconds: None)

    def __iter__(self) -> Iterator[bytes]:
        while self._first():
            pieces, ended = self._gathered()
            if pieces:
                yield b"".join(pieces) if len(pieces) > 1 else pieces[0]
            if ended:
                return

    def _first(self) -> bool:
        """Wait for bytes or the end of the output; False if nobody but a stranger could write."""
        began = time.monotonic()
        while not self._wait.ready(task.TICK):
            if self._wait.abandoned:
                self.held = True
                return False
            self._idle(time.monotonic() - began)
        return True

    def _gathered(self) -> tuple[list[bytes], bool]:
        """Return the pieces of a chunk, and whether the output has ended."""
        pieces: list[bytes] = []
        size = 0
        until = time.monotonic() + _GATHERING
        while size < _ENOUGH:
            piece = os.read(self._pipe, CHUNK - size)
            if not piece:
                return pieces, True
            pieces.append(piece)
            size += len(piece)
            if size < _ENOUGH and not self._wait.ready(max(0.0, until - time.monotonic())):
                break
        return pieces, False


class Writer:
    """Writes to a program, as long as it lives and reads."""

    def __init__(self, program: Living, pipe: IO[bytes]) -> None:
        self._pipe = pipe.fileno()
        os.set_blocking(self._pipe, False)
        self._wait = _Wait(program, self._pipe, select.POLLOUT)

    def write(self, chunk: bytes) -> None:
        """Write a chunk. Raises BrokenPipeError if nobody reads it, and StoppedError."""
        unwritten = memoryview(chunk)
        while unwritten:
            if self._wait.ready(task.TICK):
                with contextlib.suppress(BlockingIOError):
                    unwritten = unwritten[os.write(self._pipe, unwritten) :]
            elif self._wait.abandoned:
                raise BrokenPipeError
