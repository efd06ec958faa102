"""The database of figures: a cache, and no trouble with it is worse than that it is empty."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tests import stored_runs
from tools.catalog.manifest import Manifest
from tools.engine import anomaly_guard, run_history
from tools.engine.run_history import Entry, HistoryError, RunEntry
from tools.flow.anomaly import Figures, Thresholds
from tools.flow.item_record import StoredItem

HOST = "srv-1"
FILE = run_history.NAME
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
BIG = 1 << 30


def day(number: int) -> str:
    return f"202601{number:02d}_030000"


def entry(size: int, *, name: str | None = "", bad: bool = False, status: str = "") -> Entry:
    return Entry("A", name, "fileset", Figures(NOW, size, 5, 9, 1.5, ("zstd",)), status, bad)


def sizes(history: run_history.RunHistory, **changes: str) -> list[int | None]:
    criteria = {"since": "", "until": "~", "config": "c", "host": HOST, **changes}
    figures = history.good(
        criteria["host"], "A", "", criteria["config"],
        since=criteria["since"], until=criteria["until"], most=3,
    )  # fmt: skip
    return [one.size for one in figures]


def test_the_last_good_copies_of_an_item(tmp_path: Path) -> None:
    history = run_history.opened(tmp_path)
    for number in range(1, 7):
        run = RunEntry(HOST, day(number), "c", "ok")
        history.add([(run, [entry(number, bad=number == 5), entry(99, name="other")])])
    history.add([(RunEntry(HOST, day(7), "other config", "ok"), [entry(7)])])
    history.add([(RunEntry("srv-2", day(8), "c", "ok"), [entry(8)])])
    assert sizes(history) == [3, 4, 6]
    assert sizes(history, until=day(6)) == [2, 3, 4]
    assert sizes(history, since=day(5)) == [5, 6]  # an accepted copy is good
    assert sizes(history, since=day(6)) == [6]
    assert sizes(history, config="new") == [4, 6, 7]  # of others, where it has none
    assert sizes(history, config="other config") == [7]
    failed = RunEntry(HOST, day(9), "c", "failed")
    history.add([(failed, [entry(0, status="failed"), entry(0, name=None, status="failed")])])
    assert history.newest(HOST) == {"A": day(7), "A/other": day(6)}  # --accept takes a copy
    history.close()
    (again,) = run_history.read_only(tmp_path).good(
        HOST, "A", "other", "c", since="", until="~", most=1
    )
    moment = datetime(2026, 1, 6, 3, tzinfo=timezone.utc)
    assert again == Figures(moment, 99, 5, 9, 1.5, ("zstd",))


def test_it_is_private_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_history, "_MOST_RUNS", 5)
    monkeypatch.setattr(run_history, "_MOST_DETAILED", 2)
    history = run_history.opened(tmp_path)
    for number in range(1, 9):
        history.add([(RunEntry(HOST, day(number), "c", "ok"), [entry(number)])])
    for number in range(9, 19):  # forged runs push out no others
        history.add([(run_history.unusable(HOST, day(number)), [])])
    kept = [*range(4, 9), *range(14, 19)]
    assert history.recorded_run_ids(HOST) == {day(number) for number in kept}
    assert [run.run_id for run in history.runs(2)] == [day(8), day(7)]
    assert sizes(history) == [7, 8]
    assert {path.name for path in tmp_path.iterdir()} == {FILE, f"{FILE}-journal"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_looking_at_it_follows_no_link(tmp_path: Path) -> None:
    """Root may look at the folder of another user."""
    other = tmp_path / "other"
    other.mkdir()
    run_history.opened(other).close()
    run_history.read_only(other).close()
    (tmp_path / "link").symlink_to(other)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / FILE).symlink_to(other / FILE)
    for name in ("link", "private"):
        with pytest.raises(HistoryError):
            run_history.read_only(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        run_history.read_only(tmp_path / "absent")


def test_any_name_and_number_can_be_recorded() -> None:
    history = run_history.in_memory()
    run = RunEntry(HOST, day(1), "c", "ok", 1.0, 1 << 70, 1, 1, ("a\nb\udcff", ""))
    odd = Entry("A", "\udcff/\n\0'", "x", Figures(NOW, 1 << 64))
    history.add([(run, [odd, entry(4, name=None, status="failed")])])
    (recorded,) = history.runs(5, HOST)
    assert (recorded.size, recorded.unusual) == ((1 << 63) - 1, ("a b\\udcff",))
    assert history.good(HOST, "A", "\udcff/\n\0'", "c", since="", until="~", most=1)
    assert not history.good(HOST, "A", None, "c", since="", until="~", most=1)  # it failed


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE runs (x)")


def later(path: Path) -> None:
    run_history.opened(path.parent).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")


def with_a_trigger(path: Path) -> None:
    run_history.opened(path.parent).close()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM figures; END")


def truncated(path: Path) -> None:
    run_history.opened(path.parent).close()
    path.write_bytes(path.read_bytes()[:5000])


SPOILED: dict[str, Callable[[Path], object]] = {
    "not a database": lambda path: path.write_bytes(b"SQLite or not" * 500),
    "truncated": truncated,
    "of another program": foreign,
    "of a later version": later,
    "altered by somebody": with_a_trigger,
    "a folder": Path.mkdir,
    "a link": lambda path: path.symlink_to(path.with_name("victim")),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_spoiled_one_is_moved_aside(tmp_path: Path, how: str) -> None:
    path = tmp_path / FILE
    SPOILED[how](path)
    Path(f"{path}-journal").write_bytes(b"of the spoiled one")
    with pytest.raises(HistoryError) as caught:
        run_history.opened(tmp_path)
    assert caught.value.damaged
    run_history.move_aside(tmp_path)
    run_history.opened(tmp_path).add([(RunEntry(HOST, day(1), "c", "ok"), [])])
    names = {one.name for one in tmp_path.iterdir()} - {f"{run_history.ASIDE}-journal"}
    assert names == {FILE, f"{FILE}-journal", run_history.ASIDE}


def test_wrong_values_are_damage(tmp_path: Path) -> None:
    history = run_history.opened(tmp_path)
    history.add([(RunEntry(HOST, day(1), "c", "ok"), [entry(1)])])
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("UPDATE figures SET size = 'much'")
        connection.execute("UPDATE runs SET items = x'00'")
    for call in (lambda: sizes(history), lambda: history.runs(1)):
        with pytest.raises(HistoryError) as caught:
            call()
        assert caught.value.damaged


@pytest.mark.parametrize("value", ["9e999", "-9e999", "1e300", "x'ff'"])
def test_numbers_that_are_none_are_damage(tmp_path: Path, value: str) -> None:
    history = run_history.opened(tmp_path)
    history.add([(RunEntry(HOST, day(1), "c", "ok"), [])])
    history.close()
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute(f"UPDATE runs SET size = {value}")
        connection.commit()
    with pytest.raises(HistoryError) as caught:
        run_history.read_only(tmp_path).runs(1)
    assert caught.value.damaged


def test_text_that_is_not_utf_8_is_shown_escaped(tmp_path: Path) -> None:
    history = run_history.opened(tmp_path)
    history.add([(RunEntry(HOST, day(1), "c", "ok"), [])])
    history.close()
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("UPDATE runs SET status = CAST(x'ff9b' AS TEXT)")
        connection.commit()
    (run,) = run_history.read_only(tmp_path).runs(1)
    assert run.status == r"\xff\x9b"


def test_a_locked_one_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_history, "_BUSY", 0.05)
    history = run_history.opened(tmp_path)
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    calls = (
        lambda: history.add([(RunEntry(HOST, day(1), "c", "ok"), [])]),
        lambda: run_history.opened(tmp_path),
    )
    for call in calls:
        with pytest.raises(HistoryError, match="locked") as caught:
            call()
        assert not caught.value.damaged
    other.close()
    assert not history.runs(1)


def test_a_run_costs_little(tmp_path: Path) -> None:
    """Issue 17, speed: 20 ms; what a loaded machine adds is not counted."""
    began = time.process_time()
    history = run_history.opened(tmp_path)
    entries = [entry(number, name=f"3306/db{number}") for number in range(20)]
    for one in entries:
        history.good(HOST, "A", one.name, "c", since="", until="~", most=7)
    history.add([(RunEntry(HOST, day(1), "c", "ok"), entries)])
    history.close()
    assert time.process_time() - began < 0.02


# --- made again from manifests


def manifest(number: int, *items: StoredItem, **fields: object) -> tuple[str, Manifest]:
    return day(number), stored_runs.run(day(number), items, **fields)


def complete_item(number: int, size: int, name: str = "") -> StoredItem:
    return stored_runs.item(day(number), "A", name=name, size=size)


def test_earlier_runs_are_judged_by_the_same_rule() -> None:
    """Those of earlier versions have no verdict in their manifests."""
    small = 1 << 18  # what four stored bytes can hold
    runs = dict([manifest(n, complete_item(n, BIG if n == 9 else 5 * small)) for n in range(1, 10)])
    runs[day(8)] = stored_runs.run(day(8), [complete_item(8, 4)], missing=("A/x",), status="failed")
    learned = dict(anomaly_guard.learned(runs, {}, lambda _section: Thresholds()))
    bad = {run.run_id: [one.suspicious for one in entries if one.name is not None]
           for run, entries in learned.items()}  # fmt: skip
    assert bad[day(8)] == [True]
    assert bad[day(9)] == []  # a size that the stored bytes cannot hold
    assert all(bad[day(number)] == [False] for number in range(1, 8))
    accepted = dict(anomaly_guard.learned(runs, {"A": [day(8)]}, lambda _section: Thresholds()))
    assert not any(one.suspicious for entries in accepted.values() for one in entries)
    statuses = {run.run_id: [one.status for one in entries if one.name is None]
                for run, entries in learned.items()}  # fmt: skip
    assert (statuses[day(7)], statuses[day(8)]) == (["ok"], [])
