"""copy_runs.py as a user calls it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests import starter
from tests.system import System, execute
from tools.base import project

PROGRAM = str(project.ROOT / "copy_runs/copy_runs.py")


def copy(*words: str, code: int = 0) -> str:
    """Call copy_runs.py; it must end with this code. Return what it printed."""
    done = starter.run([PROGRAM, *words], os.environ, timeout=120)
    text = (done.stdout + done.stderr).decode("utf-8", "surrogateescape")
    assert done.returncode == code, text
    assert "Traceback" not in text
    return text


def objects(folder: Path) -> dict[str, bytes]:
    """All objects of the host in a local store."""
    return {path.name: path.read_bytes() for path in (folder / "srv-test").iterdir()}


@pytest.fixture
def two(system: System) -> System:
    """A config with two local stores: STORAGE_LOCAL, and SECOND in the folder `second`."""
    (system.source / "a").write_text("one")
    place = str(system.folder / "second")
    second = execute("storage", DESTINATION="local", LOCAL_BACKUP=place)
    system.configure(system.short(SECOND=second), STREAM="True")
    return system


def test_a_store_that_missed_runs_is_filled_up(two: System) -> None:
    second = two.folder / "second"
    config = str(two.conf)
    assert two.result()["exit_code"] == 0
    second.rename(two.folder / "away")
    second.write_text("not mounted")
    missed = two.result()["run_id"]
    second.unlink()
    (two.folder / "away").rename(second)
    assert two.result()["exit_code"] == 0
    (command,) = re.findall(r"python3 (\S+copy_runs\.py) (.*)$", two.log.read_text(), re.M)
    assert command == (PROGRAM, f"-c {config} --catch-up")
    shown = copy("-c", config, "--catch-up", "--dry-run")
    assert f"{missed}  srv-test  {second}" in shown
    assert "1 run would be copied" in shown
    assert "1 run copied" in copy("-c", config, "--catch-up")
    assert objects(second) == objects(two.store)
    said = two.result()
    assert (said["exit_code"], said["stderr"]) == (0, "")
    (first, *_), (other, *_) = (
        sorted(place.glob(f"srv-test/{missed}.manifest.json")) for place in (second, two.store)
    )
    assert abs(first.stat().st_mtime - other.stat().st_mtime) < 1.5
    two.restore("--verify", "all", "--store", "SECOND")
