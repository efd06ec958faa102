"""The time limits of a section: TIMEOUT, STALL_TIMEOUT and MAX_RUNTIME, of whatever it does."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TypeVar

from tools.base import signals
from tools.flow import stream, task
from tools.flow.task import StoppedError, Task

T = TypeVar("T")
_HINT = "Check what it waits for, such as a mount that does not answer, or a lock."


@dataclass(frozen=True)
class Limits:
    """What a section may take; None: no limit.

    timeout:  seconds in all
    stall:    seconds in which no byte moves
    deadline: end of the run, on the monotonic clock
    """

    section: str
    timeout: float | None = None
    stall: float | None = None
    deadline: float | None = None

    def exceeded(self, began: float) -> str:
        """Return the error of a section of which a limit is over; "" if none is."""
        now = time.monotonic()
        if self.deadline is not None and now >= self.deadline:
            return "was ended: MAX_RUNTIME of the run is over"
        if self.timeout is not None and now >= began + self.timeout:
            limit = f"TIMEOUT of {self.timeout:g} s"
            return f"took longer than its {limit} and was ended"
        return ""

    def stalled(self, work: Task) -> str:
        """Return the error of a task in which nothing has moved for too long; "" otherwise."""
        if self.stall is None or time.monotonic() < work.moved + self.stall:
            return ""
        return f"no data for {self.stall:g} s (STALL_TIMEOUT)"


def within(limits: Limits, call: Callable[[], T]) -> T:
    """Return what a call returns, made in a thread. Raises what it raises.

    Raises StoppedError when a limit is over, even if the call goes on: a path on a hung mount is
    waited for inside the kernel. Raises Cancelled, and then its programs have ended.
    """
    work, began = Task(task.current()), time.monotonic()
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001  (raised again by the caller)
            done.set_exception(error)

    try:
        with task.entered(work):
            stream.thread(run)
        while not wait([done], task.TICK).done:
            signals.raise_lost()
            if reason := limits.exceeded(began) or limits.stalled(work):
                raise StoppedError(reason, _HINT)
        return done.result()
    finally:
        work.stop(f"{limits.section} was ended")
