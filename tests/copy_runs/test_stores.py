"""Copies between real stores, and a copy that is killed at each of its steps."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from storage.local_store import LocalStore
from tests import s3_servers, starter
from tests.copy_runs.signed_store import FIRST, HOST, Runs, contents_of
from tests.sshd import sshd
from tools.base import project

KILLED = """\
import os, shutil, signal, sys
from pathlib import Path
from storage.local_store import LocalStore
from tests import s3_servers, starter
from tests.copy_runs.signed_store import FIRST, Runs, contents_of
from tools.catalog import leftovers

class Deadly(LocalStore):
    left = 0

    def _count(self):
        Deadly.left -= 1
        if Deadly.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def put(self, name, chunks):
        self._count()
        stored = super().put(name, chunks)
        self._count()
        return stored

    def publish(self, names):
        super().publish(names)
        self._count()

    def remove(self, names):
        self._count()
        super().remove(names)

folder = Path(sys.argv[1])
runs = Runs(folder)
source = LocalStore(folder / "source")
runs.add(source, FIRST, names=("one",), parts=1)
for number in range(1, 1000):
    place = folder / f"target-{number}"
    child = os.fork()
    if not child:
        Deadly.left = number
        runs.copy(source, Deadly(place))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    target = LocalStore(place)
    assert leftovers.remove_crashed_runs(runs.catalog(target), "", 86400) == []
    (step,) = runs.copy(source, target)
    assert step.result.status.value == "ok", (number, step)
    leftovers.remove_crashed_runs(runs.catalog(target), "", 0)
    assert contents_of(target) == contents_of(source), number
    shutil.rmtree(place)
    if not os.WIFSIGNALED(status):
        print(number)
        break
"""


@pytest.mark.fault(
    "a copy is killed at any step", "the next copy completes it, a sweep removes the rest"
)
def test_a_copy_that_is_killed_at_any_step(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    environment = {"PYTHONPATH": str(project.ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15, "the marker, a part and three records, three steps each"


@pytest.mark.needs("sshd")
def test_over_ssh_and_back(tmp_path: Path) -> None:
    """Into an account and from there into a new local store, with the times of the originals."""
    runs = Runs(tmp_path)
    source, back = LocalStore(tmp_path / "source"), LocalStore(tmp_path / "back")
    runs.add(source, FIRST, names=("one",), parts=1)
    moment = time.time() - 1_000_000
    path = source.folder / HOST / f"{FIRST}.manifest.json"
    os.utime(path, (moment, moment))
    for one, other in (
        (source, sshd().store(tmp_path / "ssh")),
        (LocalStore(tmp_path / "ssh"), back),
    ):
        (step,) = runs.copy(one, other)
        assert (step.result.status.value, step.objects) == ("ok", 4)
    assert contents_of(source) == contents_of(back)
    copied = back.folder / HOST / path.name
    assert copied.stat().st_mtime == pytest.approx(moment, abs=5)
    assert copied.with_name(copied.name + ".sig").stat().st_mtime > moment + 1000


@pytest.mark.parametrize("kind", ["s3"])
def test_two_addresses_and_an_endpoint(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into a bucket and back, with arguments alone."""
    server = s3_servers.seaweedfs()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    runs = Runs(tmp_path)
    source, back = LocalStore(tmp_path / "source"), LocalStore(tmp_path / "back")
    runs.add(source, FIRST)
    back.folder.mkdir()
    (tmp_path / "signers").write_text(runs.line + "\n")
    bucket = f"{kind}://{s3_servers.BUCKET}/{uuid.uuid4().hex}"
    there = ["--from", f"local://{source.folder}", "--to", bucket]
    and_back = ["--to", f"local://{back.folder}", "--from", bucket]
    for addresses, end in ((there, "to"), (and_back, "from")):
        more = [f"--{end}-endpoint", server.endpoint, "--signer", str(tmp_path / "signers")]
        program = str(project.ROOT / "copy_runs/copy_runs.py")
        done = starter.run([program, *addresses, *more], os.environ, timeout=120)
        assert (done.returncode, done.stderr) == (0, b""), done.stderr
        assert b"copy: ok, 1 run copied, 7 objects" in done.stdout
    assert contents_of(source) == contents_of(back)
