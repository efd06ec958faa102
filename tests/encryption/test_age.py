"""The age format: read and written by us and by the age program, and every fault refused."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encryption import age, age_payload, ciphers, header, provider, scrypt, x25519
from encryption.ciphers import Provider
from tools.base import bech32, project
from tools.base.errors import ConfigError, DamagedError, StageError, TruncatedError, WrongKeyError

SIZES = (0, 1, 65535, 65536, 65537, 131072, 1_000_003)
KEY = x25519.Identity.generate()
pytestmark = pytest.mark.usefixtures("library")
LOW = 8  # log2 of scrypt's N: the tests need no strength


def data(size: int) -> bytes:
    """Bytes that repeat with a period that no chunk has."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def encrypted(plain: bytes, *recipients: Any) -> bytes:
    return b"".join(age.encrypt([plain], recipients or [KEY.recipient()]))


def decrypted(sealed: bytes, *identities: Any) -> bytes:
    return b"".join(age.decrypt([sealed], identities or [KEY]))


def released(sealed: bytes) -> tuple[bytes, Exception | None]:
    """What a reader gets before the trouble, and the trouble."""
    plaintext = b""
    try:
        for chunk in age.decrypt([sealed], [KEY]):
            plaintext += chunk
    except StageError as trouble:
        return plaintext, trouble
    return plaintext, None


