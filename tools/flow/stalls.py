"""A store around a store that ends its user where it is silent for too long (STALL_TIMEOUT).

A streamed run limits its items itself. A restore, a copy and a section of a staged run have nobody
who looks on: a server that takes a call and never answers would hold them for ever.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tools.flow import task
from tools.flow.store import Store
from tools.flow.store_wrappers import Slot, Slotted
from tools.flow.task import StoppedError, Task

_FAILED = 1  # exit code
_HINT = "Check the server or the mount of the store. STALL_TIMEOUT in GENERAL allows it more time."


class Watch:
    """Stops a call in which no byte moves, and this process where that is not enough.

    stopped: why one was stopped; "" while none was. The store is then asked nothing more
    """

    def __init__(self, limit: float) -> None:
        """Allow each call so many seconds of silence."""
        self._limit = limit
        self._calls: set[Call] = set()
        self._lock = threading.Lock()
        self._looks = False
        self.stopped = ""

    def begin(self, call: Call) -> None:
        """Watch a call from now on. Raises StoppedError where one was stopped before."""
        if self.stopped:
            raise StoppedError(self.stopped, _HINT)
        with self._lock:
            self._calls.add(call)
            started, self._looks = self._looks, True
        if not started:
            threading.Thread(target=self._look, daemon=True).start()

    def end(self, call: Call) -> None:
        """Watch a call no more."""
        with self._lock:
            self._calls.discard(call)

    def _look(self) -> None:
        while True:
            time.sleep(min(task.TICK, self._limit / 4))
            with self._lock:
                silent = next(filter(self._is_silent, self._calls), None)
            if silent is not None:
                self._stop(silent)

    def _is_silent(self, call: Call) -> bool:
        return time.monotonic() > max(call.began, call.task.moved) + self._limit

    def _stop(self, call: Call) -> None:
        """Stop the call; end this process where the call cannot be left: it waits in the kernel."""
        self.stopped = f"the store has not answered for {self._limit:g} s (STALL_TIMEOUT)"
        call.task.stop(self.stopped)
        until = time.monotonic() + task.GRACE
        while time.monotonic() < until:
            if call not in self._calls:
                return
            time.sleep(task.TICK)
        sys.stderr.write(f"error: {self.stopped}\nhint: {_HINT}\n")
        sys.stderr.flush()
        os._exit(_FAILED)


class Call:
    """One call, with the programs that it starts.

    began: when the store began to work at it, on the monotonic clock
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._entered = contextlib.ExitStack()
        self.task = Task(task.current())
        self.began = time.monotonic()

    def acquire(self) -> None:
        """See Slot."""
        self.began = time.monotonic()
        self._watch.begin(self)

    def release(self) -> None:
        """See Slot."""
        self._watch.end(self)

    def __enter__(self) -> None:
        self.acquire()
        self._entered.enter_context(task.entered(self.task))

    def __exit__(self, *_error: object) -> None:
        self._entered.close()
        self.release()


class Watched(Slotted):
    """A store whose calls are watched."""

    def __init__(self, inner: Store, watch: Watch) -> None:
        super().__init__(inner)
        self._watch = watch

    def _slot(self) -> Slot:
        return Call(self._watch)


def watched(limit: float, opened: Callable[[], Store]) -> Watched:
    """Return a store that `opened` opens, which is watched already. limit: see Watch"""
    watch = Watch(limit)
    with Call(watch):
        return Watched(opened(), watch)


if TYPE_CHECKING:
    _: type[Store] = Watched
