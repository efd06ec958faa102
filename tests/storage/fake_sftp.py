"""An sftp server in this process, which does what real ones have been seen to do wrong."""

from __future__ import annotations

import queue
import stat
import time
from collections.abc import Callable
from typing import Any

from storage.ssh_command import Server
from storage.ssh_protocol import (
    FSYNC,
    HARDLINK,
    STATVFS,
    Code,
    Flag,
    Kind,
    Reader,
    text,
    u32,
    u64,
)
from tools.base.errors import StoreError, TransientError


class FakeSftp:
    """Files in memory. Fault: called with the kind of each request; what it gives is sent."""

    def __init__(
        self,
        *extensions: bytes,
        skew: float = 0.0,
        overwrites: bool = False,
        hard_links: bool = True,
    ) -> None:
        self.extensions = extensions
        self.hard_links = hard_links  # whether its file system has them
        self.skew = skew  # seconds that its clock is ahead
        self.overwrites = overwrites  # whether RENAME replaces files
        self.files: dict[bytes, bytearray] = {}
        self.folders = {b"/", b"."}
        self.handles: dict[bytes, Any] = {}
        self.free = 1 << 40
        self.faults: dict[Kind, Callable[[bytes], bytes | None]] = {}
        self.logins = 0
        self.silent = False  # whether it answers nothing after the first packet
        self.hello = b""  # sent instead of the first packet

    def link(self, server: Server, arguments: list[str], *, verbose: bool = False) -> FakeLink:
        """What takes the place of an ssh."""
        if "sftp" not in arguments:
            raise StoreError(f"{server}: no shell")
        self.logins += 1
        return FakeLink(self, server)

    def answer(self, request: bytes) -> bytes:
        """The answer to a packet, without its length."""
        kind, number, fields = Kind(request[0]), request[1:5], Reader(request[5:])
        name = "extended" if kind is Kind.EXTENDED else kind.name.lower()
        packet: bytes = getattr(self, f"_{name}")(fields)
        answer = packet[:1] + number + packet[1:]
        fault = self.faults.get(kind)
        replaced = fault(answer) if fault else None
        return answer if replaced is None else replaced

    @staticmethod
    def status(code: Code, message: bytes = b"Failure") -> bytes:
        """The answer STATUS, without its number."""
        return bytes([Kind.STATUS]) + u32(code) + text(message) + text(b"")

    def _ok(self) -> bytes:
        return self.status(Code.OK, b"Success")

    def _open(self, fields: Reader) -> bytes:
        path, flags = fields.text(), fields.u32()
        if flags & Flag.CREAT:
            if path in self.files:
                return self.status(Code.FAILURE)
            if path.rpartition(b"/")[0] not in self.folders:
                return self.status(Code.NO_SUCH_FILE)
            self.files[path] = bytearray()
        elif path not in self.files:
            return self.status(Code.NO_SUCH_FILE)
        return self._handle(path)

    def _handle(self, held: Any) -> bytes:
        handle = b"%d" % len(self.handles)
        self.handles[handle] = held
        return bytes([Kind.HANDLE]) + text(handle)

    def _close(self, fields: Reader) -> bytes:
        fields.text()
        return self._ok()

    def _write(self, fields: Reader) -> bytes:
        content = self.files[self.handles[fields.text()]]
        offset, data = fields.u64(), fields.text()
        if len(data) > self.free:
            return self.status(Code.FAILURE)
        self.free -= len(data)
        content[offset : offset + len(data)] = data
        return self._ok()

    def _read(self, fields: Reader) -> bytes:
        content = self.files[self.handles[fields.text()]]
        offset, size = fields.u64(), fields.u32()
        data = bytes(content[offset : offset + size])
        return bytes([Kind.DATA]) + text(data) if data else self.status(Code.EOF, b"EOF")

    def _attributes(self, path: bytes) -> bytes:
        folder = path not in self.files
        mode = stat.S_IFDIR | 0o700 if folder else stat.S_IFREG | 0o600
        size = 0 if folder else len(self.files[path])
        now = round(time.time() + self.skew)
        return u32(1 | 4 | 8) + u64(size) + u32(mode) + u32(now) + u32(now)

    def _stat(self, fields: Reader) -> bytes:
        path = fields.text()
        if path not in self.files and path not in self.folders:
            return self.status(Code.NO_SUCH_FILE)
        return bytes([Kind.ATTRS]) + self._attributes(path)

    def _fstat(self, fields: Reader) -> bytes:
        return bytes([Kind.ATTRS]) + self._attributes(self.handles[fields.text()])

    def _mkdir(self, fields: Reader) -> bytes:
        self.folders.add(fields.text())
        return self._ok()

    def _remove(self, fields: Reader) -> bytes:
        removed = self.files.pop(fields.text(), None)
        return self._ok() if removed is not None else self.status(Code.NO_SUCH_FILE)

    def _rename(self, fields: Reader) -> bytes:
        old, new = fields.text(), fields.text()
        if new in self.files and not self.overwrites:
            return self.status(Code.FAILURE)
        self.files[new] = self.files.pop(old)
        return self._ok()

    def _opendir(self, fields: Reader) -> bytes:
        path = fields.text()
        if path not in self.folders:
            return self.status(Code.NO_SUCH_FILE)
        inside = [one for one in self.files if one.rpartition(b"/")[0] == path]
        return self._handle([inside])

    def _readdir(self, fields: Reader) -> bytes:
        batches = self.handles[fields.text()]
        if not batches:
            return self.status(Code.EOF, b"EOF")
        batch = batches.pop()
        body = b"".join(
            text(path.rpartition(b"/")[2]) + text(b"") + self._attributes(path) for path in batch
        )
        return bytes([Kind.NAME]) + u32(len(batch)) + body

    def _extended(self, fields: Reader) -> bytes:
        request = fields.text()
        if request == HARDLINK:
            old, new = fields.text(), fields.text()
            if new in self.files or not self.hard_links:
                return self.status(Code.FAILURE)
            self.files[new] = self.files[old]
            return self._ok()
        if request == STATVFS:
            return bytes([Kind.EXTENDED_REPLY]) + u64(1) * 2 + u64(self.free) * 3
        return self._ok() if request == FSYNC else self.status(Code.OP_UNSUPPORTED)


class FakeLink:
    """A connection to it, as storage.ssh_link.Link."""

    fingerprint = "ssh-ed25519 SHA256:fake"

    def __init__(self, server: FakeSftp, account: Server) -> None:
        self.server = account
        self.connected = False
        self._fake = server
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._rest = b""
        self._ended = False

    def send(self, *pieces: bytes) -> None:
        """See Link."""
        if self._ended:
            raise self.failure()
        request = b"".join(pieces)[4:]
        if request[0] == Kind.INIT and self._fake.hello:
            return self._answers.put(self._fake.hello)
        if request[0] == Kind.INIT:
            names = b"".join(text(name) + text(b"1") for name in self._fake.extensions)
            answer = bytes([Kind.VERSION]) + u32(3) + names
        else:
            answer = self._fake.answer(request)
            if self._fake.silent:
                return None
        if answer:
            return self._answers.put(u32(len(answer)) + answer)
        return self.close()

    def read(self, size: int) -> bytes:
        """See Link."""
        while len(self._rest) < size and not self._ended:
            piece = self._answers.get()
            self._ended = not piece
            self._rest += piece
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def failure(self, _output: str = "") -> StoreError:
        """See Link."""
        return TransientError(f"{self.server}: the connection was cut")

    def close(self) -> None:
        """See Link."""
        self._answers.put(b"")
