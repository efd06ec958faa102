"""Where a restore goes: made where nobody looks, moved into place whole, over nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from tools import filesystem_handling, house, manifest, stream
from tools.date_str_utils import human_size
from tools.errors import ConfigError
from tools.manifest import Item

_STAGING = ".nc-restore-"  # begins the name of the folder in which a restore is made


def refuse(folder: Path, *, overwrite: bool) -> None:
    """Raises ConfigError where the folder is none to restore into."""
    if os.path.lexists(folder):
        if folder.is_symlink():
            raise ConfigError(
                f"DESTINATION: {folder} is a symbolic link", "Name the folder itself."
            )
        if not folder.is_dir():
            raise ConfigError(f"DESTINATION: {folder} is no folder", "Name a new or empty one.")
        if not overwrite and any(folder.iterdir()):
            raise ConfigError(
                f"DESTINATION: {folder} is not empty, and nothing is overwritten",
                "Name a new or empty folder, or say --overwrite.",
            )
    elif not folder.parent.is_dir():
        raise ConfigError(f"DESTINATION: {folder.parent} is no folder", "Make it first.")


def tight(folder: Path, size: int) -> str:
    """A warning where so many bytes may not fit; "" where they do. Advice: disks compress."""
    there = folder if folder.is_dir() else folder.parent
    free = shutil.disk_usage(there).free
    if size <= free:
        return ""
    return f"{there} has {human_size(free)} free, and the items have {human_size(size)}"


def place_of(item: Item) -> Path:
    """Where an item goes below the destination: SECTION, and the item's name where it has one."""
    words = PurePosixPath(item.section, *filter(None, item.name.split("/"))).parts
    if item.kind != "fileset" and not house.lays_out(item.kind):
        words = (*words[:-1], words[-1] + item.ending)
    return Path(*(manifest.quoted(word) if word in (".", "..", "/") else word for word in words))


@contextlib.contextmanager
def staging(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """A private folder inside the destination; what is in it takes its place at the end.

    On any exception it is removed, and the destination too where nothing else is in it.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    place = folder / f"{_STAGING}{uuid.uuid4().hex[:8]}"
    try:
        place.mkdir(mode=0o700)
        yield place
        for entry in sorted(place.iterdir()):
            _moved(entry, folder / entry.name, overwrite=overwrite)
    finally:
        _removed(place)
        with contextlib.suppress(OSError):  # not empty: something has been restored
            folder.rmdir()


def written(chunks: Iterable[bytes], path: Path) -> int:
    """Write the data of an item that is one file; gives its size."""
    tally = stream.Tally()
    with filesystem_handling.create(path) as write:
        for chunk in tally(chunks):
            write(chunk)
    return tally.size


def _moved(source: Path, goal: Path, *, overwrite: bool) -> None:
    """Move into place; folders are merged, and a file is replaced only where that was asked for.

    A symbolic link in the place of a folder is never followed.
    """
    if not os.path.lexists(goal):
        source.rename(goal)
        return
    folder, there = _is_folder(source), _is_folder(goal)
    if folder and there:
        for entry in sorted(source.iterdir()):
            _moved(entry, goal / entry.name, overwrite=overwrite)
        shutil.copystat(source, goal)
        return
    if not overwrite or folder or there:
        raise ConfigError(
            f"DESTINATION: {goal} exists already as something else", "Move it away first."
        )
    source.replace(goal)


def _is_folder(path: Path) -> bool:
    """A real one: a link to one is none."""
    return path.is_dir() and not path.is_symlink()


def _removed(place: Path) -> None:
    """Remove a staging folder, whatever modes its folders have by now."""
    if not place.exists():
        return

    def opened(function: object, path: str, _why: object) -> None:
        parent = Path(path).parent
        parent.chmod(0o700)
        if Path(path).is_dir() and not Path(path).is_symlink():
            Path(path).chmod(0o700)
            shutil.rmtree(path)
        else:
            Path(path).unlink(missing_ok=True)

    shutil.rmtree(place, onerror=opened)
