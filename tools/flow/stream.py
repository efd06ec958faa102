"""The flow of bytes: a stage is a function from chunks to chunks, its inverse beside it.

End of input is not success: what produced the chunks raises at the end if it did not end
well, and what consumes them makes nothing visible before that end.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import itertools
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tools import filesystem_handling
from tools.base.errors import BackupError
from tools.flow import task

_GATHERED = 1 << 18  # bytes from which on a chunk is large enough
_SMALL = 1 << 16  # bytes that are read at least, where a file has as many
_AHEAD = 4  # chunks that wait between two threads
CHUNK = 1 << 20  # bytes; large enough that Python's share of the work does not show

Chunks = Iterable[bytes]
Stage = Callable[[Chunks], Iterator[bytes]]


def flow(source: Chunks, *stages: Stage) -> Iterator[bytes]:
    """Join stages in the order of the data: flow(source, compress, encrypt)."""
    for stage in stages:
        source = stage(source)
    return iter(source)


def read(
    path: Path,
    start: int = 0,
    end: int | None = None,
    opener: Callable[[Path, int], int] = os.open,
) -> Iterator[bytes]:
    """Yield the chunks of a file, or its bytes from `start` up to, not including, `end`.

    opener: opens the file with flags of open(2), and returns its descriptor
    Raises OSError that names this file, and not the one that the chunks are written to.
    """
    with filesystem_handling.naming(path):
        descriptor = opener(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.lseek(descriptor, start, os.SEEK_SET)
            remaining = math.inf if end is None else end - start
            # reading allocates what it asks for: little for a small file
            most = min(CHUNK, max(_SMALL, os.fstat(descriptor).st_size))
            while remaining > 0 and (chunk := os.read(descriptor, int(min(remaining, most)))):
                remaining -= len(chunk)
                yield chunk
        finally:
            os.close(descriptor)


def small(chunks: Iterable[bytes], most: int) -> bytes | None:
    """Return all bytes; None where there are more than `most`: they may have no end."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        if len(held) > most:
            return None
    return bytes(held)


def joined(paths: Iterable[Path]) -> Iterator[bytes]:
    """Yield the chunks of several files, one after the other."""
    for path in paths:
        yield from read(path)


def drained(chunks: Chunks) -> None:
    """Read to the end, for what is learnt on the way."""
    for _ in chunks:
        pass


