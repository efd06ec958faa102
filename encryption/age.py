"""The age v1 format (C2SP age.md), byte for byte: `age -d -i key_file` reads what this writes.

A header wraps a random file key for each recipient and is authenticated by that key; the
payload (payload.py) follows. Both directions need the memory of a few chunks.
"""

from __future__ import annotations

import hmac
import os
from collections import Counter
from collections.abc import Iterator, Sequence

from encryption import age_payload, armor, ciphers, header, hybrid, provider, scrypt, x25519
from tools.base import kdf
from tools.base.errors import ConfigError, TruncatedError, WrongKeyError
from tools.flow.stream import Chunks

MAGIC = header.MAGIC
_NONCE = 16  # bytes that follow the header
_KINDS = (x25519.STANZA, hybrid.STANZA)
_NO_MATCH = "wrong key: none of the identities matches a recipient of the file"
_OLD_KEY = "Use the KEY_FILE that was in use when this backup was made."
_SHOWN = 62  # characters of a recipient that are shown: all of an X25519 one

Recipient = x25519.Recipient | hybrid.Recipient
Identity = x25519.Identity | hybrid.Identity


def check_recipients(recipients: Sequence[Recipient | scrypt.Passphrase]) -> None:
    """Raise ConfigError for recipients that cannot be those of one file."""
    if not recipients:
        raise ConfigError(
            "no recipients", "Put a recipient (age1...) or an identity into KEY_FILE."
        )
    if len(recipients) > header.MOST_STANZAS:
        raise ConfigError(
            f"{len(recipients)} recipients are more than {header.MOST_STANZAS}",
            "Remove those that are not needed.",
        )
    if len(recipients) > 1 and any(isinstance(r, scrypt.Passphrase) for r in recipients):
        raise ConfigError(
            "a passphrase cannot be combined with recipients",
            "Set either PASSPHRASE or RECIPIENTS.",
        )
    quantum_safe = [isinstance(recipient, hybrid.Recipient) for recipient in recipients]
    if any(quantum_safe) and not all(quantum_safe):
        raise ConfigError(
            "post-quantum recipients (age1pq1...) cannot be combined with X25519 recipients",
            "Use recipients of one kind: a file is only as safe as the weakest of them.",
        )


def encrypt(chunks: Chunks, recipients: Sequence[Recipient | scrypt.Passphrase]) -> Iterator[bytes]:
    """Yield an age file of the chunks, which each of the recipients can decrypt.

    Raises ConfigError as `check_recipients` does.
    """
    check_recipients(recipients)
    file_key = os.urandom(header.FILE_KEY)
    stanzas = "".join(recipient.wrap(file_key).encode() for recipient in recipients)
    authenticated = f"{header.MAGIC.decode()}{stanzas}---"
    mac = header.b64(_mac(file_key, authenticated.encode()))
    nonce = os.urandom(_NONCE)
    yield f"{authenticated} {mac}\n".encode() + nonce
    yield from age_payload.seal(chunks, _payload_cipher(file_key, nonce))


def _mac(file_key: bytes, authenticated: bytes) -> bytes:
    return hmac.digest(kdf.hkdf(file_key, b"", b"header"), authenticated, "sha256")


def _payload_cipher(file_key: bytes, nonce: bytes) -> ciphers.Aead:
    return provider.current().chacha20_poly1305(kdf.hkdf(file_key, nonce, b"payload"))


def decrypt(chunks: Chunks, identities: Sequence[Identity | scrypt.Passphrase]) -> Iterator[bytes]:
    """Yield the plaintext of an age file, each chunk only after its tag is verified.

    Reads armored files too. Raises WrongKeyError, DamagedError or TruncatedError. What it has
    returned before is a true prefix, so a consumer commits nothing before the end.
    """
    source = header.Source(armor.remove_armor(chunks))
    authenticated, stanzas, mac = header.parse(source)
    file_key = _file_key(stanzas, identities)
    if not hmac.compare_digest(mac, _mac(file_key, authenticated)):
        raise header.corrupt("MAC")
    nonce = source.take(_NONCE)
    if len(nonce) < _NONCE:
        raise TruncatedError(
            "unexpected end of file after the age header", "Fetch the file from the store again."
        )
    yield from age_payload.unseal(source.rest(), _payload_cipher(file_key, nonce))


def header_size(chunks: Chunks, identities: Sequence[Identity]) -> int:
    """Return how many bytes come before the payload of a binary file, with the nonce.

    Raises WrongKeyError if there are identities and none of them decrypts the file, and
    DamagedError or TruncatedError for a corrupt header.
    """
    authenticated, stanzas, mac = header.parse(header.Source(iter(chunks)))
    if identities and not hmac.compare_digest(
        mac, _mac(_file_key(stanzas, identities), authenticated)
    ):
        raise header.corrupt("MAC")
    return len(authenticated) + len(f" {header.b64(mac)}\n") + _NONCE


def _file_key(
    stanzas: Sequence[header.Stanza], identities: Sequence[Identity | scrypt.Passphrase]
) -> bytes:
    if len(stanzas) > 1 and any(stanza.arguments[0] == scrypt.STANZA for stanza in stanzas):
        raise header.corrupt("scrypt stanza is not the only one")
    for identity in identities:
        for stanza in stanzas:
            file_key = identity.unwrap(stanza)
            if file_key is not None:
                return file_key
    raise _wrong_key(stanzas, identities)


def _wrong_key(
    stanzas: Sequence[header.Stanza], identities: Sequence[Identity | scrypt.Passphrase]
) -> WrongKeyError:
    """Name the kinds of the file's recipients, and the public keys that were tried."""
    kinds = Counter(stanza.arguments[0] for stanza in stanzas)
    by_passphrase = any(isinstance(identity, scrypt.Passphrase) for identity in identities)
    if kinds[scrypt.STANZA] and not by_passphrase:
        return WrongKeyError(
            f"{_NO_MATCH}: it is encrypted with a passphrase",
            "Set PASSPHRASE to the one that was used for the backup.",
        )
    if by_passphrase:
        problem = "another" if kinds[scrypt.STANZA] else "no"
        return WrongKeyError(f"{_NO_MATCH}: {problem} passphrase was used", _OLD_KEY)
    recipients = [
        f"{number} {kind}{'' if kind in _KINDS else ', not supported'}"
        for kind, number in kinds.items()
        if not kind.endswith("-grease")
    ]
    tried = ", ".join(
        _short(str(identity.recipient()))
        for identity in identities
        if not isinstance(identity, scrypt.Passphrase)
    )
    return WrongKeyError(
        f"{_NO_MATCH} ({'; '.join(recipients) or 'none'})",
        f"{_OLD_KEY} The identities of these recipients were tried: {tried}.",
    )


def _short(recipient: str) -> str:
    return recipient if len(recipient) <= _SHOWN else f"{recipient[:_SHOWN]}..."
