"""A client of sftp: requests of many threads on their way at once, over one ssh."""

from __future__ import annotations

import concurrent.futures
import itertools
import re
import struct
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from storage import ssh_link
from storage.ssh_command import Server
from storage.ssh_link import Link
from storage.ssh_protocol import (
    FSYNC,
    HARDLINK,
    LIMITS,
    LONGEST,
    STATVFS,
    VERSION,
    Attributes,
    Code,
    Flag,
    Kind,
    Reader,
    StatusError,
    mode,
    text,
    times,
    u32,
    u64,
)
from tools.base import foreign
from tools.base.errors import StoreError
from tools.flow import task

_PACKET = 32768  # bytes of data that every server takes (filexfer-02, 3)
WINDOW = 4 << 20  # bytes of one file that are on their way
_SILENT = 1800.0  # seconds without any answer; a sync of a slow disk takes minutes
_NOISE = 1 << 16  # bytes before the first packet that are skipped
_AUTHENTICATION = 60.0  # seconds, beside CONNECT_TIMEOUT, until sftp must answer
_HELLO = re.compile(rb"\0[\0-\x0f][\s\S]{2}\x02\0\0\0\x03\Z")  # length, VERSION, 3
_HELLO_SIZE = 9  # bytes of it
_MOST = 5_000_000  # names of a folder, or answers that bring them; a server may add without end
_Answer: TypeAlias = "tuple[int, Reader]"
Future: TypeAlias = "concurrent.futures.Future[_Answer]"


