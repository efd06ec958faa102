"""Each library of ciphers against published values and against the other; which one is taken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from encryption import age, ciphers, provider, provider_cryptography, x25519
from encryption.provider_cryptography import Cryptography
from encryption.provider_pycryptodome import Pycryptodome
from tests.encryption.conftest import without
from tests.system import module_output
from tools.base import kdf, project
from tools.base.errors import ConfigError
from tools.catalog import ed25519

LIBRARIES: tuple[ciphers.Provider, ...] = (Cryptography(), Pycryptodome())
EACH = pytest.mark.parametrize("library", LIBRARIES, ids=[one.name for one in LIBRARIES])
KEYS = st.binary(min_size=32, max_size=32)
_ALICE = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
_ALICE_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
_BOB_PUBLIC = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
_SHARED = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


@pytest.mark.parametrize(
    ("salt", "info", "output"),
    [
        (
            bytes(range(13)),
            bytes(range(0xF0, 0xFA)),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf",
        ),
        (b"", b"", "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"),
    ],
)
def test_hkdf_of_rfc_5869(salt: bytes, info: bytes, output: str) -> None:
    """Test cases 1 and 3: the first 32 of 42 bytes."""
    assert kdf.hkdf(b"\x0b" * 22, salt, info).hex() == output


@EACH
def test_x25519_of_rfc_7748(library: ciphers.Provider) -> None:
    """Section 6.1, and the points of low order of section 6.1's warning."""
    secret = bytes.fromhex(_ALICE)
    assert library.x25519_public(secret).hex() == _ALICE_PUBLIC
    assert library.x25519(secret, bytes.fromhex(_BOB_PUBLIC)).hex() == _SHARED
    for point in (bytes(32), b"\1" + bytes(31), b"\xee" + b"\xff" * 30 + b"\x7f"):
        with pytest.raises(ValueError, match=r"\w"):
            library.x25519(secret, point)


@EACH
def test_aes_256_cbc_of_sp_800_38a(library: ciphers.Provider) -> None:
    """F.2.5 and F.2.6, in two calls."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    plaintext = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")
    sealed = bytes.fromhex("f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d")
    for encrypt, data, expected in ((True, plaintext, sealed), (False, sealed, plaintext)):
        update = library.aes_256_cbc(key, bytes(range(16)), encrypt=encrypt)
        assert update(data[:16]) + update(b"") + update(data[16:]) == expected


@given(KEYS, KEYS, st.binary(min_size=12, max_size=12), st.binary(max_size=300))
def test_both_libraries_do_the_same(key: bytes, other: bytes, nonce: bytes, data: bytes) -> None:
    ours, theirs = LIBRARIES
    public = ours.x25519_public(other)
    assert public == theirs.x25519_public(other)
    assert ours.x25519(key, public) == theirs.x25519(key, public)
    assert ours.x25519(key, key[:31] + b"\xff") == theirs.x25519(key, key[:31] + b"\xff")
    sealed = ours.chacha20_poly1305(key).encrypt(nonce, data)
    assert sealed == theirs.chacha20_poly1305(key).encrypt(nonce, memoryview(data))
    for library in LIBRARIES:
        cipher = library.chacha20_poly1305(key)
        assert cipher.decrypt(nonce, bytearray(sealed)) == data
        for bad in (sealed[:-1], sealed[:10], bytes([sealed[0] ^ 1]) + sealed[1:]):
            with pytest.raises(ciphers.InvalidTagError):
                cipher.decrypt(nonce, bad)
            with pytest.raises(ciphers.InvalidTagError):
                cipher.decrypt_into(nonce, bad, memoryview(bytearray(max(0, len(bad) - 16))))
        into = memoryview(bytearray(len(sealed)))
        cipher.encrypt_into(nonce, data, into)
        assert into == sealed
        cipher.decrypt_into(nonce, memoryview(sealed), into[: len(data)])
        assert into[: len(data)] == data


def test_cryptography_is_the_first_choice() -> None:
    assert provider.current().name == "cryptography"


def test_pycryptodome_takes_its_place_in_a_spawned_module(tmp_path: Path) -> None:
    """The whole command, in a process that cannot import cryptography."""
    key, source = tmp_path / "key", tmp_path / "source"
    source.write_bytes(bytes(300_000))
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    with without(blocked, "cryptography"):
        code = "from encryption import provider; print(provider.current().name)"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=project.ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "pycryptodome\n"
        module_output("encryption", "--KEYGEN", "--KEY_FILE", key)
        module_output(
            "encryption", "--KEY_FILE", key, "--TARGETS", source, "--DESTINATION",
            tmp_path / "out", "--REMOVE_TARGETS", "False",
        )  # fmt: skip
    module_output(
        "encryption", "-d", "--KEY_FILE", key, "--OBJECTIVES", tmp_path / "out/source.age",
        "--DESTINATION", tmp_path / "back",
    )  # fmt: skip
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_without_either_it_is_one_line(tmp_path: Path) -> None:
    with without(tmp_path, "cryptography", "pycryptodome"):
        with pytest.raises(ConfigError, match="cryptography"):
            provider.current()
        text = module_output("encryption", "--KEYGEN", "--KEY_FILE", tmp_path / "key", code=2)
    assert text.startswith("error: ")
    assert "cryptography" in text
    assert not (tmp_path / "key").exists()


def test_an_old_cryptography_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 47 it has no encrypt_into."""

    class Old:
        def __init__(self, key: bytes) -> None:
            self._cipher = ChaCha20Poly1305(key)
            self.encrypt, self.decrypt = self._cipher.encrypt, self._cipher.decrypt

    monkeypatch.setattr(provider_cryptography, "ChaCha20Poly1305", Old)
    identity = x25519.Identity.generate()
    plaintext = bytes(200_000)
    sealed = b"".join(age.encrypt([plaintext], [identity.recipient()]))
    monkeypatch.undo()
    assert b"".join(age.decrypt([sealed], [identity])) == plaintext
    monkeypatch.setattr(provider_cryptography, "ChaCha20Poly1305", Old)
    assert b"".join(age.decrypt([sealed], [identity])) == plaintext


def test_public_keys_by_an_old_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 13 A6: a system's own package, without public_bytes_raw (below 40), is no traceback."""

    def old(kind: Any) -> Any:
        def loaded(secret: bytes) -> Any:
            public = kind.from_private_bytes(secret).public_key()
            return SimpleNamespace(
                public_key=lambda: SimpleNamespace(public_bytes=public.public_bytes)
            )

        return SimpleNamespace(from_private_bytes=loaded)

    signatures = ed25519.Cryptography()
    secret = bytes(range(32))
    expected = Cryptography().x25519_public(secret), signatures.public(secret)
    monkeypatch.setattr(provider_cryptography, "X25519PrivateKey", old(X25519PrivateKey))
    keys = SimpleNamespace(Ed25519PrivateKey=old(signatures._keys.Ed25519PrivateKey))
    monkeypatch.setattr(signatures, "_keys", keys)
    assert (Cryptography().x25519_public(secret), signatures.public(secret)) == expected
