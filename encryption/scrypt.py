"""A passphrase as the recipient and the identity of an age file (C2SP age.md, scrypt)."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field

from encryption import ciphers, header, provider
from tools.base.errors import DamagedError

STANZA = "scrypt"
WORK = 18  # log2 of scrypt's N that is written: about a second and 256 MiB
_MOST_WORK = 20  # log2 of N that is accepted: above, a file could ask for any memory
_SALT = 16  # bytes
_INFO = b"age-encryption.org/v1/scrypt"
_NONCE = bytes(12)


@dataclass(frozen=True)
class Passphrase:
    """A passphrase; it is always alone in its header."""

    text: str = field(repr=False)
    work: int = WORK

    def wrap(self, file_key: bytes) -> header.Stanza:
        """Return the stanza that holds the file key."""
        salt = os.urandom(_SALT)
        cipher = provider.current().chacha20_poly1305(self._key(salt, self.work))
        body = cipher.encrypt(_NONCE, file_key)
        return header.Stanza((STANZA, header.b64(salt), str(self.work)), body)

    def unwrap(self, stanza: header.Stanza) -> bytes | None:
        """Return the file key; None for another kind of stanza or a wrong passphrase."""
        if stanza.arguments[0] != STANZA:
            return None
        good = len(stanza.arguments) == 3 and re.fullmatch("[1-9][0-9]?", stanza.arguments[2])  # noqa: PLR2004  (the format)
        if not good or len(stanza.body) != header.WRAPPED:
            raise header.corrupt(STANZA)
        salt, work = header.unb64(stanza.arguments[1]), int(stanza.arguments[2])
        if len(salt) != _SALT:
            raise header.corrupt(STANZA)
        if work > _MOST_WORK:
            raise DamagedError(
                f"age header: scrypt work factor 2^{work} is above the limit of 2^{_MOST_WORK}",
                "The file was altered or made by another program: decrypt it with `age -d` "
                "if you trust it.",
            )
        try:
            cipher = provider.current().chacha20_poly1305(self._key(salt, work))
            return cipher.decrypt(_NONCE, stanza.body)
        except ciphers.InvalidTagError:
            return None

    def _key(self, salt: bytes, work: int) -> bytes:
        most = 128 * 8 * (1 << work) + (1 << 20)  # bytes; the last MiB is more than OpenSSL adds
        secret = self.text.encode()
        return hashlib.scrypt(
            secret, salt=_INFO + salt, n=1 << work, r=8, p=1, maxmem=most, dklen=32
        )
