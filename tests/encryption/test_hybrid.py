"""Post-quantum keys: one library reads what the other writes; never beside X25519 recipients."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from encryption import age, ciphers, encryption, header, hybrid, key_lines, provider, x25519
from encryption.provider_cryptography import Cryptography
from encryption.provider_pycryptodome import Pycryptodome
from tests.encryption.conftest import without
from tests.system import module_output
from tools.base import bech32, masking
from tools.base.errors import ConfigError, StageError, WrongKeyError

INFO = b"age-encryption.org/mlkem768x25519"
KEY = hybrid.Identity(bytes(range(32)))


def library(load: Callable[[], ciphers.Provider]) -> ciphers.Hybrid:
    keys = load().hybrid()
    assert keys is not None
    return keys


@pytest.mark.parametrize(
    ("writer", "reader"), [(Cryptography, Pycryptodome), (Pycryptodome, Cryptography)]
)
def test_each_library_reads_what_the_other_writes(
    writer: Callable[[], ciphers.Provider], reader: Callable[[], ciphers.Provider]
) -> None:
    ours, theirs = library(writer), library(reader)
    for _ in range(20):
        seed = os.urandom(32)
        public = ours.public(seed)
        assert public == theirs.public(seed)
        assert len(public) == 1216
        encapsulated, sealed = ours.seal(public, INFO, b"0123456789abcdef")
        assert (len(encapsulated), len(sealed)) == (1120, 32)
        assert theirs.open(seed, encapsulated, INFO, sealed) == b"0123456789abcdef"
        with pytest.raises(ciphers.InvalidTagError):
            theirs.open(seed, encapsulated, b"other", sealed)
        with pytest.raises(ciphers.InvalidTagError):
            theirs.open(os.urandom(32), encapsulated, INFO, sealed)
        with pytest.raises(ValueError, match=r"\w"):
            theirs.open(seed, encapsulated[:1088] + bytes(32), INFO, sealed)


@pytest.mark.usefixtures("library")
def test_round_trip() -> None:
    others = [hybrid.Identity.generate() for _ in range(2)]
    plaintext = os.urandom(200_000)
    everyone = [KEY.recipient(), *(other.recipient() for other in others)]
    sealed = b"".join(age.encrypt([plaintext], everyone))
    for identity in (KEY, *others):
        assert b"".join(age.decrypt([sealed], [x25519.Identity.generate(), identity])) == plaintext
    with pytest.raises(WrongKeyError, match=r"\(3 mlkem768x25519\)") as caught:
        list(age.decrypt([sealed], [hybrid.Identity.generate()]))
    assert len(caught.value.hint) < 300, "a whole recipient has 1959 characters"
    assert age.header_size([sealed], [KEY]) + 200_000 + 4 * 16 == len(sealed)


@pytest.mark.usefixtures("library")
def test_a_whole_header_of_post_quantum_stanzas_can_be_read() -> None:
    everyone = [KEY.recipient()] * header.MOST_STANZAS
    assert b"".join(age.decrypt(age.encrypt([b"x"], everyone), [KEY])) == b"x"


@pytest.mark.slow
@pytest.mark.usefixtures("library")
def test_a_flipped_bit_of_a_stanza_is_noticed() -> None:
    """One bit of each second byte: 1.6 KB of a stanza that an ML-KEM decapsulation follows."""
    sealed = b"".join(age.encrypt([b"small"], [KEY.recipient()]))
    for at in range(0, len(sealed), 2):
        bad = bytearray(sealed)
        bad[at] ^= 1 << at // 2 % 8
        with pytest.raises(StageError):
            list(age.decrypt([bytes(bad)], [KEY]))


def test_kinds_are_never_mixed() -> None:
    mixed: list[age.Recipient] = [KEY.recipient(), x25519.Identity.generate().recipient()]
    for recipients in (mixed, mixed[::-1]):
        with pytest.raises(ConfigError, match="cannot be combined with X25519 recipients"):
            next(age.encrypt([b""], recipients))


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    "text",
    [
        bech32.encode("age", bytes(32)),
        bech32.encode("age1pq", KEY.recipient().public[:1184] + bytes(32)),
        bech32.encode("age1pq", b"\xff" * 1216),
    ],
)
def test_an_unusable_recipient_is_one_line(text: str) -> None:
    """Points of low order, and no ML-KEM key: well written, yet anybody could read the file."""
    recipient = key_lines.recipient(text)
    with pytest.raises(ConfigError, match=r"invalid age recipient age1\w+\.\.\."):
        next(age.encrypt([b""], [recipient]))


def test_keys_of_the_specification() -> None:
    """The identity and recipient that C2SP age.md shows."""
    identity = hybrid.Identity.parse(
        "AGE-SECRET-KEY-PQ-1XX76JRALNLXDMEW0CRK45QMCCH4X06SE84UN3VPM33W6HWDX0H3SK3ZQFR"
    )
    text = str(identity.recipient())
    assert text.startswith("age1pq1x34nzsvr0rxjsgdn8zgyhfe8j7ceq5r9rdelkjuh3y235jzxshfg87pzf5zrqtz")
    assert text.endswith(
        "9508k0c55zfnegrm9efhxpfqdkmhh6gjtqmwze9pyyzk3tlhl53k2ykx3qheyty7saeq0d3fzv49zc0k"
    )
    assert len(text) == 1959
    assert hybrid.Recipient.parse(text) == identity.recipient()
    assert hybrid.Identity.parse(identity.reveal()) == identity
    assert repr(identity.secret)[2:-1] not in repr(identity)


def test_keygen_and_back(tmp_path: Path) -> None:
    """The documented commands: a key, a file in parts, the file again."""
    key, source = tmp_path / "key", tmp_path / "source"
    output = module_output("encryption", "--KEYGEN", "--POST_QUANTUM", "--KEY_FILE", key)
    lines = key.read_text().splitlines()
    assert lines[2].startswith("AGE-SECRET-KEY-PQ-1")
    assert lines[2] not in output
    assert lines[1].removeprefix("# public key: ") in output
    assert key.stat().st_mode & 0o777 == 0o600
    source.write_bytes(os.urandom(3_000_000))
    plaintext = source.read_bytes()
    public = tmp_path / "public"
    public.write_text(lines[1].removeprefix("# public key: "))
    public.chmod(0o600)
    out, back = tmp_path / "out", tmp_path / "back"
    for key_file in (key, public):
        module_output(
            "encryption", "--KEY_FILE", key_file, "--FILE_SIZE", 1, "--TARGETS", source,
            "--DESTINATION", out, "--REMOVE_TARGETS", "False",
        )  # fmt: skip
        module_output(
            "encryption", "-d", "--KEY_FILE", key, "--OBJECTIVES", out / "source.age",
            "--DESTINATION", back,
        )  # fmt: skip
        assert back.read_bytes() == plaintext
        back.unlink()
        for part in out.iterdir():
            part.unlink()
    text = module_output("encryption", "--POST_QUANTUM", "--KEY_FILE", key, code=2)
    assert "POST_QUANTUM is used with --KEYGEN only" in text


def test_a_secret_key_is_masked() -> None:
    key_lines.parse(KEY.reveal())
    assert KEY.reveal() not in masking.text(f"here: {KEY.reveal()}")


@pytest.mark.needs("age")
def test_the_age_program(tmp_path: Path) -> None:
    """Both directions from 1.3 on; an older age does not know the kind of key and says so."""
    key = tmp_path / "key"
    key.write_text(KEY.reveal() + "\n")
    sealed = b"".join(age.encrypt([b"plaintext"], [KEY.recipient()]))
    done = subprocess.run(["age", "-d", "-i", key], input=sealed, capture_output=True, check=False)
    version = subprocess.run(
        ["age", "--version"], capture_output=True, text=True, check=True
    ).stdout
    if tuple(map(int, version.strip().lstrip("v").split(".")[:2])) < (1, 3):
        assert done.returncode == 1
        assert b"unknown identity type" in done.stderr
        return
    assert done.stdout == b"plaintext"
    command = ["age", "-r", str(KEY.recipient())]
    theirs = subprocess.run(command, input=b"other", capture_output=True, check=True).stdout
    assert b"".join(age.decrypt([theirs], [KEY])) == b"other"


def test_without_a_library_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """X25519 keys beside it still open their files."""
    both = f"{KEY.reveal()}\n{x25519.Identity(bytes(32)).reveal()}\n"
    path = tmp_path / "key"
    path.write_text(both)
    path.chmod(0o600)
    sealed = b"".join(age.encrypt([b"x"], [x25519.Identity(bytes(32)).recipient()]))
    with without(tmp_path, "pycryptodome"):
        monkeypatch.setattr(type(provider.current()), "hybrid", lambda _: None)
        opener = encryption.backward("age", encryption.Options(key_file=path))
        assert b"".join(opener([sealed])) == b"x"
        with pytest.raises(ConfigError, match="post-quantum keys need cryptography 48"):
            KEY.recipient()
