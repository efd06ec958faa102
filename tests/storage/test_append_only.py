"""The forced command for an account that may only add files: conf/policies/append_only_sftp.py."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.ssh_protocol import FSYNC, HARDLINK, LIMITS, STATVFS, Code, Flag, Kind, text, u32, u64
from tests import sshd as ssh_server
from tests.raw_sftp import RawSftp
from tests.sshd import Sshd
from tests.system import System, execute
from tools.base.errors import ForbiddenError, TakenError
from tools.flow import store

NEW = u32(Flag.READ | Flag.WRITE | Flag.CREAT | Flag.EXCL) + u32(0)
TEMPORARY, OBJECT = b"srv/.x.part-1", b"srv/x"
POSIX_RENAME, LSETSTAT = b"posix-rename@openssh.com", b"lsetstat@openssh.com"
TRUNCATE, APPEND = 0x10, 4


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder with an object, a link that leads out, and a folder beside it."""
    folder = tmp_path / "kept"
    (folder / "srv").mkdir(parents=True)
    (folder / "srv/x").write_bytes(b"content")
    (folder / "srv/.y.part-1").write_bytes(b"published")
    (folder / "srv/y").hardlink_to(folder / "srv/.y.part-1")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").write_bytes(b"secret")
    (folder / "srv/out").symlink_to(tmp_path / "secret")
    (folder / "srv/.out.part-1").symlink_to(tmp_path / "secret/file")
    return folder


@pytest.fixture
def raw(kept: Path) -> Iterator[RawSftp]:
    with RawSftp(sys.executable, str(ssh_server.APPEND_ONLY), str(kept)) as client:
        yield client


def created(raw: RawSftp, path: bytes, content: bytes = b"new") -> bytes:
    """Create a file; return its handle, as a request names it."""
    kind, handle = raw.call(Kind.OPEN, text(path), NEW)
    assert kind == Kind.HANDLE
    assert raw.code(Kind.WRITE, handle, u64(0), text(content)) == Code.OK
    return handle


def link(raw: RawSftp, old: bytes, new: bytes) -> int:
    return raw.code(Kind.EXTENDED, text(HARDLINK), text(old), text(new))


def test_a_file_is_added_and_read(raw: RawSftp, kept: Path) -> None:
    assert {HARDLINK, FSYNC, STATVFS, LIMITS} <= {
        name for name in (HARDLINK, FSYNC, STATVFS, LIMITS) if name in raw.hello
    }
    handle = created(raw, TEMPORARY)
    assert raw.code(Kind.EXTENDED, text(FSYNC), handle) == Code.OK
    assert link(raw, TEMPORARY, b"srv/new") == Code.PERMISSION_DENIED  # it is being written
    assert raw.code(Kind.CLOSE, handle) == Code.OK
    assert link(raw, TEMPORARY, b"srv/new") == Code.OK
    assert raw.code(Kind.REMOVE, text(TEMPORARY)) == Code.OK
    assert (kept / "srv/new").read_bytes() == b"new"
    path = os.fsencode(kept / "srv/new")  # an absolute path is the real one
    kind, handle = raw.call(Kind.OPEN, text(path), u32(Flag.READ), u32(0))
    assert kind == Kind.HANDLE
    assert raw.call(Kind.READ, handle, u64(1), u32(9)) == (Kind.DATA, text(b"ew"))
    assert raw.code(Kind.WRITE, handle, u64(0), text(b"x")) == Code.PERMISSION_DENIED


def attack(kind: int, *fields: bytes) -> tuple[int, tuple[bytes, ...]]:
    """Return a request, by the kind of its packet and its fields."""
    return kind, fields


