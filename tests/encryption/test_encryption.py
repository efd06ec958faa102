"""The executable: the documented commands word for word, both formats, parts, keys, faults."""

from __future__ import annotations

import hmac
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from encryption import encryption, key_file, part_files, stage, x25519
from tests.system import module_output, peak
from tools import filesystem_handling
from tools.base import project
from tools.base.errors import ConfigError, StageError
from tools.base.finding import Finding, Level
from tools.flow.item import Stage
from tools.modules.work_store import WorkFolder, WorkStore, parts_of

PROGRAM = str(project.ROOT / "encryption/encryption.py")

MAGICS = (b"age-encryption.org/v1\n", b"Salted__")
SIZES = (0, 1, 15, 16, 17, 65536, 1_000_003)


def run(*arguments: object, code: int = 0) -> str:
    return module_output("encryption", *arguments, code=code)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key_file"
    run("--KEYGEN", "--KEY_FILE", path)
    return path


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "old_key"
    path.write_text("0123456789abcdef" * 4 + "\n")
    path.chmod(0o600)
    return path


def encrypt(tmp_path: Path, key: Path, plain: bytes, *more: object) -> Path:
    """Encrypt one file; gives the common beginning of its parts."""
    (tmp_path / "in").mkdir(exist_ok=True)
    (tmp_path / "in/20261123_030000.tar.zst").write_bytes(plain)
    out = tmp_path / "encrypted"
    arguments = [
        "--KEY_FILE",
        key,
        "--TARGETS",
        tmp_path / "in",
        "--DESTINATION",
        out,
        "--FILE_SIZE",
        1,
    ]
    run(*arguments, *more)
    ending = "crypt" if "openssl" in more else "age"
    return out / f"20261123_030000.tar.zst.{ending}"


def decrypt(key: Path, objective: object, target: Path, code: int = 0) -> str:
    return run(
        "-d", "--KEY_FILE", key, "--OBJECTIVES", objective, "--DESTINATION", target,
        "--HOME_FOLDER", project.ROOT, code=code,
    )  # fmt: skip


def test_keygen_never_overwrites_and_prints_only_the_recipient(tmp_path: Path) -> None:
    path = tmp_path / "key"
    output = run("--KEYGEN", "--KEY_FILE", path)
    text = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert text.splitlines()[1].removeprefix("# public key: ") in output
    assert "AGE-SECRET-KEY-1" in text
    assert "AGE-SECRET-KEY" not in output
    assert "\nStore a copy" in output  # on a line of its own
    assert "file exists" in run("--KEYGEN", "--KEY_FILE", path, code=2)
    assert path.read_text() == text


@pytest.mark.slow
@pytest.mark.usefixtures("library")
@pytest.mark.needs("age")
def test_parts_joined_are_an_age_file_and_sources_go_only_in_the_end(
    tmp_path: Path, key: Path
) -> None:
    plain = os.urandom(2_500_000)
    stem = encrypt(tmp_path, key, plain)
    names = sorted(path.name for path in stem.parent.iterdir())
    assert names == [f"{stem.name}.{n:03}" for n in range(3)]
    joined = b"".join((stem.parent / name).read_bytes() for name in names)
    command = ["age", "-d", "-i", str(key)]
    assert subprocess.run(command, input=joined, capture_output=True, check=True).stdout == plain
    assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["{}", "{}.", "{}.0", "{}.00"])
