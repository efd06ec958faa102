"""Calls to a running rclone: its remote control, uploads and downloads over one socket.

Methods and parameters are those of https://rclone.org/rc/.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import select
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from storage import rclone_errors
from storage.rclone_daemon import Daemon, Shared
from tools.base import foreign_json, signals
from tools.base.errors import StoreError, TransientError
from tools.flow import stream, task

_OK, _PARTIAL = 200, 206
_LONGEST = 256 << 20  # bytes of an answer: a list of some 1,000,000 names
_ENDING = 10.0  # seconds that rclone has to give an upload up
_IDLE = 30.0  # seconds after which a connection is not used again


class _SourceFailedError(Exception):
    """What the chunks of an upload raised: it is no fault of the connection."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class _Socket(http.client.HTTPConnection):
    """A connection to a socket of this machine."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__("localhost")
        self.daemon = daemon
        self.used = time.monotonic()

    def connect(self) -> None:
        """See HTTPConnection."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.daemon.socket))

    def cut_off(self) -> None:
        """End an upload in the middle, and wait a while until rclone has put it away."""
        with contextlib.suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_WR)
            self.sock.settimeout(_ENDING)
            self.sock.recv(1)

    def abandon(self) -> None:
        """End every wait for the connection, in whatever thread."""
        with contextlib.suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)

    terminate = abandon

    def end(self, _grace: float) -> None:
        """See task.Program."""
        self.abandon()