ATTACKS = {
    "remove an object": attack(Kind.REMOVE, text(OBJECT)),
    "rename an object": attack(Kind.RENAME, text(OBJECT), text(b"srv/z")),
    "rename over an object": attack(Kind.RENAME, text(b"srv/.y.part-1"), text(OBJECT)),
    "open for writing": attack(Kind.OPEN, text(OBJECT), u32(Flag.WRITE), u32(0)),
    "truncate": attack(Kind.OPEN, text(OBJECT), u32(Flag.WRITE | Flag.CREAT | TRUNCATE), u32(0)),
    "append": attack(Kind.OPEN, text(OBJECT), u32(Flag.WRITE | APPEND), u32(0)),
    "create under a final name": attack(Kind.OPEN, text(b"srv/z"), NEW),
    "truncate a temporary file": attack(
        Kind.OPEN, text(b"srv/.y.part-1"), u32(Flag.WRITE | Flag.CREAT | TRUNCATE), u32(0)
    ),
    "write what is published": attack(Kind.OPEN, text(b"srv/.y.part-1"), u32(Flag.WRITE), u32(0)),
    "size by attributes": attack(9, text(OBJECT), u32(1) + u64(0)),
    "mode by attributes": attack(9, text(OBJECT), u32(4) + u32(0)),
    "attributes of a handle": attack(10, text(b"\0\0\0\1"), u32(1) + u64(0)),
    "remove a folder": attack(15, text(b"srv")),
    "make a symbolic link": attack(20, text(b"/etc/passwd"), text(b"srv/z")),
    "read a link": attack(19, text(b"srv/out")),
    "link over an object": attack(
        Kind.EXTENDED, text(HARDLINK), text(b"srv/.y.part-1"), text(OBJECT)
    ),
    "link an object to a temporary name": attack(
        Kind.EXTENDED, text(HARDLINK), text(OBJECT), text(TEMPORARY)
    ),
    "link a link": attack(Kind.EXTENDED, text(HARDLINK), text(b"srv/.out.part-1"), text(b"srv/z")),
    "rename as POSIX does": attack(Kind.EXTENDED, text(POSIX_RENAME), text(OBJECT), text(b"srv/z")),
    "attributes of a link": attack(Kind.EXTENDED, text(LSETSTAT), text(OBJECT), u32(1) + u64(0)),
    "above the folder": attack(Kind.OPEN, text(b"../secret/file"), u32(Flag.READ), u32(0)),
    "an absolute path": attack(Kind.OPEN, text(b"/etc/passwd"), u32(Flag.READ), u32(0)),
    "through a link": attack(Kind.OPEN, text(b"srv/out/file"), u32(Flag.READ), u32(0)),
    "a link itself": attack(Kind.OPEN, text(b"srv/.out.part-1"), u32(Flag.READ), u32(0)),
    "write by a link": attack(Kind.OPEN, text(b"srv/.out.part-1"), u32(Flag.WRITE), u32(0)),
    "create through a link": attack(Kind.OPEN, text(b"srv/out/.x.part-1"), NEW),
    "list through a link": attack(Kind.OPENDIR, text(b"srv/out")),
    "a folder as a file": attack(Kind.OPEN, text(b"srv"), u32(Flag.READ), u32(0)),
    "remove the folder itself": attack(Kind.REMOVE, text(b"")),
    "a folder through a link": attack(Kind.MKDIR, text(b"srv/out/new"), u32(0)),
    "a request that is cut": attack(Kind.OPEN, text(OBJECT)),
    "an unknown request": attack(Kind.EXTENDED, text(b"copy-data")),
}


@pytest.mark.fault(
    "a thief of the ssh key of an append-only account", "removes and changes nothing"
)
def test_nothing_is_changed_or_removed(raw: RawSftp, kept: Path, tmp_path: Path) -> None:
    def contents() -> dict[str, bytes]:
        files = (path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink())
        return {str(path): path.read_bytes() for path in files}

    before = contents()
    allowed = {
        name: code
        for name, (kind, fields) in ATTACKS.items()
        if (code := raw.code(kind, *fields)) in (Code.OK, -1)
    }
    assert not allowed
    assert contents() == before
    assert (kept / "srv/out").is_symlink()
    assert not (kept / "srv/z").is_symlink()


def test_a_file_is_written_by_one_at_a_time(raw: RawSftp, kept: Path) -> None:
    """Or a handle that is still open could change what is published."""
    handle = created(raw, TEMPORARY)
    with RawSftp(sys.executable, str(ssh_server.APPEND_ONLY), str(kept)) as other:
        again = (text(TEMPORARY), u32(Flag.READ | Flag.WRITE), u32(0))
        assert other.code(Kind.OPEN, *again) == Code.PERMISSION_DENIED
        assert link(other, TEMPORARY, b"srv/z") == Code.PERMISSION_DENIED
        raw.call(Kind.CLOSE, handle)
        assert other.call(Kind.OPEN, *again)[0] == Kind.HANDLE  # goes on after a cut connection
        assert link(raw, TEMPORARY, b"srv/z") == Code.PERMISSION_DENIED


def test_no_packet_ends_it_or_changes_what_is_there(raw: RawSftp, kept: Path) -> None:
    rng = random.Random(16)
    paths = [
        OBJECT,
        TEMPORARY,
        b"srv/.y.part-1",
        b"srv",
        b"",
        b"srv/\xff",
        b"srv/out/x",
        b"a" * 300,
    ]
    pieces: list[Callable[[], bytes]] = [
        lambda: text(rng.choice(paths)),
        lambda: u32(rng.choice((0, 1, 2, 3, 11, 0x1A, 0x2B, 2**32 - 1))),
        lambda: u64(rng.choice((0, 1, 2**63, 2**64 - 1))),
        lambda: text(u32(rng.randrange(40))),  # a handle
        lambda: text(rng.choice((HARDLINK, FSYNC, STATVFS, LIMITS, POSIX_RENAME))),
        lambda: rng.randbytes(rng.randrange(40)),
    ]
    for _ in range(3_000):
        kind = rng.choice([*range(3, 21), 200, 255])
        raw.call(kind, *(rng.choice(pieces)() for _ in range(rng.randrange(5))))
    assert (kept / "srv/x").read_bytes() == b"content"
    assert (kept / "srv/y").read_bytes() == b"published"


