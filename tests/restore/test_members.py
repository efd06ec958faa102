"""Our look at tar archives: honest ones pass byte for byte, hostile members are never handed on."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore import archive_errors, tar_reader
from restore.archive_checks import MissingLinkTargetError, Patterns, check_archive
from tests.filesets import difficult
from tools.base.errors import BackupError

ROOT = tar_reader.Rules(privileged=True)
USER = tar_reader.Rules()


def pieces(raw: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(raw), size):
        yield raw[at : at + size]


def passed(raw: bytes, rules: tar_reader.Rules = ROOT, size: int = 1 << 20) -> tuple[bytes, str]:
    """What came out, and what the error said ("" without one)."""
    out = bytearray()
    try:
        for chunk in check_archive(pieces(raw, size), rules):
            out += chunk
    except BackupError as error:
        return bytes(out), str(error)
    return bytes(out), ""


def without_padding(raw: bytes) -> bytes:
    """An archive up to its end mark: what follows is padding to a record."""
    return raw.rstrip(b"\0") + bytes(-len(raw.rstrip(b"\0")) % 512 + 1024)


def listed(raw: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        return [entry.name for entry in archive]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """GNU tar's own archive of a tree with everything that is difficult."""
    tree = difficult(tmp_path_factory.mktemp("honest") / "tree")
    subprocess.run(["setfacl", "-m", "u:1234:rw", str(tree / "plain")], check=False)
    os.setxattr(tree / "plain", "user.note", b"1\n2=3 x")
    os.link(tree / "link", tree / "second name of a link")
    options = ["--format=posix", "--acls", "--xattrs", "--xattrs-include=*", "--sparse"]
    done = subprocess.run(
        ["tar", "-c", *options, "-C", str(tree.parent), tree.name], check=True, capture_output=True
    )
    return done.stdout


@pytest.mark.parametrize("size", [511, 512, 513, 10240, 1 << 20])
def test_an_honest_archive_passes_byte_for_byte(honest: bytes, size: int) -> None:
    out, error = passed(honest, size=size)
    assert error == ""
    assert out == without_padding(honest)


def test_chunks_of_one_byte() -> None:
    small = make(("file", "a", b"x" * 700), ("file", "b" * 150, b""))
    assert passed(small, size=1) == (without_padding(small), "")


