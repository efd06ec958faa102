"""The numbers of runs over several stores (issue 14 A2)."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.system import System, execute


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
    said = system.result()
    assert said["exit_code"] == 0
    assert f"{second} has missed 1 run: the newest there is run" in system.log.read_text()
    assert "has missed" not in system.result()["stderr"]
