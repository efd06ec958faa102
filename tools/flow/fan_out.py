"""One stream into several stores at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tools.base import crash, signals
from tools.base.errors import StoreError
from tools.flow import stream, task
from tools.flow.form import Outlet
from tools.flow.stopwatch import Stopwatch
from tools.flow.store import Receiver, StoredObject, atomic_publish, explained, max_object_size
from tools.flow.stream import Channel, Chunks
from tools.flow.task import StoppedError, Task

_SILENT = "Check its disk, mount or network. Its other items of this run were not tried."
_MAX_PENDING = 2  # objects of one store that may still be syncing while the next one comes


@dataclass
class StoreProgress:
    """A store of the run, what it has taken, and what went wrong with it.

    errors: why it does not hold items, each reason once; lost: how many it does not hold
    hint:   what to do about it
    watch:  how long it has worked
    silent: why it takes no more items of this run: it did not go on; "" if it does
    """

    section: str
    store: Receiver
    parts: int = 0
    size: int = 0
    errors: list[str] = field(default_factory=list)
    failed_items: int = 0
    hint: str = ""
    watch: Stopwatch = field(default_factory=Stopwatch)
    silent: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)  # several items flow at a time

    def add(self, parts: int, size: int) -> None:
        """Count the parts and the bytes of an item that the store holds."""
        with self._lock:
            self.parts += parts
            self.size += size

    def fail(self, text: str, hint: str) -> None:
        """Note why the store does not hold an item."""
        with self._lock:
            self.failed_items += 1
            if text not in self.errors:
                self.errors.append(text)
            self.hint = self.hint or hint


class FanOut:
    """Sends the objects of one item to several stores.

    One that fails, or that alone does not go on, does not stop the others.
    """

    def __init__(self, targets: Sequence[StoreProgress]) -> None:
        self._sinks = [_Sink(target) for target in targets]
        self._sent: list[StoredObject] = []

    @property
    def max_object_size(self) -> int:
        """See Outlet."""
        return min(max_object_size(sink.target.store) for sink in self._sinks)

    def __enter__(self) -> FanOut:
        task.current().relief = self._without_stuck
        return self

    def _without_stuck(self, reason: str) -> bool:
        """Give up the stores that the others wait for. Return whether there are such."""
        living = [sink for sink in self._sinks if sink.error is None]
        stuck = [sink for sink in living if sink.is_awaited]
        if not stuck or len(stuck) == len(living):
            return False
        for sink in stuck:
            sink.give_up(reason)
        return True

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Discard what a store did not get whole; on an exception all of it."""
        task.current().relief = task.nothing
        for sink in self._sinks:
            if error is not None or sink.error is not None:
                sink.discard(error or sink.error)

    def put(self, name: str, chunks: Chunks) -> StoredObject:
        """See Outlet: the object is hashed once, here."""
        tally = stream.Tally()
        for sink in self._healthy():
            sink.begin(name, tally)
        for chunk in tally(chunks):
            for sink in self._healthy():
                sink.put(chunk)
        for sink in self._healthy():
            sink.end()
        self._sent.append(StoredObject(name, tally.size, tally.sha256))
        return self._sent[-1]

    def confirm(self) -> None:
        """Wait until every store has confirmed every object. Raises StoreError where none has."""
        for sink in self._healthy():
            sink.finish(self._sent)
        self._healthy()

    def _healthy(self) -> list[_Sink]:
        """Return the stores that have not failed. Raises StoreError where all have."""
        living = [sink for sink in self._sinks if sink.error is None]
        if not living:
            names = ", ".join(sink.target.section for sink in self._sinks)
            error = StoreError(f"not stored: {names} failed")  # which says why itself
            raise error from self._sinks[0].error
        return living

    def publish(self) -> tuple[str, ...]:
        """Make the objects visible; return the sections of the stores that hold them now."""
        for sink in self._healthy():
            sink.publish()
        healthy = self._healthy()
        for sink in healthy:
            sink.target.add(len(self._sent), sum(stored.size for stored in self._sent))
        return tuple(sink.target.section for sink in healthy)


