"""The public test vectors of age (C2SP/CCTV): each ends as its head says, under both libraries."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from encryption import age, age_payload, armor, ciphers, hybrid, provider, scrypt, x25519
from tools.base import kdf, project
from tools.base.errors import StageError, WrongKeyError

FOLDER = Path(os.environ.get("AGE_VECTORS", project.ROOT.parent / "shared" / "age-vectors"))
NAMES = sorted(path.name for path in FOLDER.glob("*")) or [f"no vectors in {FOLDER}"]
EXPECTED = {
    "success": 26,
    "header failure": 62,
    "armor failure": 22,
    "payload failure": 19,
    "no match": 13,
    "HMAC failure": 1,
}


@dataclass(frozen=True)
class Vector:
    """The head of a vector, its identities, and the encrypted file."""

    head: dict[str, str]
    identities: tuple[age.Identity | scrypt.Passphrase, ...]
    file: bytes


def vector(name: str) -> Vector:
    """Read one, or skip the test by name."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"the C2SP test vectors of age are not in {FOLDER}: set AGE_VECTORS=folder")
    text, _, file = path.read_bytes().partition(b"\n\n")
    head: dict[str, str] = {}
    identities: list[age.Identity | scrypt.Passphrase] = []
    for line in text.decode().splitlines():
        key, _, value = line.partition(": ")
        head[key] = value
        if key == "passphrase":
            identities.append(scrypt.Passphrase(value))
        elif key == "identity":
            pq = value.startswith("AGE-SECRET-KEY-PQ-")
            identities.append(hybrid.Identity.parse(value) if pq else x25519.Identity.parse(value))
    if head.get("compressed") == "zlib":
        file = zlib.decompress(file)
    return Vector(head, tuple(identities), file)


def outcome(error: StageError | None) -> str:
    """What the vectors call this end."""
    message = str(error)
    kinds = {
        "header failure": (
            "corrupt age header",
            "age header:",
            "not an age file",
            "the age header",
        ),
        "armor failure": ("corrupt age armor", "in the age armor"),
        "payload failure": ("corrupt data", "unexpected"),  # of what remains
    }
    if error is None:
        return "success"
    if isinstance(error, WrongKeyError):
        return "no match"
    if "(MAC)" in message:
        return "HMAC failure"
    return next(kind for kind, texts in kinds.items() if any(text in message for text in texts))


def binary(vector: Vector, size: int) -> Iterator[bytes]:
    """The file without its armor, if it has one, read so many bytes at a time."""
    chunks = (vector.file[at : at + size] for at in range(0, len(vector.file), size))
    return armor.decode(chunks) if vector.head.get("armored") == "yes" else chunks


def released(vector: Vector, source: Iterator[bytes]) -> tuple[bytes, StageError | None]:
    """What a reader gets, and the error that ends it."""
    plaintext = b""
    try:
        for chunk in age.decrypt(source, vector.identities):
            plaintext += chunk
    except StageError as error:
        return plaintext, error
    return plaintext, None


def opened(vector: Vector) -> bytes:
    """All chunks from the first on that can be decrypted with the file key that the head tells."""
    file = b"".join(binary(vector, 1 << 20))
    at = age.header_size([file], ())
    key = kdf.hkdf(bytes.fromhex(vector.head["file key"]), file[at - 16 : at], b"payload")
    cipher = provider.current().chacha20_poly1305(key)
    plaintext = b""
    for number, begin in enumerate(range(at, len(file), age_payload.SEALED)):
        chunk = file[begin : begin + age_payload.SEALED]
        for last in (b"\0", b"\1") if len(chunk) == age_payload.SEALED else (b"\1",):
            with contextlib.suppress(ciphers.InvalidTagError):
                plaintext += cipher.decrypt(number.to_bytes(11, "big") + last, chunk)
                break
        else:
            return plaintext
        if last == b"\1":
            return plaintext
    return plaintext


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("name", NAMES)
def test_a_vector_ends_as_it_says(name: str) -> None:
    """What is released before a failure is a prefix of what the vector allows to be released."""
    case = vector(name)
    for size in (1 << 20, 7 if len(case.file) < 1 << 20 else 4099):
        plaintext, error = released(case, binary(case, size))
        assert outcome(error) == case.head["expect"], error
        if case.head["expect"] == "success":
            assert hashlib.sha256(plaintext).hexdigest() == case.head["payload"]
        elif case.head["expect"] == "payload failure":
            allowed = opened(case)
            assert hashlib.sha256(allowed).hexdigest() == case.head["payload"]
            assert allowed.startswith(plaintext)
        else:
            assert plaintext == b""


@pytest.mark.parametrize("name", NAMES)
def test_armor_is_recognized(name: str) -> None:
    """A reader that is not told about armor ends the same; garbage may come before no file."""
    case = vector(name)
    plaintext, error = released(case, iter([case.file]))
    expected = case.head["expect"]
    if name == "armor_garbage_leading":
        expected = "header failure"
    assert outcome(error) == expected, error
    assert expected != "success" or hashlib.sha256(plaintext).hexdigest() == case.head["payload"]


def test_all_vectors_are_there() -> None:
    counts = Counter(vector(name).head["expect"] for name in NAMES)
    assert counts == EXPECTED
