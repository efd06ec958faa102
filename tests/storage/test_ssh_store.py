"""The ssh store on real accounts of a real sshd. The suite of all stores runs on it as well."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from storage import ssh_command, ssh_objects, ssh_shell, ssh_store
from storage.keys import Address
from storage.ssh_objects import SshStore
from storage.ssh_session import Session
from tests.sshd import Sshd
from tests.sshd import sshd as the_sshd
from tools.base.errors import ConfigError, StoreError, TakenError, TransientError
from tools.base.finding import Finding
from tools.flow import store, task
from tools.flow.retries import Retries
from tools.flow.retrying_store import Retrying
from tools.modules.options import fill

pytestmark = pytest.mark.needs("sshd")
MB = 1 << 20
Cut: TypeAlias = "tuple[int | None, int | None]"


@pytest.fixture
def sshd() -> Sshd:
    return the_sshd()


def options(
    sshd: Sshd, folder: object, kind: str = "login shell", **more: str
) -> ssh_store.Options:
    keys = {"HOSTNAME": "srv", "REMOTE_DIR": str(folder), **sshd.keys(kind), **more}
    return fill(ssh_store.Options, keys)


def read(target: store.Store, name: str) -> bytes:
    return b"".join(target.get(name))


class Proxy:
    """A connection to a port, which can be cut or go silent."""

    def __init__(self, port: int, *cuts: Cut) -> None:
        """cuts: of the first logins, each bytes of client and server until both sides end."""
        self.silent = False
        self.passed = 0
        self._port = port
        self._cuts = list(cuts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            up, down = self._cuts.pop(0) if self._cuts else (None, None)
            for pair in ((client, server, up), (server, client, down)):
                threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, cut: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):  # closed by the other direction
            while data := source.recv(1 << 16):
                passed += len(data)
                self.passed += len(data)
                if cut is not None and passed >= cut:
                    break
                if not self.silent:
                    target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):  # closed already
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Accept no more."""
        self._listener.close()


@pytest.fixture
def proxied(sshd: Sshd) -> Iterator[Callable[..., tuple[Proxy, Session]]]:
    """Give a session through a proxy."""
    opened: list[Proxy] = []

    def make(*cuts: Cut, kind: str = "no shell") -> tuple[Proxy, Session]:
        proxy = Proxy(sshd.ports[kind], *cuts)
        opened.append(proxy)
        server = sshd.server(kind)
        moved = ssh_command.Server(
            server.host, proxy.port, server.user, server.key, server.known_hosts
        )
        return proxy, Session(moved)

    yield make
    for one in opened:
        one.close()


# --- accounts


@pytest.mark.fault("bash, tcsh or fish on the server, noise at the login", "checksums by the shell")
@pytest.mark.parametrize(
    "kind",
    [
        *("login shell", "noise"),
        *(pytest.param(shell, marks=pytest.mark.needs(shell)) for shell in ("tcsh", "fish")),
    ],
)
def test_the_shell_takes_checksums(sshd: Sshd, tmp_path: Path, kind: str) -> None:
    session = Session(sshd.server(kind))
    target = SshStore(session, str(tmp_path / "store"), small=0)
    name = os.fsdecode(b"srv/a $(id) ' \" \\ \xff!\n`id`\n")
    stored = store.store_object(target, name, [b"content"])
    assert stored.sha256 == hashlib.sha256(b"content").hexdigest()
    assert session.shell_proven
    assert read(target, name) == b"content"
    assert session.ask(lambda shell: shell.sync(os.fsencode(tmp_path)), False)
    free = session.ask(lambda shell: shell.free(os.fsencode(tmp_path)), None)
    assert free == pytest.approx(target.free(), rel=0.5)
    session.close()


