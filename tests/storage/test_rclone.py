"""The store of rclone: what a real rclone does, and what is made of it when it fails."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage import (
    rclone_daemon,
    rclone_errors,
    rclone_hashes,
    rclone_remote,
    rclone_store,
)
from storage.keys import Address
from storage.rclone_calls import Calls
from storage.rclone_daemon import Daemon
from storage.rclone_objects import RcloneStore
from tests import servers
from tests.storage import rclone_stores
from tests.storage.rclone_stores import opened, options
from tests.system import System, execute
from tools.base import project
from tools.base.errors import ConfigError, ForbiddenError, StoreError, TransientError
from tools.config import loading, selection
from tools.flow import copies, store
from tools.flow.store import StoredObject

pytestmark = pytest.mark.needs("rclone")


def read(target: RcloneStore, name: str) -> bytes:
    return b"".join(target.get(name))


# --- what is there twice


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def twice(one: bytes, other: bytes) -> tuple[RcloneStore, list[StoredObject], Path]:
    """A store that holds two objects named srv/x, and the folder of its files.

    A remote of type crypt takes capitals for small letters: rclone itself lists a name twice.
    """
    crypted = rclone_stores.folder() / "crypted"
    target = opened(f"crypt:{uuid.uuid4().hex}")
    before = set(files(crypted))
    first = store.store_object(target, "srv/x", [one])
    (file,) = set(files(crypted)) - before
    file.rename(file.with_name(file.name.upper()))
    return target, [first, store.store_object(target, "srv/x", [other])], file.parent


@pytest.mark.fault(
    "a store holds two objects of one name (rclone, Google Drive)",
    "the one with the digest of the manifest is read, both are named, neither is removed",
)
@pytest.mark.parametrize(
    "contents", [(b"one", b"another"), (b"same size", b"size same")], ids=["sizes", "bytes"]
)
def test_of_two_objects_the_digest_chooses(
    contents: tuple[bytes, bytes], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("ncbackup"), "propagate", True)
    target, objects, folder = twice(*contents)
    (entry,) = target.entries("srv")
    assert entry.name == "srv/x"
    assert "srv/x: 2 objects have this name" in caplog.text
    for stored, content in zip(objects, contents, strict=True):
        assert copies.holds(target, stored, 999)
        copies.choose(target, stored)
        assert read(target, "srv/x") == content
        assert b"".join(target.get("srv/x", 1, 3)) == content[1:3]
    store.store_object(target, "srv/y", [b"content"])
    with pytest.raises(ForbiddenError, match="srv/x: 2 objects have this name"):
        opened(target.remote).remove(["srv/y", "srv/x"])
    other = opened(target.remote)  # it knows no digest, as that of a manifest
    assert [entry.name for entry in other.entries("srv")] == ["srv/x", "srv/y"]
    with pytest.raises(StoreError, match="2 objects have this name"):
        read(other, "srv/x")
    assert len(files(folder)) == 3


def test_two_equal_objects_are_one() -> None:
    target, _, _ = twice(b"equal", b"equal")
    list(target.entries("srv"))
    assert read(target, "srv/x") == b"equal"


def test_twice_is_looked_for_where_a_remote_may_hold_that() -> None:
    """As Google Drive may, also where nothing was listed before."""
    target, objects, _ = twice(b"one", b"another")
    target.features = dataclasses.replace(target.features, duplicates=True)
    copies.choose(target, objects[0])
    assert read(target, "srv/x") == b"one"


def test_small_objects_are_read_ahead_once(monkeypatch: pytest.MonkeyPatch) -> None:
    target = opened(f"mem:{uuid.uuid4().hex}")
    names = [f"srv/{number}" for number in range(20)]
    for name in names:
        store.store_object(target, name, [name.encode()])
    reads: list[str] = []
    download = Calls.download

    def counted(calls: Calls, path: str, *more: Any) -> Iterator[bytes]:
        reads.append(path)
        return download(calls, path, *more)

    monkeypatch.setattr(Calls, "download", counted)
    store.prefetch(target, [*names, "srv/none"])
    assert [read(target, name) for name in names] == [name.encode() for name in names]
    for _ in range(2):
        with pytest.raises(StoreError, match="srv/none: no such"):
            read(target, "srv/none")
    assert sorted(reads) == sorted([*names, "srv/none", "srv/none"])
    target.remove(names)
    assert list(target.entries("srv")) == []


# --- what is proven


class Losing(Calls):
    """A remote that loses the last byte of each object."""

    def upload(self, path: str, chunks: Iterable[bytes], subject: str) -> None:
        super().upload(path, [b"".join(chunks)[:-1] + b"?"], subject)


@pytest.mark.fault(
    "a remote of rclone holds other bytes than were sent",
    "the store fails: by the hash of the remote, or read back where it has none",
)
@pytest.mark.parametrize("remote", ["disk", "crypt", "mem"])
def test_other_bytes_are_noticed(remote: str) -> None:
    chosen = options(f"{remote}:{uuid.uuid4().hex}")
    target = RcloneStore(Losing(opened(chosen.remote).shared, chosen.remote))
    with pytest.raises(StoreError, match="holds other bytes than were sent"):
        target.put("srv/x", [b"content"])
    assert list(target.unfinished("srv")) == []


@pytest.mark.parametrize("name", [*rclone_hashes.HASHES])
def test_our_hashes_are_those_of_rclone(name: str) -> None:
    target = opened(f"disk:{uuid.uuid4().hex}")
    content = os.urandom(9 << 20)
    options = {"showHash": True, "hashTypes": [name]}
    calls = Calls(target.shared, target.remote)
    for size in (0, 1, 159, 160, 161, 4 << 20, 9 << 20):
        store.store_object(target, f"srv/{size}", [content[:size]])
        about = calls.of_remote("operations/stat", "x", remote=f"srv/{size}", opt=options)
        hashing = rclone_hashes.Hashing(name)
        pieces = [content[:size][at : at + 999_999] for at in range(0, size, 999_999)]
        assert b"".join(hashing(pieces)) == content[:size]
        sha256 = hashlib.sha256(content[:size]).hexdigest()
        assert about["item"]["Hashes"][name] == hashing.digest(sha256)


@pytest.mark.parametrize("remote", ["disk", "mem"])
def test_the_clock_of_the_remote_is_asked_before_something_is_removed(
    remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = opened(f"{remote}:{uuid.uuid4().hex}")
    target.put("srv/x", [b"content"])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 40 * 86400)
    (leftover,) = target.unfinished("srv")
    assert abs(leftover.age) < 3600
    assert len(list(target.unfinished("srv"))) == 1  # nothing of the question stays


@pytest.mark.parametrize(
    ("remote", "kind", "consistent"),
    [
        *((":local:/x", "local", True), ("disk:x", "local", True), ("crypt:x", "local", True)),
        *(("mem:", "memory", True), ("drive:x", "drive", False), ("hidden:x", "drive", False)),
    ],
)
def test_only_known_backends_count_as_consistent(remote: str, kind: str, consistent: bool) -> None:
    calls = Calls(opened("mem:").shared, remote)
    assert rclone_remote.kind(calls) == kind
    able = rclone_remote.Features(kind, "", True, True, False, True, True, False)
    assert able.consistent is consistent
    assert ("no clean-up" in str(able)) is not consistent


# --- what fails


@pytest.mark.parametrize(
    ("keys", "says", "hint"),
    [
        ({"program": "/nowhere/rclone"}, "command not found", "Install rclone"),
        ({"config": Path("/nowhere.conf")}, "CONFIG: /nowhere.conf: no such file", "Check CONFIG"),
        ({"remote": "nobody:x"}, "unknown remote", "rclone config"),
        ({"flags": ("--no-such-flag",)}, "unknown flag", "Check FLAGS"),
        ({"remote": "dead:x"}, "connection refused", "Check the network"),
    ],
    ids=lambda value: "",
)
def test_what_is_missing_is_named(keys: dict[str, Any], says: str, hint: str) -> None:
    if keys.get("remote") == "dead:x":
        keys = {**keys, "flags": ("--retries=1", "--low-level-retries=1")}
    with pytest.raises(StoreError, match=says) as caught:
        list(rclone_store.open_store(options(**{"remote": "disk:x", **keys})).entries("srv"))
    assert hint in caught.value.hint
    assert "user@" not in str(caught.value)


def test_an_encrypted_config_needs_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "encrypted.conf"
    shutil.copy(rclone_stores.config(), file)
    arguments = ("config", "encryption", "set", "--password-command", "echo secret of the config")
    subprocess.run([servers.program("rclone"), "--config", file, *arguments], check=True)
    with pytest.raises(StoreError, match="is encrypted, and there is no password") as caught:
        list(rclone_store.open_store(options("disk:x", config=file)).entries("srv"))
    assert "RCLONE_PASSWORD_COMMAND" in caught.value.hint
    monkeypatch.setenv("RCLONE_PASSWORD_COMMAND", "echo secret of the config")
    assert list(rclone_store.open_store(options("disk:x", config=file)).entries("srv")) == []


@pytest.mark.parametrize(
    ("text", "again", "says"),
    [
        ("googleapi: Error 403: The user's Drive storage quota has been exceeded., "
         "storageQuotaExceeded", False, "full"),
        ("googleapi: Error 403: User Rate Limit Exceeded, userRateLimitExceeded", True, "rate"),
        ("write /x/y: no space left on device", False, "the store is full"),
        ("write /opt/backup/.nc-backup-py/rclone-a1f0c2e3b4d5a6f7/rclone-spool1/x: no space left "
         "on device", False, "WORK_FOLDER is full"),
        ("update stor: Update Post request: 507 Insufficient Storage: ", False, "full"),
        ("too_many_write_operations/..", True, "rate"),
        ("mkdir /x: permission denied", False, "permission denied"),
        ("couldn't fetch token: invalid_grant: maybe token expired?", False, "invalid_grant"),
        ("AccessDenied: Access Denied status code: 403", False, "Access Denied"),
        ("dial tcp: lookup a.test on 1.1.1.1:53: no such host", True, "host name not known"),
        ("read tcp 1.2.3.4:5->6.7.8.9:443: i/o timeout", True, "timeout"),
        ("tls: failed to verify certificate: x509: unknown authority", False, "x509"),
        ("anything that nobody knows", True, "nobody knows"),
        ("Get http://user:secret@host/: EOF", True, r"http://\*\*\*@host"),
    ],
)  # fmt: skip
def test_what_backends_say(text: str, again: bool, says: str) -> None:
    error = rclone_errors.of_answer(500, text, "rclone://x/y", "x:y")
    assert isinstance(error, TransientError) is again
    with pytest.raises(StoreError, match=says):
        raise error
    assert "secret" not in str(error)
    assert error.hint


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"remote": ""}, "REMOTE is required"),
        ({"remote": "/a/folder"}, "not a remote"),
        ({"remote": ":sftp,host=x,pass=secret:y"}, "not a remote"),
        ({"remote": "disk:a/../b"}, "not a remote"),
        ({"flags": ("--webdav-pass=secret",)}, "visible to every user"),
        ({"flags": ("--s3-secret-access-key", "secret")}, "visible to every user"),
        ({"flags": ("--rc-no-auth",)}, "set by this store"),
    ],
)
def test_no_secret_stands_in_the_section(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        options(**{"remote": "disk:x", **keys})
    assert "=secret" not in f"{caught.value}{caught.value.hint}"


# --- the process


def group(target: RcloneStore) -> int:
    return target.shared.daemon()._group.popen.pid


def test_arguments_and_socket_of_rclone_are_no_secret() -> None:
    target = opened("mem:")
    daemon = target.shared.daemon()
    command_line = Path(f"/proc/{group(target)}/cmdline").read_text()
    assert "rcd" in command_line
    assert daemon.authorization not in command_line
    environment = Path(f"/proc/{group(target)}/environ").read_text().split("\0")
    (password,) = (one.partition("=")[2] for one in environment if one.startswith("RCLONE_RC_PASS"))
    assert password
    assert password not in command_line
    assert daemon.socket.parent.stat().st_mode & 0o077 == 0


@pytest.mark.fault("rclone is killed", "the call fails for a moment; the next one starts it again")
def test_a_killed_rclone_is_started_again(tmp_path: Path) -> None:
    target = opened(f":local:{tmp_path}", flags=("--retries=2",))  # a process of its own

    def chunks() -> Iterator[bytes]:
        yield b"x" * 300_000
        os.killpg(group(target), signal.SIGKILL)
        time.sleep(0.1)
        yield b"y" * 3_000_000

    with pytest.raises(TransientError):
        target.put("srv/x", chunks())
    store.store_object(target, "srv/x", [b"content"])
    assert read(target, "srv/x") == b"content"


@pytest.mark.fault("a process that uses rclone is killed", "its rclone ends with it")
def test_rclone_ends_with_its_process() -> None:
    text = (
        "import os, signal, sys, time\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from storage.rclone_daemon import Daemon, Program, environment\n"
        "one = Daemon(Program(sys.argv[2], env=environment()))\n"
        "print(one._group.popen.pid, one.socket.parent, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", text, str(project.ROOT), servers.program("rclone")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    pid, folder = done.stdout.split()
    until = time.monotonic() + 30
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < until:
            os.kill(int(pid), 0)
            time.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    Daemon(rclone_daemon.Program(servers.program("rclone"))).close()
    assert not Path(folder).exists()  # swept by the next one


class WebDav(servers.Server):
    """A server of WebDAV: rclone has nothing but the network to it."""

    def __init__(self) -> None:
        super().__init__()
        self.call("/bin/mkdir", str(self.folder / "data"))
        self.serve()

    def serve(self, *arguments: str) -> None:
        """Start it, with further options."""
        listen = ("--addr", f"127.0.0.1:{self.port}", "--config", "/dev/null", *arguments)
        self.start(servers.program("rclone"), "serve", "webdav", *listen, f"{self.folder}/data")

    def answers(self) -> bool:
        """Whether it listens by now."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port)),
        ):
            return True
        return False


