"""The old format: what `openssl enc -aes-256-cbc -md md5 -pass file:K` writes and reads.

"Salted__", 8 bytes of salt, then AES-256-CBC with PKCS#7 padding; key and IV by OpenSSL's
EVP_BytesToKey with MD5 and one round. It carries no authentication: who alters it is not
found out for certain, and whoever reads it is told so.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tools.base.errors import TruncatedError, WrongKeyError
from tools.flow.stream import Chunks

MAGIC = b"Salted__"
UNSIGNED = "the old OpenSSL format carries no authentication: damage may go unnoticed"
_SALT = 8
_BLOCK = 16


def _cipher(password: bytes, salt: bytes) -> Cipher[modes.CBC]:
    """AES-256-CBC with the key and IV that EVP_BytesToKey(3) derives."""
    derived = block = b""
    while len(derived) < 32 + _BLOCK:
        block = hashlib.md5(block + password + salt, usedforsecurity=True).digest()  # noqa: S324  (the format)
        derived += block
    return Cipher(algorithms.AES(derived[:32]), modes.CBC(derived[32:48]))


def encrypt(chunks: Chunks, password: bytes) -> Iterator[bytes]:
    """A stage: the old format of the chunks."""
    salt = os.urandom(_SALT)
    cipher = _cipher(password, salt).encryptor()
    yield MAGIC + salt
    size = 0
    for chunk in chunks:
        size += len(chunk)
        yield cipher.update(chunk)
    missing = _BLOCK - size % _BLOCK
    yield cipher.update(bytes([missing]) * missing) + cipher.finalize()


def decrypt(chunks: Chunks, password: bytes) -> Iterator[bytes]:
    """The inverse stage. Raises TruncatedError, or WrongKeyError where the padding is wrong.

    A wrong key passes for good in one of 256 cases: nothing in the format tells.
    """
    source = iter(chunks)
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= len(MAGIC) + _SALT:
            break
    if len(head) < len(MAGIC) + _SALT:
        raise TruncatedError("the file ends in its header", "The rest of it is missing.")
    cipher = _cipher(password, head[len(MAGIC) : len(MAGIC) + _SALT]).decryptor()
    held = b""  # the last block, whose padding is only known at the end
    size = 0
    for chunk in _after(head[len(MAGIC) + _SALT :], source):
        size += len(chunk)
        plain = held + cipher.update(chunk)
        plain, held = plain[:-_BLOCK], plain[-_BLOCK:]
        if plain:
            yield plain
    if size % _BLOCK or not size:
        raise TruncatedError(
            f"the file ends too early ({size % _BLOCK} bytes of a block of {_BLOCK})",
            "Its end is missing: is each part there, and whole?",
        )
    padding = held[-1]
    if not 1 <= padding <= _BLOCK or held[-padding:] != bytes([padding]) * padding:
        raise WrongKeyError(
            "wrong key, or the end of the file is damaged",
            "The old format cannot tell the two apart; try the KEY_FILE of that time.",
        )
    yield held[:-padding]


def _after(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest
