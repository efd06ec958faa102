"""The local store: a folder of this machine, a mounted disk, a share."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tools import filesystem_handling
from tools.base.errors import StoreError, TakenError
from tools.flow import store, stream

_BLOCK = 4 << 20  # bytes that are written and read back together


class LocalStore:
    """Parts as files below one folder."""

    def __init__(self, folder: Path, *, require_mount: bool = False, marker: str = "") -> None:
        """folder: made where it is missing, unless a mount or a marker must prove it.

        require_mount: it must lie on another file system than /. marker: a file that must be
        in it. Raises StoreError where the proof fails.
        """
        self.folder = folder
        self._held: dict[str, Path] = {}  # what has been put and not published
        place = filesystem_handling.nearest(folder)
        if require_mount and place.stat().st_dev == Path("/").stat().st_dev:
            raise StoreError(
                f"LOCAL_BACKUP: {folder} is not mounted", "REQUIRE_MOUNT: mount its disk."
            )
        if marker and not (folder / marker).is_file():
            raise StoreError(
                f"LOCAL_BACKUP: {folder / marker} is missing", "MARKER: mount its disk."
            )

    def __str__(self) -> str:
        return str(self.folder)

    def put(self, name: str, chunks: Iterable[bytes]) -> store.Stored:
        """See Store: under a temporary name, synced, read back block by block."""
        path = self._path(name)
        self._make(path.parent)
        tally = stream.Tally()
        if path.exists():
            return self._already(name, path, tally(chunks), tally)
        temporary = filesystem_handling.temporary(path)
        try:
            with filesystem_handling.naming(path):
                _write(temporary, path, stream.ahead(tally(chunks)))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._held[name] = temporary
        return store.Stored(name, tally.size, tally.sha256)

    def publish(self, names: Sequence[str]) -> None:
        """See Store: linked without replacing, the folders synced."""
        folders = set()
        for name in names:
            temporary = self._held.pop(name, None)
            path = self._path(name)
            if temporary is not None:
                filesystem_handling.publish(temporary, path)
                temporary.unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in folders:
            filesystem_handling.sync_folder(folder)

    def discard(self, names: Sequence[str]) -> None:
        """See Store."""
        for name in names:
            temporary = self._held.pop(name, None)
            if temporary is not None:
                temporary.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / store.check_name(name)

    def _make(self, folder: Path) -> None:
        """The folder, its name made to last as well."""
        if not folder.is_dir():
            try:
                filesystem_handling.make_folder(folder)
            except (NotADirectoryError, FileExistsError):
                place = filesystem_handling.nearest(folder)
                raise StoreError(f"{place}: is not a directory", "Name a folder.") from None
            filesystem_handling.sync_folder(folder.parent)

    def _already(
        self, name: str, path: Path, chunks: Iterable[bytes], tally: stream.Tally
    ) -> store.Stored:
        """The name is taken: by the same content, or the put fails."""
        for _ in chunks:
            pass
        if _digest(path) != tally.sha256:
            raise TakenError(
                f"{path} exists already with another content",
                "Nothing that is stored is overwritten.",
            )
        return store.Stored(name, tally.size, tally.sha256)

    def get(self, name: str) -> Iterator[bytes]:
        """See Store."""
        path = self._path(name)
        if not path.is_file():
            raise StoreError(f"{path} is not in the store")
        yield from stream.read(path)

    def entries(self, folder: str) -> Iterator[store.Entry]:
        """See Store."""
        return self._files(folder, temporary=False)

    def unfinished(self, folder: str) -> Iterator[store.Entry]:
        """See Store."""
        return self._files(folder, temporary=True)

    def _files(self, folder: str, *, temporary: bool) -> Iterator[store.Entry]:
        place = self._path(folder)
        now = time.time()
        if not place.is_dir():
            return
        with os.scandir(place) as found:
            files = sorted(found, key=lambda entry: entry.name)
        for file in files:
            of_kind = filesystem_handling.is_temporary(file.name) is temporary
            if of_kind and file.is_file(follow_symlinks=not temporary):
                about = file.stat()
                yield store.Entry(f"{folder}/{file.name}", about.st_size, now - about.st_mtime)

    def folders(self) -> Iterator[str]:
        """See Store."""
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            own = path.name == store.OWN_FOLDER
            if path.is_dir() and not own and not path.name.startswith("."):
                yield path.name

    def free(self) -> int:
        """See Measured: of the file system that the folder lies on, or would lie on."""
        usage = os.statvfs(filesystem_handling.nearest(self.folder))
        return usage.f_bavail * usage.f_frsize

    def remove(self, name: str) -> None:
        """See Store."""
        self._path(name).unlink(missing_ok=True)


def _write(temporary: Path, path: Path, chunks: Iterable[bytes]) -> None:
    """A new file, synced, each block of it read back from the disk.

    It goes round the page cache where the file system can do that (O_DIRECT, open(2)): it
    costs a fraction, and a backup does not push out what the server's programs have there.
    Raises StoreError where the disk gives something else than it was given.
    """
    descriptor = _created(temporary)
    try:
        buffer, back = mmap.mmap(-1, _BLOCK), mmap.mmap(-1, _BLOCK)
        begin = filled = 0
        for chunk in chunks:
            at = 0
            while at < len(chunk):
                count = min(len(chunk) - at, _BLOCK - filled)
                buffer[filled : filled + count] = chunk[at : at + count]
                at, filled = at + count, filled + count
                if filled == _BLOCK:
                    _settle(descriptor, path, (buffer, back), (begin, filled))
                    begin, filled = begin + filled, 0
        _cached(descriptor)  # the last block is no whole one
        _settle(descriptor, path, (buffer, back), (begin, filled))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _created(temporary: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(temporary, flags | os.O_DIRECT, 0o600)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    temporary.unlink(missing_ok=True)  # some file systems make it all the same
    return os.open(temporary, flags, 0o600)


def _cached(descriptor: int) -> None:
    """From now on through the page cache."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)


def _settle(
    descriptor: int, path: Path, buffers: tuple[mmap.mmap, mmap.mmap], where: tuple[int, int]
) -> None:
    """Write one block, let the disk have it, read it back and compare."""
    buffer, back = buffers
    begin, size = where
    with memoryview(buffer) as view, view[:size] as block:
        try:
            filesystem_handling.write_all(descriptor, block)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            _cached(descriptor)
            os.lseek(descriptor, begin, os.SEEK_SET)
            filesystem_handling.write_all(descriptor, block)
    if not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, begin, size, os.POSIX_FADV_DONTNEED)
    with memoryview(back) as view:
        got = 0
        while got < size and (count := os.preadv(descriptor, [view[got:size]], begin + got)):
            got += count
    if got != size or back[:size] != buffer[:size]:
        raise StoreError(
            f"{path}: what was written reads back differently",
            "Distrust this disk; nothing was stored under the name.",
        )


def _digest(path: Path) -> str:
    """The SHA-256 of what the disk holds: the page cache is asked to forget the file first."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    tally = stream.Tally()
    for _ in tally(stream.read(path)):
        pass
    return tally.sha256


if TYPE_CHECKING:
    _: type[store.Store] = LocalStore
    _measured: type[store.Measured] = LocalStore
