"""Runs whose figures are unusual are stored, named, and freeze the clean-up of the item."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests import starter
from tests.system import System, execute
from tools.commands import history
from tools.config.declarations import General
from tools.config.model import Config
from tools.engine import run_history

USUAL = 2_500_000  # bytes
TWENTIETH = USUAL // 20


def runs(system: System) -> dict[str, Any]:
    """Return the runs in the store, by id."""
    entries = json.loads(system.restore("--list", "--json"))["runs"]
    return {one["run_id"]: one for one in entries}


def database(system: System) -> Path:
    return system.work / ".nc-backup-py" / run_history.NAME


def write(system: System, size: int) -> None:
    (system.source / "data").write_bytes(os.urandom(size))


@pytest.mark.fault("an item shrinks to a twentieth", "stored, exit 3, its clean-up frozen")
def test_a_suspicious_copy_freezes_clean_up(system: System) -> None:
    """Issue 17, shows. The copies before stay until the item is as usual, or accepted."""
    other = system.folder / "other"
    other.mkdir()
    (other / "x").write_text("x")
    sections = {"OTHER": execute("filesbackup", FILESET_INCLUDE=str(other)), **system.short()}
    clean_up = execute("cleanup", KEEP_LAST="1", MINIMUM="1")
    write(system, USUAL)
    system.configure({**sections, "CLEANUP": clean_up}, STREAM="True")
    good = system.result()
    assert good["exit_code"] == 0
    system.result("--skip", "FILESET")  # an item is compared with its own last copy
    write(system, TWENTIETH)
    bad = system.result()
    assert bad["exit_code"] == 3
    assert "FILESET: stored, but suspicious: 1" in bad["stderr"]
    held = runs(system)
    assert {good["run_id"], bad["run_id"]} <= held.keys()  # without the freeze the first goes
    assert not held[bad["run_id"]]["complete"]

    write(system, USUAL)
    again = system.result()
    assert again["exit_code"] == 0
    assert set(runs(system)) == {again["run_id"]}

    write(system, TWENTIETH)
    bad = system.result()
    assert set(runs(system)) == {again["run_id"], bad["run_id"]}
    hint = next(one for one in bad["stderr"].splitlines() if "--accept" in one)
    done = starter.run(shlex.split(hint[hint.index("python3 ") :])[1:], os.environ)
    assert done.stdout.decode() == f"FILESET: accepted from run {bad['run_id']} on\n"
    last = system.result()
    assert last["exit_code"] == 0
    assert set(runs(system)) == {last["run_id"]}


@pytest.mark.fault("files are encrypted by somebody else", "stored, exit 3, named")
def test_a_staged_run_is_compared_as_well(system: System) -> None:
    system.configure(system.short(), STREAM="False")
    text = b"the same line again and again, as in any log\n" * 40_000
    (system.source / "data").write_bytes(text)
    assert system.result()["exit_code"] == 0
    write(system, len(text))
    result = system.result()
    assert result["exit_code"] == 3
    assert "FILESET: stored, but suspicious: stored with 98% of its size" in result["stderr"]
    marked = json.loads(
        (system.store / "srv-test" / f"{result['run_id']}.manifest.json").read_text()
    )
    assert "usually" in marked["items"][0]["suspicious"][0]


def test_what_is_off_is_not_compared(system: System) -> None:
    """A section may have thresholds of its own; --accept-shrink is for this run and later ones."""
    sections = system.short()
    write(system, USUAL)
    system.configure(sections, STREAM="True")
    system.result()
    write(system, TWENTIETH)
    system.configure(sections, STREAM="True", SHRINK_CHECK="False")
    assert system.result()["exit_code"] == 0
    write(system, 1000)
    system.configure(sections, STREAM="True")
    assert system.result("--accept-shrink")["exit_code"] == 0
    assert system.result()["exit_code"] == 0
    write(system, USUAL)
    system.result()
    write(system, 1000)
    off = {**sections["FILESET"], "ANOMALY_SHRINK": 0}
    system.configure({**sections, "FILESET": off}, STREAM="True")
    assert system.result()["exit_code"] == 0


@pytest.mark.fault("the database of figures is lost or damaged", "the same, made again")
def test_a_lost_database_is_made_again_from_the_stores(system: System) -> None:
    system.configure(system.short(), STREAM="True")
    write(system, USUAL)
    first = system.result()
    for text in ("spoiled" * 999, ""):
        database(system).write_text(text)
        write(system, TWENTIETH)
        result = system.result()
        assert result["exit_code"] == 3
        assert "usually 2.44 MB" in result["stderr"]
    assert "is not a database" in system.log.read_text()
    entries = json.loads(system.run("--history", "--json").stdout)
    assert [one["status"] for one in entries] == ["incomplete", "incomplete", "ok"]
    assert entries[-1]["run_id"] == first["run_id"]
    assert "stored, but suspicious: 1" in entries[0]["unusual"][0]
    table = system.run("--history", "1").stdout.splitlines()
    assert len(table) == 2
    assert table[1].startswith(result["run_id"])


@pytest.mark.fault("the database of figures is locked", "the run is as without it")
def test_a_locked_database_changes_no_run(system: System) -> None:
    system.configure(system.short(), STREAM="True")
    write(system, USUAL)
    system.result()
    other = sqlite3.connect(database(system), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    write(system, TWENTIETH)
    result = system.result()
    assert (result["exit_code"], "usually 2.44 MB" in result["stderr"]) == (3, True)
    other.close()
    assert "history.sqlite3: database is locked: this run is not recorded" in system.log.read_text()


def test_a_database_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def closed(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder / "history.sqlite3"))

    monkeypatch.setattr(run_history, "read_only", closed)
    config = Config(tmp_path / "conf.json", General("srv", work_folder=tmp_path), {}, ())
    assert history.show(config, 5, as_json=False) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"error: {tmp_path}/.nc-backup-py/history.sqlite3: permission denied"
    assert second.startswith("hint: ")


@pytest.mark.fault("an absurd size in an earlier manifest", "not compared with")
def test_an_absurd_size_does_not_make_later_backups_suspicious(system: System) -> None:
    """Issue 11 E: an altered manifest that says 10^15 bytes."""
    system.configure(system.short(), STREAM="True")
    write(system, 1000)
    system.result()
    (path,) = (system.store / "srv-test").glob("*.manifest.json")
    for size in (10**15, 2**63 - 1, 10**30):
        record = json.loads(path.read_text())
        record["items"][0]["size"] = size
        system.sign(path, json.dumps(record))
        database(system).unlink()
        assert system.result("--accept-rollback")["exit_code"] == 0
        for newer in (system.store / "srv-test").glob("*"):
            if not newer.name.startswith(path.name[:15]):
                newer.unlink()


def test_accept_names_what_there_is(system: System) -> None:
    system.configure(system.short(), STREAM="True")
    done = system.run("--accept", "FILESET")
    assert (done.returncode, "error: --accept: " in done.stderr) == (2, True)
    assert system.run("--history").stderr == "No run is recorded yet.\n"
    system.result()
    done = system.run("--accept", "FILESETS")
    assert (done.returncode, "hint: Did you mean FILESET?" in done.stderr) == (2, True)