@pytest.mark.parametrize("form", ["gnu", "ustar", "v7", "oldgnu", "posix"])
def test_every_format_of_tar(tmp_path: Path, form: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_text("x" * 1000)
    (tmp_path / "folder/link").symlink_to("file")
    os.link(tmp_path / "folder/file", tmp_path / "folder/hard")
    if form in ("gnu", "oldgnu", "posix"):
        deep = tmp_path / "folder" / ("d" * 120) / ("e" * 120)
        deep.mkdir(parents=True)
        (deep / ("f" * 120)).write_text("deep")
        with (tmp_path / "folder/sparse").open("wb") as file:
            for at in range(1, 40):
                file.seek(at << 20)
                file.write(b"here")
            file.truncate(64 << 20)
    sparse = ["--sparse"] if form in ("gnu", "oldgnu", "posix") else []
    raw = subprocess.run(
        ["tar", "-c", f"--format={form}", *sparse, "-C", str(tmp_path), "folder"],
        check=True,
        capture_output=True,
    ).stdout
    members: list[tar_reader.Member] = []
    out = b"".join(check_archive(pieces(raw, 4096), ROOT, members.append))
    assert out == without_padding(raw)
    names = subprocess.run(["tar", "-t"], input=raw, check=True, capture_output=True).stdout
    assert [member.name for member in members] == [name.rstrip(b"/") for name in names.splitlines()]
    if sparse:
        assert max(member.size for member in members) == 64 << 20


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_every_form_of_sparse_files(tmp_path: Path, version: str) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.seek(5 << 20)
        file.write(b"here")
        file.truncate(9 << 20)
    (tmp_path / "zz after").write_text("after")
    command = ["tar", "-c", "--format=posix", "--sparse", f"--sparse-version={version}"]
    raw = subprocess.run(
        [*command, "-C", str(tmp_path), "sparse", "zz after"], check=True, capture_output=True
    ).stdout
    members: list[tar_reader.Member] = []
    assert b"".join(check_archive([raw], ROOT, members.append)) == without_padding(raw)
    assert [(m.name, m.size) for m in members] == [(b"sparse", 9 << 20), (b"zz after", 5)]


# --- hostile archives


def make(*entries: tuple[str, str, object]) -> bytes:
    """An archive of (kind, name, content or target), by Python's tarfile."""
    raw = io.BytesIO()
    kinds = {
        "file": tarfile.REGTYPE,
        "folder": tarfile.DIRTYPE,
        "symlink": tarfile.SYMTYPE,
        "link": tarfile.LNKTYPE,
        "char": tarfile.CHRTYPE,
        "fifo": tarfile.FIFOTYPE,
    }
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for kind, name, value in entries:
            entry = tarfile.TarInfo(name)
            entry.type = kinds[kind]
            entry.mode = 0o755
            content = value if isinstance(value, bytes) else b""
            entry.size = len(content)
            if isinstance(value, str):
                entry.linkname = value
            if isinstance(value, int):
                entry.mode = value
            archive.addfile(entry, io.BytesIO(content))
    return raw.getvalue()


BEFORE = ("file", "before", b"honest")
HOSTILE: list[tuple[str, str, bytes]] = [
    ("an absolute name", "/etc/passwd", make(BEFORE, ("file", "/etc/passwd", b"x"))),
    ("a name with ..", "a/../../x", make(BEFORE, ("file", "a/../../x", b"x"))),
    ("a link that leads to ..", "out", make(BEFORE, ("link", "out", "../x"))),
    ("a hard link to an absolute name", "out", make(BEFORE, ("link", "out", "/etc/passwd"))),
    (
        "a file through a symbolic link",
        "way/x",
        make(BEFORE, ("symlink", "way", "/srv"), ("file", "way/x", b"x")),
    ),
    (
        "a file deep below a symbolic link",
        "way/a",
        make(
            BEFORE, ("symlink", "way", ".."), ("folder", "way/a", 0o755), ("file", "way/a/b", b"")
        ),
    ),
    (
        "a hard link through a symbolic link",
        "out",
        make(BEFORE, ("symlink", "way", "/etc"), ("link", "out", "way/passwd")),
    ),
    (
        "a hard link to a symbolic link, and a file through it",
        "again/x",
        make(
            BEFORE, ("symlink", "way", "/etc"), ("link", "again", "way"), ("file", "again/x", b"")
        ),
    ),
    (
        "a file in the place of a symbolic link",
        "way",
        make(BEFORE, ("symlink", "way", "/etc/passwd"), ("file", "way", b"x")),
    ),
    (
        "a folder in the place of a symbolic link",
        "way",
        make(BEFORE, ("symlink", "way", "/etc"), ("folder", "way", 0o755)),
    ),
    (
        "a symbolic link in the place of a folder",
        "way",
        make(BEFORE, ("file", "way/honest", b""), ("symlink", "way", "/etc")),
    ),
]


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        pytest.param(
            name,
            raw,
            id=object_name,
            marks=pytest.mark.fault(f"an archive with {object_name}", "refused"),
        )
        for object_name, name, raw in HOSTILE
    ],
)
def test_a_hostile_member_is_never_handed_on(name: str, raw: bytes, tmp_path: Path) -> None:
    out, error = passed(raw, USER)
    assert name in error
    subprocess.run(["tar", "-x", "-C", str(tmp_path)], input=out, capture_output=True, check=False)
    assert not [path for path in tmp_path.rglob("*") if path.name in ("passwd", "x")]
    before = 1 if "replace a symbolic link" in error else 0  # the link itself
    assert handed_on(raw).count(name.encode()) == before
    assert passed(raw, USER, size=512)[1] == error


