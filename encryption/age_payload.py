"""The payload of an age file (C2SP age.md, STREAM): 64 KiB chunks, counted, the last marked.

Each chunk is sealed with ChaCha20-Poly1305 under the nonce `11-byte counter || last?`, so no
piece can be cut off, moved, repeated or mixed in unnoticed. The key is used for one payload
only, and within it no counter comes twice. Both ways hold one chunk back: it may be the last.
"""

from __future__ import annotations

from collections.abc import Iterator

from encryption.ciphers import Aead, Buffer, InvalidTagError
from tools.base.errors import DamagedError, TruncatedError
from tools.flow.stream import Chunks

CHUNK = 65536  # bytes of plaintext
TAG = 16
SEALED = CHUNK + TAG
_BATCH_CHUNKS = 16  # that are given out as one
_FETCH = "Fetch the file from the store again."


def sealed_size(plain: int) -> int:
    """Return the size that `seal` makes of `plain` bytes: an empty input is one empty chunk."""
    return plain + TAG * max(1, -(-plain // CHUNK))


def seal(chunks: Chunks, cipher: Aead) -> Iterator[bytes]:
    """Yield the sealed chunks, several in one block, as a consumer prefers them."""
    buffer = memoryview(bytearray(_BATCH_CHUNKS * SEALED))
    number = size = 0
    waiting: Buffer = b""
    for piece in _pieces(chunks, CHUNK):
        if waiting:
            cipher.encrypt_into(_nonce(number, last=False), waiting, buffer[size : size + SEALED])
            number, size = number + 1, size + SEALED
            if size == len(buffer):
                yield bytes(buffer)
                size = 0
        waiting = piece
    end = size + len(waiting) + TAG
    cipher.encrypt_into(_nonce(number, last=True), waiting, buffer[size:end])
    yield bytes(buffer[:end])


def unseal(chunks: Chunks, cipher: Aead) -> Iterator[bytes]:
    """Yield the plaintext, each chunk only after its tag is verified.

    Raises DamagedError or TruncatedError; what came before is a true prefix.
    """
    buffer = memoryview(bytearray(_BATCH_CHUNKS * CHUNK))
    number = size = 0
    waiting: Buffer = b""
    for piece in _pieces(chunks, SEALED):
        if waiting:
            try:
                cipher.decrypt_into(
                    _nonce(number, last=False), waiting, buffer[size : size + CHUNK]
                )
            except InvalidTagError:
                if size:  # all of it is a true prefix
                    yield bytes(buffer[:size])
                raise _inside(cipher, number, waiting) from None
            number, size = number + 1, size + CHUNK
            if size == len(buffer):
                yield bytes(buffer)
                size = 0
        waiting = piece
    if size:
        yield bytes(buffer[:size])
    yield _last(cipher, number, waiting)


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def _pieces(chunks: Chunks, size: int) -> Iterator[Buffer]:
    """Yield the bytes in pieces of `size`, the last one shorter; copy only what must be copied."""
    rest = bytearray()
    for chunk in chunks:
        view = memoryview(chunk)
        if rest:
            missing = size - len(rest)
            rest += view[:missing]
            if len(rest) < size:
                continue
            yield rest
            view = view[missing:]
        whole = len(view) - len(view) % size
        for at in range(0, whole, size):
            yield view[at : at + size]
        rest = bytearray(view[whole:])
    if rest:
        yield rest


def _opens(cipher: Aead, number: int, piece: Buffer, *, last: bool) -> bool:
    try:
        cipher.decrypt(_nonce(number, last=last), piece)
    except InvalidTagError:
        return False
    return True


def _inside(cipher: Aead, number: int, piece: Buffer) -> DamagedError:
    """Return why a chunk that others follow cannot be decrypted."""
    if _opens(cipher, number, piece, last=True):
        return DamagedError(f"unexpected data after the end of the file (chunk {number})", _FETCH)
    return DamagedError(f"corrupt data (chunk {number})", _FETCH)


def _last(cipher: Aead, number: int, piece: Buffer) -> bytes:
    """Return the last chunk. If it opens as one that others should follow, the end was cut off.

    A short one that does not open was cut off or altered: the format cannot tell which.
    """
    try:
        plain = cipher.decrypt(_nonce(number, last=True), piece)
    except InvalidTagError:
        if len(piece) == SEALED and not _opens(cipher, number, piece, last=False):
            raise DamagedError(f"corrupt data (chunk {number})", _FETCH) from None
        raise TruncatedError(
            f"unexpected end of file{_or_corrupt(number, len(piece))} (chunk {number})",
            "Check that every part is present and complete; fetch the file from the store again.",
        ) from None
    if number and not plain:
        raise DamagedError(f"corrupt data (empty chunk {number})", _FETCH)
    return plain


def _or_corrupt(number: int, size: int) -> str:
    """Return what else a last chunk of so many bytes may be that does not open; "" for nothing.

    The header has been verified by then, so the key is the right one.
    """
    if size < TAG or size == SEALED:
        return ""
    if number:
        return " or corrupt end"
    return f" or corrupt only chunk of {size} bytes; the key is right"
