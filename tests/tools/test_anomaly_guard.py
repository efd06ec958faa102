"""The anomaly guard of one run, on figures in a real database."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from tools.base import run_ids
from tools.base.result import Result, Status
from tools.base.run_result import SectionResult
from tools.catalog import identity
from tools.catalog.memory import Memory
from tools.config.declarations import General
from tools.config.model import Config, Section
from tools.engine import run_history
from tools.engine.anomaly_guard import AnomalyGuard, Judged
from tools.engine.run_history import Entry, RunEntry
from tools.flow.anomaly import Figures
from tools.flow.item_record import Part, StoredItem

HOST = "srv-1"
CONF = Path("/etc/nc-backup-py/conf.json")
RUN = "20260110_030000"
BIG = 100 << 20


def day(number: int) -> str:
    return f"202601{number:02d}_030000"


def config(**section: float) -> Config:
    only = Section("DB", "", "execute", Path("x"), kind="source", thresholds=section)
    return Config(CONF, General(HOST), {}, (only,))


def guard(folder: Path, *, tolerant: bool = False, **section: float) -> AnomalyGuard:
    return AnomalyGuard(config(**section), Memory(folder), RUN, tolerant=tolerant)


def item(name: str, size: int = BIG, seconds: float | None = 90.0) -> StoredItem:
    part = Part(f"{RUN}.DB.{name}.000", size, "0" * 64)
    return StoredItem("DB", name, "mysql", ".sql", (), (part,), size, seconds=seconds)


def recorded(folder: Path, items: int = 10, size: int = BIG, seconds: float = 100.0) -> None:
    """Record good runs of the days from the 1st to the 9th."""
    history = run_history.opened(folder)
    config_id = identity.config_id(CONF)
    for number in range(1, 10):
        moment = run_ids.time_of(day(number))
        of_items = [
            Entry("DB", f"db{i}", "mysql", Figures(moment, size, size, seconds=90.0))
            for i in range(items)
        ]
        of_section = Entry(
            "DB", None, "source", Figures(moment, count=items, seconds=seconds), "ok"
        )
        history.add([(RunEntry(HOST, day(number), config_id, "ok"), [*of_items, of_section])])
    history.close()


def judged(
    anomalies: AnomalyGuard,
    *items: StoredItem,
    missing: frozenset[str] = frozenset(),
    seconds: float = 100.0,
    status: Status = Status.OK,
) -> list[str]:
    steps = [SectionResult("DB", "source", Result(status, ""), seconds)]
    lines = anomalies.judge(lambda _known: (), items, missing, steps).lines()
    return [line.text for line in lines]


def test_items_that_vanish_are_noticed(tmp_path: Path) -> None:
    """Somebody dropped most databases: those that are left are as usual."""
    recorded(tmp_path)
    few = [item(f"db{i}") for i in range(4)]
    assert judged(guard(tmp_path), *few) == ["stored, but suspicious: items: 4, usually 10"]
    assert judged(guard(tmp_path), *few, status=Status.FAILED) == []  # its errors say more
    assert judged(guard(tmp_path), *few, missing=frozenset({"DB/db9"})) == []
    assert judged(guard(tmp_path), *few, item("db5")) == []


def test_a_slow_section_is_named(tmp_path: Path) -> None:
    recorded(tmp_path)
    items = [item(f"db{i}") for i in range(10)]
    slow = ["unusual: 8 min 21 s, usually 1 min 40 s"]
    assert judged(guard(tmp_path), *items, seconds=501) == slow
    assert judged(guard(tmp_path, duration=6), *items, seconds=501) == []
    items[0] = item("db0", seconds=451)
    slow = ["DB/db0: unusual: 7 min 31 s, usually 1 min 30 s"]
    assert judged(guard(tmp_path), *items, seconds=501) == slow  # it explains the section
    items[0] = item("db0", seconds=None)
    assert judged(guard(tmp_path), *items) == []


def test_what_was_accepted_is_compared_with(tmp_path: Path) -> None:
    recorded(tmp_path)
    items = [item(f"db{i}", BIG // 20 if i < 2 else BIG) for i in range(10)]
    text = "stored, but suspicious: 5.00 MB, usually 100.00 MB"
    assert judged(guard(tmp_path), *items) == [f"DB/db0: {text}", f"DB/db1: {text}"]
    Memory(tmp_path).accept(HOST, {"DB/db0": day(10)})
    assert judged(guard(tmp_path), *items) == [f"DB/db1: {text}"]
    assert judged(guard(tmp_path, shrink=4), *items) == []
    assert judged(guard(tmp_path, tolerant=True), *items) == []
    assert Memory(tmp_path).tolerated(HOST) == {"DB/db1": [RUN]}
    assert Memory(tmp_path).accepted(HOST) == {"DB/db0": [day(10)]}  # clean-up asks for itself
    assert judged(guard(tmp_path), *items) == []


@pytest.mark.fault("Python without SQLite", "the run is not compared; one line")
def test_python_without_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "sqlite3", None)
    anomalies = guard(tmp_path)
    with caplog.at_level(logging.WARNING, "ncbackup"):
        assert judged(anomalies, item("db0", 1)) == []
    lines = [one.getMessage() for one in caplog.records if "SQLite" in one.getMessage()]
    assert len(lines) == 1
    assert "this run is not recorded" in lines[0]


def test_a_verdict_marks_its_item() -> None:
    assert Judged().marked(item("db0")) == item("db0")


def test_a_bug_of_the_guard_costs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored gets its manifest; that it was not compared is a warning of the run."""
    recorded(tmp_path)

    def broken(*_arguments: object, **_named: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(run_history.RunHistory, "good", broken)
    (line,) = judged(guard(tmp_path), item("db0"))
    assert "not compared with earlier runs: internal error: ValueError: a bug" in line