@pytest.mark.fault("rbash, nologin or a forced sftp on the server", "sftp alone, by itself")
@pytest.mark.parametrize("kind", ["no shell", "rbash", "nologin", "liar"])
def test_sftp_alone_is_enough(sshd: Sshd, tmp_path: Path, kind: str) -> None:
    """Nothing is asked of the user. A shell that lies, or sees other files, does no harm."""
    session = Session(sshd.server(kind))
    target = SshStore(session, str(tmp_path / "store"), small=0)
    store.store_object(target, "srv/x", [b"content"])
    assert read(target, "srv/x") == b"content"
    assert not session.shell_proven
    assert store.store_object(target, "srv/x", [b"content"]).size == 7
    session.close()


def test_a_relative_folder_is_below_the_home(sshd: Sshd) -> None:
    (sshd.home / "srv-9").mkdir(exist_ok=True)
    target = ssh_store.open_store(options(sshd, "~/deep/store", "no shell"))
    store.store_object(target, "srv/x", [b"content"])
    assert (sshd.home / "deep/store/srv/x").read_bytes() == b"content"
    assert "srv-9" in list(ssh_store.open_store(options(sshd, "~", "no shell")).folders())


@pytest.mark.fault("shell of the server sees other folders than sftp", "read back by sftp")
def test_a_shell_that_begins_elsewhere(sshd: Sshd) -> None:
    """As in a chroot: what the shell does not find, or finds to be another file, proves nothing."""
    session = Session(sshd.server("other home"))
    target = SshStore(session, "elsewhere", small=0)
    store.store_object(target, "srv/x", [b"content"])
    assert (sshd.home / "elsewhere/srv/x").read_bytes() == b"content"
    assert session.shell() is not None
    assert not session.shell_proven
    session.close()


@pytest.mark.fault("1,000 objects over ssh", "one login, or two with a shell")
def test_many_objects_need_one_login(sshd: Sshd, tmp_path: Path) -> None:
    log = sshd.folder / "log"
    before = log.read_text().count("Accepted publickey")
    session = Session(sshd.server())
    stores = [SshStore(session, str(tmp_path / "store"), small=0) for _ in range(4)]
    errors: list[BaseException] = []

    def work(number: int, target: SshStore) -> None:
        try:
            for other in range(10):
                store.store_object(target, f"srv/{number}-{other}", [b"content"])
        except BaseException as error:  # noqa: BLE001  (shown below)
            errors.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(list(stores[0].entries("srv"))) == 40
    assert log.read_text().count("Accepted publickey") - before == 2
    session.close()


def test_a_stopped_item_does_not_cut_the_others(sshd: Sshd, tmp_path: Path) -> None:
    target = sshd.store(tmp_path)

    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(MB)
            task.current().stop("by the test")

    with task.entered(task.Task()), pytest.raises(task.StoppedError):
        target.put("srv/x", endless())
    sftp = sshd.session().sftp()
    store.store_object(target, "srv/y", [b"content"])
    assert sshd.session().sftp() is sftp


