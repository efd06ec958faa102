"""Signatures of files in OpenSSH's format, SSHSIG with Ed25519 (PROTOCOL.sshsig of OpenSSH).

`ssh-keygen -Y verify` reads them. A public key is a line as in authorized_keys(5).
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import struct
from collections.abc import Iterator

from tools.base.errors import BackupError
from tools.catalog import ed25519

ALGORITHM = "ssh-ed25519"
_MAGIC = b"SSHSIG"
_VERSION = 1
_HASH = b"sha512"
_BEGIN, _END = b"-----BEGIN SSH SIGNATURE-----", b"-----END SSH SIGNATURE-----"
_LINE = 70  # characters of base64 in a line, as ssh-keygen writes them
_PUBLIC, _SIGNATURE = 32, 64  # bytes
MAX_BYTES = 1 << 16  # of a signature file


class SignatureFormatError(BackupError):
    """Not a signature that this program understands."""


def sign(seed: bytes, message: bytes, namespace: str) -> bytes:
    """Return the signature file of a message. seed: the secret key, 32 bytes."""
    library = ed25519.library()
    key = library.public(seed)
    signature = library.sign(seed, _signed(hashlib.sha512(message).digest(), namespace.encode()))
    blob = b"".join((
        _MAGIC,
        struct.pack(">I", _VERSION),
        _string(_key_blob(key)),
        _string(namespace.encode()),
        _string(b""),
        _string(_HASH),
        _string(_string(ALGORITHM.encode()) + _string(signature)),
    ))  # fmt: skip
    text = base64.b64encode(blob)
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    return b"\n".join([_BEGIN, *lines, _END, b""])


def signer(raw: bytes, message: bytes, namespace: str) -> bytes | None:
    """Return the public key (32 bytes) that made a signature file; None if it does not fit.

    Raises SignatureFormatError where it is no SSHSIG of an Ed25519 key and this namespace.
    """
    return signer_of_digest(raw, hashlib.sha512(message).digest(), namespace)


def signer_of_digest(raw: bytes, digest: bytes, namespace: str) -> bytes | None:
    """Return the same of a message of which only the SHA-512 is known."""
    public, signature = _parsed(raw, namespace.encode())
    fits = ed25519.library().verify(public, signature, _signed(digest, namespace.encode()))
    return public if fits else None


def claimed_key(raw: bytes, namespace: str) -> bytes:
    """Return the public key that a signature file names, whether or not it has made it.

    Raises SignatureFormatError.
    """
    return _parsed(raw, namespace.encode())[0]


def public_line(public: bytes) -> str:
    """Return a public key as authorized_keys and allowed_signers have it."""
    return f"{ALGORITHM} {_base64(_key_blob(public))}"


def public_key(algorithm: str, text: str) -> bytes:
    """Return the 32 bytes of a public key. Raises SignatureFormatError for another kind."""
    if algorithm != ALGORITHM:
        raise SignatureFormatError(f"{algorithm[:60]}: only {ALGORITHM} keys are supported")
    try:
        return _public_of(base64.b64decode(text, validate=True))
    except binascii.Error:
        raise SignatureFormatError("invalid public key: not Base64") from None


@functools.lru_cache(256)
def fingerprint(public: bytes) -> str:
    """Return the fingerprint of a key as `ssh-keygen -l` shows it."""
    digest = hashlib.sha256(_key_blob(public)).digest()
    return f"SHA256:{_base64(digest).rstrip('=')}"


def _signed(digest: bytes, namespace: bytes) -> bytes:
    """Return what the signature of a message with this SHA-512 covers."""
    return _MAGIC + b"".join(map(_string, (namespace, b"", _HASH, digest)))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii", "strict")


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _key_blob(public: bytes) -> bytes:
    return _string(ALGORITHM.encode()) + _string(public)


def _strings(data: bytes) -> Iterator[bytes]:
    """Return the strings that data consist of. Raises SignatureFormatError for anything else."""
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise SignatureFormatError("truncated signature")
        (size,) = struct.unpack_from(">I", data, at)
        at += 4
        if size > len(data) - at:
            raise SignatureFormatError("truncated signature")
        yield data[at : at + size]
        at += size


def _public_of(blob: bytes) -> bytes:
    match list(_strings(blob)):
        case [kind, public] if kind == ALGORITHM.encode() and len(public) == _PUBLIC:
            return public
    raise SignatureFormatError(f"not an {ALGORITHM} key")


def _parsed(raw: bytes, namespace: bytes) -> tuple[bytes, bytes]:
    """Return the public key and the signature."""
    text = raw.strip() if len(raw) <= MAX_BYTES else b""
    if not (text.startswith(_BEGIN) and text.endswith(_END)):
        raise SignatureFormatError("not an SSH signature")
    try:
        body = text[len(_BEGIN) : -len(_END)]
        blob = base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error:
        raise SignatureFormatError("not an SSH signature: not Base64") from None
    head = _MAGIC + struct.pack(">I", _VERSION)
    if not blob.startswith(head):
        raise SignatureFormatError("not an SSH signature of version 1")
    fields = list(_strings(blob[len(head) :]))
    if len(fields) != 5:  # noqa: PLR2004  (those of PROTOCOL.sshsig)
        raise SignatureFormatError("not an SSH signature: wrong number of fields")
    key, space, _reserved, algorithm, signature = fields
    if space != namespace or algorithm != _HASH:
        raise SignatureFormatError("an SSH signature made for another purpose")
    match list(_strings(signature)):
        case [kind, value] if kind == ALGORITHM.encode() and len(value) == _SIGNATURE:
            return _public_of(key), value
    raise SignatureFormatError(f"not an {ALGORITHM} signature")
