"""The age v1 format (C2SP age.md), byte for byte: `age -d -i key_file` reads what this writes.

A header wraps a random file key for each recipient; the payload is chunks of 64 KiB, each
sealed with ChaCha20-Poly1305 under a counter, the last one marked. So no piece can be cut
off, moved, repeated or mixed in unnoticed, and both ways need the memory of a few chunks.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tools import plugin
from tools.errors import ConfigError, DamagedError, TruncatedError, WrongKeyError
from tools.stream import Chunks

bech32 = plugin.load("encryption/bech32.py")

MAGIC = b"age-encryption.org/v1\n"
CHUNK = 65536  # bytes of plaintext
_TAG = 16
_SEALED = CHUNK + _TAG
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
_AHEAD = "The key does not fit: name the KEY_FILE that was used for the backup."


def _hkdf(secret: bytes, salt: bytes | None, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(secret)


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


def _unb64(text: str) -> bytes:
    """Canonical base64 without padding; raises DamagedError for anything else."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise DamagedError("the header is damaged (base64)", "The file was altered.") from None
    if _b64(raw) != text:
        raise DamagedError("the header is damaged (base64)", "The file was altered.")
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
        if len(stanza.words) != 2 or len(stanza.body) != _KEY + _TAG:  # noqa: PLR2004  (the format)
            raise DamagedError("the header is damaged (X25519)", "The file was altered.")
        share = _unb64(stanza.words[1])
        if len(share) != 32:  # noqa: PLR2004  (the format)
            raise DamagedError("the header is damaged (X25519)", "The file was altered.")
        try:
            secret = X25519PrivateKey.from_private_bytes(self.secret).exchange(
                X25519PublicKey.from_public_bytes(share)
            )
            key = _hkdf(secret, share + self.recipient().public, _X25519_INFO)
            return ChaCha20Poly1305(key).decrypt(_NONCE, stanza.body, None)
        except InvalidTag:
            return None
        except ValueError:  # an all-zero shared secret
            raise DamagedError("the header is damaged (X25519)", "The file was altered.") from None


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
        if not good or len(stanza.body) != _KEY + _TAG:
            raise DamagedError("the header is damaged (scrypt)", "The file was altered.")
        salt, work = _unb64(stanza.words[1]), int(stanza.words[2])
        if len(salt) != _KEY or work > _MOST_WORK:
            raise DamagedError(
                f"the header asks for scrypt of 2^{work}", f"At most 2^{_MOST_WORK} is done."
            )
        try:
            return ChaCha20Poly1305(self._key(salt, work)).decrypt(_NONCE, stanza.body, None)
        except InvalidTag:
            return None

    def _key(self, salt: bytes, work: int) -> bytes:
        most = 2 * 128 * 8 * (1 << work)  # bytes; scrypt itself takes half of it
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
    return bytes(data)


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
    yield from _sealed(chunks, ChaCha20Poly1305(_hkdf(file_key, nonce, b"payload")))


def _mac(file_key: bytes, header: bytes) -> bytes:
    return hmac.digest(_hkdf(file_key, None, b"header"), header, "sha256")


