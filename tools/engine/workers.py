"""The threads of a streamed run: item after item, each under the limits of its section."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tools.base import signals
from tools.base.errors import BackupError
from tools.config.model import Section
from tools.engine.limits import Limits
from tools.flow import stream, task
from tools.flow.item import Item
from tools.flow.pipeline import FlowResult
from tools.flow.task import Task

_TICK = 0.2  # seconds between two looks at time limits and progress
_LINGER = 15.0  # seconds that a thread gets to end when its item has been stopped


@dataclass
class SourceState:
    """One source section while its items flow."""

    section: Section
    limits: Limits
    flowed: list[FlowResult] = field(default_factory=list)
    errors: list[tuple[str, BackupError | OSError]] = field(default_factory=list)
    stopped: str = ""  # why the items that are left are not even begun
    began: float = 0.0
    size: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Job:
    """One item while it flows."""

    def __init__(self, source: SourceState, item: Item) -> None:
        self.source = source
        self.item = item
        self.task = Task()
        self._settled = False
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Return the name of the item with its section."""
        section = self.source.section.name
        return f"{section}/{self.item.name}" if self.item.name else section

    def count(self, size: int) -> None:
        """Note that so many bytes have passed. Raises StoppedError where it was stopped."""
        self.task.check()
        with self.source.lock:
            self.source.size += size
        self.task.touch()

    def settle(self) -> bool:
        """Return whether the caller is the first one to have a result of the item."""
        with self._lock:
            first, self._settled = not self._settled, True
        return first


class Workers:
    """Threads that take one job after the other."""

    def __init__(
        self, perform: Callable[[Job], None], lose: Callable[[Job, BackupError], None]
    ) -> None:
        """Prepare the threads.

        perform: does a job in a thread; raises nothing
        lose:    gets a job that has no thread, or was stopped and goes on all the same
        """
        self._perform = perform
        self._lose = lose
        self._waiting: deque[Job] = deque()
        self._active: dict[Job, float | None] = {}  # and since when each should have ended
        self._ended: queue.SimpleQueue[Job] = queue.SimpleQueue()

    def run(self, jobs: Iterable[Job], parallel: int, look: Callable[[], None]) -> None:
        """Do all jobs. look: called a few times a second. Raises Cancelled: nothing runs then.

        Not Thread.join: interrupted by a signal, it may take a living thread for a dead one
        (https://github.com/python/cpython/issues/90882).
        """
        self._waiting.extend(jobs)
        try:
            while self._waiting or self._active:
                while self._waiting and len(self._active) < parallel:
                    self._start(self._waiting.popleft())
                for job in list(self._active):
                    self._limit(job)
                look()
                signals.raise_lost()
                self._collect(_TICK)
        except BaseException:
            self._end_all("the run was ended")
            raise

    def _start(self, job: Job) -> None:
        now = time.monotonic()
        job.source.began = job.source.began or now
        job.task.moved = now
        if job.source.stopped:
            job.task.stop(job.source.stopped)

        def work() -> None:
            with task.entered(job.task):
                try:
                    self._perform(job)
                finally:
                    self._ended.put(job)

        self._active[job] = None
        try:
            stream.thread(work)
        except BackupError as error:
            del self._active[job]
            self._lose(job, error)

    def _limit(self, job: Job) -> None:
        """Stop an item whose time is over, and give up one that does not end."""
        since = self._active[job]
        if since is None:
            source = job.source
            source.stopped = source.stopped or source.limits.exceeded(source.began)
            stalled = source.limits.stalled(job.task)
            if stalled and not source.stopped and job.task.relief(stalled):
                job.task.touch()
            elif reason := source.stopped or stalled:
                job.task.stop(reason)
                self._active[job] = time.monotonic()
        elif time.monotonic() >= since + _LINGER:
            del self._active[job]
            if job.settle():
                self._lose(job, BackupError(job.task.stopped))

    def _collect(self, seconds: float) -> None:
        """Wait for the end of a job; at most some seconds."""
        try:
            job = self._ended.get(timeout=seconds)
        except queue.Empty:
            return
        self._active.pop(job, None)
        job.task.end_programs()  # nothing of it outlives it

    def _end_all(self, reason: str) -> None:
        """Stop what is active, and wait a while until it has ended."""
        for job in list(self._active):
            job.task.stop(reason)
        until = time.monotonic() + _LINGER
        while self._active and time.monotonic() < until:
            self._collect(_TICK)
