"""Key files as people have them: what is a key, what is a password, and whose file it is."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest

from encryption import encryption, hybrid, key_file, openssl_format, x25519
from tests.system import module_output
from tools.base import bech32, finding, permissions
from tools.base.errors import ConfigError

IDENTITY = x25519.Identity(bytes(range(32)))
PUBLIC = str(IDENTITY.recipient())
PQ_IDENTITY = hybrid.Identity(bytes(range(32))).reveal()
PQ_RECIPIENT = str(hybrid.Identity(bytes(range(32))).recipient())
MIXED = "post-quantum recipients (age1pq1...) cannot be combined with X25519 recipients"
PLUGIN = bech32.encode("age1yubikey", bytes(33))


def write_file(folder: Path, content: bytes | str, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def encrypted(folder: Path, key: Path, *more: object, code: int = 0) -> str:
    (folder / "in").write_bytes(b"plain")
    return module_output(
        "encryption", "--KEY_FILE", key, "--TARGETS", folder / "in", "--DESTINATION",
        folder / "out", *more, code=code,
    )  # fmt: skip


def decrypted(folder: Path, key: Path, code: int = 0) -> str:
    return module_output(
        "encryption", "-d", "--KEY_FILE", key, "--OBJECTIVES", folder / "out/in.age",
        "--DESTINATION", folder / "back", code=code,
    )  # fmt: skip


RECIPIENT_TEXTS = {
    "bom": b"\xef\xbb\xbf" + PUBLIC.encode() + b"\r\n",
    "spaces": f"  {PUBLIC}\n",
    "tab": f"\t{PUBLIC}",
    "upper case": PUBLIC.upper(),
    "double quotes": f'"{PUBLIC}"\n',
    "single quotes": f"'{PUBLIC}'",
    "typographic quotes": f"\u201c{PUBLIC}\u201d\r\n",
    "old line ends": f"# ours\r{PUBLIC}\r",
    "bom and comment": f"\ufeff# ours\r\n{PUBLIC}\r\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("content", RECIPIENT_TEXTS.values(), ids=RECIPIENT_TEXTS)
def test_a_recipient_is_known_however_it_was_saved(tmp_path: Path, content: bytes | str) -> None:
    """Issue 11 A13: the file is for its recipient; no key is derived from public text."""
    public = write_file(tmp_path, content)
    encrypted(tmp_path, public)
    assert "only recipients" in decrypted(tmp_path, public, code=2)
    decrypted(tmp_path, write_file(tmp_path, IDENTITY.reveal()))
    assert (tmp_path / "back").read_bytes() == b"plain"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f"recipient: {PUBLIC}", ":1: invalid age recipient"),
        (f"# created\n# public key: {PUBLIC}\n", "contains only comments"),
        (PUBLIC[:-1] + "q", ":1: invalid age recipient"),
        (PUBLIC[:9].upper() + PUBLIC[9:], ":1: invalid age recipient: mixed upper and lower case"),
        (f"key={PUBLIC}", ":1: invalid age recipient"),
        ("garage1234567890garage1234567890", ":1: invalid age recipient"),
        ("one two three four five six seven eight", "more than one word"),
        ("0123456789abcdef" * 4 + "\n" + "0123456789abcdef" * 4, "more than one line"),
        (("\ufeff" + PUBLIC).encode("utf-16-le"), "is UTF-16 text"),
        (PUBLIC.encode("utf-16-be"), "is UTF-16 text"),
        (PUBLIC.encode("utf-16-le"), "is UTF-16 text"),
        (("\ufeff" + PUBLIC).encode("utf-16-be"), "is UTF-16 text"),
        (b"\xf3\0" * 3 + b"\xf3\xf3\0", "is not a text file"),
        (PQ_RECIPIENT[:-1] + "q", ":1: invalid age post-quantum recipient: checksum mismatch"),
        (PQ_IDENTITY[:-1], ":1: invalid age post-quantum identity: checksum mismatch"),
        (f"{PUBLIC}\n{PQ_RECIPIENT}\n", MIXED),
        (f"{IDENTITY.reveal()}\n{PQ_IDENTITY}\n", MIXED),
        (f"{PQ_IDENTITY}\n{PUBLIC}\n", MIXED),
        (bech32.encode("age1tagpq", bytes(1249)), ":1: recipient of an age plugin"),
        (f" {PLUGIN}", ":1: recipient of an age plugin"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@host", ":1: SSH public key"),
        ("-----BEGIN AGE ENCRYPTED FILE-----\nabc\n", ":1: key file that is encrypted"),
    ],
)
def test_what_is_no_password_encrypts_nothing(
    tmp_path: Path, content: bytes | str, says: str
) -> None:
    """Issue 11 A13, E: refused, naming the line or the kind; nothing is encrypted."""
    key = write_file(tmp_path, content)
    text = encrypted(tmp_path, key, code=2)
    assert says in text
    assert f"KEY_FILE: {key}" in text
    assert not (tmp_path / "out").exists()
    assert "AGE-SECRET-KEY-1Q" not in text


@pytest.mark.parametrize("content", ["one two three", "line one\nline two"])
def test_several_words_are_no_password_of_the_old_format(tmp_path: Path, content: str) -> None:
    """Issue 11 A13: not for new files of the old format either."""
    text = encrypted(tmp_path, write_file(tmp_path, content), "--FORMAT", "openssl", code=2)
    assert "more than one" in text


@pytest.mark.slow
@pytest.mark.usefixtures("library")
@pytest.mark.needs("openssl")
@pytest.mark.parametrize("password", ["correct horse battery", "garage1", "\ufeffold", "win\r"])
def test_old_files_open_with_whatever_password_they_have(tmp_path: Path, password: str) -> None:
    """Issue 11 A13: what is no password for new backups still reads the old ones."""
    key = write_file(tmp_path, password + "\n")
    command = ["openssl", "enc", "-aes-256-cbc", "-md", "md5", "-pass", f"file:{key}", "-e"]
    encrypted = subprocess.run(command, input=b"plain", capture_output=True, check=True).stdout
    (tmp_path / "out").mkdir()
    (tmp_path / "out/in.age").write_bytes(encrypted)
    decrypted(tmp_path, key)
    assert (tmp_path / "back").read_bytes() == b"plain"


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + IDENTITY.reveal().encode() + b"\r\n",
        f' "{IDENTITY.reveal()}"\r\n',
        IDENTITY.reveal().lower(),
        f"{PQ_IDENTITY}\n{IDENTITY.reveal()}\n",
        f"{IDENTITY.reveal()}\nAGE-PLUGIN-YUBIKEY-1QQQQQQ\n{PQ_RECIPIENT}\n",
    ],
)
def test_an_identity_opens_whatever_stands_beside_it(tmp_path: Path, content: bytes | str) -> None:
    """Issue 11 A13, E: keys of unsupported kinds are passed over where files are opened."""
    encrypted(tmp_path, write_file(tmp_path, PUBLIC))
    decrypted(tmp_path, write_file(tmp_path, content))
    assert (tmp_path / "back").read_bytes() == b"plain"


@pytest.mark.parametrize(
    ("recipient", "says"),
    [
        (PLUGIN, "recipient of an age plugin is not supported"),
        (PQ_RECIPIENT, MIXED),
        (bech32.encode("age", bytes(32)), "invalid age recipient age1qqqqqq"),
    ],
)
def test_a_recipient_of_another_kind_is_named(tmp_path: Path, recipient: str, says: str) -> None:
    """Issue 11 E: in RECIPIENTS, too; and a point of low order, which anybody could decrypt for."""
    text = encrypted(tmp_path, write_file(tmp_path, PUBLIC), "--RECIPIENTS", recipient, code=2)
    assert f"error: RECIPIENTS: {says}" in text
    assert not (tmp_path / "out").exists()


def test_a_derived_key_is_named_by_the_test_and_the_run(tmp_path: Path) -> None:
    """Issue 11 A13: deriving from a password is said each time."""
    key = write_file(tmp_path, "0123456789abcdef" * 4)
    assert "warning: KEY_FILE" in encrypted(tmp_path, key)
    line, *_others, warned = encryption.test(encryption.Options(key_file=key))
    assert "encryption: age" in str(line)
    assert isinstance(warned, finding.Finding)
    assert warned.level is finding.Level.WARN
    assert "derived" in warned.text


@pytest.mark.parametrize("content", [None, ""])
def test_a_new_key_is_no_help_for_a_restore(tmp_path: Path, content: str | None) -> None:
    """Issue 11 D: the hint for a missing or emptied key file depends on what it is for."""
    encrypted(tmp_path, write_file(tmp_path, PUBLIC))
    key = tmp_path / "gone"
    if content is not None:
        key.write_text(content)
        key.chmod(0o600)
    text = decrypted(tmp_path, key, code=2)
    assert "KEYGEN" not in text
    assert "A new key decrypts no existing backup" in text
    with pytest.raises(ConfigError) as caught:
        key_file.read(key)
    assert "--KEYGEN" in caught.value.hint


def test_a_wrong_key_says_what_can_be_said(tmp_path: Path) -> None:
    """Issue 11 E: the kinds of the file's recipients, and what was tried."""
    encrypted(tmp_path, write_file(tmp_path, PUBLIC))
    other = x25519.Identity(bytes(32))
    text = decrypted(tmp_path, write_file(tmp_path, other.reveal()), code=1)
    assert "wrong key: none of the identities matches a recipient of the file (1 X25519)" in text
    assert str(other.recipient()) in text
    first = tmp_path / "out/in.age.000"
    first.write_bytes(first.read_bytes().replace(b"-> X25519", b"-> x25519-of-2040"))
    text = decrypted(tmp_path, write_file(tmp_path, IDENTITY.reveal()), code=1)
    assert "(1 x25519-of-2040, not supported)" in text


def test_a_cut_single_chunk_says_what_can_be_said(tmp_path: Path) -> None:
    """Issue 11 E: the key is right; cut or damaged, the format cannot tell."""
    encrypted(tmp_path, write_file(tmp_path, PUBLIC))
    first = tmp_path / "out/in.age.000"
    content = first.read_bytes()
    first.write_bytes(content[:-1])
    key = write_file(tmp_path, IDENTITY.reveal())
    text = decrypted(tmp_path, key, code=1)
    assert "end of file or corrupt only chunk of 20 bytes; the key is right" in text
    first.write_bytes(content[:-6])
    assert "unexpected end of file (chunk 0)" in decrypted(tmp_path, key, code=1)


def _predecessor(folder: Path, key: Path, size: int) -> list[Path]:
    """Parts as the predecessor wrote them: the first is one byte shorter than the others."""
    encrypted = b"".join(openssl_format.encrypt([bytes(size)], key.read_bytes().strip()))
    cuts = [0, 1 << 20]
    while cuts[-1] < len(encrypted):
        cuts.append(cuts[-1] + (1 << 20) + 1)
    paths = []
    for number, (begin, end) in enumerate(itertools.pairwise(cuts)):
        paths.append(folder / f"x.crypt.{number:03}")
        paths[-1].write_bytes(encrypted[begin:end])
    return paths


