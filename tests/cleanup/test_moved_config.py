"""Runs from before conf.json was moved: they stay for ever, until the operator adopts them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cleanup import cleaning, moved_config
from cleanup.cleaning import Order
from cleanup.moved_config import Adopted, EarlierConfig
from cleanup.policy import Rules
from cleanup.remembered import Remembered
from tests import stored_runs
from tests.stored_runs import HOST, days_ago, item, put, run, run_id
from tools.base.errors import ConfigError
from tools.catalog.catalog import Catalog
from tools.catalog.manifest import Manifest
from tools.catalog.memory import Memory
from tools.catalog.trust import Trust
from tools.flow.memory_store import MemoryStore

RULES = Rules(daily=3, weekly=2, minimum=1)
OLD, NEW = "/root/conf.json", "/etc/nc-backup-py/conf.json"


def moved(*labels: str) -> tuple[MemoryStore, list[Manifest]]:
    """Return a store of 60 daily runs whose config was moved after the first 40, and its runs."""
    memory_store, clock = stored_runs.memory()
    runs = []
    for day in range(60, 0, -1):
        clock.now = days_ago(day)
        this_run = run_id(clock.now)
        config = ("old", OLD) if day > 20 else ("new", NEW)
        items = [item(this_run, label) for label in (labels if day > 20 and labels else ("A", "B"))]
        runs.append(run(this_run, items, config_id=config[0], config_file=config[1]))
        put(memory_store, runs[-1])
    clock.now = stored_runs.NOW
    return memory_store, runs


def clean(memory_store: MemoryStore, memory: Remembered, config_id: str = "new") -> list[str]:
    """Clean up; return what reports say."""
    catalog = Catalog(memory_store, HOST, Trust(everybody=True))
    order = Order(RULES, acts=True, config_id=config_id)
    return cleaning.clean(catalog, order, memory)[1].notices(config_id)


def ids(memory_store: MemoryStore) -> list[str]:
    return list(Catalog(memory_store, HOST, Trust()).run_ids)


def test_the_path_of_another_config_is_quoted() -> None:
    line = EarlierConfig("/etc/a;$(id)", "20260101_000000").line()
    assert line.endswith("cleanup.py --adopt-config '/etc/a;$(id)'")


def test_runs_of_the_earlier_path_stay_until_they_are_adopted(tmp_path: Path) -> None:
    memory_store, runs = moved()
    memory = Remembered(Memory(tmp_path), "memory", HOST)
    (line,) = clean(memory_store, memory)
    remaining = [one.run_id for one in runs[:40] if one.run_id in ids(memory_store)]
    assert len(remaining) >= 3
    assert f"the runs of the config {OLD} count separately, the newest is {remaining[-1]}" in line
    assert line.endswith(f"cleanup.py --adopt-config {OLD}")
    old, adopted = moved_config.adoption(runs, "new", OLD)
    assert (old, adopted) == ("old", Adopted("new", runs[39].run_id))
    memory.adopt(old, adopted)
    assert clean(memory_store, memory) == []
    assert not {one.run_id for one in runs[:40]} & set(ids(memory_store))
    assert runs[-1].run_id in ids(memory_store)


def test_another_config_is_not_named() -> None:
    """It has no item of the same name, or it is in use."""
    memory = Remembered(Memory(None), "memory", HOST)
    memory_store, _runs = moved("OTHER")
    assert clean(memory_store, memory) == []
    memory_store, _runs = moved()
    assert clean(memory_store, memory, "old") == []
    assert clean(memory_store, memory, "") == []


def test_later_runs_of_an_adopted_config_count_for_themselves() -> None:
    chain = {"old": Adopted("new", "20260101_000000"), "new": Adopted("newest", "20260201_000000")}
    runs = [run(f"2026{month}_000000", [], config_id="old") for month in ("0101", "0102")]
    assert [moved_config.config_of(one, chain) for one in runs] == ["newest", "old"]
    circle = {"old": Adopted("new", "2027"), "new": Adopted("old", "2027")}
    assert moved_config.config_of(runs[0], circle) == "old"


@pytest.mark.parametrize(
    ("config_id", "file", "problem"),
    [
        ("new", NEW, "is the config of -c"),
        ("old", NEW, "after the first run of this config"),
        ("third", OLD, "this config has no run yet"),
    ],
)
def test_what_cannot_be_adopted(config_id: str, file: str, problem: str) -> None:
    _store, runs = moved()
    with pytest.raises(ConfigError, match=problem) as caught:
        moved_config.adoption(runs, config_id, file)
    assert caught.value.hint
    with pytest.raises(LookupError):
        moved_config.adoption(runs, config_id, "/elsewhere")


def test_the_memory_takes_nothing_else(tmp_path: Path) -> None:
    memory = Remembered(Memory(tmp_path), "memory", HOST)
    memory.adopt("old", Adopted("new", "20260101_000000"))
    memory.adopt("older", Adopted("old", "20250101_000000"))
    assert memory.adopted["old"] == Adopted("new", "20260101_000000")
    assert set(memory.adopted) == {"old", "older"}
    memory.memory.keep("cleanup.json", f"adopted memory {HOST}", {"old": "new", "x": ["y"]})
    assert memory.adopted == {}