@pytest.mark.parametrize(
    ("program", "answer"),
    [("openssl", "%s *stdin"), ("sha256sum", "%s  -"), ("sha256", "%s"), ("shasum", "%s  -")],
)
def test_the_programs_that_take_checksums(tmp_path: Path, program: str, answer: str) -> None:
    """As they print on Linux, FreeBSD and macOS. The line is that which the server gets."""
    for name in ("sh", "cat", "date", "df", "tail", "sync"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    fake = tmp_path / program
    fake.write_text(f'#!/bin/sh\ncat > "{tmp_path}/seen"; echo "{answer % ("ab" * 32)}"\n')
    fake.chmod(0o755)
    file = tmp_path / "a\n 'b"
    file.write_text("content")
    path = ssh_shell._escaped(os.fsencode(file))
    orders = b"hello\n1 sum %s\n2 sum /none\n3 sync %s\n4 free %s\n" % (path, path, path)
    command = [str(shutil.which("sh")), "-c", f"exec sh -c '{ssh_shell._SCRIPT.format(word='W')}'"]
    done = subprocess.run(
        command, input=orders, env={"PATH": str(tmp_path)}, capture_output=True, check=False
    )
    answers = [line.split(" ", 2)[1:] for line in done.stdout.decode().splitlines()]
    assert answers[2:5] == [["1", "ab" * 32], ["2", "-"], ["3", "ok"]]
    assert answers[0][1].isdecimal()
    assert answers[5][1].isdecimal()
    assert (tmp_path / "seen").read_text() == "content"
    assert not set(command[2]) & set("!\\\n")
    assert command[2].count("'") == 2


# --- rejected logins


@pytest.mark.fault("host key unknown or changed", "one clear line, nothing is sent")
@pytest.mark.parametrize("changed", [True, False])
def test_a_host_key_that_is_not_the_known_one(sshd: Sshd, tmp_path: Path, changed: bool) -> None:
    hosts = tmp_path / "known hosts"
    other = (sshd.folder / "other.pub").read_text().rpartition(" ")[0]
    hosts.write_text(f"[127.0.0.1]:* {other}\n" if changed else "")
    target = SshStore(Session(sshd.server(known_hosts=hosts)), str(tmp_path / "store"))
    with pytest.raises(StoreError) as caught:
        target.put("srv/x", [b"content"])
    port = sshd.ports["login shell"]
    reason = "has changed" if changed else "is not known"
    assert str(caught.value) == f"{sshd.user}@127.0.0.1:{port}: the host key {reason}"
    assert "fingerprint" in caught.value.hint
    assert ("ssh-keygen -R" in caught.value.hint) is changed
    assert not isinstance(caught.value, TransientError)
    assert not (tmp_path / "store").exists()


def test_a_key_that_the_server_does_not_know(sshd: Sshd, tmp_path: Path) -> None:
    target = SshStore(Session(sshd.server(key=sshd.folder / "other")), str(tmp_path / "store"))
    with pytest.raises(StoreError, match=r"Permission denied \(publickey\)") as caught:
        target.put("srv/x", [b"content"])
    assert f"{sshd.folder}/other.pub" in caught.value.hint
    missing = SshStore(Session(sshd.server(key=tmp_path / "none")), str(tmp_path / "store"))
    with pytest.raises(StoreError, match=r"KEY: .*: no such file or directory"):
        list(missing.entries("srv"))


def test_nobody_listens(sshd: Sshd, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    server = ssh_command.Server("127.0.0.1", port)
    with pytest.raises(TransientError, match=f"^127.0.0.1:{port}: .*Connection refused"):
        list(SshStore(Session(server), str(tmp_path)).entries("srv"))


@pytest.mark.parametrize(
    ("lines", "says", "again"),
    [
        ("ssh: Could not resolve hostname x: Name or service not known", "not known", True),
        ("ssh: Could not resolve hostname x: Temporary failure in name", "Temporary", True),
        ("ssh: connect to host x port 22: Connection timed out", "timed out", True),
        ("ssh: connect to host x port 22: No route to host", "No route to host", True),
        ("Timeout, server x not responding.", "not responding", True),
        ("kex_exchange_identification: Connection closed by remote host", "closed", True),
        ("subsystem request failed on channel 0", "offers no sftp", False),
        ("Bad owner or permissions on /root/.ssh/config", "Bad owner or permissions", False),
        ('Load key "/k": error in libcrypto\nx: Permission denied (publickey).', "/k", False),
        ("Received disconnect: Too many authentication failures", "too many", False),
        ("This account is currently not available.", "not available", False),
        ("", "ssh ended with exit code 255", False),
    ],
)
def test_errors_of_ssh_in_words(lines: str, says: str, again: bool) -> None:
    error = ssh_command.Server("x").error(
        lines.split("\n"), "ended with exit code 255", connected=False
    )
    assert says in str(error)
    assert str(error).startswith("x: ")
    assert isinstance(error, TransientError) is again
    assert error.hint


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("HOST", "-oProxyCommand=id"),
        ("HOST", "a b"),
        ("HOST", "user@host"),
        ("HOST", ""),
        ("USER", "-l"),
        ("USER", "a;b"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("KEY", "/k$HOME"),
        ("KNOWN_HOSTS", '/k"x'),
        ("REMOTE_DIR", ""),
        ("REMOTE_DIR", "/srv/../etc"),
    ],
)
def test_keys_that_ssh_would_interpret(sshd: Sshd, key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=key):
        options(sshd, "/srv", **{key: value})


def test_a_silent_server_is_noticed_within_a_minute() -> None:
    arguments = ssh_command.Server("x").argv()
    assert "ServerAliveInterval=15" in arguments
    assert "ServerAliveCountMax=3" in arguments
    for option in ("BatchMode=yes", "StrictHostKeyChecking=yes", "ControlPath=none"):
        assert option in arguments


# --- what `backup.py -t` shows


def test_a_test_shows_the_account_and_leaves_nothing(sshd: Sshd, tmp_path: Path) -> None:
    line, key, removing, clock = ssh_store.test(options(sshd, tmp_path / "new"))
    assert isinstance(line, str)
    assert isinstance(removing, Finding)
    assert "objects can be removed" in removing.text
    assert isinstance(clock, Finding)
    assert "its clock and that of this machine agree" in clock.text
    assert line.startswith(f"ssh://{sshd.user}@127.0.0.1:")
    for says in (
        "is writable (it will be created)",
        "by the server's shell",
        "by the store",
        "free",
    ):
        assert says in line
    command = ["ssh-keygen", "-lf", str(sshd.folder / "host.pub")]
    fingerprint = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.split()[1]
    assert key == f"host key of 127.0.0.1: ssh-ed25519 {fingerprint}"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoreError, match="permission denied"):
        ssh_store.test(options(sshd, tmp_path, "read only"))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="not a directory"):
        ssh_store.test(options(sshd, tmp_path / "file"))


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("u@h:2222/srv/b", {"HOST": "h", "USER": "u", "PORT": "2222", "REMOTE_DIR": "/srv/b"}),
        ("[::1]/~/b", {"HOST": "::1", "REMOTE_DIR": "~/b"}),
    ],
)
def test_the_keys_of_an_address(text: str, keys: dict[str, str]) -> None:
    assert ssh_store.keys_of(Address.parse(text)) == keys


