"""The age format: against the stock program, and against every way to damage it."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools import plugin
from tools.errors import (
    BackupError,
    ConfigError,
    DamagedError,
    TruncatedError,
    WrongKeyError,
)

if TYPE_CHECKING:
    from encryption import age
else:
    age = plugin.load("encryption/age.py")

SIZES = (0, 1, 65535, 65536, 65537, 131072, 1_000_003)
ME = age.Identity.generate()
OTHER = age.Identity.generate()


def sealed(plain: bytes, *recipients: age.Recipient | age.Passphrase) -> bytes:
    return b"".join(age.encrypt([plain] if plain else [], recipients or [ME.recipient()]))


def released(file: bytes, identity: age.Identity | age.Passphrase = ME) -> tuple[bytes, str]:
    """What comes out before the end or the refusal, and the name of the refusal."""
    out = b""
    try:
        for chunk in age.decrypt([file], [identity]):
            out += chunk
    except BackupError as error:
        return out, type(error).__name__
    return out, ""


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(ME.reveal() + "\n")
    return path


@pytest.mark.needs("age")
@pytest.mark.parametrize("size", SIZES)
def test_both_ways_with_the_stock_program(size: int, key_file: Path) -> None:
    plain = os.urandom(size)
    theirs = subprocess.run(
        ["age", "-d", "-i", str(key_file)], input=sealed(plain), capture_output=True, check=True
    )
    assert theirs.stdout == plain
    written = subprocess.run(
        ["age", "-r", str(OTHER.recipient()), "-r", str(ME.recipient())],
        input=plain,
        capture_output=True,
        check=True,
    ).stdout
    for identity in (ME, OTHER):
        assert released(written, identity) == (plain, "")


@given(st.lists(st.binary(max_size=200_000), max_size=4), st.integers(1, 100_000))
@settings(max_examples=30, deadline=None)
def test_any_chunking_comes_back(chunks: list[bytes], width: int) -> None:
    file = b"".join(age.encrypt([c for c in chunks if c], [ME.recipient()]))
    pieces = [file[at : at + width] for at in range(0, len(file), width)]
    assert b"".join(age.decrypt(pieces, [ME])) == b"".join(chunks)


def test_the_size_is_what_the_format_says() -> None:
    for size in SIZES:
        chunks = max(1, -(-size // 65536))
        assert len(sealed(os.urandom(size))) == 168 + 16 + size + 16 * chunks


def test_a_passphrase() -> None:
    secret = age.Passphrase("correct horse", work=10)
    file = sealed(b"plain", secret)
    assert released(file, secret) == (b"plain", "")
    assert released(file, age.Passphrase("wrong", work=10)) == (b"", "WrongKeyError")
    with pytest.raises(ConfigError, match="no other recipient"):
        sealed(b"", secret, ME.recipient())
    with pytest.raises(ConfigError, match="no recipient"):
        list(age.encrypt([b""], []))


def test_a_header_that_asks_for_any_memory_is_refused() -> None:
    file = sealed(b"plain", age.Passphrase("x", work=10)).replace(b" 10\n", b" 23\n", 1)
    with pytest.raises(DamagedError, match=r"2\^23"):
        list(age.decrypt([file], [age.Passphrase("x")]))


def test_the_wrong_key_is_called_that() -> None:
    with pytest.raises(WrongKeyError, match="wrong key"):
        list(age.decrypt([sealed(b"x")], [OTHER]))


def test_a_stanza_of_a_kind_that_nobody_knows_is_passed_over() -> None:
    class Odd:
        def wrap(self, _file_key: bytes) -> age.Stanza:
            return age.Stanza(("grease", "x"), os.urandom(70))

    file = b"".join(age.encrypt([b"plain"], [Odd(), ME.recipient()]))  # type: ignore[list-item]
    assert released(file) == (b"plain", "")


def test_every_bit_of_header_and_nonce_counts() -> None:
    file = sealed(b"some plaintext")
    for position in range((168 + 16) * 8):
        changed = bytearray(file)
        changed[position // 8] ^= 1 << position % 8
        out, refusal = released(bytes(changed))
        assert refusal, f"bit {position} may be flipped"
        assert out == b""


def test_every_cut_is_noticed() -> None:
    file = sealed(b"some plaintext")
    for size in range(len(file)):
        out, refusal = released(file[:size])
        assert refusal in ("TruncatedError", "DamagedError", "WrongKeyError"), size
        assert out == b""


def mutations(file: bytes) -> Iterator[bytes]:
    """Chunks swapped, dropped, repeated, appended; random bits, cuts and bytes."""
    head, body = file[:184], file[184:]
    size = 65552
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    dice = random.Random(7)
    for a in range(len(chunks)):
        yield head + b"".join(chunks[:a] + chunks[a + 1 :])
        yield head + b"".join(chunks[: a + 1] + chunks[a:])
        for b in range(a):
            swapped = list(chunks)
            swapped[a], swapped[b] = chunks[b], chunks[a]
            yield head + b"".join(swapped)
    yield file + b"\0"
    yield file + chunks[-1]
    yield file + file
    for _ in range(300):
        at = dice.randrange(len(file))
        yield file[:at] + bytes([file[at] ^ 1 << dice.randrange(8)]) + file[at + 1 :]
        yield file[: dice.randrange(len(file))]
        yield file[:at] + dice.randbytes(dice.choice([1, 16, 65552])) + file[at:]


def test_every_change_is_refused_and_only_a_true_prefix_comes_out() -> None:
    plain = random.Random(1).randbytes(3 * 65536 + 1000)
    file = sealed(plain)
    tried = 0
    for changed in mutations(file):
        out, refusal = released(changed)
        assert refusal
        assert plain.startswith(out)
        tried += 1
    assert tried > 900


def test_a_cut_at_a_chunk_is_truncation_and_a_flipped_bit_is_damage() -> None:
    file = sealed(os.urandom(3 * 65536))
    with pytest.raises(TruncatedError, match="ends too early"):
        list(age.decrypt([file[: 184 + 2 * 65552]], [ME]))
    with pytest.raises(DamagedError, match="chunk 1"):
        list(age.decrypt([file[:70000] + b"x" + file[70001:]], [ME]))


def test_no_pair_of_key_and_nonce_is_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bytes, bytes]] = []

    class Recording:
        def __init__(self, key: bytes) -> None:
            self.key = key
            self.inner = real(key)

        def encrypt(self, nonce: bytes, data: bytes, more: None) -> bytes:
            seen.append((self.key, nonce))
            return bytes(self.inner.encrypt(nonce, data, more))

    real = age.ChaCha20Poly1305
    monkeypatch.setattr(age, "ChaCha20Poly1305", Recording)
    for size in SIZES:
        sealed(os.urandom(size), ME.recipient(), OTHER.recipient())
    assert len(seen) > 30
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "age1",
        "AGE-SECRET-KEY-1QQQ",
        str(ME.recipient())[:-1] + "q",
        ME.reveal().swapcase()[:-2],
    ],
)
def test_a_slip_in_a_key_is_noticed_and_never_shown(text: str) -> None:
    for parse in (age.Recipient.parse, age.Identity.parse):
        with pytest.raises(ConfigError) as caught:
            parse(text)
        assert "QQQ" not in str(caught.value)


def test_keys_there_and_back() -> None:
    assert age.Identity.parse(ME.reveal()) == ME
    assert age.Recipient.parse(str(ME.recipient())) == ME.recipient()
    assert ME.reveal() not in repr(ME)
