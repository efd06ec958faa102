"""The local store: a folder of this machine, a mounted disk, a share."""

from __future__ import annotations

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
        """See Store: temporary name, sync, read back, link without replacing, folder sync."""
        path = self.folder / store.check_name(name)
        self._make(path.parent)
        tally = stream.Tally()
        if path.exists():
            return self._already(name, path, tally(chunks), tally)

        def check(temporary: Path) -> None:
            if _digest(temporary) != tally.sha256:
                raise StoreError(
                    f"{path}: what was written reads back differently",
                    "Distrust this disk; nothing was stored under the name.",
                )

        with filesystem_handling.create(path, check=check) as write:
            for chunk in tally(chunks):
                write(chunk)
        return store.Stored(name, tally.size, tally.sha256)

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
        # who wrote it may have died before its name was safe from a power cut
        filesystem_handling.sync_folder(path.parent)
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
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    tally = stream.Tally()
    for _ in tally(stream.read(path)):
        pass
    return tally.sha256


if TYPE_CHECKING:
    _: type[store.Store] = LocalStore