@pytest.mark.parametrize("command", ["exec sh -c 'sftp'", "rm -r /", "scp -t /"])
def test_there_is_no_shell(kept: Path, command: str) -> None:
    done = subprocess.run(
        [sys.executable, ssh_server.APPEND_ONLY, kept],
        env={"SSH_ORIGINAL_COMMAND": command},
        input=b"",
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")


# --- by a real sshd


@pytest.fixture
def server() -> Sshd:
    return ssh_server.sshd()


@pytest.mark.needs("sshd")
def test_the_store_adds_and_cannot_remove(server: Sshd, tmp_path: Path) -> None:
    target = server.store(server.kept / tmp_path.name, "append only")
    large = os.urandom(3 << 20)
    for name, content in (("srv/small", b"content"), ("srv/large", large)):
        store.store_object(target, name, [content])
        assert b"".join(target.get(name)) == content
        store.store_object(target, name, [content])  # once more: it is there
    with pytest.raises(TakenError):
        store.store_object(target, "srv/small", [b"other"])
    with pytest.raises(ForbiddenError, match="append-only"):
        target.remove(["srv/small"])
    assert target.create_only is store.CreateOnly.ATOMIC
    assert (target.free() or 0) > 0
    assert list(target.folders()) == ["srv"]
    target.put("srv/unfinished", [b"content"])
    (leftover,) = target.unfinished("srv")
    target.remove([leftover.name])
    assert [entry.name for entry in target.entries("srv")] == ["srv/large", "srv/small"]
    assert not list(target.unfinished("srv"))


COMMANDS = """\
-rm {x}
-rename {x} {x}.old
-rename -l {x} {x}.old
-put {other} {x}
-put {other} {folder}/new
-reput {other} {x}
-chmod 000 {x}
-symlink /etc {folder}/link
-rm {folder}/*
-rmdir {folder}
-ls -l {folder}
get {x} {out}
"""


@pytest.mark.needs("sshd")
def test_sftp_of_openssh_changes_nothing(server: Sshd, tmp_path: Path) -> None:
    folder = server.kept / tmp_path.name
    folder.mkdir()
    (folder / "x").write_bytes(b"content")
    other, out = tmp_path / "other content", tmp_path / "out"
    other.write_bytes(b"another content")
    names = {"x": folder / "x", "folder": folder, "other": f"'{other}'", "out": out}
    command = ["sftp", "-b", "-", "-i", str(server.folder / "id"), "-P"]
    command += [str(server.ports["append only"])]
    command += ["-o", f"UserKnownHostsFile={server.folder}/known_hosts", f"{server.user}@127.0.0.1"]
    done = subprocess.run(
        command, input=COMMANDS.format(**names), capture_output=True, text=True, check=True
    )
    assert out.read_bytes() == b"content"
    assert [path.name for path in folder.iterdir()] == ["x"]
    assert (folder / "x").read_bytes() == b"content"
    assert done.stderr.lower().count("append-only") + done.stderr.lower().count("denied") >= 9


@pytest.mark.needs("sshd")
@pytest.mark.fault(
    "a store by ssh can only be added to", "runs are good; one line about the marker"
)
def test_a_run_into_an_append_only_account(server: Sshd, system: System) -> None:
    (system.source / "file").write_bytes(os.urandom(1 << 20))
    keys = {**server.keys("append only"), "REMOTE_DIR": str(server.kept / "run")}
    sections = system.short(OFFSITE=execute("storage", **keys))
    del sections["STORAGE_LOCAL"]
    system.configure(sections, STREAM="True")
    assert "is writable (it will be created)" in system.run("-t").stdout
    assert not list(server.kept.rglob(".*"))
    for number in (1, 2):
        result = system.result()
        assert result["exit_code"] == 0, result
        assert system.log.read_text().count("run marker not removed") == number
    assert len(list((server.kept / "run").rglob("*.manifest.json"))) == 2
    assert not list((server.kept / "run").rglob(".*"))
    warnings = [line for line in system.log.read_text().splitlines() if "WARNING" in line]
    assert all("running as root" in line for line in warnings)
