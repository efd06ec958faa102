"""Ed25519 signatures (RFC 8032) by `cryptography`, or by `pycryptodome` where that is missing."""

from __future__ import annotations

import contextlib
import functools
from typing import Protocol

from tools.base import imports


class _Library(Protocol):
    """One library; a seed and a public key have 32 bytes, a signature 64."""

    def public(self, seed: bytes, /) -> bytes: ...

    def sign(self, seed: bytes, message: bytes, /) -> bytes: ...

    def verify(self, public: bytes, signature: bytes, message: bytes, /) -> bool: ...


class Cryptography:
    """The signatures of OpenSSL. Raises ImportError where the package is missing."""

    def __init__(self) -> None:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519

        self._raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        self._keys = ed25519
        self._invalid = InvalidSignature
        self._public = functools.lru_cache(64)(ed25519.Ed25519PublicKey.from_public_bytes)

    def public(self, seed: bytes, /) -> bytes:
        """Return the public key of a seed."""
        key = self._keys.Ed25519PrivateKey.from_private_bytes(seed).public_key()
        return key.public_bytes(*self._raw)  # public_bytes_raw is missing before version 40

    def sign(self, seed: bytes, message: bytes, /) -> bytes:
        """Return the signature of a message."""
        return self._keys.Ed25519PrivateKey.from_private_bytes(seed).sign(message)

    def verify(self, public: bytes, signature: bytes, message: bytes, /) -> bool:
        """Return whether a signature of a message was made with this key."""
        try:
            self._public(public).verify(signature, message)
        except (self._invalid, ValueError):
            return False
        return True


class Pycryptodome:
    """The same by pycryptodome. Raises ImportError where the package is missing."""

    def __init__(self) -> None:
        from Crypto.PublicKey import ECC
        from Crypto.Signature import eddsa

        self._ecc = ECC
        self._eddsa = eddsa

    def public(self, seed: bytes, /) -> bytes:
        """Return the public key of a seed."""
        key = self._ecc.construct(curve="Ed25519", seed=seed).public_key()
        return bytes(key.export_key(format="raw"))

    def sign(self, seed: bytes, message: bytes, /) -> bytes:
        """Return the signature of a message."""
        key = self._ecc.construct(curve="Ed25519", seed=seed)
        return bytes(self._eddsa.new(key, "rfc8032").sign(message))

    def verify(self, public: bytes, signature: bytes, message: bytes, /) -> bool:
        """Return whether a signature of a message was made with this key."""
        try:
            key = self._eddsa.import_public_key(public)
            self._eddsa.new(key, "rfc8032").verify(message, signature)
        except ValueError:
            return False
        return True


@functools.cache
def library() -> _Library:
    """Return the first library that can be imported. Raises ConfigError where there is none."""
    for load in (Cryptography, Pycryptodome):
        with contextlib.suppress(ImportError):
            return load()
    with imports.packages():  # names all packages that are missing
        return Cryptography()
