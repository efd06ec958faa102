"""The contract of a store: where objects lie, and what a store proves before it confirms them."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from tools.base.errors import StoreError, in_words

OWN_FOLDER = "nc-backup-py.store"  # beside those of the hosts: what belongs to the store itself
_FULL = (errno.ENOSPC, errno.EDQUOT)
_BROKEN = (errno.EROFS, errno.EIO)  # a file system goes read-only when its disk fails
MAX_PAGES = 5_000  # of a listing: 1,000 names each; a server may add pages without end
A = TypeVar("A")


@dataclass(frozen=True)
class StoredObject:
    """What a store holds under a name: its size in bytes and its SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoreEntry:
    """A name in a store, its size in bytes, and how many seconds ago it was written.

    The age is measured by the clock of the store.
    """

    name: str
    size: int
    age: float = 0.0


class CreateOnly(Enum):
    """How a store keeps `publish` from replacing an object."""

    ATOMIC = "by the store"
    PROBED = "by the store, as a probe has proven"
    LISTED = "by our own listing only"  # two writers at once could replace each other


class Receiver(Protocol):
    """What a flow needs of a place that takes its objects. See Store."""

    def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
        """Take the chunks durably and confirm size and SHA-256; the object is not visible yet.

        The confirmation is proven by the store: read back, or compared by the store with its
        own checksum of the bytes that it holds. `stream.content(chunks)` has the SHA-256 that
        was taken of the stream; a store that compares every byte with it need not hash again.
        The chunks are read once, to their end, by this call alone, and never after it.
        Nothing is kept when the chunks raise, and what they raise is raised.
        An object of this name is never replaced: `put` or `publish` raises TakenError where
        its content differs, and counts equal content as stored.
        """

    def publish(self, names: Sequence[str]) -> None:
        """Make visible what has been put, durably, in this order, each by create-only.

        Names that this store has published already are skipped, so the call may be repeated.
        """

    def discard(self, names: Sequence[str]) -> None:
        """Drop what has been put and not published; other names are skipped."""


