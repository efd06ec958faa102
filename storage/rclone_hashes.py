"""Hashes that remotes of rclone keep of their objects, taken of a stream."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

_BLOCK = 4 << 20  # bytes of a block of Dropbox
_WIDTH = 160  # bits of a QuickXorHash
_SHIFT = 11  # bits by which each byte is shifted further than the one before it
_PERIOD = 160  # bytes after which the shifts begin again
_MASK = (1 << _WIDTH) - 1


class Hash(Protocol):
    """What is taken of bytes, as in hashlib."""

    def update(self, chunk: bytes, /) -> None:
        """Take more bytes."""

    def hexdigest(self) -> str:
        """Return the hash of all bytes, in hexadecimal."""


class Dropbox:
    """The content hash of Dropbox: SHA-256 of the SHA-256 of each block of 4 MiB.

    https://www.dropbox.com/developers/reference/content-hash
    """

    def __init__(self) -> None:
        self._whole = hashlib.sha256(usedforsecurity=False)
        self._block = hashlib.sha256(usedforsecurity=False)
        self._size = 0

    def update(self, chunk: bytes) -> None:
        """See Hash."""
        view = memoryview(chunk)
        while view:
            piece = view[: _BLOCK - self._size]
            self._block.update(piece)
            self._size += len(piece)
            view = view[len(piece) :]
            if self._size == _BLOCK:
                self._end_block()

    def _end_block(self) -> None:
        self._whole.update(self._block.digest())
        self._block = hashlib.sha256(usedforsecurity=False)
        self._size = 0

    def hexdigest(self) -> str:
        """See Hash."""
        if self._size:
            self._end_block()
        return self._whole.hexdigest()


class QuickXor:
    """The QuickXorHash of OneDrive: each byte is shifted by 11 more bits, then all are XORed.

    After 160 bytes the shifts begin again, so rows of 160 bytes are joined first, as one number.
    https://learn.microsoft.com/onedrive/developer/code-snippets/quickxorhash
    """

    def __init__(self) -> None:
        self._row = 0  # the XOR of all rows, each a number of 160 bytes
        self._held = b""  # the beginning of the next row
        self._size = 0

    def update(self, chunk: bytes) -> None:
        """See Hash."""
        self._size += len(chunk)
        content = self._held + chunk if self._held else bytes(chunk)
        whole = len(content) - len(content) % _PERIOD
        self._held = content[whole:]
        if whole:
            self._row ^= _joined(int.from_bytes(content[:whole], "little"), whole // _PERIOD)

    def hexdigest(self) -> str:
        """See Hash."""
        row = (self._row ^ int.from_bytes(self._held, "little")).to_bytes(_PERIOD, "little")
        value = 0
        for index, byte in enumerate(row):
            shift = index * _SHIFT % _WIDTH
            moved = byte << shift
            value ^= (moved & _MASK) | (moved >> _WIDTH)
        value ^= self._size << (_WIDTH - 64)  # the length, in the last 8 bytes
        return value.to_bytes(_WIDTH // 8, "little").hex()


def _joined(number: int, rows: int) -> int:
    """Return the XOR of the rows of a number: halves are joined until one row is left."""
    while rows > 1:
        half = (rows + 1) // 2
        bits = half * _PERIOD * 8
        number = (number >> bits) ^ (number & ((1 << bits) - 1))
        rows = half
    return number


# The best first, by rclone's names (rclone hashsum).
HASHES: Mapping[str, Callable[[], Hash]] = {
    "sha256": lambda: hashlib.sha256(usedforsecurity=False),
    "sha512": lambda: hashlib.sha512(usedforsecurity=False),
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "md5": lambda: hashlib.md5(usedforsecurity=False),
    "dropbox": Dropbox,
    "quickxor": QuickXor,
}


class Hashing:
    """Takes the hash of a remote of the chunks that pass."""

    def __init__(self, name: str) -> None:
        """Begin the named hash.

        name: "" and sha256 for none, since the stream has a SHA-256 already
        """
        self._hash = None if name in ("", "sha256") else HASHES[name]()

    def __call__(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the chunks."""
        for chunk in chunks:
            if self._hash is not None:
                self._hash.update(chunk)
            yield chunk

    def digest(self, sha256: str) -> str:
        """Return the hash in hexadecimal. sha256: of the same stream"""
        return sha256 if self._hash is None else self._hash.hexdigest()
