"""The post-quantum keys of age: age1pq1..., AGE-SECRET-KEY-PQ-1... (C2SP age.md).

ML-KEM-768 and X25519 together (X-Wing), so that a file stays closed while one of them holds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from encryption import ciphers, header, provider
from tools.base import bech32

STANZA = "mlkem768x25519"
_RECIPIENT = "age1pq"
_IDENTITY = "age-secret-key-pq-"
_SECRET = 32  # bytes
_PUBLIC = 1216
_ENCAPSULATED = 1120
_INFO = b"age-encryption.org/mlkem768x25519"


@dataclass(frozen=True)
class Recipient:
    """A public key: files are encrypted for it."""

    public: bytes

    def __str__(self) -> str:
        return bech32.encode(_RECIPIENT, self.public)

    @classmethod
    def parse(cls, text: str) -> Recipient:
        """Return the post-quantum recipient of a text. Raises ConfigError for any other text."""
        return cls(bech32.key(text, _RECIPIENT, _PUBLIC, "post-quantum recipient"))

    def wrap(self, file_key: bytes) -> header.Stanza:
        """Return the stanza that holds the file key. Raises ConfigError for an unusable key."""
        try:
            encapsulated, body = provider.hybrid().seal(self.public, _INFO, file_key)
        except ValueError:
            raise bech32.unusable(str(self)) from None
        return header.Stanza((STANZA, header.b64(encapsulated)), body)


@dataclass(frozen=True)
class Identity:
    """A secret key: it decrypts what was encrypted for its recipient."""

    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Identity:
        """Return a new one from the system's random source."""
        return cls(os.urandom(_SECRET))

    @classmethod
    def parse(cls, text: str) -> Identity:
        """Return the post-quantum identity of a text. Raises ConfigError, which never shows it."""
        return cls(bech32.key(text, _IDENTITY, _SECRET, "post-quantum identity"))

    def reveal(self) -> str:
        """Return the text that goes into a key file."""
        return bech32.encode(_IDENTITY, self.secret).upper()

    def recipient(self) -> Recipient:
        """Return the public key."""
        return Recipient(provider.hybrid().public(self.secret))

    def unwrap(self, stanza: header.Stanza) -> bytes | None:
        """Return the file key; None where the stanza is not for this identity."""
        if stanza.arguments[0] != STANZA:
            return None
        encapsulated = header.share(stanza, _ENCAPSULATED)
        try:
            return provider.hybrid().open(self.secret, encapsulated, _INFO, stanza.body)
        except ciphers.InvalidTagError:
            return None
        except ValueError:  # an all-zero shared secret
            raise header.corrupt(STANZA) from None
