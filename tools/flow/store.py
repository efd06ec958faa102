"""The contract of a store: where parts lie, and what it proves before it says so."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from tools.base.errors import StoreError

OWN_FOLDER = "nc-backup-py.store"  # beside those of the hosts: what belongs to the store itself
_FULL = (errno.ENOSPC, errno.EDQUOT)
_BROKEN = (errno.EROFS, errno.EIO)  # a file system goes read-only when its disk fails


@dataclass(frozen=True)
class Stored:
    """What a store holds under a name: its size in bytes and its SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """A name in a store, its size in bytes, and how many seconds ago it was written."""

    name: str
    size: int
    age: float = 0.0


class Store(Protocol):
    """Where parts lie. Names are relative, with `/` between folders (`srv-1/20260101_...`).

    `put` may be called from several threads for different names. A store is made before
    the first part comes, and nothing is called after the run.
    """

    def put(self, name: str, chunks: Iterable[bytes]) -> Stored:
        """Take the chunks, durably, and confirm what has been taken; it is not visible yet.

        The confirmation is read back from the store, not assumed. Nothing is kept when the
        chunks raise. A name that is taken is never overwritten: equal content counts as done,
        other content raises StoreError. Raises StoreError or OSError for all trouble.
        """

    def publish(self, names: Sequence[str]) -> None:
        """Make visible what has been put, in this order, never over another; durably."""

    def discard(self, names: Sequence[str]) -> None:
        """Drop what has been put and not published; what is not there is no error."""

    def get(self, name: str) -> Iterator[bytes]:
        """The chunks of what is stored under a name. Raises StoreError if there is nothing."""

    def entries(self, folder: str) -> Iterator[Entry]:
        """What is visible in a folder of the store, in order of names."""

    def folders(self) -> Iterator[str]:
        """The folders of the store: a host each."""

    def unfinished(self, folder: str) -> Iterator[Entry]:
        """What was put there and never published, by names that only `remove` knows."""

    def remove(self, name: str) -> None:
        """Remove one entry, exactly; a missing one is no error."""


@runtime_checkable
class Measured(Protocol):
    """A store that knows how much it can still take."""

    def free(self) -> int:
        """Return the bytes that are left for this user. Raises OSError."""


def folder_of(store: Store) -> Path | None:
    """Return the folder of this machine that a store lies in; None for any other store."""
    folder = getattr(store, "folder", None)
    return folder if isinstance(folder, Path) else None


def beside(store: Store, others: Iterable[Path]) -> str:
    """Return a note where a store lies on the same disk as other files or folders."""
    folder = folder_of(store)
    if folder is None or not folder.exists():
        return ""
    device = folder.stat().st_dev
    same = any(other.exists() and other.stat().st_dev == device for other in others)
    return "; it lies on the disk of the work folder" if same else ""


def explained(error: BaseException, store: Store) -> tuple[str, str]:
    """Return what went wrong with a store, and a hint."""
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL:
        return f"{store}: {os.strerror(number)}", "Remove old runs there, or use a larger disk."
    if number in _BROKEN:
        return f"{store}: {os.strerror(number)}", "Look at the kernel log for errors of its disk."
    return str(error), getattr(error, "hint", "")


@contextlib.contextmanager
def explaining(store: Store) -> Iterator[None]:
    """Turn a full or a failing disk into a StoreError that names the store, with a hint."""
    try:
        yield
    except OSError as error:
        if error.errno not in (*_FULL, *_BROKEN):
            raise
        raise StoreError(*explained(error, store)) from error


def check_name(name: str) -> str:
    """The name, if it can lead nowhere but into the store. Raises StoreError."""
    if not name or name.startswith("/") or "\0" in name or {"..", ".", ""} & set(name.split("/")):
        raise StoreError(f"{name!r} cannot be the name of a part")
    return name


@contextlib.contextmanager
def all_or_none(store: Store, names: Sequence[str]) -> Iterator[None]:
    """Publish a set of parts when the block has put them all, else drop them.

    The first part comes last: a set that has it is whole.
    """
    try:
        yield
        store.publish([*names[1:], *names[:1]])
    except BaseException:
        store.discard(names)
        raise


def keep(store: Store, name: str, chunks: Iterable[bytes]) -> Stored:
    """Put and publish one thing by itself."""
    with all_or_none(store, [name]):
        return store.put(name, chunks)