class Store(Receiver, Protocol):
    """Where objects lie. Names are relative, with `/` between folders (`srv-1/20260101_...`).

    All methods may be called from several threads at once, for different names. What `get`,
    `entries`, `folders` and `unfinished` return is read lazily; OSError and StoreError are
    raised while it is read. All methods raise StoreError or OSError; TransientError means that
    the same call may succeed a moment later.
    """

    @property
    def consistent(self) -> bool:
        """Return whether a listing has every object that was published before it began."""

    @property
    def create_only(self) -> CreateOnly:
        """Return how the store keeps an object from being overwritten."""

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield an object, or its bytes from `start` up to, not including, `end`.

        A range beyond the last byte is cut there. Raises StoreError where there is no object.
        """

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """Yield the visible objects in a folder of the store, sorted by name."""

    def folders(self) -> Iterator[str]:
        """Yield the folders of the store, one for each host, sorted."""

    def unfinished(self, folder: str) -> Iterator[StoreEntry]:
        """Yield what was put there and never published, by names that only `remove` knows."""

    def remove(self, names: Sequence[str]) -> None:
        """Remove exactly these objects, in any order; a missing one is no error.

        Raises ForbiddenError where one of them may not be removed; others may be gone by then.
        """


# Optional abilities of a store. Ask for them with `ability`, which looks into wrappers too.


@runtime_checkable
class Measured(Protocol):
    """A store that knows how much it can still take."""

    def free(self) -> int | None:
        """Return the bytes that are left for this user; None where it cannot tell.

        Raises OSError, StoreError.
        """


@runtime_checkable
class Located(Protocol):
    """A store that lies in a folder of this machine."""

    @property
    def folder(self) -> Path:
        """Return the folder, which may be missing until something is published."""


@runtime_checkable
class Bounded(Protocol):
    """A store whose objects have a limited size."""

    @property
    def max_object_size(self) -> int:
        """Return the bytes of the largest object that it takes."""


@runtime_checkable
class Versioned(Protocol):
    """A store whose server may keep what was removed, as an older version of its name.

    Its calls are repeated by the store itself where they fail for a moment.
    """

    def versioning(self) -> bool:
        """Return whether `remove` only hides an object, and frees nothing.

        True as well where that was so in the past: older versions may still be there.
        Raises OSError, StoreError; ForbiddenError where this account may not ask.
        """

    def remove_versions(self, names: Sequence[str]) -> int:
        """Remove every version of exactly these objects; return how many bytes that has freed.

        Also of objects that `remove` has hidden, and what hides them last: nothing reappears.
        The versions of the first name are removed before those of the others.
        Raises ForbiddenError where a version is locked or may not be removed, with the end of the
        lock where the server tells it. What it concerns is not hidden then.
        """


@runtime_checkable
class Probed(Protocol):
    """A store that can tell, without an object, what this account may do."""

    def may_remove(self, host: str) -> bool | None:
        """Return whether it may remove objects of a host; None where only a removal would tell.

        Raises OSError, StoreError.
        """


@runtime_checkable
class Timed(Protocol):
    """A store whose objects can keep the time of the object that they were copied from."""

    def set_age(self, name: str, seconds: float) -> None:
        """Let what was put under this name count as written so many seconds ago.

        By the clock of the store, and only until `publish`; other names are skipped. Raises
        OSError, StoreError.
        """


@runtime_checkable
class Prefetching(Protocol):
    """A store that is far away: several small objects are best read at once."""

    def prefetch(self, names: Sequence[str]) -> None:
        """Begin to read objects, each of which `get` will soon be asked for once."""


@runtime_checkable
class Noted(Protocol):
    """A store of which the result of a run says more than its name."""

    def note(self) -> str:
        """Return it, as ", " goes before it; "" for nothing."""


@runtime_checkable
class Wrapper(Protocol):
    """A store around a store."""

    @property
    def inner(self) -> Store:
        """Return the wrapped store."""

    def passes_on(self, kind: type[object]) -> bool:
        """Return whether an ability of the inner store may be used behind the wrapper's back."""


def ability(store: object, kind: type[A]) -> A | None:
    """Return the store, or the one that it wraps, as what has this ability; None for neither."""
    while not isinstance(store, kind):
        if not isinstance(store, Wrapper) or not store.passes_on(kind):
            return None
        store = store.inner
    return store


def folder_of(store: object) -> Path | None:
    """Return the folder of this machine that a store lies in; None for any other store."""
    located = ability(store, Located)  # type: ignore[type-abstract]
    return located.folder if located else None


def check_place(store: object) -> str:
    """Return a hint where a store lacks what it should have."""
    if folder_of(store) is not None:
        return "Check that its disk is mounted."
    return "Check its address: the server, and the folder, bucket or prefix."


def check_store(store: object) -> str:
    """Return a hint where a store may be another one than was meant."""
    if folder_of(store) is not None:
        return "Check that this is the right store and that its disk is mounted."
    return "Check that this is the right store: the server, and the folder, bucket or prefix."


def free_space(store: Store) -> int | None:
    """Return the bytes that are left in a store; None where it does not know. Raises OSError."""
    measured = ability(store, Measured)  # type: ignore[type-abstract]
    return measured.free() if measured else None


def max_object_size(store: object) -> int:
    """Return the bytes of the largest object that a store takes."""
    bounded = ability(store, Bounded)  # type: ignore[type-abstract]
    return bounded.max_object_size if bounded else sys.maxsize


def keeps_times(store: object) -> bool:
    """Return whether copies of objects can keep their times in a store."""
    return ability(store, Timed) is not None  # type: ignore[type-abstract]


