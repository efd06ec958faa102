"""Armored age files: those of the age program, cuts, memory, and what is no armor."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from encryption import age, armor, x25519
from tests.system import module_output
from tools.base.errors import DamagedError, TruncatedError

KEY = x25519.Identity.generate()
SIZES = (0, 1, 46, 47, 48, 49, 65536, 1_000_003)


def armored(file: bytes, end: str = "\n") -> bytes:
    """As `age -a` writes it."""
    text = base64.b64encode(file).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    begin, last = "-----BEGIN AGE ENCRYPTED FILE-----", "-----END AGE ENCRYPTED FILE-----"
    return (end.join([begin, *lines, last]) + end).encode()


def decoded(*chunks: bytes) -> bytes:
    return b"".join(armor.decode(chunks))


@pytest.mark.needs("age")
@pytest.mark.parametrize("size", SIZES)
def test_files_of_the_age_program(size: int, tmp_path: Path) -> None:
    """With the documented command, as one file."""
    key, file, plaintext = tmp_path / "key", tmp_path / "x.tar.zst.age", os.urandom(size)
    key.write_text(KEY.reveal())
    key.chmod(0o600)
    command = ["age", "-a", "-r", str(KEY.recipient()), "-o", str(file)]
    subprocess.run(command, input=plaintext, check=True)
    module_output(
        "encryption", "-d", "--KEY_FILE", key, "--OBJECTIVES", file, "--DESTINATION",
        tmp_path / "back",
    )  # fmt: skip
    assert (tmp_path / "back").read_bytes() == plaintext


def test_parts_of_an_armored_file(tmp_path: Path) -> None:
    """Cut by `split`, as binary ones may be."""
    key, plaintext = tmp_path / "key", os.urandom(100_000)
    key.write_text(KEY.reveal())
    key.chmod(0o600)
    text = armored(b"".join(age.encrypt([plaintext], [KEY.recipient()])))
    for number in range(3):
        (tmp_path / f"x.age.{number:03}").write_bytes(text[number * 50_000 :][:50_000])
    module_output(
        "encryption", "-d", "--KEY_FILE", key, "--OBJECTIVES", tmp_path / "x.age",
        "--DESTINATION", tmp_path / "back",
    )  # fmt: skip
    assert (tmp_path / "back").read_bytes() == plaintext


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("size", [1, 7, 64, 65, 1000])
def test_any_chunking_gives_the_same(end: str, size: int) -> None:
    for length in range(140):
        file = os.urandom(length)
        text = armored(file, end)
        chunks = [text[at : at + size] for at in range(0, len(text), size)]
        assert decoded(*chunks) == file
        assert decoded(b" \r\n\t\n" + text + b"\n \n") == file


def test_every_cut_is_noticed() -> None:
    text = armored(os.urandom(200))
    for size in range(len(text) - 1):
        with pytest.raises((DamagedError, TruncatedError)):
            decoded(text[:size])


def test_every_change_of_a_byte_is_noticed() -> None:
    """Or it changes what is decoded, which the tags of age notice then."""
    file = os.urandom(200)
    text = armored(file)
    for at in range(len(text)):
        for byte in b"\n\r =-Az":
            bad = text[:at] + bytes([byte]) + text[at + 1 :]
            with contextlib.suppress(DamagedError, TruncatedError):
                assert decoded(bad) != file or bad == text or at == len(text) - 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"-----BEGIN AGE ENCRYPTED FILE-----\n\nYQ==\n", "length of a line"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\nYQ==\nYQ==\n", "length of a line"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\nYR==\n", "base64"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\n" + b"A" * 2000, "length of a line"),
        (b"-----BEGIN PGP MESSAGE-----\n", "first line"),
        (armored(b"x") + b"y", "data after the last line"),
    ],
)
def test_faults_are_named(text: bytes, says: str) -> None:
    with pytest.raises(DamagedError, match=rf"corrupt age armor \({says}\)"):
        decoded(text + b"-----END AGE ENCRYPTED FILE-----\n" * (says != "data after the last line"))


def test_an_endless_file_is_read_as_a_stream() -> None:
    def endless() -> Iterator[bytes]:
        yield b"-----BEGIN AGE ENCRYPTED FILE-----\n"
        while True:
            yield (b"A" * 64 + b"\n") * 1000

    chunks = armor.remove_armor(endless())
    assert sum(len(next(chunks)) for _ in range(30)) == 30 * 4096 * 48


@pytest.mark.parametrize(
    "beginning", [b"", b" ", b"\n" * 5000, b"age-encryption.org/v1\n", b"Salted__"]
)
def test_what_is_no_armor_passes_unchanged(beginning: bytes) -> None:
    assert (
        b"".join(armor.remove_armor([beginning[:1], beginning[1:], b"rest"])) == beginning + b"rest"
    )
