"""The contract of a form: how the bytes of an item lie in a store, and how they come back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tools.base.errors import DamagedError, TruncatedError
from tools.flow import copies, stream
from tools.flow.item import Stage
from tools.flow.item_record import Part, StoredItem
from tools.flow.store import Store, StoredObject
from tools.flow.stream import Chunks

# Reads one object of an item; raises at its end where it is not what was stored.
ReadObject = Callable[[Part], Iterator[bytes]]
# From the name and size that parts would have by themselves: name and bytes of each in turn.
Layout = Callable[[str, int], Iterable[tuple[str, int]]]
InverseStages = Callable[[str], Callable[[Chunks], Iterator[bytes]]]  # by the name of a stage
_HINT = "Use another store that holds the run (--store), or another run."


def numbered(stem: str, size: int) -> Iterator[tuple[str, int]]:
    """Lay out parts of one size: STEM.000, STEM.001 ... STEM.999, STEM.1000."""
    return ((f"{stem}.{number:03}", size) for number in itertools.count())


@dataclass(frozen=True)
class Plaintext:
    """An item on its way into the stores.

    chunks:    its data, to be read once
    stem:      what the names of its objects begin with, `<HOSTNAME>/<run id>.<SECTION>[.<item>]`
    ending:    of the data (".tar")
    stages:    to be applied, in this order
    part_size: bytes of the largest object that the configuration asks for
    layout:    how objects of the form `parts` are called and cut
    """

    chunks: Chunks
    stem: str
    ending: str
    stages: tuple[Stage, ...]
    part_size: int
    layout: Layout = numbered


@dataclass(frozen=True)
class Objects:
    """What a form has stored of an item.

    own:        the objects of this run, in their order
    references: further objects that the manifest must name, by what they are for
    """

    parts: tuple[StoredObject, ...]
    references: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)


class Outlet(Protocol):
    """Where a form sends the objects of one item: all stores of the run."""

    @property
    def max_object_size(self) -> int:
        """Return the bytes of the largest object that every store takes."""

    def put(self, name: str, chunks: Chunks) -> StoredObject:
        """Send one object to every store; return what each of them has to confirm.

        Nothing is visible before the whole item has ended well. Raises what the chunks raise,
        and StoreError where no store is left.
        """


class Form(Protocol):
    """How items are stored. One row of the table in `forms`.

    `store` writes. All else works on the record in a manifest, which may be forged: what it
    says is checked, and each object is read through `read_object`, which checks its size and
    SHA-256.
    """

    @property
    def name(self) -> str:
        """Return the name of the form in manifests."""

    def store(self, data: Plaintext, outlet: Outlet) -> Objects:
        """Store the data of an item, and return its objects. They are published afterwards."""

    def check(self, item: StoredItem) -> None:
        """Raise ValueError where a record cannot be one of this form."""

    def needed(self, item: StoredItem, read_object: ReadObject) -> Iterable[Part]:
        """Return every object that reading the item needs, those of earlier runs included.

        Verification reads them, and clean-up keeps them.
        """

    def size(self, item: StoredItem) -> int:
        """Return the bytes of all objects that reading the item needs, as its record says."""

    def read(
        self, item: StoredItem, read_object: ReadObject, inverse: InverseStages
    ) -> Iterator[bytes]:
        """Yield the plaintext of an item. What comes before an error is a true prefix."""

    def commands(self, item: StoredItem, inverse: Sequence[str]) -> Sequence[str]:
        """Return shell commands whose pipe writes the plaintext, for the recovery sheet.

        inverse: the stock programs that undo the stages of the item, in this order.
        """


def object_of(folder: str, part: Part) -> StoredObject:
    """Return what a store holds for a part, as its record says."""
    return StoredObject(f"{folder}/{part.name}", part.size, part.sha256)


def read_object(
    store: Store, folder: str, part: Part, tally: stream.Tally | None = None
) -> Iterator[bytes]:
    """Yield the chunks of one object; at its end they are compared with its size and SHA-256.

    tally: counts and hashes them, for a caller that needs that as well
    Raises DamagedError, TruncatedError or StoreError, naming the object.
    """
    name = f"{folder}/{part.name}"
    tally = tally or stream.Tally()
    copies.choose(store, object_of(folder, part))
    for chunk in tally(store.get(name)):
        if tally.size > part.size:
            raise DamagedError(f"{name}: longer than {part.size} bytes", _HINT)
        yield chunk
    if tally.size < part.size:
        raise TruncatedError(f"{name}: {tally.size} bytes, expected {part.size}", _HINT)
    if tally.sha256 != part.sha256:
        raise DamagedError(f"{name}: SHA-256 mismatch: differs from what was stored", _HINT)
