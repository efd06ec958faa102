"""The log of the system: syslog (RFC 3164, as /dev/log takes it) and the journal of systemd.

Both are sockets of datagrams. One that is full or dead never makes a run wait: its lines are
dropped, with one warning. https://systemd.io/JOURNAL_NATIVE_PROTOCOL/ describes the journal's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

TARGETS = ("file", "syslog", "journald")
SYSLOG = Path("/dev/log")
JOURNAL = Path("/run/systemd/journal/socket")
_NAME = "nc-backup-py"
_DAEMON = 3 << 3  # the facility of system daemons
_INFO = 6
_SEVERITIES = {logging.DEBUG: 7, logging.INFO: _INFO, logging.WARNING: 4, logging.ERROR: 3}
_SEVERITIES[logging.CRITICAL] = 2
_MOST_LINE = 8_000  # bytes of a line of syslog, of which receivers take at least that
_MOST_MESSAGE = 60_000  # bytes of a message to the journal in a datagram
_PATIENCE = 0.2  # seconds for one datagram
_PAUSE = 30.0  # seconds after a failure in which nothing is tried


class _Socket(logging.Handler):
    """A handler that sends datagrams to a socket of this machine, and never waits for long.

    LINE: its format; the receiver adds the time
    """

    LINE = "%(message)s"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._socket: socket.socket | None = None
        self._resume = 0.0
        self._warned = False
        self.facts: Mapping[str, str] = {}  # of the run

    def datagrams(self, record: logging.LogRecord) -> Iterator[bytes]:
        """Give what is sent for one record."""
        raise NotImplementedError

    def emit(self, record: logging.LogRecord) -> None:
        if time.monotonic() < self._resume:
            return
        try:
            for datagram in self.datagrams(record):
                self._send(datagram)
        except OSError as error:
            self._resume = time.monotonic() + _PAUSE
            self._drop()
            if not self._warned:
                self._warned = True
                reason = (error.strerror or str(error)).lower()
                sys.stderr.write(f"warning: cannot write to the log: {self._path}: {reason}\n")

    def close(self) -> None:
        self._drop()
        super().close()

    def _send(self, datagram: bytes) -> None:
        """Send one; a daemon that was restarted has another socket. Raises OSError."""
        try:
            self._opened().send(datagram)
        except (ConnectionError, BrokenPipeError, FileNotFoundError):
            self._drop()
            self._opened().send(datagram)

    def _opened(self) -> socket.socket:
        if self._socket is None:
            opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            opened.settimeout(_PATIENCE)
            try:
                opened.connect(os.fspath(self._path))
            except OSError:
                opened.close()
                raise
            self._socket = opened
        return self._socket

    def _drop(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
        self._socket = None


class Syslog(_Socket):
    """Each line of a message is one of syslog: a reader could not tell where it ends."""

    LINE = "%(levelname)s - %(message)s"

    def __init__(self, path: Path = SYSLOG) -> None:
        super().__init__(path)

    def datagrams(self, record: logging.LogRecord) -> Iterator[bytes]:
        priority = _DAEMON | _SEVERITIES.get(record.levelno, _INFO)
        for line in self.format(record).split("\n"):
            text = f"<{priority}>{_NAME}[{os.getpid()}]: {line}"
            yield text.encode("utf-8", "backslashreplace")[:_MOST_LINE]


class Journald(_Socket):
    """Each message is one entry, with fields that journalctl selects by (NC_BACKUP_RUN_ID=...)."""

    def __init__(self, path: Path = JOURNAL) -> None:
        super().__init__(path)

    def datagrams(self, record: logging.LogRecord) -> Iterator[bytes]:
        message = self.format(record).encode("utf-8", "backslashreplace")[:_MOST_MESSAGE]
        fields = {
            "PRIORITY": str(_SEVERITIES.get(record.levelno, _INFO)),
            "SYSLOG_IDENTIFIER": _NAME,
            "SYSLOG_PID": str(os.getpid()),
            **self.facts,
        }
        named = {name: text.encode("utf-8", "backslashreplace") for name, text in fields.items()}
        yield b"".join(_field(name, value) for name, value in {**named, "MESSAGE": message}.items())


def _field(name: str, value: bytes) -> bytes:
    """Return a field; one with a line feed has its length, 64 bits, little-endian, before it."""
    if b"\n" not in value:
        return name.encode() + b"=" + value + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"


_KINDS: Mapping[str, type[Syslog] | type[Journald]] = {"syslog": Syslog, "journald": Journald}


def handlers(targets: Iterable[str]) -> list[Syslog | Journald]:
    """Return a handler for each target but the file."""
    return [_KINDS[name]() for name in dict.fromkeys(targets) if name in _KINDS]


def missing(targets: Iterable[str]) -> list[str]:
    """Return a text for each target that does not listen on this machine."""
    sockets = {"syslog": SYSLOG, "journald": JOURNAL}
    return [
        f"LOG_TO: {name}: {path}: no such socket"
        for name, path in sockets.items()
        if name in targets and not path.is_socket()
    ]


def describe(logger: logging.Logger, facts: Mapping[str, str]) -> None:
    """Give the handlers of a logger the facts of the run, by the name of their field."""
    for handler in logger.handlers:
        if isinstance(handler, _Socket):
            handler.facts = dict(facts)
