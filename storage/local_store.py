"""The local store: a folder of this machine, a mounted disk, a share."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from storage import local_checks, verified_file
from storage.keys import Address, StorageKeys
from tools import filesystem_handling
from tools.base import trusted_path
from tools.base.errors import (
    ConfigError,
    ForbiddenError,
    StoreError,
    TakenError,
    UnmountedError,
)
from tools.base.finding import Finding
from tools.flow import store, stream
from tools.modules.options import option

# Why a file may not be removed, with hints.
_FORBIDDEN = {
    errno.EACCES: "The user of the backup must be able to write to the folder of the file.",
    errno.EPERM: "Check its owner, the sticky bit of its folder, and its attributes (lsattr).",
    errno.EROFS: "Check the mount options of this file system and the kernel log.",
}


@dataclass(frozen=True)
class Options(StorageKeys):
    """The keys of a section with DESTINATION local."""

    local_backup: Path | None = option("local: folder of the store", default=None)
    require_mount: bool = option(
        "local: fail unless the folder is on a mounted file system", default=False
    )
    marker: str = option("local: fail unless this file exists in the folder", default="")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.local_backup is None:
            raise ConfigError(
                "LOCAL_BACKUP is required with DESTINATION local", "Set LOCAL_BACKUP in GENERAL."
            )

    @property
    def folder(self) -> Path:
        """Return the folder of the store."""
        assert self.local_backup is not None  # noqa: S101  (checked above)
        return self.local_backup


def open_store(options: Options) -> store.Store:
    """Return the store; raises StoreError where it is not the mounted disk that it must be."""
    return LocalStore(options.folder, require_mount=options.require_mount, marker=options.marker)


def test(options: Options) -> tuple[str | Finding, ...]:
    """Return what was found about the folder. Raises StoreError where it cannot be written."""
    with store.explaining(open_store(options)):
        return tuple(local_checks.tested(options.folder, options.hostname))


def keys_of(address: Address) -> dict[str, str]:
    """Return the keys of a store by its address: local:///srv/backup. Raises ConfigError."""
    folder = Path("/", address.path)
    if address.host or not folder.is_dir():
        raise ConfigError(
            f"--store: {address.host}{folder}: not a directory",
            "Write local:// and an absolute path, and mount its disk.",
        )
    return {"LOCAL_BACKUP": str(folder)}


def describe(options: Options) -> str:
    """Return where the objects of this host lie, for messages."""
    return str(options.folder / options.hostname)


