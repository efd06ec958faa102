"""The local store: a folder of this machine, a mounted disk, a share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tools import filesystem_handling, plugin, stream
from tools.errors import StoreError

if TYPE_CHECKING:
    from storage import store
else:
    store = plugin.load("storage/store.py")


class LocalStore:
    """Parts as files below one folder."""

    def __init__(self, folder: Path, *, require_mount: bool = False, marker: str = "") -> None:
        """folder: made where it is missing, unless a mount or a marker must prove it.

        require_mount: it must lie on another file system than /. marker: a file that must be
        in it. Raises StoreError where the proof fails.
        """
        self.folder = folder
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

    def put(self, name: str, chunks: Iterable[bytes]) -> store.Stored:
        """See Store: temporary name, sync, link without replacing, folder sync, read back."""
        path = self.folder / store.check_name(name)
        filesystem_handling.make_folder(path.parent)
        if path.exists():
            return self._already(name, path, chunks)
        tally = stream.Tally()
        with filesystem_handling.create(path) as write:
            for chunk in tally(chunks):
                write(chunk)
        held = _digest(path)
        if held != tally.sha256:
            raise StoreError(
                f"{path}: what was written reads back differently",
                "Distrust this disk; the file is left.",
            )
        return store.Stored(name, tally.size, held)

    def _already(self, name: str, path: Path, chunks: Iterable[bytes]) -> store.Stored:
        """The name is taken: by the same content, or the put fails."""
        tally = stream.Tally()
        for _ in tally(chunks):
            pass
        if _digest(path) != tally.sha256:
            raise StoreError(
                f"{path} exists already with another content",
                "Nothing that is stored is overwritten.",
            )
        return store.Stored(name, tally.size, tally.sha256)

    def get(self, name: str) -> Iterator[bytes]:
        """See Store."""
        path = self.folder / store.check_name(name)
        if not path.is_file():
            raise StoreError(f"{path} is not in the store")
        yield from stream.read(path)

    def names(self, folder: str) -> Iterator[str]:
        """See Store."""
        place = self.folder / store.check_name(folder)
        for path in sorted(place.iterdir()) if place.is_dir() else []:
            if path.is_file() and not filesystem_handling.is_temporary(path.name):
                yield f"{folder}/{path.name}"


def _digest(path: Path) -> str:
    """The SHA-256 of what the disk holds: the page cache is asked to forget the file first."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while chunk := file.read(stream.CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


if TYPE_CHECKING:
    _: type[store.Store] = LocalStore