@pytest.mark.slow
@pytest.mark.usefixtures("library")
def test_sizes_of_old_parts_are_judged_by_the_predecessors_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 11 D: a genuine set opens; a wrong key and a missing end are named, not part 000.

    The salt is fixed: by chance a cut or a wrong key gives good padding in one of 256 cases.
    """
    key = write_file(tmp_path, "0123456789abcdef" * 4)
    with monkeypatch.context() as fixed:
        fixed.setattr(os, "urandom", bytes)
        files = _predecessor(tmp_path, key, 3_500_000)

    def opened(code: int) -> str:
        (tmp_path / "back").unlink(missing_ok=True)
        return module_output(
            "encryption", "-d", "--KEY_FILE", key, "--OBJECTIVES", tmp_path / "x.crypt",
            "--DESTINATION", tmp_path / "back", code=code,
        )  # fmt: skip

    opened(0)
    assert (tmp_path / "back").read_bytes() == bytes(3_500_000)
    good = files[1].read_bytes()
    files[1].write_bytes(good[:-16])
    assert f"{files[1]} is truncated: 1048561 bytes" in opened(1)
    assert not (tmp_path / "back").exists()
    files[1].write_bytes(good)
    first = files[0].read_bytes()
    files[0].write_bytes(first[:-16])
    assert f"{files[0]} is truncated" in opened(1)
    files[0].write_bytes(first)
    last = files[3].read_bytes()
    files[3].write_bytes(last[:-16])
    assert "error: wrong key, or the end" in opened(1)
    files[3].write_bytes(bytes((1 << 20) + 100))
    assert f"{files[3]} is longer than a full part" in opened(1)
    files[3].unlink()
    text = opened(1)
    assert f"part 003 seems to be missing: {files[3]}" in text
    files[3].write_bytes(last)
    write_file(tmp_path, "f" * 64)
    assert "error: wrong key" in opened(1)


# --- whose file it is


@pytest.mark.needs("root", "setpriv")
@pytest.mark.parametrize(
    ("owner", "group", "mode", "says"),
    [
        (0, 0, 0o600, ""),
        (0, 12345, 0o640, "can be read by the group 12345"),
        (0, 12345, 0o660, "can be read or written by the group 12345"),
        (12345, 12345, 0o600, "belongs to 12345"),
        (0, 0, 0o644, "can be read or written by everybody (mode 0644)"),
    ],
)
def test_who_may_own_and_read_a_key_file(
    tmp_path: Path, owner: int, group: int, mode: int, says: str
) -> None:
    """Issue 11 C: refused with the command that fixes it; --insecure-permissions accepts it."""
    key = write_file(tmp_path, PUBLIC)
    os.chown(key, owner, group)
    key.chmod(mode)
    if not says:
        key_file.read(key)
        return
    with pytest.raises(ConfigError, match=r"KEY_FILE: ") as caught:
        key_file.read(key)
    assert says in str(caught.value)
    assert str(key) in caught.value.hint
    assert "chmod " in caught.value.hint or "chown " in caught.value.hint


@pytest.mark.needs("root")
def test_a_folder_that_others_can_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 11 C: who may replace the key reads what comes after."""
    folder = tmp_path / "open"
    folder.mkdir()
    key = write_file(folder, PUBLIC)
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="is writable by everybody") as caught:
        key_file.read(key)
    assert caught.value.hint.startswith(f"chmod o-w {folder}")
    key_file.read(key, key_file.Use.DECRYPT)
    monkeypatch.setenv(permissions.ACCEPT, "1")
    key_file.read(key)


def test_the_private_key_beside_recipients_decrypts(tmp_path: Path) -> None:
    """As setup.py makes them: the run gets the recipient, root's restore finds the identity."""
    key = write_file(tmp_path, PUBLIC)
    identity_file = key.with_name("key.identity")
    assert not key_file.read_private(key).identities
    identity_file.write_text(IDENTITY.reveal())
    identity_file.chmod(0o600)
    assert key_file.read_private(key).identities
    assert not key_file.read(key).identities  # what encrypts does not look there
