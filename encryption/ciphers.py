"""The ciphers behind one small interface: what a library must provide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Buffer = bytes | bytearray | memoryview
Update = Callable[[bytes], bytes]


class InvalidTagError(Exception):
    """An authentication tag does not match: another key, or altered data."""


class Aead(Protocol):
    """ChaCha20-Poly1305 (RFC 8439) under one key, without associated data.

    nonce: 12 bytes. The tag (16 bytes) is the end of the ciphertext. into: where the result is
    written, which has exactly its size: a stream needs no new memory for each chunk.
    """

    def encrypt(self, nonce: bytes, data: Buffer, /) -> bytes:
        """Return the ciphertext and its tag."""

    def encrypt_into(self, nonce: bytes, data: Buffer, into: memoryview, /) -> None:
        """Write the ciphertext and its tag."""

    def decrypt(self, nonce: bytes, data: Buffer, /) -> bytes:
        """Return the plaintext. Raises InvalidTagError."""

    def decrypt_into(self, nonce: bytes, data: Buffer, into: memoryview, /) -> None:
        """Write the plaintext. Raises InvalidTagError."""


class Hybrid(Protocol):
    """HPKE base mode (RFC 9180): MLKEM768-X25519 (X-Wing), HKDF-SHA256, ChaCha20-Poly1305.

    A seed has 32 bytes, a public key 1216, an encapsulated key 1120.
    """

    def public(self, seed: bytes) -> bytes:
        """Return the public key of a seed (the secret key)."""

    def seal(self, public: bytes, info: bytes, plaintext: bytes) -> tuple[bytes, bytes]:
        """Return the encapsulated key and the ciphertext. Raises ValueError for a bad key."""

    def open(self, seed: bytes, encapsulated: bytes, info: bytes, ciphertext: bytes) -> bytes:
        """Return the plaintext. Raises InvalidTagError, ValueError for a bad encapsulated key."""


class Provider(Protocol):
    """One library of ciphers."""

    name: str

    def chacha20_poly1305(self, key: bytes) -> Aead:
        """Return the cipher with a key of 32 bytes."""

    def x25519_public(self, secret: bytes) -> bytes:
        """Return the public key of a secret key; both have 32 bytes (RFC 7748)."""

    def x25519(self, secret: bytes, public: bytes) -> bytes:
        """Return the shared secret. Raises ValueError where it is all zero."""

    def aes_256_cbc(self, key: bytes, iv: bytes, *, encrypt: bool) -> Update:
        """Return a function for data in whole blocks, without padding."""

    def hybrid(self) -> Hybrid | None:
        """Return the post-quantum keys; None where this build of the library has none."""