class LocalStore:
    """Objects as files below one folder.

    `publish` links a file to its name, which never replaces another one. On a file system
    without hard links (FAT, some FUSE) the name is checked and then taken by a rename.
    """

    consistent = True
    create_only = store.CreateOnly.ATOMIC

    def __init__(self, folder: Path, *, require_mount: bool = False, marker: str = "") -> None:
        """Use a folder, which the first `put` creates.

        require_mount: it must lie on another file system than /. marker: a file that must
        exist in it. Raises UnmountedError where that is not so.
        """
        self.folder = folder
        self._unpublished: dict[str, tuple[Path, store.StoredObject]] = {}
        parent = filesystem_handling.nearest(folder)
        if require_mount and parent.stat().st_dev == Path("/").stat().st_dev:
            raise UnmountedError(
                f"LOCAL_BACKUP: {folder} is not mounted (REQUIRE_MOUNT)", "Mount the disk."
            )
        if marker and not (folder / marker).is_file():
            raise UnmountedError(
                f"LOCAL_BACKUP: {folder / marker}: no such file (MARKER)", "Mount the right disk."
            )

    def __str__(self) -> str:
        return str(self.folder)

    def put(self, name: str, chunks: Iterable[bytes]) -> store.StoredObject:
        """See Store: under a temporary name, synced, read back block by block and compared."""
        path = self._path(name)
        self._make(path.parent)
        content = stream.content(chunks)
        with trusted_path.folder(path.parent) as folder:
            with trusted_path.naming(path):
                taken = filesystem_handling.is_taken(path.name, folder)
            if taken:
                stream.drained(content)
                same = store.StoredObject(name, content.size, content.sha256)
                return _accept_existing(path, same)
            self.discard([name])
            temporary = filesystem_handling.temporary(path)
            try:
                with filesystem_handling.naming(path):
                    size = verified_file.write(temporary, folder, path, content)
            except BaseException:  # whatever ended it: nothing unfinished stays
                verified_file.unlink(temporary, folder)
                raise
        stored = store.StoredObject(name, size, content.sha256)
        self._unpublished[name] = temporary, stored
        return stored

    def publish(self, names: Sequence[str]) -> None:
        """See Store: linked without replacing, the folders synced."""
        folders = set()
        for name in names:
            path = self._path(name)
            if name in self._unpublished:
                self._link(path, *self._unpublished[name])
                del self._unpublished[name]
            folders.add(path.parent)
        for folder in folders:
            filesystem_handling.sync_folder(folder)

    def _link(self, path: Path, temporary: Path, stored: store.StoredObject) -> None:
        with trusted_path.folder(path.parent) as folder:
            try:
                with trusted_path.naming(path):
                    filesystem_handling.publish(temporary, path, folder)
            except FileExistsError:
                _accept_existing(path, stored)
            verified_file.unlink(temporary, folder)

    def discard(self, names: Sequence[str]) -> None:
        """See Store."""
        for name in names:
            temporary, _ = self._unpublished.pop(name, (None, None))
            if temporary is not None:
                with trusted_path.folder(temporary.parent) as folder:
                    verified_file.unlink(temporary, folder)

    def set_age(self, name: str, seconds: float) -> None:
        """See Timed: the time of the file, which linking it does not change."""
        temporary, _ = self._unpublished.get(name, (None, None))
        if temporary is not None:
            moment = time.time() - seconds
            with trusted_path.folder(temporary.parent) as folder:
                times = (moment, moment)
                os.utime(temporary.name, times, dir_fd=folder, follow_symlinks=False)

    def may_remove(self, host: str) -> bool | None:
        """See Probed: a hidden file is written and removed."""
        return local_checks.tried(self.folder, host)[0] if self.folder.is_dir() else None

    def _path(self, name: str) -> Path:
        return self.folder / store.check_name(name)

    def _make(self, folder: Path) -> None:
        """Create the folder, and sync its name."""
        if not folder.is_dir():
            try:
                with trusted_path.folder(folder, make=True):
                    pass
            except (NotADirectoryError, FileExistsError):
                parent = filesystem_handling.nearest(folder)
                raise StoreError(
                    f"{parent}: is not a directory", "Set LOCAL_BACKUP to a directory."
                ) from None
            except PermissionError:
                raise StoreError(
                    f"{folder}: permission denied",
                    "The user of the backup must be able to write to the disk: see backup.py -t.",
                ) from None
            filesystem_handling.sync_folder(folder.parent)

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store."""
        path = self._path(name)
        if not path.is_file():
            raise StoreError(f"{path}: no such file in the store")
        yield from stream.read(path, start, end, _open)

    def entries(self, folder: str) -> Iterator[store.StoreEntry]:
        """See Store."""
        return self._files(folder, temporary=False)

    def unfinished(self, folder: str) -> Iterator[store.StoreEntry]:
        """See Store."""
        return self._files(folder, temporary=True)

    def _files(self, folder: str, *, temporary: bool) -> Iterator[store.StoreEntry]:
        path = self._path(folder)
        now = time.time()
        if not path.is_dir():
            return
        with _listed(path) as files:
            for file in files:
                of_kind = filesystem_handling.is_temporary(file.name) is temporary
                if of_kind and file.is_file(follow_symlinks=not temporary):
                    try:
                        status = file.stat()
                    except FileNotFoundError:  # clean-up has removed it meanwhile
                        continue
                    age = now - status.st_mtime
                    yield store.StoreEntry(f"{folder}/{file.name}", status.st_size, age)

    def folders(self) -> Iterator[str]:
        """See Store."""
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            is_internal = path.name == store.OWN_FOLDER
            if path.is_dir() and not is_internal and not path.name.startswith("."):
                yield path.name

    def free(self) -> int:
        """See Measured: of the file system that the folder lies on, or would lie on."""
        usage = os.statvfs(filesystem_handling.nearest(self.folder))
        return usage.f_bavail * usage.f_frsize

    def remove(self, names: Sequence[str]) -> None:
        """See Store."""
        for name in names:
            path = self._path(name)
            try:
                with (
                    contextlib.suppress(FileNotFoundError),
                    trusted_path.folder(path.parent) as folder,
                ):
                    verified_file.unlink(path, folder)
            except OSError as error:
                if error.errno not in _FORBIDDEN:
                    raise
                reason = os.strerror(error.errno).lower()
                raise ForbiddenError(f"{path}: {reason}", _FORBIDDEN[error.errno]) from error


@contextlib.contextmanager
def _listed(path: Path) -> Iterator[list[os.DirEntry[str]]]:
    """Give the entries of a folder by name."""
    with trusted_path.folder(path) as held:
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=held)
    try:
        with os.scandir(descriptor) as scan:
            files = sorted(scan, key=lambda entry: entry.name)
        yield files
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int) -> int:
    """Open a file of the store; one that others have made a FIFO is not waited for."""
    return trusted_path.file(path, flags | os.O_NONBLOCK)


def _accept_existing(path: Path, stored: store.StoredObject) -> store.StoredObject:
    """Return `stored` if the file has this content already. Raises TakenError otherwise."""
    if not path.is_file():  # a FIFO would be waited for
        raise TakenError(f"{path}: exists, and is not a file", "Check who can write to this store.")
    if _file_sha256(path, stored.size) != stored.sha256:
        raise TakenError(
            f"{path}: file exists with different content",
            "Stored files are never overwritten. Check whether two machines use the same HOSTNAME.",
        )
    return stored


def _file_sha256(path: Path, size: int) -> str:
    """Return the SHA-256 of what the disk holds: the page cache drops the file first.

    size: bytes that are expected; of a larger file one more is read
    """
    descriptor = _open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    content = stream.content(stream.read(path, 0, size + 1, _open))
    stream.drained(content)
    return content.sha256


if TYPE_CHECKING:
    _: type[store.Store] = LocalStore
    _measured: type[store.Measured] = LocalStore
    _located: type[store.Located] = LocalStore
    _timed: type[store.Timed] = LocalStore
    _probed: type[store.Probed] = LocalStore
