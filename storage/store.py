"""The contract of a store, and the proof that each implementation keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from tools.errors import StoreError


@dataclass(frozen=True)
class Stored:
    """What a store holds under a name: its size in bytes and its SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


class Store(Protocol):
    """Where parts lie. Names are relative, with `/` between folders (`srv-1/20260101_...`).

    `put` may be called from several threads for different names. A store is made before
    the first part comes, and nothing is called after the run.
    """

    def put(self, name: str, chunks: Iterable[bytes]) -> Stored:
        """Store the chunks under a new name, durably, and confirm what has been stored.

        Nothing is visible under the name before the last chunk has been taken, and nothing
        ever when the chunks raise. The confirmation is read back from the store, not
        assumed. A name that is taken is never overwritten: equal content counts as done,
        other content raises StoreError. Raises StoreError or OSError for all trouble.
        """

    def get(self, name: str) -> Iterator[bytes]:
        """The chunks of what is stored under a name. Raises StoreError if there is nothing."""

    def names(self, folder: str) -> Iterator[str]:
        """The names in a folder of the store, in order, without what is not whole yet."""


def check_name(name: str) -> str:
    """The name, if it can lead nowhere but into the store. Raises StoreError."""
    if not name or name.startswith("/") or "\0" in name or {"..", ".", ""} & set(name.split("/")):
        raise StoreError(f"{name!r} cannot be the name of a part")
    return name