@contextlib.contextmanager
def closed(chunks: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    """Close a generator at the end of the block; another iterator needs none.

    After an error in the block a thread may still be executing the generator, and then closes
    it itself: that must not hide the error.
    """
    close = getattr(chunks, "close", lambda: None)
    try:
        yield chunks
    except BaseException:
        with contextlib.suppress(ValueError):  # generator already executing
            close()
        raise
    close()


def gathered(chunks: Chunks) -> Iterator[bytes]:
    """Join small chunks, and change nothing else.

    Each chunk costs a switch between threads, whatever its size.
    """
    waiting: list[bytes] = []
    size = 0
    for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size >= _GATHERED:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


class Count:
    """A stage that changes nothing: it counts the bytes."""

    def __init__(self) -> None:
        self.size = 0

    @property
    def sha256(self) -> str | None:
        """Return None: no digest is taken."""
        return None

    def __call__(self, chunks: Chunks) -> Iterator[bytes]:
        for chunk in chunks:
            self.size += len(chunk)
            yield chunk


class Tally(Count):
    """A stage that changes nothing: it counts the bytes and takes their SHA-256."""

    def __init__(self) -> None:
        super().__init__()
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Return the digest of all that has passed, in hexadecimal."""
        return self._digest.hexdigest()

    def __call__(self, chunks: Chunks) -> Iterator[bytes]:
        for chunk in super().__call__(chunks):
            self._digest.update(chunk)
            yield chunk


class Content:
    """The bytes of one object on their way into a store: they can be read once.

    A stream that goes into several stores is hashed once, by the `tally` that counts it before
    it is handed out. Without one, the chunks are hashed as they are read here.
    abandoned: set where nobody wants the object any more; a store that waits then stops waiting
    """

    def __init__(
        self,
        chunks: Chunks,
        tally: Tally | None = None,
        abandoned: threading.Event | None = None,
    ) -> None:
        self._tally = tally or Tally()
        self._chunks = chunks if tally else self._tally(chunks)
        self.abandoned = abandoned or threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)

    @property
    def size(self) -> int:
        """Return the number of all bytes, once the last chunk has been read."""
        return self._tally.size

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of all bytes in hexadecimal, once the last chunk has been read."""
        return self._tally.sha256

    def replayed(self, chunks: Chunks) -> Content:
        """Return the same content, its bytes read from `chunks`."""
        return Content(chunks, self._tally, self.abandoned)


def content(chunks: Chunks) -> Content:
    """Return the chunks as a Content, which hashes them unless they are one already."""
    return chunks if isinstance(chunks, Content) else Content(chunks)


class Channel:
    """A bounded queue of chunks from one thread to another.

    Its end is either said well by the writer, or an error that the reader gets; a reader that
    goes away is an error for the writer.
    """

    def __init__(self, size: int = _AHEAD) -> None:
        """Create a queue in which `size` chunks may wait."""
        self._waiting: deque[bytes] = deque()
        self._size = size
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        self._reader_error: BaseException | None = None

    @property
    def is_full(self) -> bool:
        """Return whether the writer has to wait for the reader."""
        return len(self._waiting) >= self._size and self._reader_error is None

    def put(self, chunk: bytes) -> None:
        """Hand on a chunk; wait while the queue is full. Raises what the reader left with."""
        with self._changed:
            while self.is_full:
                self._wait()
            if self._reader_error is not None:
                raise self._reader_error
            self._waiting.append(chunk)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """End the queue: well, or with an error. Only the first call counts."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            self._changed.notify_all()

    def leave(self, error: BaseException | None = None) -> None:
        """Note that the reader is gone, for this reason."""
        with self._changed:
            if self._reader_error is None:
                self._reader_error = error or ReaderGoneError()
            self._waiting.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                while not self._waiting and not self._ended and self._reader_error is None:
                    self._wait()
                # an error does not wait behind chunks that lead nowhere any more
                if (error := self._error or self._reader_error) is not None:
                    raise error
                if not self._waiting:
                    return
                chunk = self._waiting.popleft()
                self._changed.notify_all()
            yield chunk

    def _wait(self) -> None:
        """Wait for the other side. Raises StoppedError where the task was stopped."""
        self._changed.wait(task.TICK)
        task.current().check()


class ReaderGoneError(Exception):
    """Whoever read the chunks has gone away without an error of its own."""


def ahead(chunks: Chunks) -> Iterator[bytes]:
    """Pass chunks on, while everything before goes on in a thread of its own.

    For stages whose work leaves Python. What the thread raises, the reader gets; when the
    reader goes away, what is before is closed there.
    """
    channel = Channel()

    def work() -> None:
        try:
            for chunk in chunks:
                channel.put(chunk)
            channel.end()
        except BaseException as error:  # noqa: BLE001  (raised again by the reader)
            channel.end(error)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()

    worker = thread(work)
    try:
        yield from channel
    finally:
        channel.leave()
        task.join(worker)


def watched(chunks: Chunks, look: Callable[[Chunks], None]) -> Iterator[bytes]:
    """Pass chunks on, while `look` reads the same ones in a thread of its own.

    What it raises is raised here, at the latest at the end: it may have found that what has
    passed is not whole.
    """
    channel = Channel()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            look(channel)
        except BaseException as error:  # noqa: BLE001  (raised again below)
            errors.append(error)
        finally:
            channel.leave()

    worker = thread(work)
    try:
        for chunk in chunks:
            with contextlib.suppress(ReaderGoneError):  # it has seen enough
                channel.put(chunk)
            if errors:
                raise errors[0]
            yield chunk
        channel.end()
    except BaseException as error:
        channel.end(error)
        raise
    finally:
        channel.end(ReaderGoneError())
        task.join(worker)
    if errors:
        raise errors[0]


def thread(work: Callable[[], None]) -> threading.Thread:
    """Start a thread that belongs to the same task as this one (see task).

    Raises BackupError where the system allows no further one.
    """
    context = contextvars.copy_context()
    started = threading.Thread(target=context.run, args=(work,), daemon=True)
    try:
        started.start()
    except RuntimeError as error:
        hint = "Allow more (ulimit -u, or the limit of tasks of the container or service)."
        raise BackupError(f"the system allows no further thread ({error})", hint) from None
    return started


def split(chunks: Chunks, size: int) -> Iterator[Iterator[bytes]]:
    """Cut a stream into parts of `size` bytes, the last one shorter; see split_into."""
    return split_into(chunks, itertools.repeat(size))


def split_into(chunks: Chunks, sizes: Iterable[int]) -> Iterator[Iterator[bytes]]:
    """Cut a stream into parts of these sizes, while there are bytes; each is read in turn.

    An empty stream is one empty part. What the reader leaves unread of a part is skipped: the
    next part begins where it would have begun.
    """
    source = (chunk for chunk in chunks if chunk)  # an empty chunk is no end
    rest = b""
    remaining = 0  # bytes of the current part

    def pieces() -> Iterator[bytes]:
        nonlocal rest, remaining
        while remaining and (rest := rest or next(source, b"")):
            piece, rest = rest[:remaining], rest[remaining:]
            remaining -= len(piece)
            yield piece

    for size in sizes:
        remaining = size
        yield pieces()
        drained(pieces())
        rest = rest or next(source, b"")
        if not rest:
            return