class _Sink:
    """Sends one item to one store: a thread for each object, of which few wait at a time."""

    def __init__(self, target: StoreProgress) -> None:
        self.target = target
        self.error: BaseException | None = None
        self._names: list[str] = []
        self._channel = Channel()
        self._pending: deque[tuple[threading.Thread, Channel]] = deque()
        self._stored: dict[str, StoredObject] = {}
        self._abandoned = threading.Event()
        self._is_ended = False  # nothing more is sent: only the end is waited for
        self._task = Task(task.current())
        if target.silent:
            self._fail(StoreError(f"{target.store}: {target.silent}", _SILENT))

    @property
    def is_awaited(self) -> bool:
        """Return whether the next step waits: the store takes nothing, or confirms nothing."""
        working = [thread.is_alive() for thread, _channel in list(self._pending)]
        behind = len(working) >= _MAX_PENDING and working[0]
        return self._channel.is_full or behind or (self._is_ended and any(working))

    def give_up(self, reason: str) -> None:
        """Send nothing more, and wait for nothing more, in this run."""
        self.target.silent = reason
        error = StoreError(f"{self.target.store}: {reason}", _SILENT)
        self._fail(error)
        self._task.stop(reason)
        self._channel.leave(error)

    def begin(self, name: str, tally: stream.Tally) -> None:
        """Begin the next object. tally: counts and hashes it before it comes here"""
        while len(self._pending) >= _MAX_PENDING:
            self._joined(self._pending[0][0])
            self._pending.popleft()
        channel = self._channel = Channel()
        self._names.append(name)

        def work() -> None:
            try:
                with self.target.watch.reading(channel) as chunks:
                    content = stream.Content(chunks, tally, self._abandoned)
                    self._stored[name] = self.target.store.put(name, content)
            except BaseException as error:  # noqa: BLE001  (kept, and shown as the store's)
                channel.leave(error)
                self._fail(error)
            finally:  # nobody reads any more, even where the store says that it took all
                channel.leave()

        with signals.deferred(), task.entered(self._task):
            self._pending.append((stream.thread(work), channel))

    def put(self, chunk: bytes) -> None:
        """Send a chunk of the object; a store that has failed takes no more."""
        try:
            self._channel.put(chunk)
        except StoppedError:
            raise
        except stream.ReaderGoneError:
            hint = "It ended well before it had read all of it."
            self._fail(StoreError(f"{self.target.store}: left a part of its input unread", hint))
        except BaseException as error:  # noqa: BLE001  (what the thread left with)
            self._fail(error)

    def end(self) -> None:
        """End the object."""
        self._channel.end()

    def _joined(self, thread: threading.Thread) -> bool:
        """Wait for a thread; False if it goes on although this store was given up."""
        with task.entered(self._task):
            return task.join(thread)

    def finish(self, sent: Sequence[StoredObject]) -> None:
        """Wait until the store has confirmed every object as it was sent."""
        self._join()
        task.current().check()
        if self.error is None and [self._stored[name] for name in self._names] != list(sent):
            self._fail(
                StoreError(
                    f"{self.target.store}: confirmed other bytes than were sent",
                    "Run restore.py --verify on the last runs of this store.",
                )
            )

    def publish(self) -> None:
        """Make the objects visible."""
        try:
            with atomic_publish(self.target.store, self._names):
                pass
        except Exception as error:  # noqa: BLE001  (this store alone does not get the item)
            self._fail(error)

    def discard(self, error: BaseException | None) -> None:
        """Discard all of an item that has failed, here or elsewhere."""
        self.error = self.error or error  # what the chunks raise is no fault of the store
        self._abandoned.set()
        for _thread, channel in self._pending:
            channel.end(error)
        if self._join():  # otherwise the store is still at work, and a later run cleans up
            self.target.store.discard(self._names)

    def _join(self) -> bool:
        """Wait for the threads; False if one goes on although the task was stopped."""
        self._is_ended = True
        ended = [self._joined(thread) for thread, _channel in self._pending]
        self._pending.clear()
        return all(ended)

    def _fail(self, error: BaseException) -> None:
        """Record why this store does not get the item; the first reason counts."""
        if self.error is None:
            self.error = crash.reportable(error) if isinstance(error, Exception) else error
            if not isinstance(error, StoppedError):  # which is no fault of the store
                self.target.fail(*explained(self.error, self.target.store))


if TYPE_CHECKING:
    _: type[Outlet] = FanOut
