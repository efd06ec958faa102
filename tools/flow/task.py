"""What belongs to one piece of work, an item for example: it is stopped as a whole.

Programs and threads belong to the task of the thread that starts them. Whoever waits in Python
asks `check` now and then, so that a limit ends that wait as well.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from tools.base.errors import BackupError

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
TICK = 0.25  # seconds after which a wait looks whether its task was stopped


class StoppedError(BackupError):
    """The task was stopped: by a time limit, or together with the run."""


class Program(Protocol):
    """A running program with all that it started."""

    def terminate(self) -> None:
        """Send SIGTERM; does not wait."""

    def end(self, grace: float) -> None:
        """Send SIGTERM, wait at most `grace` seconds, send SIGKILL. Never raises."""


def nothing(_reason: str) -> bool:
    """Give up nothing, and return False (`Task.relief`)."""
    return False


class Task:
    """One piece of work.

    stopped: why it was stopped; "" while it may go on
    moved:   when bytes moved last, on the monotonic clock
    relief:  gives up what alone keeps the work from going on; returns whether there was anything
    """

    def __init__(self, parent: Task | None = None) -> None:
        """Begin a task. parent: stops this one, and its programs, when it is stopped itself"""
        self.moved = time.monotonic()
        self.relief: Callable[[str], bool] = nothing
        self._reason = ""
        self._parent = parent
        self._programs: set[Program] = set()
        self._lock = threading.Lock()

    @property
    def stopped(self) -> str:
        """Return why it was stopped, or its parent; "" while it may go on."""
        return self._reason or (self._parent.stopped if self._parent else "")

    def check(self) -> None:
        """Raise StoppedError if the task was stopped."""
        if reason := self.stopped:
            raise StoppedError(reason)

    def touch(self) -> None:
        """Note that bytes have moved."""
        self.moved = time.monotonic()
        if self._parent:
            self._parent.touch()

    def add(self, program: Program) -> None:
        """Add a program that has started."""
        with self._lock:
            self._programs.add(program)
        if self._parent:
            self._parent.add(program)

    def remove(self, program: Program) -> None:
        """Remove a program that has ended."""
        with self._lock:
            self._programs.discard(program)
        if self._parent:
            self._parent.remove(program)

    def stop(self, reason: str) -> None:
        """End what is running; every wait of the task raises StoppedError from now on."""
        self._reason = self._reason or reason
        self.end_programs()

    def end_programs(self, grace: float = GRACE) -> None:
        """End the programs, which share the time that they have after SIGTERM."""
        with self._lock:
            programs = list(self._programs)
        until = time.monotonic() + grace
        for program in programs:
            program.terminate()
        for program in programs:
            program.end(max(0.0, until - time.monotonic()))


_root = Task()
_current: contextvars.ContextVar[Task] = contextvars.ContextVar("task", default=_root)


def current() -> Task:
    """Return the task of this thread; without one, a task that is never stopped."""
    return _current.get()


@contextlib.contextmanager
def entered(task: Task) -> Iterator[Task]:
    """Do the work of the block, and of the threads that it starts, for a task."""
    token = _current.set(task)
    try:
        yield task
    finally:
        _current.reset(token)


def join(thread: threading.Thread) -> bool:
    """Wait for a thread; False if it goes on although the task was stopped GRACE seconds ago."""
    remaining = GRACE
    while remaining > 0:
        thread.join(TICK)
        if not thread.is_alive():
            return True
        if current().stopped:
            remaining -= TICK
    return False
