"""What one kind of remote store implements to be a store that uploads in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from tools.flow.store import CreateOnly, StoredObject, StoreEntry

Block = bytes | bytearray


@dataclass(frozen=True)
class Upload:
    """An upload that has begun: the object that it is for, and the ID that the store gave it."""

    name: str
    id: str


@dataclass(frozen=True)
class PendingUpload:
    """An upload that was never completed: its bytes so far, and its age in seconds."""

    upload: Upload
    size: int = 0
    age: float = 0.0


@dataclass(frozen=True)
class Unpublished:
    """An object that has been put: its bytes where it is small, else its upload.

    tags: of all blocks in their order
    """

    stored: StoredObject
    content: Block | None = None
    upload: Upload | None = None
    tags: tuple[str, ...] = ()


class Held(Enum):
    """What a store holds under a name, compared with an object of ours."""

    OURS = "an object of this content"
    OTHER = "an object of other content"
    ABSENT = "no object"
    UNKNOWN = "an object that must be read to be compared"


class BlockBackend(Protocol):
    """What one kind of remote store implements; `BlockStore` makes a Store of it.

    Every call can be repeated: a block replaces the one of its number, and aborting or removing
    what is gone is no error. Calls come from several threads at once. Errors as in Store: only
    TransientError and OSError are worth another attempt.
    """

    @property
    def consistent(self) -> bool:
        """See Store."""

    @property
    def create_only(self) -> CreateOnly:
        """See Store."""

    @property
    def block_size(self) -> int:
        """Return the bytes of every block but the last.

        An object up to this size is created in one call.
        """

    @property
    def max_blocks(self) -> int:
        """Return how many blocks an object may have."""

    def create(self, name: str, content: Block, sha256: str) -> None:
        """Make one whole object visible, never over another (TakenError).

        The store compares the bytes that it holds with their checksum before they are visible.
        """

    def begin(self, name: str) -> Upload:
        """Begin an upload; nothing is visible."""

    def block(self, upload: Upload, number: int, content: Block) -> str:
        """Store one block, numbered from 0, checked by the store; return its tag."""

    def complete(self, upload: Upload, tags: Sequence[str], size: int) -> None:
        """Make the object visible, never over another (TakenError).

        tags: of all blocks in their order. Raises StoreError where the object has another size.
        """

    def held(self, unpublished: Unpublished) -> Held:
        """Compare what is visible under the name of an object with that object.

        By what the store says of it; UNKNOWN where only its bytes can tell. Raises as in Store.
        """

    def abort(self, upload: Upload) -> None:
        """Drop an upload and its blocks."""

    def uploads(self, folder: str) -> Iterator[PendingUpload]:
        """Yield the uploads in a folder that were neither completed nor aborted."""

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store."""

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""

    def folders(self) -> Iterator[str]:
        """See Store."""

    def remove(self, names: Sequence[str]) -> None:
        """See Store."""