class Sftp:
    """The files of one account. Paths are bytes, relative to its home or absolute.

    All methods may be called from several threads. They raise StatusError for what the server
    rejects, and StoreError where the connection has ended: TransientError if it may come back.
    """

    def __init__(self, server: Server, *, verbose: bool = False) -> None:
        """Log in. Raises StoreError."""
        self.server = server
        self.link = Link(server, ["-s", "--", server.host, "sftp"], verbose=verbose)
        self._waiting: dict[int, Future] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._error: StoreError | None = None
        self._last_answer = 0.0  # when the last answer came, on the monotonic clock
        self._noise = bytearray()  # what came before the first packet
        self._hello: concurrent.futures.Future[bytes] = concurrent.futures.Future()
        threading.Thread(target=self._receive, daemon=True).start()
        until = time.monotonic() + server.connect_timeout + _AUTHENTICATION
        try:
            self.link.send(u32(5), bytes([Kind.INIT]), u32(VERSION))
            self.extensions = _extensions(ssh_link.result(self._hello, until))
        except TimeoutError:
            self.link.close()
            raise ssh_link.late(server) from None
        except BaseException:
            self.link.close()
            raise
        self.max_read, self.max_write = self._limits()

    @property
    def is_alive(self) -> bool:
        """Return whether the connection still stands."""
        return self._error is None

    def close(self) -> None:
        """End the connection."""
        self.link.close()

    # --- requests and answers

    def request(self, kind: Kind, *fields: bytes | memoryview) -> Future:
        """Send a request; its answer comes in the future.

        A server handles the requests of one file in their order (filexfer-02, 6.1).
        """
        future: Future = concurrent.futures.Future()
        with self._lock:
            if self._error is not None:
                raise self._error
            number = next(self._numbers) & 0xFFFFFFFF
            self._waiting[number] = future
        size = 5 + sum(map(len, fields))
        try:
            self.link.send(u32(size) + bytes([kind]) + u32(number), *fields)
        except StoreError as error:
            self._error = error
            raise
        return future

    def _receive(self) -> None:
        """Hand every answer to who waits for it, until the connection ends."""
        problem = ""
        try:
            self._hello.set_result(self._first())
            while head := self.link.read(4):
                self._dispatch(self._body(head))
        except (ValueError, struct.error) as error:
            problem = str(error)
        self._fail(problem)

    def _first(self) -> bytes:
        """Return the first packet; what a shell wrote before it is skipped."""
        while (match := _HELLO.search(self._noise[-_HELLO_SIZE:])) is None:
            if not (byte := self.link.read(1)):
                raise ValueError("")
            self._noise += byte
            if len(self._noise) > _NOISE:
                raise ValueError("the answer is not sftp")
        self.link.connected = True
        size = int.from_bytes(match.group()[:4], "big")
        if size < _HELLO_SIZE - 4:
            raise ValueError("not a packet of sftp")
        return bytes(match.group()[4:]) + self.link.read(size - 5)

    def _body(self, head: bytes) -> bytes:
        size = int.from_bytes(head, "big")
        if len(head) < 4 or not 5 <= size <= LONGEST:  # noqa: PLR2004  (kind and number)
            raise ValueError("not a packet of sftp")
        body = self.link.read(size)
        if len(body) < size:
            raise ValueError("")
        return body

    def _dispatch(self, body: bytes) -> None:
        number = int.from_bytes(body[1:5], "big")
        self._last_answer = time.monotonic()
        with self._lock:
            future = self._waiting.pop(number, None)
        if future is None:
            raise ValueError("an answer to no request")
        future.set_result((body[0], Reader(body[5:])))

    def _fail(self, problem: str) -> None:
        """Tell all who wait that nothing more comes."""
        if problem:
            self.link.close()
            error = StoreError(f"{self.server}: sftp: {problem}", "Check the server's log.")
        else:
            error = self.link.failure(
                "" if self.link.connected else foreign.decoded(bytes(self._noise))
            )
        with self._lock:
            self._error = error
            left, self._waiting = list(self._waiting.values()), {}
        for future in left:
            future.set_exception(error)
        if not self._hello.done():
            self._hello.set_exception(error)

    def answer(self, future: Future, *expected: Kind) -> Reader:
        """Return the fields of an answer. Raises StatusError, StoreError."""
        kind, fields = self._awaited(future)
        task.current().touch()
        if kind == Kind.STATUS:
            code = fields.u32()
            if code != Code.OK or Kind.STATUS not in expected:
                message = fields.text() if fields.has_more else b""
                raise StatusError(code, foreign.line(foreign.decoded(message)))
        elif kind not in expected:
            raise StoreError(f"{self.server}: sftp: unexpected answer {kind}")
        return fields

    def _awaited(self, future: Future) -> _Answer:
        """Wait for a future. Raises StoreError where the server has long been silent.

        That call is not repeated: five of them would take hours.
        """
        began = time.monotonic()
        while True:
            until = max(began, self._last_answer) + _SILENT
            try:
                return ssh_link.result(future, until)
            except TimeoutError:
                if until >= max(began, self._last_answer) + _SILENT:
                    self.close()
                    error = ssh_link.late(self.server)
                    raise StoreError(str(error), error.hint) from None

    def done(self, future: Future) -> None:
        """Wait for the answer that all went well. Raises StatusError, StoreError."""
        self.answer(future, Kind.STATUS)

    def _call(self, kind: Kind, *fields: bytes) -> None:
        self.done(self.request(kind, *fields))

    def _limits(self) -> tuple[int, int]:
        """Return how many bytes one request may read, and write."""
        if LIMITS not in self.extensions:
            return _PACKET, _PACKET
        answer = self.answer(self.request(Kind.EXTENDED, text(LIMITS)), Kind.EXTENDED_REPLY)
        _packet, largest_read, largest_write = answer.u64(), answer.u64(), answer.u64()
        most = LONGEST // 2
        return tuple(min(size or _PACKET, most) for size in (largest_read, largest_write))  # type: ignore[return-value]

    # --- files

    def opening(self, path: bytes, flags: int) -> Future:
        """Open a file; its handle comes in the answer."""
        return self.request(Kind.OPEN, text(path), u32(flags), mode(0o600))

    def open(self, path: bytes, flags: int) -> bytes:
        """Open a file; return its handle."""
        return self.answer(self.opening(path, flags), Kind.HANDLE).text()

    def shut(self, handle: bytes) -> None:
        """Close a handle."""
        self._call(Kind.CLOSE, text(handle))

    def write(self, handle: bytes, offset: int, block: bytes | memoryview) -> Future:
        """Write a block of at most `max_write` bytes."""
        head = text(handle) + u64(offset) + u32(len(block))
        return self.request(Kind.WRITE, head, block)

    def sync(self, handle: bytes) -> Future:
        """Have the server write a file to its disk (fsync)."""
        return self.request(Kind.EXTENDED, text(FSYNC), text(handle))

    def read(self, handle: bytes, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `start` up to `end`, or up to the end of the file."""
        waiting: deque[tuple[int, int, Future]] = deque()
        most = max(1, WINDOW // self.max_read)
        position = start
        while position < end or waiting:
            while position < end and len(waiting) < most:
                size = min(self.max_read, end - position)
                waiting.append((position, size, self._read(handle, position, size)))
                position += size
            offset, size, future = waiting.popleft()
            try:
                data = self.answer(future, Kind.DATA).text()
            except StatusError as error:
                if error.code == Code.EOF:
                    return
                raise
            yield data
            if 0 < len(data) < size:  # what is missing comes next
                offset, size = offset + len(data), size - len(data)
                waiting.appendleft((offset, size, self._read(handle, offset, size)))

    def _read(self, handle: bytes, offset: int, size: int) -> Future:
        return self.request(Kind.READ, text(handle), u64(offset), u32(size))

    def size(self, handle: bytes) -> int:
        """Return the size of an open file."""
        about = self.answer(self.request(Kind.FSTAT, text(handle)), Kind.ATTRS)
        return about.attributes().size

    def stat(self, path: bytes, asked: Future | None = None) -> Attributes | None:
        """Return the attributes of what lies at a path, links followed; None for nothing.

        asked: the request, where it is on its way
        """
        try:
            future = asked or self.request(Kind.STAT, text(path))
            return self.answer(future, Kind.ATTRS).attributes()
        except StatusError as error:
            if error.code == Code.NO_SUCH_FILE:
                return None
            raise

    def listing(self, folder: bytes) -> list[tuple[bytes, Attributes]]:
        """Return what a folder holds; links are not followed."""
        request = self.request(Kind.OPENDIR, text(folder))
        handle = self.answer(request, Kind.HANDLE).text()
        entries: list[tuple[bytes, Attributes]] = []
        try:
            for count in itertools.count(1):
                if count + len(entries) > _MOST:
                    raise StoreError(
                        f"{self.server}: the listing does not end", "Check the server."
                    )
                fields = self.answer(self.request(Kind.READDIR, text(handle)), Kind.NAME)
                for _ in range(fields.u32()):
                    name, _long = fields.text(), fields.text()
                    entries.append((name, fields.attributes()))
        except StatusError as error:
            if error.code != Code.EOF:
                raise
        self.shut(handle)
        return [one for one in entries if one[0] not in (b".", b"..")]

    def make_folder(self, path: bytes) -> None:
        """Create a folder, for its owner alone."""
        self._call(Kind.MKDIR, text(path), mode(0o700))

    def remove(self, path: bytes) -> None:
        """Remove a file; a missing one is no error."""
        try:
            self._call(Kind.REMOVE, text(path))
        except StatusError as error:
            if error.code != Code.NO_SUCH_FILE:
                raise

    def set_time(self, path: bytes, seconds: int) -> None:
        """Set when a file was last written, in seconds since 1970 by the clock of the server."""
        self._call(Kind.SETSTAT, text(path), times(seconds))

    def link_file(self, old: bytes, new: bytes) -> None:
        """Give a file another name (link(2)), never that of another file."""
        self._call(Kind.EXTENDED, text(HARDLINK), text(old), text(new))

    def rename(self, old: bytes, new: bytes) -> None:
        """Rename a file. Not every server rejects a name that exists, as the protocol demands."""
        self._call(Kind.RENAME, text(old), text(new))

    def free(self, path: bytes) -> int | None:
        """Return the bytes that are left for the account at a path; None if that is not known."""
        if STATVFS not in self.extensions:
            return None
        answer = self.answer(
            self.request(Kind.EXTENDED, text(STATVFS), text(path)), Kind.EXTENDED_REPLY
        )
        _block, fragment, _blocks, _free, available = (answer.u64() for _ in range(5))
        return fragment * available


WRITE_NEW = Flag.READ | Flag.WRITE | Flag.CREAT | Flag.EXCL


def _extensions(raw: bytes) -> dict[bytes, bytes]:
    """Return the extensions that the packet VERSION names, with their versions."""
    fields = Reader(raw[5:])
    versions = {}
    while fields.has_more:
        name = fields.text()
        versions[name] = fields.text()
    return versions


def blocks(chunks: Iterable[bytes], size: int) -> Iterator[bytes | memoryview]:
    """Yield the same bytes in blocks of one size, as far as chunks are long enough for it.

    Only the pieces of short chunks are copied; the last block may be shorter.
    """
    held = bytearray()
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            if not held and len(view) >= size:
                yield view[:size]
                view = view[size:]
                continue
            taken = size - len(held)
            held += view[:taken]
            view = view[taken:]
            if len(held) == size:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)