def test_a_server_of_webdav_and_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    server = WebDav()
    monkeypatch.setenv("RCLONE_CONFIG_DAV_TYPE", "webdav")
    monkeypatch.setenv("RCLONE_CONFIG_DAV_URL", f"http://127.0.0.1:{server.port}/")
    try:
        chosen = options("dav:below/store", flags=("--low-level-retries=1",))
        text = " ".join(one.text for one in rclone_store.test(chosen))
        assert "rclone://dav/below/store is writable: rclone v1." in text
        assert "type webdav, no hash: objects are read back, no streams" in text
        assert "create-only by our own listing only" in text
        assert not list(server.folder.glob("data/below/store"))
        target = opened("dav:below/store", flags=chosen.flags)
        store.store_object(target, "srv/x", [b"content", b"x" * 200_000])
        assert [entry.size for entry in target.entries("srv")] == [200_007]
        assert b"".join(target.get("srv/x", 5, 9)) == b"ntxx"
        server.end()
        with pytest.raises(TransientError):
            read(target, "srv/x")
        server.serve("--read-only")
        with pytest.raises(ForbiddenError, match="405 Method Not Allowed"):
            target.remove(["srv/x"])
    finally:
        server.stop()


def test_a_whole_run_and_a_restore_by_arguments_alone(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    (system.source / "file").write_bytes(os.urandom(2 << 20))
    monkeypatch.setenv("RCLONE_CONFIG", str(rclone_stores.config()))
    monkeypatch.setenv("PATH", f"{Path(servers.program('rclone')).parent}:{os.environ['PATH']}")
    base = uuid.uuid4().hex
    sections = system.short(OFFSITE=execute("storage", DESTINATION="rclone", REMOTE=f"disk:{base}"))
    del sections["STORAGE_LOCAL"]
    system.configure(sections, STREAM="True")
    result = system.result()
    assert result["exit_code"] == 0, result
    assert "create-only by our own listing only" in result["sections"][-1]["message"]
    options_of_store = ("--store", f"rclone://disk/{base}", "--hostname", "srv-test")
    assert " 2.00 MB " in system.restore_bare(*options_of_store, "--list")
    system.restore("--verify", "latest")
    stored = files(rclone_stores.folder() / "disk" / base / "srv-test")
    assert not [file for file in stored if file.name.startswith(".")]


def test_two_sections_may_not_store_in_one_folder(system: System) -> None:
    section = execute("storage", DESTINATION="rclone", REMOTE="disk:x")
    system.configure(system.short(FIRST=section, SECOND=section))
    with pytest.raises(ConfigError, match="FIRST and SECOND store in one folder: rclone://disk/x"):
        selection.select(loading.load(system.conf), [], [])


def test_addresses() -> None:
    def remote(text: str) -> str:
        return rclone_store.keys_of(Address.parse(text))["REMOTE"]

    assert remote("drive/a/b") == "drive:a/b"
    assert remote("disk//srv/a") == "disk:/srv/a"
    assert remote("disk") == "disk:"
    with pytest.raises(ConfigError):
        remote("me@disk/x")