def handed_on(raw: bytes) -> list[bytes]:
    """The names that were seen before the error."""
    members: list[tar_reader.Member] = []
    with pytest.raises(archive_errors.UnsafeArchiveError):
        for _ in check_archive([raw], USER, members.append):
            pass
    return [member.name for member in members]


def block(raw: bytes, number: int, at: int, value: bytes) -> bytes:
    """The archive with a field of a header changed, its checksum right again."""
    archive = bytearray(raw)
    start = number * 512
    archive[start + at : start + at + len(value)] = value
    archive[start + 148 : start + 156] = b" " * 8
    archive[start + 148 : start + 156] = b"%06o\0 " % sum(archive[start : start + 512])
    return bytes(archive)


def pax(records: bytes, *more: bytes, kind: bytes = b"x") -> bytes:
    """An archive of one empty file behind an extended header with these records."""
    one = make(("file", "x", b""))[:512]
    head = block(one, 0, 156, kind)
    head = block(head, 0, 124, b"%011o\0" % len(records))
    padded = records + bytes(-len(records) % 512)
    return b"".join([head, padded, *more, one, bytes(10240)])


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    size = len(body) + len(str(len(body) + 2))
    return str(size).encode() + body


PLAIN = make(("file", "plain", b"x" * 600))
MALFORMED: list[tuple[str, bytes]] = [
    ("an unknown type", block(PLAIN, 0, 156, b"Q")),
    ("a GNU dump folder", block(PLAIN, 0, 156, b"D")),
    ("a folder with content", block(PLAIN, 0, 156, b"5")),
    ("a hard link with content", block(block(PLAIN, 0, 156, b"1"), 0, 157, b"before\0")),
    ("a size that is not a number", block(PLAIN, 0, 124, b"0000000zz\0\0\0")),
    ("a size below zero", block(PLAIN, 0, 124, b"\xff" * 12)),
    ("a wrong checksum", PLAIN[:0] + bytes([PLAIN[0] ^ 1]) + PLAIN[1:]),
    ("an empty name", block(PLAIN, 0, 0, b"\0" * 100)),
    ("a file with the name of a folder", block(PLAIN, 0, 0, b"plain/\0")),
    ("a path that is given twice", pax(record(b"path", b"a") + record(b"path", b"b"))),
    ("a path in two headers", pax(record(b"path", b"a"), pax(record(b"path", b"b"))[:1024])),
    ("an empty path", pax(record(b"path", b""))),
    ("a path with NUL", pax(record(b"path", b"a\0b"))),
    ("a size that is a text", pax(record(b"size", b"1x"))),
    ("a record without end", pax(b"99 path=x\n")),
    ("a record without length", pax(b"path=x\n")),
    ("a record with a leading zero", pax(b"010 path=x\n")),
    ("a global header that sets a path", pax(record(b"path", b"x"), kind=b"g")),
    ("a hole in the middle", PLAIN[:1536] + bytes(512) + PLAIN[:1536] + bytes(1024)),
    ("something after its end", without_padding(PLAIN) + bytes(512) + b"x" * 512),
    ("no end", PLAIN[:1536]),
]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            raw,
            id=object_name,
            marks=pytest.mark.fault(f"an archive with {object_name}", "refused"),
        )
        for object_name, raw in MALFORMED
    ],
)
def test_what_two_readers_could_read_differently_is_refused(raw: bytes) -> None:
    assert passed(raw, ROOT)[1]
    assert passed(raw, ROOT, size=100)[1]


def test_a_cut_at_every_block_is_refused() -> None:
    archive = without_padding(make(("file", "a", b"x" * 700), ("file", "b" * 150, b"y")))
    for end in range(0, len(archive) - 511, 512):
        assert passed(archive[:end])[1], end
    assert passed(archive)[1] == ""


