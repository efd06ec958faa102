"""The X25519 keys of age: recipients age1..., identities AGE-SECRET-KEY-1... (C2SP age.md)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from encryption import ciphers, header, provider
from tools.base import bech32, kdf

STANZA = "X25519"
_RECIPIENT = "age"
_IDENTITY = "age-secret-key-"
_SIZE = 32  # bytes of a key
_INFO = b"age-encryption.org/v1/X25519"
_NONCE = bytes(12)


@dataclass(frozen=True)
class Recipient:
    """A public key: files are encrypted for it."""

    public: bytes

    def __str__(self) -> str:
        return bech32.encode(_RECIPIENT, self.public)

    @classmethod
    def parse(cls, text: str) -> Recipient:
        """Return the X25519 recipient of a text. Raises ConfigError for any other text."""
        return cls(bech32.key(text, _RECIPIENT, _SIZE, "recipient"))

    def wrap(self, file_key: bytes) -> header.Stanza:
        """Return the stanza that holds the file key. Raises ConfigError for an unusable key."""
        secret = os.urandom(_SIZE)
        share = provider.current().x25519_public(secret)
        try:
            shared = provider.current().x25519(secret, self.public)
        except ValueError:  # a point of low order: anybody could read the file
            raise bech32.unusable(str(self)) from None
        key = kdf.hkdf(shared, share + self.public, _INFO)
        body = provider.current().chacha20_poly1305(key).encrypt(_NONCE, file_key)
        return header.Stanza((STANZA, header.b64(share)), body)


@dataclass(frozen=True)
class Identity:
    """A secret key: it decrypts what was encrypted for its recipient."""

    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Identity:
        """Return a new one from the system's random source."""
        return cls(os.urandom(_SIZE))

    @classmethod
    def parse(cls, text: str) -> Identity:
        """Return the X25519 identity of a text. Raises ConfigError, which never shows it."""
        return cls(bech32.key(text, _IDENTITY, _SIZE, "identity"))

    def reveal(self) -> str:
        """Return the text that goes into a key file."""
        return bech32.encode(_IDENTITY, self.secret).upper()

    def recipient(self) -> Recipient:
        """Return the public key."""
        return Recipient(provider.current().x25519_public(self.secret))

    def unwrap(self, stanza: header.Stanza) -> bytes | None:
        """Return the file key; None where the stanza is not for this identity."""
        if stanza.arguments[0] != STANZA:
            return None
        share = header.share(stanza, _SIZE)
        try:
            shared = provider.current().x25519(self.secret, share)
        except ValueError:  # an all-zero shared secret
            raise header.corrupt(STANZA) from None
        key = kdf.hkdf(shared, share + self.recipient().public, _INFO)
        try:
            return provider.current().chacha20_poly1305(key).decrypt(_NONCE, stanza.body)
        except ciphers.InvalidTagError:
            return None