class Calls:
    """What one remote is asked. For several threads."""

    def __init__(self, shared: Shared, remote: str) -> None:
        """Call the rclone `shared` about a remote (NAME:PATH)."""
        self.remote = remote
        self.shared = shared
        self._lock = threading.Lock()
        self._idle: list[_Socket] = []

    # --- connections

    @contextlib.contextmanager
    def _connection(self, subject: str) -> Iterator[_Socket]:
        """Give a connection; what ends it early is a TransientError, or a StoppedError."""
        daemon = self.shared.daemon()
        connection = self._take_socket(daemon)
        current = task.current()
        current.add(connection)
        try:
            yield connection
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            current.check()
            reason = daemon.reason() if not daemon.is_alive else ""
            problem = f"rclone has ended: {reason}" if reason else f"the call was cut off ({error})"
            raise TransientError(f"{subject}: {problem}") from error
        except BaseException:
            connection.close()
            raise
        else:
            connection.used = time.monotonic()
            with self._lock:
                self._idle.append(connection)
        finally:
            current.remove(connection)

    def _take_socket(self, daemon: Daemon) -> _Socket:
        with self._lock:
            fresh = time.monotonic() - _IDLE
            sockets = [one for one in self._idle if one.daemon is daemon and one.used > fresh]
            for one in set(self._idle) - set(sockets):
                one.close()
            self._idle = sockets[:-1]
        return sockets[-1] if sockets else _Socket(daemon)

    def _begin(self, connection: _Socket, method: str, path: str, **headers: str) -> None:
        connection.putrequest(method, path, skip_accept_encoding=True)
        connection.putheader("Authorization", f"Basic {connection.daemon.authorization}")
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()

    def _answer(self, connection: _Socket) -> http.client.HTTPResponse:
        """Wait for the answer, as long as rclone lives: it has time limits of its own."""
        poll = select.poll()
        poll.register(connection.sock, select.POLLIN)
        while not poll.poll(task.TICK * 1000):
            task.current().check()
            signals.raise_lost()
            if not connection.daemon.is_alive:
                raise ConnectionResetError("rclone has ended")
        return connection.getresponse()

    def _judged(self, answer: http.client.HTTPResponse, subject: str) -> bytes:
        """Return the body of an answer. Raises StoreError where it is an error."""
        body = answer.read(_LONGEST)
        if answer.read(1):
            raise StoreError(f"{subject}: the list is longer than {_LONGEST >> 20} MiB")
        if answer.status != _OK:
            raise self._error(answer.status, body, subject)
        return body

    def _error(self, status: int, body: bytes, subject: str) -> StoreError:
        try:
            text = str(foreign_json.load(body)["error"])
        except (ValueError, KeyError, TypeError):
            text = f"HTTP {status}"
        return rclone_errors.of_answer(status, text, subject, self.remote)

    # --- calls

    def call(self, method: str, subject: str, **parameters: object) -> Mapping[str, Any]:
        """Return what a method answers. Raises StoreError."""
        body = json.dumps(parameters).encode("ascii")
        with self._connection(subject) as connection:
            self._begin(
                connection,
                "POST",
                f"/{method}",
                Content_Type="application/json",
                Content_Length=str(len(body)),
            )
            connection.send(body)
            raw = self._judged(self._answer(connection), subject)
        try:
            answer = foreign_json.load(raw, _LONGEST)
            if isinstance(answer, dict):
                return answer
        except ValueError:
            pass  # said below
        raise StoreError(f"{subject}: {method}: the answer is none of rclone", "Check PROGRAM.")

    def of_remote(self, method: str, subject: str, **parameters: object) -> Mapping[str, Any]:
        """Return what a method answers about the remote."""
        return self.call(method, subject, fs=self.remote, **parameters)

    def upload(self, path: str, chunks: Iterable[bytes], subject: str) -> None:
        """Write an object, of a size that nobody knows yet. Raises what the chunks raise.

        What is cut off is never taken for an object: the last boundary is missing.
        """
        folder, _, file = path.rpartition("/")
        boundary = secrets.token_hex(24)
        query = urlencode({"fs": self.remote, "remote": folder}, quote_via=quote)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
            f"filename*=utf-8''{quote(file, safe='')}\r\n"
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        with _naming_source(), self._connection(subject) as connection:
            self._begin(
                connection,
                "POST",
                f"/operations/uploadfile?{query}",
                Content_Type=f"multipart/form-data; boundary={boundary}",
                Transfer_Encoding="chunked",
            )
            try:
                self._send(connection, subject, _framed(head, chunks, f"\r\n--{boundary}--\r\n"))
            except BaseException:
                connection.cut_off()
                raise
            self._judged(self._answer(connection), subject)

    def _send(self, connection: _Socket, subject: str, chunks: Iterable[bytes]) -> None:
        """Write all chunks. Where rclone closes the connection, it has said why."""
        try:
            for chunk in chunks:
                if chunk:
                    connection.send(b"%x\r\n" % len(chunk))
                    connection.send(chunk)
                    connection.send(b"\r\n")
                    task.current().touch()
            connection.send(b"0\r\n\r\n")
        except OSError:
            self._refused(connection, subject)
            raise

    def _refused(self, connection: _Socket, subject: str) -> None:
        """Raise StoreError where rclone has answered before it has read everything."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            self._judged(self._answer(connection), subject)
        if reason := connection.daemon.reason():
            raise rclone_errors.of_answer(500, reason, subject, self.remote)

    def download(
        self, path: str, subject: str, start: int = 0, end: int | None = None
    ) -> Iterator[bytes]:
        """Yield an object, or bytes of it that there are: start < end <= size."""
        ranged = start > 0 or end is not None
        headers = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if ranged else {}
        with self._connection(subject) as connection:
            self._begin(connection, "GET", "/" + quote(f"[{self.remote}]/{path}"), **headers)
            answer = self._answer(connection)
            if answer.status not in (_OK, _PARTIAL):
                raise self._error(answer.status, answer.read(1 << 20), subject)
            if ranged and answer.status != _PARTIAL:
                raise StoreError(f"{subject}: rclone does not give a part of an object")
            left = answer.length
            while chunk := answer.read(stream.CHUNK):
                left = None if left is None else left - len(chunk)
                task.current().touch()
                yield chunk
            if left:
                raise ConnectionResetError(f"{left} bytes are missing")


def _framed(head: str, chunks: Iterable[bytes], tail: str) -> Iterator[bytes]:
    yield head.encode("ascii")
    try:
        yield from chunks
    except OSError as error:
        raise _SourceFailedError(error) from error
    yield tail.encode("ascii")


@contextlib.contextmanager
def _naming_source() -> Iterator[None]:
    """Raise what the chunks of an upload raised."""
    try:
        yield
    except _SourceFailedError as failed:
        raise failed.error from None