@settings(max_examples=300)
@given(st.integers(0, 1 << 30), st.data())
def test_whatever_is_altered_nothing_but_our_errors_and_nothing_outside(
    seed: int, data: st.DataObject
) -> None:
    raw = bytearray(
        make(
            ("folder", "a", 0o755),
            ("file", "a/b", b"content" * 100),
            ("symlink", "a/link", "/etc"),
            ("link", "a/hard", "a/b"),
            ("file", "ü" * 80, b"x"),
        )
    )
    chance = random.Random(seed)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    out, error = passed(bytes(raw), USER)
    if not error:
        assert all(not name.startswith("/") and ".." not in name.split("/") for name in listed(out))


# --- what only root gets back


def test_without_root_devices_are_left_out_and_bits_taken_off() -> None:
    raw = make(
        ("char", "null", 0o666),
        ("file", "set", 0o4755),
        ("folder", "sg", 0o2755),
        ("fifo", "f", 0o644),
    )
    members: list[tar_reader.Member] = []
    out = b"".join(check_archive([raw], USER, members.append))
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        modes = {entry.name: entry.mode for entry in archive}
    assert modes == {"set": 0o755, "sg": 0o755, "f": 0o644}
    unsafe = {member.name: member.unsafe for member in members}
    assert "set-user-ID" in unsafe[b"set"]
    assert b"".join(check_archive([raw], ROOT)) == without_padding(raw)


def test_limits_against_bombs() -> None:
    raw = make(("file", "a", b"x" * 700), ("file", "b", b"y" * 700))
    for rules in (tar_reader.Rules(max_members=1), tar_reader.Rules(max_bytes=1000)):
        assert "exceeds the limit" in passed(raw, rules)[1]


# --- choosing


def chosen(raw: bytes, *patterns: str) -> list[str]:
    out = b"".join(check_archive([raw], ROOT, None, Patterns(patterns)))
    done = subprocess.run(["tar", "-t"], input=out, capture_output=True, check=True)
    return done.stdout.decode().split()


NGINX = ("etc/nginx/", "etc/nginx/a.conf", "etc/nginx/sub/", "etc/nginx/sub/b.conf")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("/etc/nginx", ["etc/", *NGINX]),
        ("etc/nginx/*.conf", ["etc/", "etc/nginx/", "etc/nginx/a.conf"]),
        ("**/*.conf", ["etc/", *NGINX]),
        ("etc/?osts", ["etc/", "etc/hosts"]),
        ("etc/[gh]osts", ["etc/", "etc/hosts"]),
        ("etc/[!h]osts", []),
        ("*", ["etc/", "etc/hosts", *NGINX]),
        ("hosts", ["etc/", "etc/hosts"]),
        ("/hosts", []),
        ("/**/b.conf", ["etc/", "etc/nginx/", "etc/nginx/sub/", "etc/nginx/sub/b.conf"]),
    ],
)
def test_globs_choose_files_with_their_folders(pattern: str, names: list[str]) -> None:
    raw = make(
        ("folder", "etc", 0o755),
        ("file", "etc/hosts", b"x" * 1000),
        ("folder", "etc/nginx", 0o755),
        ("file", "etc/nginx/a.conf", b"y"),
        ("folder", "etc/nginx/sub", 0o755),
        ("file", "etc/nginx/sub/b.conf", b"z" * 5000),
    )
    assert chosen(raw, pattern) == names


def test_a_hard_link_needs_its_first_name() -> None:
    raw = make(("file", "a", b"x"), ("link", "b", "a"), ("file", "c", b"y"))
    with pytest.raises(MissingLinkTargetError) as needs:
        chosen(raw, "b")
    assert needs.value.targets == {b"a"}
    assert chosen(raw, "a", "b") == ["a", "b"]


def test_what_is_chosen_by_a_hard_link_is_restored(tmp_path: Path) -> None:
    from restore import unpack

    raw = make(("file", "a", b"x"), ("link", "b", "a"), ("file", "c", b"y"))
    again: Callable[[], Iterator[bytes]] = lambda: iter([raw])  # noqa: E731
    unpacked = unpack.unpack(again, ".tar", tmp_path, ["b"])
    assert (tmp_path / "b").read_text() == "x"
    assert not (tmp_path / "c").exists()
    assert unpacked.entries == 2
