"""`backup.py -t` of a config with many faults: told at once, in order, and nothing is changed."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.servers import free_port
from tests.system import System, execute

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret-key"}


@contextlib.contextmanager
def server(beginning: bytes, endless: bytes) -> Iterator[str]:
    """The URL of a server that answers so to every connection, and never ends one."""
    ended = threading.Event()

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.sendall(beginning)
            while not ended.wait(0 if endless else 0.05):
                connection.sendall(endless)

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)


def bucket(url: str, timeout: str = "") -> dict[str, object]:
    section = execute("storage", DESTINATION="s3", BUCKET_NAME="bucket", ENDPOINT_URL=url)
    return {**section, "TIMEOUT": timeout} if timeout else section


@pytest.mark.fault(
    "stores that refuse the connection, stay silent or answer without end (-t)",
    "each is an error within its TIMEOUT, the others are checked, nothing is changed",
)
def test_stores_that_do_not_answer_as_they_should(system: System) -> None:
    """A refused connection took 200 s, and a silent server 300 s."""
    (system.source / "file").write_text("content")
    page = b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n<x>"
    with server(b"", b"") as silent, server(page, b"x" * 65536) as endless:
        sections = system.short(
            REFUSED=bucket(f"http://127.0.0.1:{free_port()}"),
            SILENT=bucket(silent, "1s"),
            ENDLESS=bucket(endless, "2s"),
            AGAIN=execute("filesbackup", FILESET_INCLUDE="/nowhere/at/all"),
            ONCE_MORE=execute("filesbackup", FILESET_INCLUDE="/nowhere/at/all"),
        )
        system.configure(sections, STREAM="True")
        began = time.monotonic()
        done = system.run("-t", LANG="", LC_ALL="", **KEYS)
        seconds = time.monotonic() - began
    assert done.returncode == 1
    assert seconds < 60
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 10_000
    errors = [line for line in done.stderr.splitlines() if line.startswith("BAD")]
    names = [line.split()[1].rstrip(",:") for line in errors]
    assert names == ["REFUSED", "SILENT", "ENDLESS", "AGAIN"]
    assert "Could not connect" in errors[0]
    assert "its TIMEOUT of 1 s" in errors[1]
    assert "its TIMEOUT of 2 s" in errors[2] or "the answer does not end" in errors[2]
    assert errors[3].startswith("BAD  AGAIN, ONCE_MORE: ")
    assert done.stderr.splitlines()[-1].startswith("4 errors, ")
    good = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert {"ok   GENERAL", "ok   FILESET", "ok   STORAGE_LOCAL"} <= set(good)
    assert not system.store.exists()
    assert not system.work.exists()


def test_a_store_with_runs_and_one_without(system: System) -> None:
    (system.source / "file").write_text("content")
    system.configure(system.short(), STREAM="True")
    assert f"{system.store}: no run yet" in system.run("-t").stdout
    assert system.run("-r").returncode == 0
    before = sorted(system.folder.rglob("*"))
    tested = system.run("-t")
    assert tested.returncode == 0
    assert "objects can be removed" in tested.stdout
    assert "the newest complete run, " in tested.stdout
    assert sorted(system.folder.rglob("*")) == before


def test_an_invalid_config_is_a_list_of_findings_as_well(system: System) -> None:
    sections = system.short()
    sections["STORAGE_LOCAL"]["PARAMETERS"]["DESTINATION"] = "nowhere"
    system.configure(sections)
    done = system.run("-t", "--json")
    (finding,) = json.loads(done.stdout)
    assert done.returncode == 2
    assert (finding["level"], "unknown type of store" in finding["text"]) == ("BAD", True)
    system.conf.chmod(0o666)
    open_to_all = system.run("-t")
    assert open_to_all.returncode == 2
    assert f"fix:  chmod o-w {system.conf}" in open_to_all.stderr
