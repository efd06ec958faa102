"""Files and folders of an account that sftp reaches: what takes several requests."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence

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
from storage.ssh_sftp import WRITE_NEW, Future, Sftp
from tools import filesystem_handling
from tools.base.errors import BackupError
from tools.flow import store, task

_AT_ONCE = 16  # files that are open together
_LONGEST = 200  # bytes of a name in a temporary one: a name has at most 255


def temporary(path: bytes) -> bytes:
    """Return a new temporary name beside a path, as filesystem_handling.temporary does."""
    folder, _, name = path.rpartition(b"/")
    ending = f"{filesystem_handling.PART}{uuid.uuid4().hex[:8]}".encode("ascii")
    return folder + b"/." + name[:_LONGEST] + ending


class NewFile:
    """A file that did not exist, open for writing."""

    def __init__(self, sftp: Sftp, path: bytes, handle: bytes) -> None:
        self._sftp = sftp
        self._path = path
        self._handle = handle
        self._closed = False

    def write(self, chunks: Iterable[bytes], small: int) -> tuple[Attributes, int, bytes | None]:
        """Write all chunks, sync and close. Return what the server holds and what was sent.

        The attributes of the file, the bytes that were sent, and, of a file of at most `small`
        bytes, its content as the server reads it. Raises StatusError, StoreError.
        """
        sftp, handle = self._sftp, text(self._handle)
        size, writing = sftp.write(self._handle, chunks)
        if FSYNC in sftp.extensions:
            writing.append(sftp.sync(self._handle))
        about = sftp.request(Kind.FSTAT, handle)
        back = None
        if size <= min(small, sftp.max_read - 1):
            back = sftp.request(Kind.READ, handle, u64(0), u32(size + 1))
        self._closed = True  # its handle may soon be that of another file
        closing = sftp.request(Kind.CLOSE, handle)
        for future in writing:
            sftp.done(future)
        attributes = sftp.answer(about, Kind.ATTRS).attributes()
        content = None if back is None else _content(sftp, back)
        sftp.done(closing)
        return attributes, size, content

    def abandon(self) -> None:
        """Remove the file, which is not complete; also that of an item that was stopped."""
        with task.entered(task.Task()), contextlib.suppress(BackupError, StatusError):
            if not self._closed:
                self._sftp.request(Kind.CLOSE, text(self._handle))
            self._sftp.remove(self._path)  # where this fails, a later run removes it


def _content(sftp: Sftp, reading: Future) -> bytes:
    try:
        return sftp.answer(reading, Kind.DATA).text()
    except StatusError as error:
        if error.code == Code.EOF:
            return b""
        raise


def create(sftp: Sftp, path: bytes, opening: Future | None = None) -> NewFile:
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
    return NewFile(sftp, path, handle)


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
        found = sftp.listing(path)
    except StatusError as error:
        if error.code == Code.NO_SUCH_FILE:
            return
        raise
    for raw, about in sorted(found, key=lambda one: os.fsdecode(one[0])):
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