def test_many_parts_by_their_common_beginning(tmp_path: Path, key: Path, objective: str) -> None:
    plain = os.urandom(11 << 20)  # twelve parts: .00 names only ten of them
    stem = encrypt(tmp_path, key, plain)
    before = {path: path.read_bytes() for path in stem.parent.iterdir()}
    decrypt(key, objective.format(stem), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == plain
    assert {path: path.read_bytes() for path in stem.parent.iterdir()} == before


@pytest.mark.slow
@pytest.mark.usefixtures("library")
@pytest.mark.needs("age")
def test_a_file_of_the_stock_program_is_decrypted(tmp_path: Path, key: Path) -> None:
    recipient = key.read_text().split("public key: ")[1].split()[0]
    subprocess.run(
        ["age", "-r", recipient, "-o", str(tmp_path / "x.age")], input=b"hello", check=True
    )
    decrypt(key, tmp_path / "x.age", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"hello"


@pytest.mark.slow
@pytest.mark.usefixtures("library")
@pytest.mark.needs("openssl")
@pytest.mark.parametrize("size", SIZES)
def test_the_old_format_both_ways_with_openssl(tmp_path: Path, password: Path, size: int) -> None:
    plain = os.urandom(size)
    base = ["openssl", "enc", "-aes-256-cbc", "-md", "md5", "-pass", f"file:{password}"]
    theirs = subprocess.run([*base, "-e"], input=plain, capture_output=True, check=True).stdout
    encrypted = tmp_path / "20160607_161750.tar.gz.crypt"
    encrypted.write_bytes(theirs)
    cut = ["split", "-b", "300000", "-d", "-a", "3", str(encrypted), f"{encrypted}."]
    subprocess.run(cut, check=True)
    encrypted.unlink()
    output = decrypt(password, encrypted, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == plain
    assert "not authenticated" in output
    stem = encrypt(tmp_path, password, plain, "--FORMAT", "openssl")
    ours = b"".join(path.read_bytes() for path in sorted(stem.parent.iterdir()))
    assert (
        subprocess.run([*base, "-d"], input=ours, capture_output=True, check=True).stdout == plain
    )


@pytest.mark.slow
@pytest.mark.usefixtures("library")
def test_an_old_password_gives_an_age_key_that_can_be_exported(
    tmp_path: Path, password: Path
) -> None:
    stem = encrypt(tmp_path, password, b"plain")
    decrypt(password, stem, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"plain"
    exported = tmp_path / "exported"
    output = run("--EXPORT", "--KEY_FILE", password, "--DESTINATION", exported)
    assert "AGE-SECRET-KEY" not in output
    decrypt(exported, stem, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == b"plain"


def test_a_server_that_holds_only_recipients_cannot_read_its_backups(
    tmp_path: Path, key: Path
) -> None:
    public = tmp_path / "public"
    public.write_text(f"# ours\n{key.read_text().split('public key: ')[1].split()[0]}\n")
    public.chmod(0o600)
    stem = encrypt(tmp_path, public, b"plain")
    assert "only recipients" in decrypt(public, stem, tmp_path / "out", code=2)
    decrypt(key, stem, tmp_path / "out")


@pytest.mark.slow
def test_four_troubles_have_four_messages_and_leave_nothing(tmp_path: Path, key: Path) -> None:
    stem = encrypt(tmp_path, key, os.urandom(3 << 20))
    other = tmp_path / "other"
    run("--KEYGEN", "--KEY_FILE", other)
    out = tmp_path / "out"
    first, second = Path(f"{stem}.000"), Path(f"{stem}.001")
    last = max(stem.parent.iterdir())
    assert "error: wrong key" in decrypt(other, stem, out, code=1)
    good = second.read_bytes()
    second.write_bytes(good[:1000] + bytes([good[1000] ^ 1]) + good[1001:])
    assert "error: corrupt data (chunk" in decrypt(key, stem, out, code=1)
    second.write_bytes(good)
    end = last.read_bytes()
    last.write_bytes(end[:-100])
    assert "error: unexpected end of file" in decrypt(key, stem, out, code=1)
    last.write_bytes(end)
    second.write_bytes(good[:-7])
    assert f"error: {second} is truncated: 1048569 bytes" in decrypt(key, stem, out, code=1)
    second.write_bytes(good)
    last.rename(tmp_path / "away")
    assert f"error: part 003 seems to be missing: {last}" in decrypt(key, stem, out, code=1)
    (tmp_path / "away").rename(last)
    second.rename(tmp_path / "away")
    assert f"error: part 001 is missing: {second}" in decrypt(key, stem, out, code=1)
    (tmp_path / "away").rename(second)
    first.rename(tmp_path / "away")
    assert "part 000 is missing" in decrypt(key, stem, out, code=1)
    assert not [p for p in tmp_path.iterdir() if "out" in p.name]


def test_one_of_many_parts_is_not_taken_for_the_whole(tmp_path: Path, key: Path) -> None:
    stem = encrypt(tmp_path, key, os.urandom(2 << 20))
    output = decrypt(key, f"{stem}.000", tmp_path / "out", code=2)
    assert f"Name the common beginning of all parts: {stem}" in output


def test_nothing_is_overwritten(tmp_path: Path, key: Path) -> None:
    stem = encrypt(tmp_path, key, b"plain")
    (tmp_path / "out").write_text("precious")
    assert "file exists" in decrypt(key, stem, tmp_path / "out", code=2)
    assert (tmp_path / "out").read_text() == "precious"


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (None, 0, "--KEYGEN"),
        ("", 0o600, "empty file"),
        ("short", 0o600, "at most 30 bits of 128"),
        ("AGE-SECRET-KEY-1QQQQ", 0o600, ":1: invalid age identity"),
        ("a" * 64, 0o644, "chmod 0600"),
    ],
)
def test_a_bad_key_file_is_named(tmp_path: Path, content: str | None, mode: int, says: str) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    (tmp_path / "in").write_bytes(b"x")
    arguments = [
        "--KEY_FILE",
        path,
        "--TARGETS",
        tmp_path / "in",
        "--DESTINATION",
        tmp_path / "out",
    ]
    output = run(*arguments, code=2)
    assert says in output
    assert str(path) in output
    assert "QQQQ" not in output
    assert (tmp_path / "in").exists()


def test_no_input_is_a_failure(tmp_path: Path, key: Path) -> None:
    (tmp_path / "in").mkdir()
    arguments = ["--KEY_FILE", key, "--TARGETS", tmp_path / "in", "--DESTINATION", tmp_path / "out"]
    assert "no files to encrypt" in run(*arguments, code=1)


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path, key: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "x").write_text(folder)
    (tmp_path / "in/y").write_text("alone")
    out = tmp_path / "out"
    run("--KEY_FILE", key, "--TARGETS", tmp_path / "in", "--DESTINATION", out)
    names = ["in%2Fa%2Fx.age.000", "in%2Fb%2Fx.age.000", "y.age.000"]
    assert sorted(path.name for path in out.iterdir()) == names
    decrypt(key, out / names[1], tmp_path)
    assert (tmp_path / "in%2Fb%2Fx").read_text() == "b"


def test_files_that_no_folder_tells_apart_are_refused(tmp_path: Path, key: Path) -> None:
    targets = [tmp_path / one / "in" for one in ("a", "b")]
    for target in targets:
        target.mkdir(parents=True)
        (target / "x").touch()
    arguments = ["--KEY_FILE", key, "--TARGETS", " ".join(map(str, targets))]
    assert "two files" in run(*arguments, "--DESTINATION", tmp_path / "out", code=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("below", ["in", "in/encrypted"])
def test_what_is_encrypted_is_not_encrypted_again(tmp_path: Path, key: Path, below: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x").touch()
    arguments = ["--KEY_FILE", key, "--TARGETS", tmp_path / "in", "--DESTINATION", tmp_path / below]
    assert "is inside TARGETS" in run(*arguments, code=2)


def test_a_whole_set_of_a_run_that_died_is_kept(tmp_path: Path, key: Path) -> None:
    stem = encrypt(tmp_path, key, b"plain", "--REMOVE_TARGETS", "False")
    first = Path(f"{stem}.000")
    before = first.read_bytes()
    arguments = ["--KEY_FILE", key, "--TARGETS", tmp_path / "in", "--DESTINATION", stem.parent]
    assert "1 of them were already encrypted" in run(*arguments)
    assert first.read_bytes() == before
    assert not list((tmp_path / "in").iterdir())


@pytest.mark.parametrize("change", ["source", "key", "cut"])
def test_a_set_that_is_not_of_this_source_is_made_anew(
    tmp_path: Path, key: Path, change: str
) -> None:
    stem = encrypt(tmp_path, key, b"plain", "--REMOVE_TARGETS", "False")
    first = Path(f"{stem}.000")
    if change == "source":
        (tmp_path / "in/20261123_030000.tar.zst").write_bytes(b"other")
    elif change == "key":
        key = tmp_path / "other key"
        run("--KEYGEN", "--KEY_FILE", key)
    else:
        first.write_bytes(first.read_bytes()[:-1])
    arguments = ["--KEY_FILE", key, "--TARGETS", tmp_path / "in", "--DESTINATION", stem.parent]
    assert "already" not in run(*arguments)
    decrypt(key, first, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (b"other" if change == "source" else b"plain")


def write(
    folder: Path, content: bytes, stage: Callable[[Iterable[bytes]], Iterator[bytes]] = iter
) -> Sequence[Path]:
    """Let a file flow into parts of one byte, instead of older ones of the same name."""
    source, out = folder / "source", folder / "out"
    source.write_bytes(content)
    out.mkdir(exist_ok=True)
    older = [*part_files.find_parts(out, "x.age").values()]
    cut = Stage("none", "", stage, size=1)
    return WorkFolder().pass_on([source], WorkStore(out), parts_of("x.age"), cut, older)


def test_parts_count_beyond_999_and_are_joined_by_number(tmp_path: Path) -> None:
    paths = write(tmp_path, bytes(n % 251 for n in range(1005)))
    assert [path.name for path in paths[998:1002]] == [
        "x.age.998",
        "x.age.999",
        "x.age.1000",
        "x.age.1001",
    ]
    stem, parts = part_files.resolve_objective(tmp_path / "out/x.age", MAGICS)
    assert (stem, parts) == ("x.age", paths)
    assert b"".join(path.read_bytes() for path in parts) == bytes(n % 251 for n in range(1005))


def test_a_set_has_its_first_part_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real = filesystem_handling.publish

    def publish(temporary: Path, path: Path) -> None:
        if not path.name.startswith("."):
            order.append(path.name)
        real(temporary, path)

    monkeypatch.setattr(filesystem_handling, "publish", publish)
    write(tmp_path, b"abc")
    assert sorted(order) == [f"x.age.00{n}" for n in range(3)]
    assert order[-1] == "x.age.000"


def test_a_failing_stream_leaves_no_part(tmp_path: Path) -> None:
    def failing(chunks: Iterable[bytes]) -> Iterator[bytes]:
        yield from chunks
        raise StageError("broken")

    with pytest.raises(StageError, match="broken"):
        write(tmp_path, b"ab", failing)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("step", range(6))
def test_a_kill_between_two_names_leaves_no_whole_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """An older set goes, a new one comes; at each step a process is killed for good."""
    write(tmp_path, b"old")
    child = os.fork()
    if child == 0:
        count = 0
        real_unlink, real_publish = Path.unlink, filesystem_handling.publish

        def counted() -> None:
            nonlocal count
            if count == step:
                os.kill(os.getpid(), 9)
            count += 1

        def unlink(path: Path, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002, RUF100
            if not path.name.startswith("."):
                counted()
            real_unlink(path, missing_ok=missing_ok)

        def publish(temporary: Path, path: Path) -> None:
            counted()
            real_publish(temporary, path)

        monkeypatch.setattr(Path, "unlink", unlink)
        monkeypatch.setattr(filesystem_handling, "publish", publish)
        write(tmp_path, b"new")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    out = tmp_path / "out"
    parts = part_files.find_parts(out, "x.age")
    if 0 in parts:
        assert b"".join(path.read_bytes() for path in parts.values()) == b"old"
    write(tmp_path, b"new")
    assert sorted(path.name for path in out.iterdir()) == [f"x.age.00{n}" for n in range(3)]


@pytest.mark.needs("root", "mount")
def test_a_full_disk_leaves_nothing_and_the_source_stays(tmp_path: Path, key: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(full)], check=True)
    try:
        source = tmp_path / "source"
        source.write_bytes(bytes(3 << 20))
        arguments = ["--KEY_FILE", key, "--TARGETS", source, "--DESTINATION", full]
        output = run(*arguments, "--FILE_SIZE", 1, code=1)
        assert "no space left" in output
        assert str(full) in output
        assert list(full.iterdir()) == []
        stem = encrypt(tmp_path, key, bytes(3 << 20))
        assert "no space left" in decrypt(key, stem, full / "out", code=1)
        assert list(full.iterdir()) == []
    finally:
        subprocess.run(["umount", str(full)], check=True)
    assert source.stat().st_size == 3 << 20


def test_a_lone_file_whose_name_looks_numbered(tmp_path: Path, key: Path) -> None:
    stem = encrypt(tmp_path, key, b"plain")
    lone = tmp_path / "dump.2026"
    Path(f"{stem}.000").rename(lone)
    decrypt(key, lone, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"plain"
    lone.write_bytes(b"the middle of something")
    assert "part 000 is missing" in decrypt(key, lone, tmp_path / "again", code=1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty file"),
        (b"PK\x03\x04 and more", "unknown file format"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\n", "unexpected end of file in the age armor"),
        (b"Salted__1234", "unexpected end of file in the"),
        (b"age-encryption.org/v1", "unexpected end of file in the"),
    ],
)
def test_what_is_no_encrypted_file(tmp_path: Path, key: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x.age.000"
    path.write_bytes(content)
    used = key
    if content.startswith(b"Salted"):
        used = tmp_path / "old"
        used.write_text("a" * 32)
        used.chmod(0o600)
    assert says in decrypt(used, path, tmp_path / "out", code=1)
    assert not (tmp_path / "out").exists()


def test_the_old_format_tells_a_cut_from_a_wrong_key(tmp_path: Path, password: Path) -> None:
    stem = encrypt(tmp_path, password, bytes(100), "--FORMAT", "openssl")
    first = Path(f"{stem}.000")
    content = first.read_bytes()
    first.write_bytes(content[:-1])
    assert "unexpected end of file" in decrypt(password, first, tmp_path / "out", code=1)
    first.write_bytes(content[:-16])
    assert "wrong key, or the end" in decrypt(password, first, tmp_path / "out", code=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_passphrase_by_reference_is_never_seen(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a passphrase of many words\n")
    plain = tmp_path / "in"
    plain.write_bytes(b"plain")
    there = ["--PASSPHRASE", f"file:{secret}"]
    output = run(*there, "--TARGETS", plain, "--DESTINATION", tmp_path / "out")
    output += run(
        "-d", *there, "--OBJECTIVES", tmp_path / "out/in.age", "--DESTINATION", tmp_path / "again"
    )
    assert (tmp_path / "again").read_bytes() == b"plain"
    secret.write_text("another")
    objective = ["--OBJECTIVES", tmp_path / "out/in.age", "--DESTINATION", tmp_path / "third"]
    output += run("-d", *there, *objective, code=1)
    assert "wrong key" in output
    assert "many words" not in output
    assert "another" not in output
    assert "PASSPHRASE" in run(*there, "--FORMAT", "openssl", code=2)


def test_more_recipients_than_the_key_file_holds(tmp_path: Path, key: Path) -> None:
    other = tmp_path / "other"
    public = key_file.write_identity(x25519.Identity.generate(), other)
    stem = encrypt(tmp_path, key, b"plain", "--RECIPIENTS", str(public))
    for number, used in enumerate((key, other)):
        decrypt(used, stem, tmp_path / f"out{number}")
    assert "invalid age recipient" in run(
        "--KEY_FILE", key, "--TARGETS", key.parent / "other", "--RECIPIENTS", "age1x",
        "--DESTINATION", tmp_path / "never", code=2,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["with space", "-dash", "new\nline.tar", "quote'\"", "100%"])
def test_any_name(tmp_path: Path, key: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_text("plain")
    out = tmp_path / "out"
    run("--KEY_FILE", key, "--TARGETS", tmp_path / "in", "--DESTINATION", out)
    objective = str(out / f"{name}.age")
    if "\n" in name:  # white space parts a list: such a name needs the form of JSON
        objective = json.dumps([objective])
    decrypt(key, objective, tmp_path / "back")
    assert (tmp_path / "back").read_text() == "plain"


@pytest.mark.parametrize(
    ("password", "bits"),
    [(b"0" * 32, 128), (b"0" * 31, 124), (b"z" * 22, 132), (b"z" * 21, 126), (b"\xff" * 16, 128)],
)
def test_what_a_password_can_hold(tmp_path: Path, password: bytes, bits: int) -> None:
    assert key_file.entropy_bits(password) == bits
    path = tmp_path / "key"
    path.write_bytes(password + b"\n")
    path.chmod(0o600)
    assert bool(key_file.read(path).identities) == (bits >= 128)
    assert key_file.password(key_file.read(path), path) == password


def test_the_derived_key_is_as_documented(tmp_path: Path, password: Path) -> None:
    """HKDF of RFC 5869 by hand; a backup must open for ever."""
    text = password.read_bytes().strip()
    start = hmac.digest(b"nc-backup-py/keyfile/v1", text, "sha256")
    secret = hmac.digest(start, b"age-x25519-identity\x01", "sha256")
    assert key_file.read(password).identities[0].secret == secret


def test_what_is_meant_must_be_clear(tmp_path: Path) -> None:
    for name in ("a1.age.000", "a2.age.000"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match="2 backups"):
        part_files.resolve_objective(tmp_path / "a", MAGICS)
    with pytest.raises(ConfigError, match="no file name begins with"):
        part_files.resolve_objective(tmp_path / "b", MAGICS)
    with pytest.raises(ConfigError, match="no such file or directory"):
        part_files.resolve_objective(tmp_path / "none/b", MAGICS)


@pytest.mark.slow
def test_memory_stays_small(tmp_path: Path, key: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(600 << 20)
    arguments = ["--KEY_FILE", key, "--TARGETS", big, "--REMOVE_TARGETS", "False"]
    arguments += ["--DESTINATION", tmp_path / "out"]
    assert peak(sys.executable, PROGRAM, *arguments) < 100 * 1024


def test_a_source_that_stays_is_named(tmp_path: Path) -> None:
    """A folder stands for what cannot be removed: root may remove any file."""
    (tmp_path / "gone").touch()
    (problem,) = stage._remove([tmp_path / "gone", tmp_path], WorkFolder())
    assert problem.startswith(f"{tmp_path}: cannot be removed: ")
    assert not (tmp_path / "gone").exists()


def test_the_check_of_backup_t_changes_nothing(tmp_path: Path, key: Path) -> None:
    before = sorted(tmp_path.iterdir())
    line, secret = encryption.test(encryption.Options(key_file=key))
    assert line == f"encryption: age, {key}"
    assert isinstance(secret, Finding)
    assert (secret.level, "holds the identity" in secret.text) == (Level.WARN, True)
    recipient = next(line for line in key.read_text().splitlines() if "age1" in line)
    (public := tmp_path / "public").write_text(recipient.rpartition(" ")[2] + "\n")
    public.chmod(0o600)
    public_finding = encryption.test(encryption.Options(key_file=public))[1]
    assert isinstance(public_finding, Finding)
    assert public_finding.level is Level.OK
    public.unlink()
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(ConfigError, match="no such file") as caught:
        encryption.test(encryption.Options(key_file=tmp_path / "none"))
    assert "--KEYGEN --KEY_FILE" in caught.value.hint
