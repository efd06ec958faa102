"""The numbers of runs over several stores (issue 14 A2)."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from tests.system import System, execute
from tools.base.result import Status
from tools.catalog.catalog import Catalog
from tools.config import loading
from tools.engine import run


@pytest.mark.slow
def test_a_store_that_missed_runs_is_named(tmp_path: Path) -> None:
    """In the log alone: disks that take turns are honest."""
    system = System(tmp_path)
    (system.source / "a").write_text("one")
    second = tmp_path / "second"
    other = execute("storage", DESTINATION="local", LOCAL_BACKUP=str(second))
    system.configure(system.short(SECOND=other), STREAM="True")
    assert "has missed" not in system.result()["stderr"]
    shutil.copytree(second, tmp_path / "earlier")
    assert system.result()["exit_code"] == 0
    shutil.rmtree(second)
    (tmp_path / "earlier").rename(second)
    (system.work / ".nc-backup-py/sequence.json").unlink()
    outcome = system.result()
    assert outcome["exit_code"] == 0
    assert f"{second} has missed 1 run: the newest there is run" in system.log.read_text()
    assert "has missed" not in system.result()["stderr"]
    assert "--catch-up" in system.log.read_text()
    third = execute("storage", DESTINATION="local", LOCAL_BACKUP=str(tmp_path / "third"))
    system.configure(system.short(SECOND=other, THIRD=third), STREAM="True")
    assert system.result()["exit_code"] == 0
    assert "--from STORAGE_LOCAL --to THIRD" in system.log.read_text()


@pytest.mark.slow
@pytest.mark.fault("a signature that cannot be read for a moment", "no lasting alarm of a rollback")
def test_what_cannot_be_read_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = System(tmp_path)
    (system.source / "a").write_text("one")
    system.configure(system.short(), STREAM="True")
    assert system.result()["exit_code"] == 0

    def broken(_self: Catalog, name: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), name)

    with monkeypatch.context() as failing:
        failing.setattr(Catalog, "_signature", broken)
        loaded = loading.load(system.conf)
        outcome = run.perform(loaded, loaded.sections, None)
    assert outcome.status is Status.INCOMPLETE
    lines = [line for step in outcome.sections for line in step.result.warnings]
    assert any("the numbers of runs are not known" in line for line in lines), lines
    assert system.result()["exit_code"] == 0


@pytest.mark.slow
def test_a_damaged_newest_manifest_is_named(tmp_path: Path) -> None:
    """Bit rot is likelier than an attack: "runs are missing" alone would be untrue."""
    system = System(tmp_path)
    (system.source / "a").write_text("one")
    system.configure(system.short(), STREAM="True")
    run_id = system.result()["run_id"]
    (damaged,) = system.store.glob(f"srv-test/{run_id}.manifest.json")
    damaged.write_bytes(damaged.read_bytes()[:100])
    outcome = system.result()
    assert outcome["exit_code"] == 3
    assert f"; run {run_id} is there, but its manifest is damaged" in outcome["stderr"]
