"""The age v1 format (C2SP age.md), byte for byte: `age -d -i key_file` reads what this writes.

A header wraps a random file key for each recipient and is authenticated by that key; the
payload (payload.py) follows. Both ways need the memory of a few chunks.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from encryption import bech32, payload
from tools.base.errors import ConfigError, DamagedError, TruncatedError, WrongKeyError
from tools.flow.stream import Chunks

MAGIC = b"age-encryption.org/v1\n"
_KEY = 16  # bytes of the file key, and of the nonce that follows the header
_MOST_HEADER = 64 * 1024
_MOST_STANZAS = 64
_MOST_LINE = 8 * 1024
_MOST_WORK = 20  # log2 of scrypt's N that is accepted: above, a file could ask for any memory
WORK = 18  # log2 of scrypt's N that is written: about a second and 256 MiB
_SCRYPT_INFO = b"age-encryption.org/v1/scrypt"
_X25519_INFO = b"age-encryption.org/v1/X25519"
_COLUMNS = 64
_NONCE = bytes(12)
_NO_MATCH = "wrong key: no identity matches the file's recipients"
_AHEAD = "Use the KEY_FILE that was in use when this backup was made."


def _damaged(where: str) -> DamagedError:
    return DamagedError(f"the header is damaged ({where})", "Fetch another copy of the file.")


def _hkdf(secret: bytes, salt: bytes | None, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(secret)


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


def _unb64(text: str) -> bytes:
    """Canonical base64 without padding; raises DamagedError for anything else."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise _damaged("base64") from None
    if _b64(raw) != text:
        raise _damaged("base64")
    return raw


@dataclass(frozen=True)
class Stanza:
    """One recipient's part of a header: its words and its body."""

    words: tuple[str, ...]
    body: bytes

    def encoded(self) -> str:
        text = _b64(self.body)
        lines = [text[at : at + _COLUMNS] for at in range(0, len(text), _COLUMNS)]
        if len(text) % _COLUMNS == 0:
            lines.append("")  # the last line is always shorter than the others
        return f"-> {' '.join(self.words)}\n" + "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Recipient:
    """A public key (age1...): files can be written for it, not read with it."""

    public: bytes

    def __str__(self) -> str:
        return str(bech32.encode("age", self.public))

    @classmethod
    def parse(cls, text: str) -> Recipient:
        """Raises ConfigError for a text that is no recipient."""
        return cls(_key_of(text, "age", "recipient"))

    def wrap(self, file_key: bytes) -> Stanza:
        ephemeral = X25519PrivateKey.generate()
        share = _public(ephemeral)
        secret = ephemeral.exchange(X25519PublicKey.from_public_bytes(self.public))
        key = _hkdf(secret, share + self.public, _X25519_INFO)
        return Stanza(
            ("X25519", _b64(share)), ChaCha20Poly1305(key).encrypt(_NONCE, file_key, None)
        )


@dataclass(frozen=True)
class Identity:
    """A secret key (AGE-SECRET-KEY-1...): it opens what was written for its recipient."""

    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Identity:
        """A new one from the system's random source."""
        return cls(os.urandom(32))

    @classmethod
    def parse(cls, text: str) -> Identity:
        """Raises ConfigError for a text that is no identity; never shows it."""
        return cls(_key_of(text, "age-secret-key-", "identity"))

    def reveal(self) -> str:
        """The text that goes into a key file."""
        return str(bech32.encode("age-secret-key-", self.secret)).upper()

    def recipient(self) -> Recipient:
        return Recipient(_public(X25519PrivateKey.from_private_bytes(self.secret)))

    def unwrap(self, stanza: Stanza) -> bytes | None:
        """The file key, or None where the stanza is for somebody else."""
        if stanza.words[0] != "X25519":
            return None
        if len(stanza.words) != 2 or len(stanza.body) != _KEY + payload.TAG:  # noqa: PLR2004  (the format)
            raise _damaged("X25519")
        share = _unb64(stanza.words[1])
        if len(share) != 32:  # noqa: PLR2004  (the format)
            raise _damaged("X25519")
        try:
            secret = X25519PrivateKey.from_private_bytes(self.secret).exchange(
                X25519PublicKey.from_public_bytes(share)
            )
            key = _hkdf(secret, share + self.recipient().public, _X25519_INFO)
            return ChaCha20Poly1305(key).decrypt(_NONCE, stanza.body, None)
        except InvalidTag:
            return None
        except ValueError:  # an all-zero shared secret
            raise _damaged("X25519") from None