@pytest.mark.parametrize("text", ["host", "/srv", "u@h:22/"])
def test_an_address_without_a_host_or_a_folder(text: str) -> None:
    with pytest.raises(ConfigError, match="requires a host and a folder"):
        ssh_store.keys_of(Address.parse(text))


# --- faults on the way


@pytest.mark.fault("sftp server without hard links, the name exists", "rejected, old bytes kept")
def test_a_server_without_extensions(sshd: Sshd, tmp_path: Path) -> None:
    target, other = (sshd.store(tmp_path / "store", "no hard links") for _ in "12")
    store.store_object(target, "srv/x", [b"first content"])
    target.put("srv/y", [b"first"])
    store.store_object(other, "srv/y", [b"second"])
    with pytest.raises(TakenError):
        target.publish(["srv/y"])
    target.discard(["srv/y"])
    assert (read(target, "srv/x"), read(target, "srv/y")) == (b"first content", b"second")
    assert target.create_only is store.CreateOnly.PROBED
    assert {path.name for path in (tmp_path / "store/srv").iterdir()} == {"x", "y"}
    assert target.free() is None


@pytest.mark.fault("remote disk full over sftp", "failed at once, the line names the free space")
@pytest.mark.needs("root", "mount")
def test_a_full_disk_is_named(sshd: Sshd, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)], check=True)
    try:
        target = Retrying(sshd.store(tmp_path), Retries(0))
        with pytest.raises(StoreError, match=r"ssh://.*: disk full: .* free"):
            target.put("srv/x", (bytes(MB) for _ in range(20)))
        assert list(target.unfinished("srv")) == []
        store.store_object(target, "srv/y", [b"small"])
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_quota_is_suspected(sshd: Sshd, tmp_path: Path) -> None:
    target = SshStore(Session(sshd.server("quota")), str(tmp_path))
    with pytest.raises(StoreError, match="the server answers 'Failure'") as caught:
        target.put("srv/x", (bytes(MB) for _ in range(20)))
    assert "quota" in caught.value.hint
    assert not isinstance(caught.value, TransientError)
    assert list(target.unfinished("srv")) == []


