"""The ciphers by `pycryptodome`, where `cryptography` cannot be had."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from Crypto.Cipher import AES, ChaCha20_Poly1305
from Crypto.Protocol.DH import import_x25519_private_key, import_x25519_public_key, key_agreement

from encryption import ciphers

_TAG = 16


class _Aead:
    def __init__(self, key: bytes) -> None:
        self._key = key

    def encrypt(self, nonce: bytes, data: ciphers.Buffer, /) -> bytes:
        ciphertext, tag = ChaCha20_Poly1305.new(key=self._key, nonce=nonce).encrypt_and_digest(data)
        return ciphertext + tag

    def encrypt_into(self, nonce: bytes, data: ciphers.Buffer, into: memoryview, /) -> None:
        cipher = ChaCha20_Poly1305.new(key=self._key, nonce=nonce)
        cipher.encrypt(data, output=into[:-_TAG])
        into[-_TAG:] = cipher.digest()

    def decrypt(self, nonce: bytes, data: ciphers.Buffer, /) -> bytes:
        plaintext = bytearray(max(0, len(data) - _TAG))
        self.decrypt_into(nonce, data, memoryview(plaintext))
        return bytes(plaintext)

    def decrypt_into(self, nonce: bytes, data: ciphers.Buffer, into: memoryview, /) -> None:
        if len(data) < _TAG:
            raise ciphers.InvalidTagError
        view = memoryview(data)
        cipher = ChaCha20_Poly1305.new(key=self._key, nonce=nonce)
        cipher.decrypt(view[:-_TAG], output=into)
        try:
            cipher.verify(view[-_TAG:])
        except ValueError:
            raise ciphers.InvalidTagError from None


class _Hybrid:
    def __init__(self) -> None:
        """Load it. Raises ImportError before pycryptodome 4."""
        from Crypto.Protocol import HPKE
        from Crypto.PublicKey import MLKEM, Hybrid

        self._hpke, self._mlkem, self._keys = HPKE, MLKEM, Hybrid

    def public(self, seed: bytes) -> bytes:
        expanded = hashlib.shake_256(seed).digest(96)  # draft-connolly-cfrg-xwing-kem
        secret = self._mlkem.construct(param_set=self._mlkem.ML_KEM_768, seed=expanded[:64])
        return secret.ek + Pycryptodome().x25519_public(expanded[64:])

    def seal(self, public: bytes, info: bytes, plaintext: bytes) -> tuple[bytes, bytes]:
        # pycryptodome 4 has no function that makes a public key from its bytes, only the class
        key = self._keys.HybridKey(param_set=self._keys.MLKEM768_X25519, pk=public)
        aead = self._hpke.AEAD.CHACHA20_POLY1305
        context = self._hpke.new(receiver_key=key, aead_id=aead, info=info)
        return context.enc, context.seal(plaintext)

    def open(self, seed: bytes, encapsulated: bytes, info: bytes, ciphertext: bytes) -> bytes:
        kem = self._keys.MLKEM768_X25519
        key = self._keys.generate(param_set=kem, randfunc=lambda _size: seed)
        aead = self._hpke.AEAD.CHACHA20_POLY1305
        context = self._hpke.new(receiver_key=key, aead_id=aead, enc=encapsulated, info=info)
        try:
            return context.unseal(ciphertext)
        except ValueError:
            raise ciphers.InvalidTagError from None


class Pycryptodome:
    """The second choice: a library of its own, which needs no OpenSSL; several times slower."""

    name = "pycryptodome"

    def chacha20_poly1305(self, key: bytes) -> ciphers.Aead:
        return _Aead(key)

    def x25519_public(self, secret: bytes) -> bytes:
        return import_x25519_private_key(secret).public_key().export_key(format="raw")

    def x25519(self, secret: bytes, public: bytes) -> bytes:
        return key_agreement(
            static_priv=import_x25519_private_key(secret),
            static_pub=import_x25519_public_key(public),
            kdf=bytes,
        )

    def aes_256_cbc(self, key: bytes, iv: bytes, *, encrypt: bool) -> ciphers.Update:
        cipher = AES.new(key, AES.MODE_CBC, iv=iv)
        return cipher.encrypt if encrypt else cipher.decrypt

    def hybrid(self) -> ciphers.Hybrid | None:
        try:
            return _Hybrid()
        except ImportError:
            return None


if TYPE_CHECKING:
    _: type[ciphers.Provider] = Pycryptodome