@dataclass(frozen=True)
class Passphrase:
    """A passphrase, as recipient and identity in one; it is always alone in its header."""

    text: str = field(repr=False)
    work: int = WORK

    def wrap(self, file_key: bytes) -> Stanza:
        salt = os.urandom(_KEY)
        sealed = ChaCha20Poly1305(self._key(salt, self.work)).encrypt(_NONCE, file_key, None)
        return Stanza(("scrypt", _b64(salt), str(self.work)), sealed)

    def unwrap(self, stanza: Stanza) -> bytes | None:
        """The file key, or None where the stanza is for somebody else, or the passphrase wrong."""
        if stanza.words[0] != "scrypt":
            return None
        good = len(stanza.words) == 3 and re.fullmatch("[1-9][0-9]?", stanza.words[2])  # noqa: PLR2004  (the format)
        if not good or len(stanza.body) != _KEY + payload.TAG:
            raise _damaged("scrypt")
        salt, work = _unb64(stanza.words[1]), int(stanza.words[2])
        if len(salt) != _KEY:
            raise _damaged("scrypt")
        if work > _MOST_WORK:
            raise DamagedError(
                f"the header asks for too much work (scrypt 2^{work})",
                f"At most 2^{_MOST_WORK} is done.",
            )
        try:
            return ChaCha20Poly1305(self._key(salt, work)).decrypt(_NONCE, stanza.body, None)
        except InvalidTag:
            return None

    def _key(self, salt: bytes, work: int) -> bytes:
        most = 128 * 8 * (1 << work) + (1 << 20)  # bytes; the last MiB is more than OpenSSL adds
        secret = self.text.encode()
        return hashlib.scrypt(
            secret, salt=_SCRYPT_INFO + salt, n=1 << work, r=8, p=1, maxmem=most, dklen=32
        )


def _public(key: X25519PrivateKey) -> bytes:
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    return key.public_key().public_bytes(*raw)


def _key_of(text: str, prefix: str, called: str) -> bytes:
    try:
        found, data = bech32.decode(text.strip())
    except ValueError as error:
        raise ConfigError(f"not an age {called}: {error}", "Copy it whole, on one line.") from None
    if found != prefix or len(data) != 32:  # noqa: PLR2004  (X25519)
        raise ConfigError(
            f"not an age {called}", "An X25519 key is meant (age1..., AGE-SECRET-KEY-1...)."
        )
    return data


def encrypt(chunks: Chunks, recipients: Sequence[Recipient | Passphrase]) -> Iterator[bytes]:
    """A stage: the age file of the chunks, readable by each of the recipients.

    Raises ConfigError for no recipient, and for a passphrase that is not alone.
    """
    if not recipients:
        raise ConfigError("there is no recipient", "KEY_FILE holds an identity or recipients.")
    if len(recipients) > 1 and any(isinstance(r, Passphrase) for r in recipients):
        raise ConfigError("a passphrase goes with no other recipient", "Name one or the others.")
    file_key = os.urandom(_KEY)
    header = MAGIC.decode() + "".join(r.wrap(file_key).encoded() for r in recipients) + "---"
    nonce = os.urandom(_KEY)
    yield f"{header} {_b64(_mac(file_key, header.encode()))}\n".encode() + nonce
    yield from payload.seal(chunks, ChaCha20Poly1305(_hkdf(file_key, nonce, b"payload")))


def _mac(file_key: bytes, header: bytes) -> bytes:
    return hmac.digest(_hkdf(file_key, None, b"header"), header, "sha256")


def decrypt(chunks: Chunks, identities: Sequence[Identity | Passphrase]) -> Iterator[bytes]:
    """The inverse stage: the plaintext, each chunk only after its tag is verified.

    Raises WrongKeyError, DamagedError or TruncatedError; what was given out before is a true
    prefix, so nothing may be committed before the end.
    """
    source = _Source(iter(chunks))
    header, stanzas, mac = _header(source)
    file_key = _file_key(stanzas, identities)
    if not hmac.compare_digest(mac, _mac(file_key, header)):
        raise _damaged("MAC")
    nonce = source.take(_KEY)
    if len(nonce) < _KEY:
        raise TruncatedError("the file ends right after its header", "The rest of it is missing.")
    cipher = ChaCha20Poly1305(_hkdf(file_key, nonce, b"payload"))
    yield from payload.unseal(source.rest(), cipher)


