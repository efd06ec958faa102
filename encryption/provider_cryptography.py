"""The ciphers by `cryptography`, which is OpenSSL."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from encryption import ciphers

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

_MLKEM_PUBLIC = 1184  # bytes of an ML-KEM-768 public key; that of X25519 follows
_MLKEM_CIPHERTEXT = 1088  # bytes; the ephemeral X25519 share follows


class _Aead:
    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)

    def encrypt(self, nonce: bytes, data: ciphers.Buffer, /) -> bytes:
        return self._cipher.encrypt(nonce, data, None)

    def encrypt_into(self, nonce: bytes, data: ciphers.Buffer, into: memoryview, /) -> None:
        self._cipher.encrypt_into(nonce, data, None, into)

    def decrypt(self, nonce: bytes, data: ciphers.Buffer, /) -> bytes:
        try:
            return self._cipher.decrypt(nonce, data, None)
        except InvalidTag:
            raise ciphers.InvalidTagError from None

    def decrypt_into(self, nonce: bytes, data: ciphers.Buffer, into: memoryview, /) -> None:
        try:
            self._cipher.decrypt_into(nonce, data, None, into)
        except InvalidTag:
            raise ciphers.InvalidTagError from None


class _CopyingAead(_Aead):
    """For releases of `cryptography` before 47, which cannot write into memory that is there."""

    def encrypt_into(self, nonce: bytes, data: ciphers.Buffer, into: memoryview, /) -> None:
        into[:] = self.encrypt(nonce, data)

    def decrypt_into(self, nonce: bytes, data: ciphers.Buffer, into: memoryview, /) -> None:
        into[:] = self.decrypt(nonce, data)


class _Hybrid:
    """The components of a key come from the seed as draft-connolly-cfrg-xwing-kem expands it."""

    def __init__(self) -> None:
        """Load it. Raises ImportError, AttributeError or UnsupportedAlgorithm if unsupported."""
        from cryptography.hazmat.primitives import hpke
        from cryptography.hazmat.primitives.asymmetric import mlkem

        self._hpke, self._mlkem = hpke, mlkem
        self._suite = hpke.Suite(
            hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305
        )
        self.public(bytes(32))

    def _components(self, seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
        expanded = hashlib.shake_256(seed).digest(96)
        mlkem = self._mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        return mlkem, X25519PrivateKey.from_private_bytes(expanded[64:])

    def public(self, seed: bytes) -> bytes:
        mlkem, x25519 = self._components(seed)
        return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    def seal(self, public: bytes, info: bytes, plaintext: bytes) -> tuple[bytes, bytes]:
        key = self._hpke.MLKEM768X25519PublicKey(
            self._mlkem.MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC]),
            X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC:]),
        )
        sealed = self._suite.encrypt(plaintext, key, info)
        at = _MLKEM_CIPHERTEXT + 32
        return sealed[:at], sealed[at:]

    def open(self, seed: bytes, encapsulated: bytes, info: bytes, ciphertext: bytes) -> bytes:
        mlkem, x25519 = self._components(seed)
        # raises ValueError for an all-zero secret, which the suite reports as a wrong key
        x25519.exchange(X25519PublicKey.from_public_bytes(encapsulated[_MLKEM_CIPHERTEXT:]))
        key = self._hpke.MLKEM768X25519PrivateKey(mlkem, x25519)
        try:
            return self._suite.decrypt(encapsulated + ciphertext, key, info)
        except InvalidTag:
            raise ciphers.InvalidTagError from None


class Cryptography:
    """The first choice: as fast as OpenSSL, which it brings along."""

    name = "cryptography"

    def chacha20_poly1305(self, key: bytes) -> ciphers.Aead:
        return _Aead(key) if hasattr(ChaCha20Poly1305, "encrypt_into") else _CopyingAead(key)

    def x25519_public(self, secret: bytes) -> bytes:
        key = X25519PrivateKey.from_private_bytes(secret).public_key()
        return key.public_bytes(Encoding.Raw, PublicFormat.Raw)  # of old versions too

    def x25519(self, secret: bytes, public: bytes) -> bytes:
        key = X25519PrivateKey.from_private_bytes(secret)
        return key.exchange(X25519PublicKey.from_public_bytes(public))

    def aes_256_cbc(self, key: bytes, iv: bytes, *, encrypt: bool) -> ciphers.Update:
        cipher = Cipher(algorithms.AES(key), modes.CBC(iv))
        return (cipher.encryptor() if encrypt else cipher.decryptor()).update

    def hybrid(self) -> ciphers.Hybrid | None:
        try:
            return _Hybrid()
        except (ImportError, AttributeError, UnsupportedAlgorithm):
            return None


if TYPE_CHECKING:
    _: type[ciphers.Provider] = Cryptography
