"""Files and folders of an account that sftp reaches: what takes several requests."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from storage.ssh_protocol import (
    FSYNC,
    Attributes,
    Code,
    Flag,
    Kind,
    StatusError,
    text,
    u32,
    u64,
)
from storage.ssh_session import Session
from storage.ssh_sftp import WINDOW, WRITE_NEW, Future, Sftp, blocks
from tools import filesystem_handling
from tools.base.errors import BackupError, TransientError
from tools.flow import store, stream, task
from tools.flow.retries import Retries

_AT_ONCE = 16  # files that are open together
_LONGEST = 200  # bytes of a name in a temporary one: a name has at most 255


def temporary(path: bytes) -> bytes:
    """Return a new temporary name beside a path, as filesystem_handling.temporary does."""
    folder, _, name = path.rpartition(b"/")
    ending = f"{filesystem_handling.PART}{uuid.uuid4().hex[:8]}".encode("ascii")
    return folder + b"/." + name[:_LONGEST] + ending


@dataclass
class _Block:
    """Bytes that the server has not confirmed yet. future: None until they are on their way"""

    offset: int
    content: bytes | memoryview
    future: Future | None = None


class NewFile:
    """A file that did not exist, open for writing.

    Where the connection is cut, writing goes on over another one: what the server has not
    confirmed is still here. A sync is not repeated.
    sftp: the connection that stands
    """

    def __init__(self, session: Session, sftp: Sftp, path: bytes, handle: bytes) -> None:
        self.sftp = sftp
        self._session = session
        self._path = path
        self._handle = handle
        self._closed = False
        self._waiting: deque[_Block] = deque()

    def write(self, content: stream.Content, retries: Retries, name: str) -> int:
        """Write all chunks; return their number of bytes. Raises StatusError, StoreError.

        name: of the object, for the log
        """
        size = 0
        most = max(1, WINDOW // self.sftp.max_write)
        for block in blocks(content, self.sftp.max_write):
            self._waiting.append(_Block(size, block))
            size += len(block)
            try:
                self._send(self._waiting[-1])
                if len(self._waiting) > most:
                    self._confirm()
            except TransientError as error:
                retries.say(f"{name}: {error}; logging in again to go on where it stopped")
                retries.call(name, self._again, content.abandoned, _is_transient)
        return size

    def _send(self, block: _Block) -> None:
        block.future = self.sftp.write(self._handle, block.offset, block.content)

    def _confirm(self) -> None:
        """Wait until the server has confirmed the first block."""
        future = self._waiting[0].future
        assert future is not None  # noqa: S101  (each is sent before the next)
        self.sftp.done(future)
        self._waiting.popleft()

    def _again(self) -> None:
        """Send what the server has not confirmed, over a connection that stands."""
        self.sftp = self._session.sftp()
        self._handle = self.sftp.open(self._path, Flag.READ | Flag.WRITE)
        for block in self._waiting:
            self._send(block)
        while self._waiting:
            self._confirm()

    def finish(self, size: int, small: int) -> tuple[Attributes, bytes | None]:
        """Sync and close a file of `size` bytes; return what the server holds.

        Its attributes and, of a file of at most `small` bytes, its content as the server reads
        it. Raises StatusError, StoreError.
        """
        sftp, handle = self.sftp, text(self._handle)
        syncing = [sftp.sync(self._handle)] if FSYNC in sftp.extensions else []
        about = sftp.request(Kind.FSTAT, handle)
        back = None
        if size <= min(small, sftp.max_read - 1):
            back = sftp.request(Kind.READ, handle, u64(0), u32(size + 1))
        self._closed = True  # its handle may soon be that of another file
        closing = sftp.request(Kind.CLOSE, handle)
        while self._waiting:
            self._confirm()
        for future in syncing:
            sftp.done(future)
        attributes = sftp.answer(about, Kind.ATTRS).attributes()
        content = None if back is None else _content(sftp, back)
        sftp.done(closing)
        return attributes, content

    def abandon(self) -> None:
        """Remove the file, which is not complete; also that of an item that was stopped."""
        with task.entered(task.Task()), contextlib.suppress(BackupError, StatusError):
            if not self._closed:
                self.sftp.request(Kind.CLOSE, text(self._handle))
            self.sftp.remove(self._path)  # where this fails, a later run removes it


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, TransientError)


def _content(sftp: Sftp, reading: Future) -> bytes:
    try:
        return sftp.answer(reading, Kind.DATA).text()
    except StatusError as error:
        if error.code == Code.EOF:
            return b""
        raise


def create(session: Session, sftp: Sftp, path: bytes, opening: Future | None = None) -> NewFile:
    """Return a new file; create its folder where that is missing.

    opening: the request, where it is on its way. Raises StatusError, StoreError.
    """
    try:
        handle = sftp.answer(opening or sftp.opening(path, WRITE_NEW), Kind.HANDLE).text()
    except StatusError as error:
        if error.code != Code.NO_SUCH_FILE:
            raise
        make_folders(sftp, path.rpartition(b"/")[0])
        handle = sftp.open(path, WRITE_NEW)
    return NewFile(session, sftp, path, handle)


def sync(sftp: Sftp, paths: Sequence[bytes]) -> None:
    """Sync files and their names: journals write the new name of a file that is synced."""
    for some in (paths[at : at + _AT_ONCE] for at in range(0, len(paths), _AT_ONCE)):
        opening = [sftp.opening(path, Flag.READ) for path in some]
        waiting: list[Future] = []
        for future in opening:
            handle = sftp.answer(future, Kind.HANDLE).text()
            waiting += [sftp.sync(handle), sftp.request(Kind.CLOSE, text(handle))]
        for future in waiting:
            sftp.done(future)


def nearest(sftp: Sftp, path: bytes) -> bytes:
    """Return the nearest existing folder at or above a path."""
    while path not in (b"", b"."):
        with contextlib.suppress(StatusError):
            if (about := sftp.stat(path)) is not None and about.is_folder:
                return path
        path = path.rpartition(b"/")[0]
    return b"/" if path.startswith(b"/") else b"."


def make_folders(sftp: Sftp, path: bytes) -> None:
    """Create a folder and those above it that are missing."""
    missing = []
    while path.strip(b"/") not in (b"", b".") and sftp.stat(path) is None:
        missing.append(path)
        path = path.rpartition(b"/")[0]
    for folder in reversed(missing):
        try:
            sftp.make_folder(folder)
        except StatusError:
            if sftp.stat(folder) is None:  # otherwise another thread was faster
                raise


def listed(sftp: Sftp, path: bytes) -> Iterator[tuple[str, Attributes]]:
    """Yield the names in a folder, sorted, with what they stand for; nothing if it is missing."""
    try:
        entries = sftp.listing(path)
    except StatusError as error:
        if error.code == Code.NO_SUCH_FILE:
            return
        raise
    for raw, about in sorted(entries, key=lambda one: os.fsdecode(one[0])):
        target = sftp.stat(path + b"/" + raw) if about.is_link else about
        if target is not None:
            yield os.fsdecode(raw), target


def tried_rename(sftp: Sftp, folder: bytes) -> store.CreateOnly:
    """Return whether the server's rename keeps a name that exists, tried with two empty files."""
    one, other = temporary(folder + b"/probe"), temporary(folder + b"/probe")
    try:
        for path in (one, other):
            sftp.shut(sftp.open(path, WRITE_NEW))
        sftp.rename(one, other)
    except StatusError:
        kept = sftp.stat(one) is not None
        return store.CreateOnly.PROBED if kept else store.CreateOnly.LISTED
    finally:
        for path in (one, other):
            sftp.remove(path)
    return store.CreateOnly.LISTED
