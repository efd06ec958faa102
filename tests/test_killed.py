"""kill -9 at any moment: a whole, verifying run or no manifest, and the next run works unaided."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from storage import local_store
from tests import starter
from tests.system import System, execute
from tools.catalog import readback
from tools.catalog.catalog import Catalog
from tools.catalog.trust import Trust
from tools.flow import stream

EVERYBODY = Trust(everybody=True)
MOMENTS = 15  # in each of two tests


def whole_runs(system: System, read: frozenset[str] = frozenset()) -> frozenset[str]:
    """The manifests that are there; every part that they name is what was stored.

    read: those whose parts were read before
    """
    target = local_store.LocalStore(system.store)
    names = [entry.name for entry in target.entries("srv-test")]
    manifests = frozenset(name for name in names if name.endswith(".manifest.json"))
    assert manifests >= read
    for name in manifests - read:
        catalog = Catalog(target, "srv-test", EVERYBODY)
        run = readback.StoredRun(catalog, catalog.manifest(name[9:24]))
        assert run.manifest.is_complete
        for item in run.manifest.items:
            stream.drained(readback.read_parts(run, item))
    return manifests


@pytest.mark.slow
@pytest.mark.fault("kill -9 at 30 random moments", "a whole run or no manifest, the next run works")
@pytest.mark.parametrize("seed", range(2))
def test_kill_9_at_any_moment(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    system = System(tmp_path)
    (system.source / "random").write_bytes(os.urandom(5 << 19))
    streamed = "True" if seed == 0 else "False"
    system.configure(system.short(), STREAM=streamed, LEFTOVERS_AGE="0s")
    began = time.monotonic()
    assert system.run().returncode == 0
    length = time.monotonic() - began
    ended, runs = 0, whole_runs(system)
    for _ in range(MOMENTS):
        run = starter.start(system.command("-r")[1:], os.environ)
        time.sleep(chance.uniform(0.05, 1.1) * length)
        with contextlib.suppress(ProcessLookupError):
            os.kill(run.pid, signal.SIGKILL)
        ended += run.code() == 0
        runs = whole_runs(system, runs)
    before = len(runs)
    assert before >= 1 + ended
    assert system.run().returncode == 0
    assert len(whole_runs(system)) == before + 1
    system.restore("--verify", "all")
    leftovers = [
        name for name in system.names() if ".part-" in name or name.endswith(".UNFINISHED")
    ]
    assert leftovers == []
    back = system.restored() / "FILESET" / system.source.relative_to("/")
    assert (back / "random").read_bytes() == (system.source / "random").read_bytes()


@pytest.mark.slow
@pytest.mark.fault(
    "killed when an archive was compressed and not yet removed", "stored once, and verified"
)
def test_a_source_that_was_compressed_already(tmp_path: Path) -> None:
    system = System(tmp_path)
    sections = system.short()
    (system.source / "text").write_text("text " * 100_000)
    system.module("own", "print('nothing to do')")  # staged, it may be a source or a store
    system.configure({"FILESET": sections.pop("FILESET"), "OWN": execute("own")})
    assert system.run().returncode == 0
    (archive,) = (system.work / "files").iterdir()
    compressed = system.work / "compressed"
    compressed.mkdir()
    subprocess.run(["zstd", "-q", archive, "-o", compressed / f"{archive.name}.zst"], check=True)
    system.configure({"OWN": execute("own"), **sections})
    assert system.run().returncode == 0
    (item,) = system.manifest()["items"]
    assert item["stages"] == ["zstd", "age"]
    system.restore("--verify", "all")
