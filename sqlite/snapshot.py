"""Copy a SQLite database consistently, without changing anything beside it.

SQLite cannot read some databases without writing: it creates `-wal` and `-shm` for a database in
WAL mode, and rolls back a hot journal. So the files are copied as bytes while locks prevent other
processes from writing to them, and SQLite opens the copy.

Locks and files: https://www.sqlite.org/fileformat2.html, src/os_unix.c (bytes of the database
file) and src/wal.c (bytes of the `-shm` file).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools import date_str_utils
from tools.base.errors import SourceError
from tools.flow import task

HEADER = b"SQLite format 3\0"
_FLOCK = struct.Struct("hhqqi0q")  # struct flock of fcntl(2)
_PENDING, _RESERVED, _SHARED, _SHARED_SIZE = 0x40000000, 0x40000001, 0x40000002, 510
_CHECKPOINT = 121  # byte of -shm: its lock prevents checkpoints
_READER_1 = 124  # byte of -shm: its lock prevents a restart of the WAL
_POLL = 0.05  # seconds between two attempts to lock
_TRIES = 5  # attempts to copy files that could not be locked
_BLOCK = 1 << 20
_NO_LOCKS = (errno.ENOLCK, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Files:
    """The files of a database; a symbolic link is followed, as SQLite does."""

    database: Path

    @classmethod
    def of(cls, path: Path) -> Files:
        """Return the files of a database by its configured path."""
        return cls(Path(os.path.realpath(path)))

    def beside(self, ending: str) -> Path:
        """Return the path of the file with this ending: -wal, -shm or -journal."""
        return self.database.with_name(self.database.name + ending)


def copy(path: Path, target: Path, patience: float) -> bool:
    """Copy a database with its `-wal` and hot `-journal` to `target`.

    patience: seconds to wait for a lock. Returns whether the locks were granted; False if the
    file system does not support them. Raises SourceError if the database stays locked or keeps
    changing, and OSError if it cannot be read.
    """
    files = Files.of(path)
    for _ in range(_TRIES):
        with _open_read_only(files.database) as database:
            _check_header(path, database)
            locked, unchanged = _copy_once(files, database, target, patience)
        if unchanged:
            return locked
    raise SourceError(
        f"{path}: changed while it was copied",
        "Stop the program that writes it without SQLite's locks, or back up a snapshot.",
    )


def check(path: Path) -> str:
    """Check a database without opening it in SQLite; return its size. Raises as `copy` does."""
    with _open_read_only(Files.of(path).database) as database:
        _check_header(path, database)
        with _locked(database, 0.0):
            return date_str_utils.human_size(os.fstat(database).st_size)


def _copy_once(files: Files, database: int, target: Path, patience: float) -> tuple[bool, bool]:
    """Copy once; return whether the locks were granted, and whether nothing changed meanwhile."""
    with contextlib.ExitStack() as stack:
        locked = stack.enter_context(_locked(database, patience))
        before = _fingerprint(files, database)
        index = files.beside("-shm")
        if index.exists():
            descriptor = stack.enter_context(_open_read_only(index))
            locked &= _index_locked(descriptor, patience)
        journal = _hot_journal(files, database)
        _copy_bytes(database, target)
        for ending, needed in (("-wal", True), ("-journal", journal)):
            _copy_beside(files, ending, target, needed=needed)
        return locked, _fingerprint(files, database) == before


def _copy_beside(files: Files, ending: str, target: Path, *, needed: bool) -> None:
    destination = target.with_name(target.name + ending)
    destination.unlink(missing_ok=True)  # of an earlier attempt
    source = files.beside(ending)
    if needed and source.exists():
        with _open_read_only(source) as descriptor:
            _copy_bytes(descriptor, destination)


@contextlib.contextmanager
def _open_read_only(path: Path) -> Iterator[int]:
    """Open a file for reading without blocking. Raises SourceError if it is not a regular file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SourceError(f"{path}: not a regular file", "Remove it from DATABASES.")
        yield descriptor
    finally:
        os.close(descriptor)


def _check_header(path: Path, database: int) -> None:
    """Raise SourceError if the file is not a database; an empty file is one."""
    header = os.pread(database, len(HEADER), 0)
    if header and header != HEADER:
        raise SourceError(
            f"{path}: file is not a database",
            "Check that it is a SQLite database and is not encrypted.",
        )


def _copy_bytes(source: int, target: Path) -> None:
    """Copy the content of an open file into a new file."""
    with target.open("wb") as file:
        at = 0
        while block := os.pread(source, _BLOCK, at):
            file.write(block)
            task.current().check()
            task.current().touch()
            at += len(block)


def _fingerprint(files: Files, database: int) -> tuple[object, ...]:
    """Return values that differ after a write that the locks did not prevent.

    The WAL may grow meanwhile, with transactions after the last one of the copy.
    """
    facts = os.fstat(database)
    return (
        (facts.st_size, facts.st_mtime_ns),
        _identity(files.database),
        _identity(files.beside("-shm")),
    )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return (facts.st_dev, facts.st_ino)


def _hot_journal(files: Files, database: int) -> bool:
    """Return whether a crashed writer left a journal that must be rolled back.

    Called with the shared lock held: the writer of another journal holds the reserved lock, and
    has not changed the database yet.
    """
    try:
        with _open_read_only(files.beside("-journal")) as journal:
            has_header = os.pread(journal, 1, 0) not in (b"", b"\0")
    except FileNotFoundError:
        return False
    return has_header and not _is_locked(database, _RESERVED)


def _is_locked(descriptor: int, byte: int) -> bool:
    """Return whether another process holds a lock on a byte."""
    request = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, request)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


@contextlib.contextmanager
def _locked(database: int, patience: float) -> Iterator[bool]:
    """Hold SQLite's shared lock, so nobody writes to the database file. False: not supported.

    The pending byte is locked first, as in SQLite, so that a waiting writer gets its turn.
    """
    granted = _wait(database, _PENDING, 1, patience)
    granted = granted and _wait(database, _SHARED, _SHARED_SIZE, patience)
    if granted:
        _lock(database, fcntl.F_UNLCK, _PENDING, 1)
    yield granted  # closing the file releases the lock


def _index_locked(index: int, patience: float) -> bool:
    """Lock the WAL: it can grow, but there is no checkpoint and no restart."""
    return all(_wait(index, byte, 1, patience) for byte in (_CHECKPOINT, _READER_1))


def _wait(descriptor: int, byte: int, size: int, patience: float) -> bool:
    """Get a shared lock; False if the file system does not support it. Raises SourceError."""
    until = time.monotonic() + patience
    while True:
        try:
            _lock(descriptor, fcntl.F_RDLCK, byte, size)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        else:
            return True
        if time.monotonic() >= until:
            raise SourceError(
                f"database is locked (waited {patience:g} seconds)",
                "Find out which program holds it (fuser -v FILE), or raise LOCK_TIMEOUT.",
            )
        task.current().check()
        time.sleep(_POLL)


def _lock(descriptor: int, kind: int, byte: int, size: int) -> None:
    """Set or release a lock of this open file (F_OFD_SETLK); another close does not release it."""
    request = _FLOCK.pack(kind, os.SEEK_SET, byte, size, 0)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