def set_age(store: object, name: str, seconds: float) -> None:
    """Let what was put under a name count as written so long ago, where the store can do that."""
    timed = ability(store, Timed)  # type: ignore[type-abstract]
    if timed is not None:
        timed.set_age(name, seconds)


def prefetch(store: object, names: Sequence[str]) -> None:
    """Begin to read small objects where that saves time."""
    prefetching = ability(store, Prefetching)  # type: ignore[type-abstract]
    if prefetching is not None:
        prefetching.prefetch(names)


def note(store: object) -> str:
    """Return what the result of a run says of a store beside its name."""
    noted = ability(store, Noted)  # type: ignore[type-abstract]
    text = noted.note() if noted else ""
    return f", {text}" if text else ""


def same_disk_note(store: object, others: Iterable[Path]) -> str:
    """Return a note where a store lies on the same disk as other files or folders."""
    folder = folder_of(store)
    if folder is None or not folder.exists():
        return ""
    device = folder.stat().st_dev
    same = any(other.exists() and other.stat().st_dev == device for other in others)
    return "; same disk as WORK_FOLDER" if same else ""


def explained(error: BaseException, store: object) -> tuple[str, str]:
    """Return a message that names the store where its disk is full or fails, and a hint."""
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL:
        return f"{store}: {os.strerror(number)}", "Remove old runs there, or use a larger disk."
    if number in _BROKEN:
        return f"{store}: {os.strerror(number)}", "Look at the kernel log for errors of its disk."
    if isinstance(error, OSError):
        return in_words(error)
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
    """Return the name if it stays inside the store. Raises StoreError otherwise."""
    if not name or name.startswith("/") or "\0" in name or {"..", ".", ""} & set(name.split("/")):
        raise StoreError(f"{name!r}: invalid object name")
    return name


def bounded(source: Store, name: str, max_bytes: int) -> Iterator[bytes]:
    """Yield the content of an object; of a larger one the first bytes, one too many.

    Anyone who can write to a store may have put an object there that has no end.
    """
    remaining = max_bytes + 1
    for chunk in source.get(name):
        yield chunk[:remaining]
        remaining -= len(chunk)
        if remaining <= 0:
            return


def beginning(source: Store, name: str, max_bytes: int) -> bytes:
    """Return the content of a small object; of a larger one the first bytes, one too many."""
    return b"".join(bounded(source, name, max_bytes))


def content(source: Store, name: str, max_bytes: int) -> bytes:
    """Return the content of a small object. Raises StoreError, also where it is larger."""
    data = beginning(source, name, max_bytes)
    if len(data) > max_bytes:
        raise StoreError(
            f"{source}: {name}: larger than {max_bytes} bytes", "Check who can write to this store."
        )
    return data


def limited(owner: object, pages: Iterable[A], most: int = MAX_PAGES) -> Iterator[A]:
    """Yield the pages of a listing. Raises StoreError where there are more than `most`."""
    for number, page in enumerate(pages):
        if number >= most:
            raise StoreError(f"{owner}: the listing does not end", "Check the server.")
        yield page


def cut(chunks: Iterable[bytes], start: int, end: int | None) -> Iterator[bytes]:
    """Yield the bytes of a range, for stores that can only read whole objects."""
    position = 0
    for chunk in chunks:
        piece = chunk[max(0, start - position) : None if end is None else max(0, end - position)]
        position += len(chunk)
        if piece:
            yield piece
        if end is not None and position >= end:
            return


@contextlib.contextmanager
def atomic_publish(store: Receiver, names: Sequence[str]) -> Iterator[None]:
    """Publish a set of objects when the block has put them all, else discard them.

    The first one is published last: a set that has it is complete.
    """
    try:
        yield
        store.publish([*names[1:], *names[:1]])
    except BaseException:
        store.discard(names)
        raise


def store_object(store: Store, name: str, chunks: Iterable[bytes]) -> StoredObject:
    """Put and publish one object by itself."""
    with atomic_publish(store, [name]):
        return store.put(name, chunks)
