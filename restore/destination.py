"""The folder that is restored into: a restore is staged inside it and moved into place complete."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from restore import folder_pairs, merging
from tools import filesystem_handling, os_works
from tools.base import removal, trusted_path
from tools.base.errors import ConfigError
from tools.date_str_utils import human_size
from tools.flow import item_record, stream
from tools.flow.item_record import StoredItem as Item
from tools.modules import registry
from tools.reporting import terminal

_SCRATCH = "nc-restore-"


def check_destination(folder: Path, *, overwrite: bool) -> None:
    """Raise ConfigError for a folder that cannot be restored into."""
    if not os.path.lexists(folder):
        if not folder.parent.is_dir():
            problem, hint = filesystem_handling.missing_folder(folder.parent)
            raise ConfigError(f"DESTINATION: {problem}", hint)
    elif folder.is_symlink():
        raise ConfigError(
            f"DESTINATION: {folder}: is a symbolic link", "Use the path that the link points to."
        )
    elif not folder.is_dir():
        raise ConfigError(
            f"DESTINATION: {folder}: not a directory", "Choose a new or empty folder."
        )
    elif not overwrite and set(folder.iterdir()).difference(
        removal.abandoned(folder, merging.STAGING)  # which the restore itself removes
    ):
        raise ConfigError(
            f"DESTINATION: {folder}: directory not empty",
            "Choose a new or empty folder. With --overwrite files of the same name are replaced.",
        )
    _check_writable(folder if os.path.lexists(folder) else folder.parent)


def _check_writable(folder: Path) -> None:
    """Raise ConfigError for a folder in which nothing can be created."""
    if os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        return
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        problem, hint = "read-only file system", "Mount it read-write"
    elif os_works.is_root():
        problem, hint = "cannot be written", "Remove its attributes (lsattr): chattr -i -a FOLDER"
    else:
        problem, hint = "permission denied", "Restore as root"
    raise ConfigError(f"DESTINATION: {folder}: {problem}", f"{hint}, or choose another folder.")


def space_warning(folder: Path, size: int) -> str:
    """Return a warning where so many bytes may not fit; "" where they do."""
    nearest = folder if folder.is_dir() else folder.parent
    free = shutil.disk_usage(nearest).free
    if size <= free:
        return ""
    return f"{nearest}: {human_size(free)} free, {human_size(size)} needed"


def item_path(item: Item) -> Path:
    """Return the path of an item below the destination: SECTION/NAME, or SECTION."""
    names = PurePosixPath(item.section, *filter(None, item.name.split("/"))).parts
    names = names or (item_record.quoted(item.section) or "-",)  # no section has such a name
    kind = registry.kind(item.kind)
    if not kind.archive and not kind.folder:
        names = (*names[:-1], names[-1] + item.ending)
    return Path(*(item_record.quoted(one) if one in (".", "..", "/") else one for one in names))


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yield a private folder for temporary files; those of killed restores are removed first."""
    top = Path(tempfile.gettempdir())
    removal.sweep(top, _SCRATCH)
    with removal.private(top, _SCRATCH, _warn) as folder:
        yield folder


@dataclass(frozen=True)
class Staging:
    """A folder in which an item is restored before it is moved into place.

    implied:  folders in it, relative, that the backup has only as parts of paths: where they
              exist in the destination they keep their owner, mode, attributes and times
    warnings: what differs from the backup
    """

    folder: Path
    implied: set[bytes] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)

    def make_folders(self, below: Path, mode: int) -> Path:
        """Create the folders of a path, which the backup does not have, and return the path."""
        path = self.folder
        for name in below.parts:
            with trusted_path.folder(path) as parent:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=parent)
                with folder_pairs.opened_folder(os.fsencode(name), parent) as folder:
                    folder_pairs.set_mode(folder, mode)  # mkdir obeys the umask
            path /= name
            self.implied.add(os.fsencode(path.relative_to(self.folder)))
        return path


@contextlib.contextmanager
def staging(
    folder: Path,
    *,
    overwrite: bool,
    moving: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Iterator[Staging]:
    """Yield a private folder inside the destination; at the end its content is moved into place.

    moving: its block is entered while the content is moved. On any exception the private folder is
    removed, and the destination too where it is empty. Staging folders of killed restores are
    removed first.
    A destination that exists keeps its times.
    """
    before = folder.stat() if folder.exists() else None
    folder.mkdir(mode=0o700, exist_ok=True)
    removal.sweep(folder, merging.STAGING)
    try:
        with removal.private(folder, merging.STAGING, _warn) as private:
            staged = Staging(private)
            yield staged
            with moving():
                lines = merging.merge(private, folder, staged.implied, overwrite=overwrite)
            staged.warnings.extend(lines)
    finally:
        with contextlib.suppress(OSError):  # not empty: something has been restored
            folder.rmdir()
        if before is not None:
            with contextlib.suppress(OSError):  # removed, or another user's folder
                os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def _warn(text: str) -> None:
    terminal.say(f"warning: {text}", error=True)


def write_file(chunks: Iterable[bytes], path: Path) -> int:
    """Write an item that is one file; return its size."""
    tally = stream.Tally()
    with filesystem_handling.create(path) as write:
        for chunk in tally(chunks):
            write(chunk)
    return tally.size
