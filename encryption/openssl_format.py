"""The old format: what `openssl enc -aes-256-cbc -md md5 -pass file:K` writes and reads.

"Salted__", 8 bytes of salt, then AES-256-CBC with PKCS#7 padding; key and IV by OpenSSL's
EVP_BytesToKey with MD5 and one round. It is not authenticated: alterations may go undetected,
and each use says so.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from itertools import chain

from encryption import ciphers, provider
from tools.base.errors import TruncatedError, WrongKeyError
from tools.flow.stream import Chunks

MAGIC = b"Salted__"
UNAUTHENTICATED = "the old OpenSSL format is not authenticated: corruption may go undetected"
_SALT = 8
_BLOCK = 16
_HEAD = len(MAGIC) + _SALT
_FETCH = "Fetch the file from the store again."


def _cipher(password: bytes, salt: bytes, *, encrypt: bool) -> ciphers.Update:
    """Return AES-256-CBC with the key and IV that EVP_BytesToKey(3) derives."""
    derived = block = b""
    while len(derived) < 32 + _BLOCK:
        block = hashlib.md5(block + password + salt, usedforsecurity=True).digest()  # noqa: S324  (the format)
        derived += block
    return provider.current().aes_256_cbc(derived[:32], derived[32:48], encrypt=encrypt)


def encrypt(chunks: Chunks, password: bytes) -> Iterator[bytes]:
    """Yield the chunks in the old format."""
    salt = os.urandom(_SALT)
    update = _cipher(password, salt, encrypt=True)
    yield MAGIC + salt
    rest = b""
    for chunk in chunks:
        blocks, rest = _blocks(rest, chunk)
        yield update(blocks)
    missing = _BLOCK - len(rest)
    yield update(rest + bytes([missing]) * missing)


def _blocks(rest: bytes, chunk: bytes) -> tuple[bytes, bytes]:
    """Return all whole blocks of both, and what remains."""
    data = rest + chunk if rest else chunk
    whole = len(data) - len(data) % _BLOCK
    return (data, b"") if whole == len(data) else (data[:whole], data[whole:])


def decrypt(chunks: Chunks, password: bytes) -> Iterator[bytes]:
    """Yield the plaintext. Raises TruncatedError, or WrongKeyError if the padding is wrong.

    A wrong key is accepted in one of 256 cases: nothing in the format tells.
    """
    source = iter(chunks)
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= _HEAD:
            break
    if len(head) < _HEAD:
        raise TruncatedError("unexpected end of file in the header", _FETCH)
    update = _cipher(password, head[len(MAGIC) : _HEAD], encrypt=False)
    last = rest = b""  # the padding of the last block is only known at the end
    for chunk in chain([head[_HEAD:]], source):
        blocks, rest = _blocks(rest, chunk)
        plaintext = last + update(blocks)
        plaintext, last = plaintext[:-_BLOCK], plaintext[-_BLOCK:]
        if plaintext:
            yield plaintext
    if rest or not last:
        raise TruncatedError(
            f"unexpected end of file ({len(rest)} bytes of a block of {_BLOCK})",
            "Check that every part is present and complete.",
        )
    padding = last[-1]
    if not 1 <= padding <= _BLOCK or last[-padding:] != bytes([padding]) * padding:
        raise WrongKeyError(
            "wrong key, or the end of the file is corrupt",
            "Try the KEY_FILE that was in use when the backup was made; the old format does not "
            "tell the two cases apart.",
        )
    yield last[:-padding]
