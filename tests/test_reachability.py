"""Stores and databases that cannot be reached yet when a run begins (CONNECT_WAIT)."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage import storage
from storage.local_store import LocalStore
from tests.brt import ReportServer
from tests.servers import Redis, free_port
from tests.system import System, execute, next_second
from tools.base.errors import (
    ConfigError,
    SourceError,
    StoreError,
    TransientError,
    UnmountedError,
    UnreachableError,
)
from tools.base.result import Status
from tools.config import loading
from tools.engine import run
from tools.flow import reachability
from tools.flow.retries import Contact, Retries
from tools.flow.task import StoppedError, Task, entered
from tools.modules import options


@pytest.fixture(autouse=True)
def _waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(reachability, "_FIRST", 0.01)
    yield
    reachability.allow(0)


@pytest.mark.parametrize(
    "text",
    [
        "ERROR 2002 (HY000): Can't connect to server on '10.0.0.1' (115)",
        "ERROR 2003 (HY000): Can't connect to MySQL server on 'db:3306' (111)",
        "ERROR 2005 (HY000): Unknown server host 'db.example.org' (-3)",
        "ERROR 2005 (HY000): Unknown MySQL server host 'db' (-2)",
        "ERROR 2002 (HY000): Can't connect to local MySQL server through socket '/run/x.sock' (2)",
        'psql: error: could not translate host name "db" to address: Temporary failure in name '
        "resolution",
        'psql: error: connection to server at "10.0.0.1", port 5432 failed: Connection refused',
        'connection to server on socket "/run/.s.PGSQL.5432" failed: No such file or directory',
        "Could not connect to Redis at db:6379: Name or service not known",
        "Could not connect to Redis at 127.0.0.1:6379: Connection refused",
        "server selection error: ... dial tcp 127.0.0.1:1: connect: connection refused",
        "server selection error: ... dial tcp: lookup db on 127.0.0.53:53: server misbehaving",
        "ssh: Could not resolve hostname x: Temporary failure in name resolution",
        "ssh: connect to host x port 22: No route to host",
        "ssh: connect to host x port 22: Network is unreachable",
    ],
)
def test_what_is_not_there_yet(text: str) -> None:
    assert reachability.is_unreachable(SourceError("the client ended with exit code 1", text))


@pytest.mark.parametrize(
    "text",
    [
        "ERROR 1045 (28000): Access denied for user 'x'@'y' (using password: YES)",
        "ERROR 2026 (HY000): TLS/SSL error: Connection refused by the certificate check",
        'psql: error: FATAL: password authentication failed for user "x"',
        "server selection error: x509: certificate has expired; dial tcp: connection refused",
        "NOAUTH Authentication required.",
        "mysqldump: Lost connection to server during query",
        "Permission denied (publickey).",
        "HTTP 503 Service Unavailable",
    ],
)
def test_what_has_answered_is_not_waited_for(text: str) -> None:
    assert not reachability.is_unreachable(SourceError("the client ended with exit code 1", text))


@pytest.mark.parametrize(
    "error", [StoreError("denied"), TransientError("HTTP 503"), ConfigError("x"), OSError(5, "x")]
)
def test_other_errors_are_raised_at_once(error: Exception) -> None:
    reachability.allow(60)
    attempts: list[int] = []

    def attempt() -> None:
        attempts.append(1)
        raise error

    with pytest.raises(type(error)):
        reachability.waited("STORE", attempt)
    assert attempts == [1]


def failing(times: int) -> Callable[[], str]:
    """An attempt that finds a server only after so many times."""
    remaining = [times]

    def attempt() -> str:
        remaining[0] -= 1
        if remaining[0] >= 0:
            raise UnreachableError("connection refused")
        return "reached"

    return attempt


def test_one_line_when_it_begins_and_one_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []
    reachability.allow(60, lines.append)
    with caplog.at_level(logging.WARNING):
        assert reachability.waited("STORE", failing(3)) == "reached"
    assert lines == [record.getMessage() for record in caplog.records]
    assert lines == [
        "STORE: connection refused; waiting for it, 60 s at most (CONNECT_WAIT)",
        "STORE: reached after 0 s",
    ]


def test_all_share_one_time() -> None:
    began = time.monotonic()
    reachability.allow(0.3)
    for name in ("A", "B", "C"):
        with pytest.raises(UnreachableError):
            reachability.waited(name, failing(9**9))
    assert 0.3 <= time.monotonic() - began < 1.5


def test_nobody_waits_who_was_not_allowed_to() -> None:
    with pytest.raises(UnreachableError):
        reachability.waited("STORE", failing(1))


def test_a_section_waits_as_long_as_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    reachability.allow(60)
    ((name, value),) = reachability.variables().items()
    monkeypatch.setattr(reachability._until, "moment", 0.0)
    assert not reachability.variables()
    monkeypatch.setenv(name, value)
    assert reachability.waited("DB", failing(1)) == "reached"
    monkeypatch.setenv(name, "soon")
    with pytest.raises(UnreachableError):
        reachability.waited("DB", failing(1))


def test_a_wait_ends_with_its_task() -> None:
    reachability.allow(60)
    work = Task()
    threading.Timer(0.1, work.stop, ["was ended"]).start()
    with entered(work), pytest.raises(StoppedError):
        reachability.waited("DB", failing(9**9))


def test_a_store_that_never_answered_is_not_tried_again() -> None:
    """Refused connections were retried for minutes, in -t and restores too."""
    waits: list[float] = []
    policy = Retries(wait=lambda _event, seconds: waits.append(seconds), contact=Contact())
    with pytest.raises(UnreachableError):
        policy.call("x", failing(1))
    assert waits == []
    assert policy.call("x", failing(0)) == "reached"
    assert policy.call("x", failing(2)) == "reached"  # it was there before
    assert len(waits) == 2


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"DESTINATION": "ssh", "HOST": "127.0.0.1"}, marks=pytest.mark.needs("ssh")),
        pytest.param({"DESTINATION": "ssh", "HOST": "db.invalid"}, marks=pytest.mark.needs("ssh")),
        {"DESTINATION": "s3", "ENDPOINT_URL": "http://127.0.0.1:{port}"},
        {"DESTINATION": "s3", "ENDPOINT_URL": "http://s3.invalid:{port}"},
    ],
    ids=lambda keys: "-".join(keys.values()),
)
@pytest.mark.fault("no connection to a store of a restore or of -t", "an error at once")
def test_a_closed_port_is_an_error_at_once(
    keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-tests")
    port = str(free_port())
    general = {"HOSTNAME": "srv-x1", "WORK_FOLDER": str(tmp_path), "BUCKET_NAME": "bucket"}
    general |= {"PORT": port, "USER": "x", "REMOTE_DIR": "/x", "REGION": "eu-central-1"}
    settings = {key: value.format(port=port) for key, value in keys.items()}
    opened = storage.open_store(options.fill(storage.Options, {**general, **settings}))
    began = time.monotonic()
    with pytest.raises(UnreachableError):
        list(opened.entries("srv-x1"))
    assert time.monotonic() - began < 5


def test_names_that_cannot_be_resolved_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C34. Then an answer of HTTP, which is no reason to wait any longer."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-tests")
    server = ReportServer("down")
    lookups: list[str] = []
    resolved = socket.getaddrinfo

    def getaddrinfo(host: str, *more: Any, **named: Any) -> Any:
        if host != "s3.example.org":
            return resolved(host, *more, **named)
        lookups.append(host)
        if len(lookups) < 4:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolved("127.0.0.1", *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    url = f"http://s3.example.org:{server.url.rpartition(':')[2].partition('/')[0]}"
    general = {"HOSTNAME": "srv-x1", "WORK_FOLDER": str(tmp_path), "BUCKET_NAME": "bucket"}
    general |= {"DESTINATION": "s3", "REGION": "eu-central-1", "ENDPOINT_URL": url}
    opened = storage.open_store(options.fill(storage.Options, {**general, "RETRY_WAIT": "0"}))
    lines: list[str] = []
    reachability.allow(60, lines.append)
    with pytest.raises(StoreError) as caught:
        reachability.waited("S3", lambda: list(opened.entries("srv-x1")))
    server.close()
    assert not isinstance(caught.value, UnreachableError)
    assert len(lookups) >= 4
    assert "waiting for it, 60 s at most (CONNECT_WAIT)" in lines[0]
    assert lines[1:] == ["S3: reached after 0 s"]


def late(port: int, seconds: float) -> None:
    """Take a connection on a port, but only after a while."""

    def serve() -> None:
        time.sleep(seconds)
        with socket.create_server(("127.0.0.1", port)) as server:
            server.accept()[0].close()

    threading.Thread(target=serve, daemon=True).start()


def test_a_port_that_opens_later() -> None:
    port = free_port()
    late(port, 0.3)
    reachability.allow(20)

    def attempt() -> str:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError as error:
            raise SourceError("the client ended with exit code 1", str(error)) from None
        return "reached"

    assert reachability.waited("DB", attempt) == "reached"


@pytest.mark.fault(
    "the disk of a store is mounted after a run that makes up for one has begun (nofail)",
    "the run waits for it in the first 10 minutes after the boot",
)
@pytest.mark.parametrize("uptime", [599.0, 600.0])
def test_a_disk_that_is_mounted_late(
    system: System, monkeypatch: pytest.MonkeyPatch, uptime: float
) -> None:
    (system.source / "a").write_text("a")
    system.configure(system.short(), CONNECT_WAIT="20")
    assert system.result()["exit_code"] == 0
    away = system.folder / "away"
    system.store.rename(away)
    monkeypatch.setattr(reachability, "_since_boot", lambda: uptime)
    timer = threading.Timer(0.5, lambda: away.rename(system.store))
    next_second()
    loaded = loading.load(system.conf)
    timer.start()
    result = run.perform(loaded, loaded.sections, None)
    timer.join()
    assert result.status is (Status.OK if uptime < 600 else Status.FAILED)


@pytest.mark.parametrize("keys", [{"require_mount": True}, {"marker": "not-there"}])
def test_the_keys_of_a_disk_that_may_be_mounted_late(tmp_path: Path, keys: dict[str, Any]) -> None:
    folder = Path(os.path.realpath("/")) if "require_mount" in keys else tmp_path
    with pytest.raises(UnmountedError):
        LocalStore(folder, **keys)


@pytest.mark.needs("ssh")
@pytest.mark.fault("a store that is down for good", "costs CONNECT_WAIT once, others go on")
def test_a_store_that_is_down_costs_its_time_once(system: System) -> None:
    down = {"DESTINATION": "ssh", "HOST": "127.0.0.1", "USER": "x", "REMOTE_DIR": "/x"}
    ports = [str(free_port()), str(free_port())]
    stores = {f"SSH_{port}": execute("storage", PORT=port, **down) for port in ports}
    system.configure({**system.short(), **stores}, STREAM="True", CONNECT_WAIT="2")
    began = time.monotonic()
    result = system.result()
    assert 2 <= time.monotonic() - began < 20
    sections = {one["name"]: one["status"] for one in result["sections"]}
    assert sections["STORAGE_LOCAL"] == "ok"
    assert sections[f"SSH_{ports[0]}"] == sections[f"SSH_{ports[1]}"] == "failed"
    lines = [line for line in system.log.read_text().split("\n") if "CONNECT_WAIT" in line]
    assert len(lines) == 1
    assert f"SSH_{ports[0]}: x@127.0.0.1:{ports[0]}: " in lines[0]
    assert "Connection refused; waiting for it, " in lines[0]


def serve_when_awaited(server: Redis, log: Path) -> None:
    """Start the server once the log says that the run waits for it."""
    until = time.monotonic() + 60
    while time.monotonic() < until and not (log.exists() and "CONNECT_WAIT" in log.read_text()):
        time.sleep(0.05)
    server.serve()


@pytest.mark.needs("redis-server")
@pytest.mark.parametrize("stream", ["True", "False"])
@pytest.mark.fault("a database that starts after the run", "the run waits, exit 0")
def test_a_database_that_starts_later(system: System, stream: str) -> None:
    """C34: timers fire before everything is there."""
    server = Redis()
    try:
        server.end()
        secret = system.folder / "password"
        secret.write_text(server.password)
        secret.chmod(0o600)
        section = {"ACTION": "load", "FROM": "redis", "FILENAME": "redis", "CLASS": "RedisBackup"}
        parameters = {"PORT": str(server.port), "PASSWORD": f"file:{secret}"}
        whole = system.short()
        del whole["FILESET"]
        sections = {"REDIS": {**section, "PARAMETERS": parameters}, **whole}
        system.configure(sections, STREAM=stream, CONNECT_WAIT="1m")
        starter = threading.Thread(target=serve_when_awaited, args=(server, system.log))
        starter.start()
        result = system.result()
        starter.join()
    finally:
        server.stop()
    assert result["exit_code"] == 0, result
    log = system.log.read_text()
    assert log.count("s at most (CONNECT_WAIT)") == 1
    assert f"{server.port}: reached after " in log