def header_size(chunks: Chunks, identities: Sequence[Identity]) -> int:
    """How many bytes come before the payload, the nonce included.

    Raises WrongKeyError where identities are given and none of them opens the file, and
    DamagedError or TruncatedError for a header that is none.
    """
    header, stanzas, mac = _header(_Source(iter(chunks)))
    if identities and not hmac.compare_digest(mac, _mac(_file_key(stanzas, identities), header)):
        raise _damaged("MAC")
    return len(header) + len(f" {_b64(mac)}\n") + _KEY


def _file_key(stanzas: Sequence[Stanza], identities: Sequence[Identity | Passphrase]) -> bytes:
    if len(stanzas) > 1 and any(stanza.words[0] == "scrypt" for stanza in stanzas):
        raise _damaged("scrypt is not alone")
    for identity in identities:
        for stanza in stanzas:
            found = identity.unwrap(stanza)
            if found is not None:
                return found
    raise _wrong_key(stanzas, identities)


def _wrong_key(
    stanzas: Sequence[Stanza], identities: Sequence[Identity | Passphrase]
) -> WrongKeyError:
    """What can be said: the kinds of the file's recipients, and the public keys that were tried."""
    kinds = Counter(stanza.words[0] for stanza in stanzas)
    by_passphrase = any(isinstance(identity, Passphrase) for identity in identities)
    if kinds["scrypt"] and not by_passphrase:
        return WrongKeyError(
            f"{_NO_MATCH}: it is encrypted with a passphrase",
            "Set PASSPHRASE to the one that was used for the backup.",
        )
    if by_passphrase:
        what = "another passphrase was used" if kinds["scrypt"] else "no passphrase was used"
        return WrongKeyError(f"{_NO_MATCH}: {what}", _AHEAD)
    held = [
        f"{number} {kind}{'' if kind == 'X25519' else ', not supported'}"
        for kind, number in kinds.items()
        if not kind.endswith("-grease")
    ]
    tried = ", ".join(str(i.recipient()) for i in identities if isinstance(i, Identity))
    return WrongKeyError(
        f"{_NO_MATCH} ({'; '.join(held) or 'none'})",
        f"{_AHEAD} It was tried with the identity of {tried}.",
    )


class _Source:
    """Chunks as a stream to take the header from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""

    def _more(self) -> bool:
        """Read on; False at the end."""
        for chunk in self._chunks:
            if chunk:
                self._held += chunk
                return True
        return False

    def take(self, size: int) -> bytes:
        """So many bytes; fewer only at the end."""
        while len(self._held) < size and self._more():
            pass
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    def line(self) -> bytes:
        """Up to and without the next newline; raises where there is none."""
        while (at := self._held.find(b"\n", 0, _MOST_LINE)) < 0:
            if len(self._held) >= _MOST_LINE:
                raise _damaged("a line without end")
            if not self._more():
                raise TruncatedError("the file ends in its header", "The rest of it is missing.")
        line, self._held = self._held[:at], self._held[at + 1 :]
        return line

    def rest(self) -> Iterator[bytes]:
        """All that has not been taken."""
        yield self._held
        yield from self._chunks


def _header(source: _Source) -> tuple[bytes, list[Stanza], bytes]:
    """The bytes that the MAC is over, the stanzas, the MAC."""
    first = source.line() + b"\n"
    if first != MAGIC:
        raise DamagedError(
            "this is no age file", "Its first line is not that of the format age v1."
        )
    read = bytearray(first)
    stanzas: list[Stanza] = []
    while True:
        line = _text(source.line())
        if line.startswith("--- "):
            mac = _unb64(line[4:])
            if not stanzas or len(mac) != 32:  # noqa: PLR2004  (SHA-256)
                raise _damaged("its end")
            return bytes(read) + b"---", stanzas, mac
        words = tuple(line.split(" "))
        if words[0] != "->" or len(words) < 2 or not all(words):  # noqa: PLR2004  (the format)
            raise _damaged("a stanza")
        if len(stanzas) == _MOST_STANZAS:
            raise _damaged("too many stanzas")
        read += line.encode() + b"\n"
        stanzas.append(Stanza(words[1:], _unb64(_body(source, read))))


def _body(source: _Source, read: bytearray) -> str:
    """A stanza's body, up to its first line that is shorter than the others."""
    body = ""
    while True:
        line = _text(source.line())
        read += line.encode() + b"\n"
        body += line
        if len(line) > _COLUMNS or len(read) > _MOST_HEADER:
            raise _damaged("a stanza's body")
        if len(line) < _COLUMNS:
            return body


def _text(line: bytes) -> str:
    if not line.isascii() or any(byte < 0x20 or byte == 0x7F for byte in line):  # noqa: PLR2004  (ASCII)
        raise _damaged("not printable")
    return line.decode("ascii")
