"""Whole runs into an ssh store, and restores from it with arguments alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sshd import Sshd, sshd
from tests.system import System, execute
from tools.base.errors import ConfigError
from tools.config import loading, selection

pytestmark = pytest.mark.needs("sshd", "ssh-agent")


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """An administrator's set-up: a key in the agent, and known_hosts in ssh_config."""
    server = sshd()
    folder = tmp_path / "administrator"
    folder.mkdir(mode=0o700)
    (folder / "config").write_text(
        f"Host 127.0.0.1\n UserKnownHostsFile {server.folder}/known_hosts\n User {server.user}\n"
    )
    wrapper = folder / "ssh"  # ssh reads ~/.ssh/config of the password file, whatever HOME says
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/config "$@"\n')
    wrapper.chmod(0o755)
    socket = folder / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    while not socket.exists():
        time.sleep(0.02)
        assert process.poll() is None
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    subprocess.run(["ssh-add", "-q", str(server.folder / "id")], check=True)
    yield server
    process.terminate()
    process.wait()


@pytest.mark.parametrize("stream", ["True", "False"])
def test_a_whole_run_and_a_restore_by_arguments_alone(
    agent: Sshd, system: System, stream: str
) -> None:
    (system.source / "file").write_bytes(os.urandom(3 << 20))
    kind = "login shell" if stream == "True" else "no shell"
    keys = {"DESTINATION": "ssh", "HOST": "127.0.0.1", "PORT": str(agent.ports[kind])}
    sections = system.short(OFFSITE=execute("storage", **keys, REMOTE_DIR=str(system.store)))
    del sections["STORAGE_LOCAL"]
    system.configure(sections, STREAM=stream)
    output = system.run("-t").stdout
    assert "is writable (it will be created)" in output
    assert "host key of 127.0.0.1: ssh-ed25519 SHA256:" in output
    assert not system.store.exists()
    assert system.result()["exit_code"] == 0
    names = sorted(path.name for path in (system.store / "srv-test").iterdir())
    assert any(name.endswith(".manifest.json") for name in names)
    assert not any(name.startswith(".") or name.endswith("UNFINISHED") for name in names)
    url = f"ssh://127.0.0.1:{agent.ports[kind]}{system.store}"
    options = ("--store", url, "--key-file", str(system.key))
    assert "FILESET" in system.restore_bare(*options, "--verify", "latest")
    out = system.folder / "out"
    system.restore_bare(*options, "--restore", "latest", "--destination", str(out))
    (restored,) = out.rglob("file")
    assert restored.read_bytes() == (system.source / "file").read_bytes()


@pytest.mark.parametrize(
    ("first", "second", "address"),
    [
        (
            {"DESTINATION": "ssh", "HOST": "127.0.0.1", "REMOTE_DIR": "backup"},
            {"REMOTE_DIR": "~/backup/"},
            "ssh://127.0.0.1/~/backup",
        ),
        (
            {"DESTINATION": "s3", "BUCKET_NAME": "one", "PREFIX": "a"},
            {"PREFIX": "/a/"},
            "s3://one/a",
        ),
        ({"DESTINATION": "oss", "BUCKET_NAME": "one"}, {"PREFIX": "/"}, "oss://one"),
    ],
)
def test_two_sections_of_one_folder(
    system: System, first: dict[str, str], second: dict[str, str], address: str
) -> None:
    twins = [execute("storage", **keys) for keys in (first, {**first, **second})]
    system.configure(system.short(FIRST=twins[0], SECOND=twins[1]))
    with pytest.raises(ConfigError) as caught:
        selection.select(loading.load(system.conf), [], [])
    assert f"FIRST and SECOND store in one folder: {address}" in str(caught.value)


@pytest.mark.fault("ssh server cannot be reached", "that store fails, the others hold the run")
def test_one_store_of_two_is_down(agent: Sshd, system: System) -> None:
    (system.source / "file").write_text("content")
    keys = {"DESTINATION": "ssh", "HOST": "127.0.0.1", "REMOTE_DIR": "/srv/x"}
    wrong = execute("storage", **keys, PORT=str(agent.ports["nobody"]), RETRY_WAIT="0.01")
    system.configure(system.short(OFFSITE=wrong), STREAM="True")
    result = system.result()
    assert result["exit_code"] == 1
    sections = {one["name"]: one for one in result["sections"]}
    assert "Connection refused" in str(sections["OFFSITE"])
    assert sections["STORAGE_LOCAL"]["status"] == "ok"
    assert system.manifest()["run_id"]