def _counted(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def _sealed(chunks: Chunks, cipher: ChaCha20Poly1305) -> Iterator[bytes]:
    """The payload: one chunk is held back, for the last one is marked."""
    number = 0
    held = b""
    for chunk in chunks:
        held = held + chunk if held else chunk
        if len(held) <= CHUNK:
            continue
        view = memoryview(held)
        whole = (len(held) - 1) // CHUNK  # what is left is at least one byte
        yield b"".join(
            cipher.encrypt(
                _counted(number + n, last=False), view[n * CHUNK : (n + 1) * CHUNK], None
            )
            for n in range(whole)
        )
        number += whole
        held = held[whole * CHUNK :]
    yield cipher.encrypt(_counted(number, last=True), held, None)


def decrypt(chunks: Chunks, identities: Sequence[Identity | Passphrase]) -> Iterator[bytes]:
    """The inverse stage: the plaintext, each chunk only after its tag is verified.

    Raises WrongKeyError, DamagedError or TruncatedError; what was given out before is a
    true prefix, so nothing may be committed before the end.
    """
    source = _Source(iter(chunks))
    header, stanzas, mac = _header(source)
    file_key = _file_key(stanzas, identities)
    if not hmac.compare_digest(mac, _mac(file_key, header)):
        raise DamagedError("the header is damaged (MAC)", "The file was altered.")
    nonce = source.take(_KEY)
    if len(nonce) < _KEY:
        raise TruncatedError("the file ends right after its header", "The rest of it is missing.")
    yield from _opened(source, ChaCha20Poly1305(_hkdf(file_key, nonce, b"payload")))


def _file_key(stanzas: Sequence[Stanza], identities: Sequence[Identity | Passphrase]) -> bytes:
    if len(stanzas) > 1 and any(stanza.words[0] == "scrypt" for stanza in stanzas):
        raise DamagedError("the header is damaged (scrypt is not alone)", "The file was altered.")
    for identity in identities:
        for stanza in stanzas:
            found = identity.unwrap(stanza)
            if found is not None:
                return found
    raise WrongKeyError("wrong key: it opens none of the file's recipients", _AHEAD)


class _Source:
    """Chunks as a stream to take from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""

    def take(self, size: int) -> bytes:
        """So many bytes; fewer only at the end."""
        if len(self._held) < size:
            pieces = [self._held]
            have = len(self._held)
            for chunk in self._chunks:
                pieces.append(chunk)
                have += len(chunk)
                if have >= size:
                    break
            self._held = b"".join(pieces)
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    def line(self) -> bytes:
        """Up to and without the next newline; raises where there is none."""
        at = self._held.find(b"\n")
        while at < 0:
            if len(self._held) > _MOST_LINE:
                raise DamagedError(
                    "the header is damaged (a line without end)", "The file was altered."
                )
            chunk = next(self._chunks, b"")
            if not chunk:
                raise TruncatedError("the file ends in its header", "The rest of it is missing.")
            self._held += chunk
            at = self._held.find(b"\n")
        line, self._held = self._held[:at], self._held[at + 1 :]
        return line


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
                raise DamagedError("the header is damaged (its end)", "The file was altered.")
            return bytes(read) + b"---", stanzas, mac
        read += line.encode() + b"\n"
        words = tuple(line.split(" "))
        if words[0] != "->" or len(words) < 2 or not all(words):  # noqa: PLR2004  (the format)
            raise DamagedError("the header is damaged (a stanza)", "The file was altered.")
        body = ""
        while True:
            line = _text(source.line())
            read += line.encode() + b"\n"
            body += line
            if len(line) > _COLUMNS or len(read) > _MOST_HEADER:
                raise DamagedError(
                    "the header is damaged (a stanza's body)", "The file was altered."
                )
            if len(line) < _COLUMNS:
                break
        stanzas.append(Stanza(words[1:], _unb64(body)))
        if len(stanzas) > _MOST_STANZAS:
            raise DamagedError("the header is damaged (too many stanzas)", "The file was altered.")


def _text(line: bytes) -> str:
    if not line.isascii() or any(byte < 0x20 or byte == 0x7F for byte in line):  # noqa: PLR2004  (ASCII)
        raise DamagedError("the header is damaged (not printable)", "The file was altered.")
    return line.decode("ascii")


def _opened(source: _Source, cipher: ChaCha20Poly1305) -> Iterator[bytes]:
    """The payload's plaintext, many chunks at a time; the last one must be marked as such."""
    many = 16 * _SEALED
    number = 0
    held = source.take(many)
    while True:
        ahead = source.take(many)
        view = memoryview(held)
        sealed = [view[at : at + _SEALED] for at in range(0, len(held), _SEALED)]
        last = sealed.pop() if not ahead and sealed else None
        try:
            plain = [
                cipher.decrypt(_counted(number + n, last=False), chunk, None)
                for n, chunk in enumerate(sealed)
            ]
        except InvalidTag:
            yield from _whole_before(cipher, number, sealed)
            raise AssertionError("unreachable") from None
        number += len(sealed)
        if plain:
            yield b"".join(plain)
        if not ahead:
            yield _last(cipher, number, bytes(last or b""))
            return
        held = ahead


def _whole_before(
    cipher: ChaCha20Poly1305, number: int, sealed: Sequence[memoryview]
) -> Iterator[bytes]:
    """Give out what is good of some chunks, and raise at the first that is not."""
    for at, chunk in enumerate(sealed, number):
        try:
            plain = cipher.decrypt(_counted(at, last=False), chunk, None)
        except InvalidTag:
            if _opens(cipher, at, bytes(chunk), last=True):
                raise DamagedError(
                    f"something follows the end (chunk {at})", "The file was altered."
                ) from None
            raise DamagedError(
                f"the data is damaged (chunk {at})", "The file was altered."
            ) from None
        yield plain


def _opens(cipher: ChaCha20Poly1305, number: int, chunk: bytes, *, last: bool) -> bool:
    try:
        cipher.decrypt(_counted(number, last), chunk, None)
    except InvalidTag:
        return False
    return True


def _last(cipher: ChaCha20Poly1305, number: int, chunk: bytes) -> bytes:
    """The last chunk. A whole one that is not marked says that the end was cut off."""
    try:
        plain = cipher.decrypt(_counted(number, last=True), chunk, None)
    except InvalidTag:
        if len(chunk) == _SEALED and not _opens(cipher, number, chunk, last=False):
            raise DamagedError(
                f"the data is damaged (chunk {number})", "The file was altered."
            ) from None
        raise TruncatedError(
            f"the file ends too early (chunk {number})",
            "Its end is missing, or its last bytes were altered: is each part there, and whole?",
        ) from None
    if not plain and number:
        raise DamagedError(f"the data is damaged (empty chunk {number})", "The file was altered.")
    return plain
