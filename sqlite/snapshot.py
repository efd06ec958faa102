"""A copy of a SQLite database of one moment, made without changing anything beside it.

SQLite itself cannot read some databases without writing: it creates `-wal` and `-shm` for a
database in WAL mode, and rolls a hot journal back. So the files are copied as bytes, under the
locks that keep every other process from writing to what is copied, and SQLite opens the copy.

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

HEADER = b"SQLite format 3\0"
_FLOCK = struct.Struct("hhqqi0q")  # struct flock of fcntl(2)
_PENDING, _RESERVED, _SHARED, _SHARED_SIZE = 0x40000000, 0x40000001, 0x40000002, 510
_CHECKPOINT = 121  # of -shm: held, nobody moves pages from the WAL into the database
_READER_1 = 124  # of -shm: held, nobody begins the WAL anew
_POLL = 0.05  # seconds between two tries to lock
_TRIES = 5  # copies, where files change that could not be locked
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
    """Copy a database and what belongs to it (`-wal`, a hot `-journal`) to `target`.

    patience: seconds to wait for whoever has locked the database. Returns whether the locks
    were granted; False where the file system has none. Raises SourceError where the database
    stays locked or keeps changing, OSError where it cannot be read.
    """
    files = Files.of(path)
    for _ in range(_TRIES):
        with _opened(files.database) as database:
            _check_header(path, database)
            locked, unchanged = _copied(files, database, target, patience)
        if unchanged:
            return locked
    raise SourceError(
        f"{path}: changed while it was copied",
        "Stop the program that writes it without SQLite's locks, or back up a snapshot.",
    )


def check(path: Path) -> str:
    """Return what can be said of a database without opening it; raises as `copy` does."""
    with _opened(Files.of(path).database) as database:
        _check_header(path, database)
        with _locked(database, 0.0):
            return date_str_utils.human_size(os.fstat(database).st_size)


def _copied(files: Files, database: int, target: Path, patience: float) -> tuple[bool, bool]:
    """Copy once; whether the locks were granted, and whether all is of one moment."""
    with contextlib.ExitStack() as stack:
        locked = stack.enter_context(_locked(database, patience))
        before = _fingerprint(files, database)
        index = files.beside("-shm")
        if index.exists():
            opened = stack.enter_context(_opened(index))
            locked &= _index_locked(opened, patience)
        journal = _hot_journal(files, database)
        _write(database, target)
        for ending, wanted in (("-wal", True), ("-journal", journal)):
            _copy_beside(files, ending, target, wanted=wanted)
        return locked, _fingerprint(files, database) == before


def _copy_beside(files: Files, ending: str, target: Path, *, wanted: bool) -> None:
    goal = target.with_name(target.name + ending)
    goal.unlink(missing_ok=True)  # of an earlier try
    source = files.beside(ending)
    if wanted and source.exists():
        with _opened(source) as opened:
            _write(opened, goal)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open for reading, never waiting for a FIFO; raises SourceError for what is no file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SourceError(f"{path}: not a regular file", "Remove it from DATABASES.")
        yield descriptor
    finally:
        os.close(descriptor)


def _check_header(path: Path, database: int) -> None:
    """Raise SourceError for what is not a database; an empty file is one."""
    header = os.pread(database, len(HEADER), 0)
    if header and header != HEADER:
        raise SourceError(
            f"{path}: file is not a database",
            "Check that it is a SQLite database and is not encrypted.",
        )


def _write(source: int, target: Path) -> None:
    """Copy an open file from its beginning to its end into a new file."""
    with target.open("wb") as file:
        at = 0
        while block := os.pread(source, _BLOCK, at):
            file.write(block)
            at += len(block)


def _fingerprint(files: Files, database: int) -> tuple[object, ...]:
    """Return what differs after a write that the locks did not keep away.

    The WAL may grow meanwhile: transactions after the copy's last one.
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
    """Whether a crashed writer left a journal that has to be rolled back.

    Under the shared lock: a journal whose writer lives has the reserved lock beside it, and
    that writer has not changed the database yet.
    """
    try:
        with _opened(files.beside("-journal")) as journal:
            begun = os.pread(journal, 1, 0) not in (b"", b"\0")
    except FileNotFoundError:
        return False
    return begun and not _is_locked(database, _RESERVED)


def _is_locked(descriptor: int, byte: int) -> bool:
    """Whether another process holds a lock on a byte."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


@contextlib.contextmanager
def _locked(database: int, patience: float) -> Iterator[bool]:
    """Hold SQLite's shared lock: nobody writes into the database file. False: no locks here.

    The pending byte is asked first, as SQLite does, so that a waiting writer gets its turn.
    """
    granted = _wait(database, _PENDING, 1, patience)
    granted = granted and _wait(database, _SHARED, _SHARED_SIZE, patience)
    if granted:
        _lock(database, fcntl.F_UNLCK, _PENDING, 1)
    yield granted  # closing the file gives the lock back


def _index_locked(index: int, patience: float) -> bool:
    """Hold the WAL as it is: it grows, but is neither moved into the database nor begun anew."""
    return all(_wait(index, byte, 1, patience) for byte in (_CHECKPOINT, _READER_1))


def _wait(descriptor: int, byte: int, size: int, patience: float) -> bool:
    """Get a shared lock; False where the file system has none. Raises SourceError."""
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
        time.sleep(_POLL)


def _lock(descriptor: int, kind: int, byte: int, size: int) -> None:
    """Set or give back a lock of this open file (F_OFD_SETLK), which no other close ends."""
    request = _FLOCK.pack(kind, os.SEEK_SET, byte, size, 0)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