@pytest.mark.needs("age")
@pytest.mark.parametrize("size", SIZES)
def test_the_age_program_reads_ours_and_we_read_its(size: int, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(KEY.reveal() + "\n", encoding="ascii")
    plain = data(size)
    theirs = subprocess.run(
        ["age", "-d", "-i", key], input=encrypted(plain), capture_output=True, check=True
    )
    assert theirs.stdout == plain
    age = subprocess.run(
        ["age", "-r", str(KEY.recipient())], input=plain, capture_output=True, check=True
    )
    assert decrypted(age.stdout) == plain


@pytest.mark.needs("age-keygen")
def test_keys_are_those_of_age_keygen(tmp_path: Path) -> None:
    output = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    text = output.splitlines()[-1]
    identity = x25519.Identity.parse(text)
    assert identity.reveal() == text
    assert f"# public key: {identity.recipient()}\n" in output


@pytest.mark.needs("age")
def test_each_of_several_recipients_reads(tmp_path: Path) -> None:
    everyone = [x25519.Identity.generate() for _ in range(3)]
    sealed = encrypted(b"for all", *(one.recipient() for one in everyone))
    for number, one in enumerate(everyone):
        assert decrypted(sealed, one) == b"for all"
        key = tmp_path / str(number)
        key.write_text(one.reveal(), encoding="ascii")
        theirs = subprocess.run(
            ["age", "-d", "-i", key], input=sealed, capture_output=True, check=True
        )
        assert theirs.stdout == b"for all"
    assert decrypted(sealed, KEY, everyone[1]) == b"for all"


def test_a_passphrase() -> None:
    secret = scrypt.Passphrase("correct horse", work=LOW)
    sealed = encrypted(data(70_000), secret)
    assert decrypted(sealed, scrypt.Passphrase("correct horse")) == data(70_000)
    with pytest.raises(WrongKeyError, match="none of the identities"):
        decrypted(sealed, scrypt.Passphrase("battery staple"))
    with pytest.raises(WrongKeyError):
        decrypted(sealed, KEY)
    with pytest.raises(ConfigError, match="cannot be combined"):
        encrypted(b"", secret, KEY.recipient())
    assert scrypt.WORK == 18
    assert "correct" not in repr(secret)


def test_too_much_work_is_refused_before_it_is_done() -> None:
    sealed = encrypted(b"x", scrypt.Passphrase("p", work=LOW))
    header, _, rest = sealed.partition(f" {LOW}\n".encode())
    with pytest.raises(DamagedError, match=r"scrypt work factor 2\^21 is above the limit"):
        decrypted(header + b" 21\n" + rest, scrypt.Passphrase("p"))


@pytest.mark.slow
def test_the_most_work_allowed_can_be_done() -> None:
    """hashlib refuses a limit of 2 GiB; in a process of its own, for it takes 1 GiB."""
    code = (
        "import sys; sys.path[0] = sys.argv[1]; from encryption import scrypt\n"
        "print(len(scrypt.Passphrase('p')._key(bytes(16), 20)))"
    )
    command = [sys.executable, "-c", code, str(project.ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "32\n"


def test_the_wrong_key_is_said() -> None:
    with pytest.raises(WrongKeyError, match="wrong key: none of the identities"):
        decrypted(encrypted(b"x"), x25519.Identity.generate())


def test_no_recipient_is_refused() -> None:
    with pytest.raises(ConfigError, match="no recipients"):
        list(age.encrypt([b""], []))


def test_a_stanza_of_an_unknown_kind_is_skipped() -> None:
    class Other:
        def wrap(self, file_key: bytes) -> Any:
            return header.Stanza(("joint-oil-grease", "1", "x"), bytes(48))

    assert decrypted(encrypted(b"x", Other(), KEY.recipient())) == b"x"


def test_limits_of_a_header() -> None:
    most = [KEY.recipient()] * 64
    assert decrypted(encrypted(b"x", *most)) == b"x"
    with pytest.raises(ConfigError, match="65 recipients are more than 64"):
        encrypted(b"x", *most, KEY.recipient())
    with pytest.raises(DamagedError, match="too many stanzas"):
        decrypted(age.MAGIC + b"-> x\n\n" * 65)
    with pytest.raises(DamagedError, match="unterminated line"):
        decrypted(age.MAGIC + b"-> " + b"x" * 10_000)
    with pytest.raises(DamagedError, match="malformed stanza body"):
        decrypted(age.MAGIC + b"-> x\n" + (b"A" * 64 + b"\n") * 3000)


@pytest.mark.slow
def test_every_flipped_bit_of_a_small_file_is_refused() -> None:
    plain = b"small"
    sealed = encrypted(plain)
    for at in range(len(sealed)):
        for bit in range(8):
            bad = bytearray(sealed)
            bad[at] ^= 1 << bit
            plaintext, trouble = released(bytes(bad))
            assert trouble is not None, f"byte {at} bit {bit}"
            assert plaintext == b""


def test_every_cut_of_a_small_file_is_refused() -> None:
    sealed = encrypted(b"small")
    for size in range(len(sealed)):
        plaintext, trouble = released(sealed[:size])
        assert isinstance(trouble, TruncatedError), size
        assert plaintext == b""


def chunks_of(size: int) -> tuple[bytes, list[bytes]]:
    """The header with its nonce, and the sealed chunks, of a file of so many bytes."""
    sealed = encrypted(data(size))
    head = age.header_size([sealed], [KEY])
    body = sealed[head:]
    step = age_payload.SEALED
    return sealed[:head], [body[at : at + step] for at in range(0, len(body), step)]


@pytest.mark.parametrize("size", [65536 * 4, 65536 * 4 + 9])
def test_chunks_that_are_moved_dropped_repeated_or_added(size: int) -> None:
    head, body = chunks_of(size)
    foreign = chunks_of(size)[1]
    first, second, third, *rest = body
    cases = [
        [second, first, third, *rest],
        [first, third, *rest],
        [first, second, second, third, *rest],
        [*body, rest[-1]],
        [*body, b"x"],
        [first, foreign[1], third, *rest],
        [rest[-1]],
    ]
    for case in cases:
        plaintext, trouble = released(head + b"".join(case))
        assert isinstance(trouble, DamagedError | TruncatedError)
        assert data(size).startswith(plaintext)
    for last in range(len(body)):
        plaintext, trouble = released(head + b"".join(body[:last]))
        assert isinstance(trouble, TruncatedError)
        assert data(size).startswith(plaintext)


def mutations(file: bytes) -> Iterator[bytes]:
    """Random bits, cuts and inserted bytes; the file twice."""
    dice = random.Random(7)
    yield file + file
    for _ in range(300):
        at = dice.randrange(len(file))
        yield file[:at] + bytes([file[at] ^ 1 << dice.randrange(8)]) + file[at + 1 :]
        yield file[: dice.randrange(len(file))]
        yield file[:at] + dice.randbytes(dice.choice([1, 16, 65552])) + file[at:]


@pytest.mark.slow
def test_every_change_is_refused_and_only_a_true_prefix_comes_out() -> None:
    plain = data(3 * 65536 + 1000)
    for changed in mutations(encrypted(plain)):
        plaintext, trouble = released(changed)
        assert trouble is not None
        assert plain.startswith(plaintext)


def test_faults_have_their_own_words() -> None:
    head, body = chunks_of(65536 * 3)

    def error_of(*pieces: bytes) -> str:
        return str(released(head + b"".join(pieces))[1])

    flipped = bytes([body[1][0] ^ 1]) + body[1][1:]
    assert error_of(body[0], flipped, body[2]) == "corrupt data (chunk 1)"
    assert error_of(*body, b"x") == "unexpected data after the end of the file (chunk 2)"
    assert error_of(*body[:2]) == "unexpected end of file (chunk 1)"
    assert error_of(*body[:2], body[2][:99]) == ("unexpected end of file or corrupt end (chunk 2)")
    bad = bytes([body[2][0] ^ 1]) + body[2][1:]
    assert error_of(*body[:2], bad) == "corrupt data (chunk 2)"


class Recording:
    """A cipher that notes each nonce, and passes data through or to another cipher."""

    def __init__(self, inner: ciphers.Aead | None = None) -> None:
        self.inner = inner
        self.nonces: list[bytes] = []

    def encrypt(self, nonce: bytes, piece: Any, /) -> bytes:
        self.nonces.append(nonce)
        return (
            self.inner.encrypt(nonce, piece)
            if self.inner
            else bytes(piece) + bytes(age_payload.TAG)
        )

    def encrypt_into(self, nonce: bytes, piece: Any, into: memoryview, /) -> None:
        into[:] = self.encrypt(nonce, piece)

    def decrypt(self, nonce: bytes, piece: Any, /) -> bytes:
        return bytes(piece)[: -age_payload.TAG]

    def decrypt_into(self, nonce: bytes, piece: Any, into: memoryview, /) -> None:
        into[:] = self.decrypt(nonce, piece)


def test_an_empty_last_chunk_after_others_is_refused() -> None:
    with pytest.raises(DamagedError, match="empty chunk 1"):
        list(age_payload.unseal([bytes(age_payload.SEALED + age_payload.TAG)], Recording()))


def test_no_nonce_comes_twice_and_only_one_is_last() -> None:
    cipher = Recording()
    list(age_payload.seal([bytes(65536)] * 300, cipher))
    assert len(set(cipher.nonces)) == len(cipher.nonces) == 300
    assert [nonce[-1] for nonce in cipher.nonces] == [0] * 299 + [1]
    heads = {encrypted(b"")[:184] for _ in range(200)}
    assert len({head[-16:] for head in heads}) == 200, "a payload nonce came twice"
    assert len({head[33:76] for head in heads}) == 200, "an ephemeral share came twice"


def test_no_pair_of_key_and_nonce_is_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    ciphers: list[tuple[bytes, Recording]] = []
    library = type(provider.current())
    real = library.chacha20_poly1305

    def recording(library: Provider, key: bytes) -> Recording:
        ciphers.append((key, Recording(real(library, key))))
        return ciphers[-1][1]

    monkeypatch.setattr(library, "chacha20_poly1305", recording)
    for size in SIZES:
        encrypted(os.urandom(size), KEY.recipient(), x25519.Identity.generate().recipient())
    seen = [(key, nonce) for key, cipher in ciphers for nonce in cipher.nonces]
    assert len(seen) > 30
    assert len(set(seen)) == len(seen)


def test_the_size_follows_from_the_plaintext() -> None:
    for size in SIZES:
        assert len(encrypted(data(size))) == 184 + age_payload.sealed_size(size)
    assert age.header_size([encrypted(b"")], []) == 184
    with pytest.raises(WrongKeyError):
        age.header_size([encrypted(b"")], [x25519.Identity.generate()])


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # one library for all
)
@given(
    st.integers(0, 300_000),
    st.lists(st.integers(0, 140_000), max_size=8),
    st.lists(st.integers(0, 140_000), max_size=8),
)
def test_any_chunking_gives_the_same(size: int, one: list[int], two: list[int]) -> None:
    plain = data(size)
    sealed = list(age.encrypt(pieces(plain, one), [KEY.recipient()]))
    assert b"".join(age.decrypt(pieces(b"".join(sealed), two), [KEY])) == plain


def pieces(content: bytes, sizes: list[int]) -> Iterator[bytes]:
    """The bytes in pieces of these sizes, and the rest."""
    for size in sizes:
        yield content[:size]
        content = content[size:]
    yield content


def test_both_ways_are_streams() -> None:
    """Output comes long before the end of an endless input."""

    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(1 << 20)

    sealed = age.encrypt(endless(), [KEY.recipient()])
    plain = age.decrypt(sealed, [KEY])
    assert sum(map(len, islice(plain, 100))) == 100 * 16 * 65536


@pytest.mark.parametrize("at", [5, 20, -1])
def test_a_slip_in_a_key_is_found(at: int) -> None:
    for text, parse in ((str(KEY.recipient()), x25519.Recipient), (KEY.reveal(), x25519.Identity)):
        wrong = "q" if text[at].lower() != "q" else "p"
        wrong = wrong.upper() if text.isupper() else wrong
        slipped = text[:at] + wrong + text[at:][1:]
        with pytest.raises(ConfigError, match="invalid age") as caught:
            parse.parse(slipped)
        assert text[30:] not in f"{caught.value} {caught.value.hint}"


def test_an_identity_does_not_show_itself() -> None:
    assert repr(KEY.secret)[2:-1] not in repr(KEY)
    assert KEY.reveal() not in repr(KEY) + str(KEY)


def test_bech32_of_bip_173() -> None:
    assert bech32.decode("A12UEL5L") == ("a", b"")
    for wrong in ("A12UEL5l", "a12uel5m", "1nwldj5", "a1b2c3"):
        with pytest.raises(ValueError, match=r"case|Bech32|checksum"):
            bech32.decode(wrong)