@pytest.mark.fault("remote sftp killed", "failed, temporary file listed and removed later")
def test_a_server_that_is_killed(sshd: Sshd, tmp_path: Path) -> None:
    session = Session(sshd.server("killed"))
    target = SshStore(session, str(tmp_path), retries=Retries(0))
    with pytest.raises(TransientError):
        target.put("srv/20260101_000000.x.000", (bytes(MB) for _ in range(20)))
    (leftover,) = target.unfinished("srv")
    assert leftover.name.startswith("srv/.20260101_000000.x.000")
    target.remove([leftover.name])
    assert list(target.unfinished("srv")) == []
    assert list(target.entries("srv")) == []


@pytest.mark.fault("ssh connection cut anywhere", "sent again, each object whole or missing")
@pytest.mark.parametrize(
    "cut", [(2_000, None), (100_000, None), (1_500_000, None), (None, 1), (None, 4_000)]
)
def test_a_connection_that_is_cut(
    proxied: Callable[..., tuple[Proxy, Session]], tmp_path: Path, cut: Cut
) -> None:
    _, session = proxied(cut)
    target = Retrying(SshStore(session, str(tmp_path), retries=Retries(0)), Retries(0))
    content = os.urandom(MB)
    for number in range(3):
        store.store_object(target, f"srv/{number}", [content[: MB // 2], content[MB // 2 :]])
    assert [read(target, f"srv/{number}") == content for number in range(3)] == [True] * 3
    assert len(list(target.unfinished("srv"))) <= 1
    session.close()


@pytest.mark.fault("ssh connection cut within a long object", "writing goes on where it stopped")
def test_a_long_object_goes_on_over_another_connection(
    proxied: Callable[..., tuple[Proxy, Session]], tmp_path: Path
) -> None:
    """It need not be sent again, which a stream cannot do."""
    lines: list[str] = []
    _, session = proxied((9 * MB, None))
    target = SshStore(session, str(tmp_path), retries=Retries(0, lines.append))
    content = os.urandom(20 * MB)
    parts = (content[at : at + 300_000] for at in range(0, len(content), 300_000))
    stored = store.store_object(target, "srv/x", parts)
    assert stored == store.StoredObject("srv/x", 20 * MB, hashlib.sha256(content).hexdigest())
    assert read(target, "srv/x") == content
    assert [line.partition(";")[2] for line in lines] == [
        " logging in again to go on where it stopped"
    ]
    assert list(target.unfinished("srv")) == []
    session.close()


@pytest.mark.fault("ssh server silent, source slow", "kept alive; a dead server ends the wait")
def test_a_silent_connection(
    proxied: Callable[..., tuple[Proxy, Session]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = [one.replace("Interval=15", "Interval=1") for one in ssh_command._FIXED]
    monkeypatch.setattr(ssh_command, "_FIXED", fixed)
    proxy, session = proxied()
    target = SshStore(session, str(tmp_path))

    def slow() -> Iterator[bytes]:
        yield b"half"
        until, before = time.monotonic() + 60, proxy.passed
        while proxy.passed - before < 200 and time.monotonic() < until:
            time.sleep(0.05)  # questions of ssh pass meanwhile
        assert proxy.passed - before >= 200
        yield b"whole"

    store.store_object(target, "srv/x", slow())
    proxy.silent = True
    with pytest.raises(TransientError, match="not responding"):
        list(target.entries("srv"))
    proxy.silent = False
    assert [entry.name for entry in target.entries("srv")] == ["srv/x"]
    session.close()


def test_the_file_lies_where_only_its_owner_reads_it(sshd: Sshd, tmp_path: Path) -> None:
    store.store_object(sshd.store(tmp_path / "a/b"), "srv/x", [b"content"])
    for path in ("a", "a/b", "a/b/srv", "a/b/srv/x"):
        assert (tmp_path / path).stat().st_mode & 0o077 == 0
    assert ssh_objects.SshStore.consistent
