"""Replace files, and free their disk space in threads of their own where that takes long.

Some file systems wait for the disk for each file that they free: ext4 without a journal and with
the mount option `discard`, for example. The waits of several threads are one wait. Elsewhere the
threads would cost a third of the time: the first replaced files show which it is.
"""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import threading
import time
from pathlib import Path
from types import TracebackType

from tools.base import lock
from tools.base.errors import BackupError
from tools.flow import stream

_THREADS = 8
_BATCH = 8  # files that are handed to a thread at a time
_WAITING = 8  # batches that may wait
_DESCRIPTORS = 512  # that the process must be allowed, or none is used here: at most 136 are
_WINDOW = 64  # files whose replacement is timed together
_SLOW = 0.0003  # seconds for one of them: it takes 0.02 ms where nothing waits, and 1 ms there
_HELD = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def _many_descriptors() -> bool:
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return allowed == resource.RLIM_INFINITY or allowed >= _DESCRIPTORS


class ReplacedFiles:
    """Replaces files; holds each meanwhile if that is slow. Leaving waits until all are freed.

    A file whose last name is gone is freed when its last descriptor is closed. A descriptor of
    O_PATH opens nothing, and the kernel closes it when the program is killed. On a network file
    system nothing is held: NFS would give a file that is held another name first. Nor is it where
    the process may have few descriptors, which moving files needs as well.
    """

    def __init__(self, folder: Path, *, needed: bool) -> None:
        """Start no thread yet. needed: whether any file in the folder is replaced"""
        self._batches: queue.Queue[list[int]] = queue.Queue(_WAITING)
        self._held: list[int] = []
        self._threads: list[threading.Thread] = []
        self._timed = needed and _many_descriptors() and not lock.on_network(folder)
        self._remaining, self._seconds = _WINDOW, 0.0

    def replace(self, name: bytes, source: int, goal: int) -> None:
        """Move what has a name in an open folder into another one. Raises OSError."""
        if self._threads:
            self._hold(name, goal)
        began = time.perf_counter()
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=goal)
        if self._timed:
            self._judge(time.perf_counter() - began)

    def _judge(self, seconds: float) -> None:
        """Start the threads once the files of a window took too long."""
        self._remaining -= 1
        self._seconds += seconds
        if self._remaining:
            return
        if self._seconds > _WINDOW * _SLOW:
            self._timed = False
            with contextlib.suppress(BackupError):  # no further thread: those that there are do
                for _ in range(_THREADS):
                    self._threads.append(stream.thread(self._close_batches))
        self._remaining, self._seconds = _WINDOW, 0.0

    def _hold(self, name: bytes, folder: int) -> None:
        try:
            self._held.append(os.open(name, _HELD, dir_fd=folder))
        except OSError:  # usually there is no such file; otherwise replacing it frees it
            return
        if len(self._held) >= _BATCH:
            self._hand_over()

    def _hand_over(self) -> None:
        """Hand the files that are held to a thread; all but the last of them are replaced."""
        *replaced, last = self._held
        self._batches.put(replaced)
        self._held = [last]

    def _close_batches(self) -> None:
        while batch := self._batches.get():
            for descriptor in batch:
                os.close(descriptor)

    def __enter__(self) -> ReplacedFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for _ in self._threads:
            self._batches.put([])
        for thread in self._threads:
            thread.join()
        for descriptor in self._held:
            os.close(descriptor)
