"""The local store: a folder of this machine, a mounted disk, a share."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tools import filesystem_handling, store, stream
from tools.errors import StoreError

_BLOCK = 32 << 20  # bytes that are synced and read back together while the next ones come


class LocalStore:
    """Parts as files below one folder."""

    def __init__(self, folder: Path, *, require_mount: bool = False, marker: str = "") -> None:
        """folder: made where it is missing, unless a mount or a marker must prove it.

        require_mount: it must lie on another file system than /. marker: a file that must be
        in it. Raises StoreError where the proof fails.
        """
        self.folder = folder
        self._held: dict[str, Path] = {}  # what has been put and not published
        place = folder
        while not place.exists():
            place = place.parent
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
                _write(temporary, path, tally(chunks))
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
            filesystem_handling.make_folder(folder)
            filesystem_handling.sync_folder(folder.parent)

    def _already(
        self, name: str, path: Path, chunks: Iterable[bytes], tally: stream.Tally
    ) -> store.Stored:
        """The name is taken: by the same content, or the put fails."""
        for _ in chunks:
            pass
        if _digest(path) != tally.sha256:
            raise StoreError(
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
            if path.is_dir() and not path.name.startswith("."):
                yield path.name

    def remove(self, name: str) -> None:
        """See Store."""
        self._path(name).unlink(missing_ok=True)


def _write(temporary: Path, path: Path, chunks: Iterable[bytes]) -> None:
    """A new file, synced; each block is read back from the disk while the next ones come.

    (CRC-32 finds what a disk or a cable does to a block; the SHA-256 of all of it is taken of
    what came in.) Raises StoreError where the disk gives something else.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        begin = end = check = 0
        for chunk in chunks:
            filesystem_handling.write_all(descriptor, chunk)
            check = zlib.crc32(chunk, check)
            end += len(chunk)
            if end - begin >= _BLOCK:
                _settled(descriptor, path, begin, end, check)
                begin, check = end, 0
        _settled(descriptor, path, begin, end, check)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settled(descriptor: int, path: Path, begin: int, end: int, check: int) -> None:
    """Sync a block, ask the page cache to forget it, and compare what the disk holds."""
    os.fdatasync(descriptor)
    os.posix_fadvise(descriptor, begin, end - begin, os.POSIX_FADV_DONTNEED)
    found = 0
    while begin < end:
        chunk = os.pread(descriptor, min(stream.CHUNK, end - begin), begin)
        if not chunk:
            break
        found = zlib.crc32(chunk, found)
        begin += len(chunk)
    if found != check or begin < end:
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
