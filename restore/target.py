"""Where a restore goes: made where nobody looks, moved into place whole, over nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from restore import merging
from tools import filesystem_handling
from tools.base import removal
from tools.base.errors import ConfigError
from tools.date_str_utils import human_size
from tools.flow import item_record, stream
from tools.flow.item_record import StoredItem as Item
from tools.modules import registry
from tools.reporting import terminal

_SCRATCH = "nc-restore-"
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
    words = words or (item_record.quoted(item.section) or "-",)  # no section has such a name
    if not registry.kind(item.kind).archive and not registry.kind(item.kind).folder:
        words = (*words[:-1], words[-1] + item.ending)
    return Path(*(item_record.quoted(word) if word in (".", "..", "/") else word for word in words))


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A private folder for a restore's own files; those of killed restores are removed first."""
    top = Path(tempfile.gettempdir())
    removal.sweep(top, _SCRATCH)
    with removal.private(top, _SCRATCH, _complain) as folder:
        yield folder


@dataclass(frozen=True)
class Staging:
    """Where a restore is made, until it takes its place.

    implied: folders of it, relative, that the backup holds only as names in paths: where they
             exist in the destination they keep their owner, mode and times
    """

    place: Path
    implied: set[bytes] = field(default_factory=set)
    troubles: list[str] = field(default_factory=list)  # what is not as in the backup


@contextlib.contextmanager
def staging(folder: Path, *, overwrite: bool) -> Iterator[Staging]:
    """A private folder inside the destination; what is in it takes its place at the end.

    On any exception it is removed, and the destination too where nothing else is in it. What
    killed restores left there is removed first.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    removal.sweep(folder, _STAGING)
    try:
        with removal.private(folder, _STAGING, _complain) as place:
            staged = Staging(place)
            yield staged
            staged.troubles.extend(
                merging.merge(place, folder, staged.implied, overwrite=overwrite)
            )
    finally:
        with contextlib.suppress(OSError):  # not empty: something has been restored
            folder.rmdir()


def _complain(text: str) -> None:
    terminal.say(f"warning: {text}", error=True)


def written(chunks: Iterable[bytes], path: Path) -> int:
    """Write the data of an item that is one file; gives its size."""
    tally = stream.Tally()
    with filesystem_handling.create(path) as write:
        for chunk in tally(chunks):
            write(chunk)
    return tally.size
