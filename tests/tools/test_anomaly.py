"""The rule of the anomaly guard: a pure function of figures."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from tools.catalog import figures
from tools.catalog.figures import Acceptance
from tools.flow import anomaly
from tools.flow.anomaly import Counted, Figures, Thresholds, Verdict
from tools.flow.item_record import Part, StoredItem

NOW = datetime(2026, 3, 1, 3, tzinfo=timezone.utc)
MIB = 1 << 20


def copies(*sizes: int, days: int = 1) -> list[Figures]:
    """Return good copies, the last one of `days` ago."""
    last = len(sizes)
    return [Figures(NOW - timedelta(days=days * (last - i)), size) for i, size in enumerate(sizes)]


def judged(good: list[Figures], **now: object) -> Verdict:
    return anomaly.judge(Figures(NOW, **now), good, Thresholds())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("good", "size", "suspicious", "grave"),
    [
        ([], 1, False, False),  # the first copy
        ([100 * MIB], 51 * MIB, False, False),
        ([100 * MIB], 49 * MIB, True, False),
        ([100 * MIB], 11 * MIB, True, False),
        ([100 * MIB], 9 * MIB, True, True),
        ([100 * MIB], 0, True, True),
        ([0, 0, 0], 0, False, False),
        ([0, 0, 0], 100 * MIB, False, False),  # it was empty before
        ([MIB - 1], 0, False, False),  # too small to mean anything
        ([10 * MIB] * 6 + [900 * MIB], 9 * MIB, False, False),  # one large copy in between
        ([900 * MIB] * 6 + [10 * MIB], 10 * MIB, True, True),
        ([9000 * MIB] * 7 + [10 * MIB] * 7, 9 * MIB, False, False),  # of the last 7
    ],
)
def test_sizes_are_compared_with_the_median(
    good: list[int], size: int, suspicious: bool, grave: bool
) -> None:
    verdict = judged(copies(*good), size=size)
    assert (bool(verdict.suspicious), verdict.grave) == (suspicious, grave)


def test_one_large_day_in_each_week_is_as_usual() -> None:
    week = [10 * MIB] * 6 + [80 * MIB]
    for day in range(14):
        past = copies(*(week * 3)[: 7 + day])
        assert judged(past, size=(week * 3)[7 + day]) == Verdict()


def test_after_a_gap_the_last_copy_alone_counts() -> None:
    assert judged(copies(100 * MIB, 70 * MIB, 49 * MIB, days=30), size=30 * MIB) == Verdict()
    assert judged(copies(100 * MIB, 70 * MIB, 49 * MIB), size=30 * MIB).suspicious


def test_growth_and_duration_are_named_and_no_more() -> None:
    verdict = judged(copies(2 * MIB), size=21 * MIB)
    assert verdict == Verdict(unusual=("21.00 MB, usually 2.00 MB",))
    slow = [Figures(NOW - timedelta(days=1), seconds=61.0)]
    assert judged(slow, seconds=310.0).unusual == ("5 min 10 s, usually 1 min 01 s",)
    assert judged(slow, seconds=1.0) == Verdict()
    assert judged([Figures(NOW, seconds=59.0)], seconds=3000.0) == Verdict()


def test_the_number_of_files_is_compared() -> None:
    past = [Figures(NOW - timedelta(days=1), 5 * MIB, count=1000)]
    verdict = judged(past, size=5 * MIB, count=90)
    assert verdict == Verdict(("files: 90, usually 1000",), grave=True)
    assert judged(past, size=5 * MIB) == Verdict()  # not known now
    assert judged([Figures(NOW, count=19)], count=0) == Verdict()
    few = [Figures(NOW - timedelta(days=1), count=10)]
    verdict = anomaly.judge(Figures(NOW, count=4), few, Thresholds(), Counted("items", 3))
    assert verdict.suspicious == ("items: 4, usually 10",)


def test_encrypted_files_do_not_compress() -> None:
    """RELIABILITY 4.5: the size stays, the ratio jumps."""
    zstd = ("zstd", "age")
    past = [Figures(NOW - timedelta(days=1), 100 * MIB, 31 * MIB, stages=zstd)]
    assert judged(past, size=100 * MIB, stored=60 * MIB, stages=zstd) == Verdict()
    verdict = judged(past, size=100 * MIB, stored=100 * MIB, stages=zstd)
    assert "stored with 100% of its size, usually 31%" in verdict.suspicious[0]
    assert not verdict.grave
    assert judged(past, size=100 * MIB, stored=2000, stages=zstd).suspicious  # zeros
    assert judged(past, size=100 * MIB, stored=100 * MIB, stages=("age",)) == Verdict()
    assert judged([], size=100 * MIB, stored=100 * MIB, stages=zstd) == Verdict()
    small = [Figures(NOW - timedelta(days=1), MIB - 1, 1000, stages=zstd)]
    assert judged(small, size=2 * MIB, stored=2 * MIB, stages=zstd) == Verdict()


def test_each_comparison_can_be_turned_off() -> None:
    past = [Figures(NOW - timedelta(days=1), 100 * MIB, 10 * MIB, 1000, 100.0)]
    off = Thresholds(7, 0, 0, 0, 0)
    for now in (Figures(NOW, 0, 0, 0, 9e9), Figures(NOW, 1 << 60, 1 << 60, 1 << 60, 0.0)):
        assert anomaly.judge(now, past, Thresholds()) != Verdict()
        assert anomaly.judge(now, past, off) == Verdict()


def item(kind: str, *reasons: str, **facts: int) -> StoredItem:
    part = Part("x.000", 100, "0" * 64)
    return StoredItem("A", "", kind, "", (), (part,), 0, facts=dict(facts), suspicious=reasons)


@pytest.mark.parametrize(
    ("kind", "fact"),
    [("fileset", "files"), ("sqlite", "tables"), ("mongo", "documents"), ("openldap", "entries")],
)
def test_what_is_in_an_item_is_counted(kind: str, fact: str) -> None:
    now = figures.of_item(item(kind, **{fact: 7}), NOW)
    verdict = figures.judge(item(kind), now, [Figures(NOW, count=100)], Thresholds())
    assert verdict.suspicious == (f"{fact}: 7, usually 100",)


@pytest.mark.parametrize("kind", ["mysql-binlogs", "mysql-physical"])
def test_logs_and_increments_are_not_compared(kind: str) -> None:
    past = [Figures(NOW - timedelta(days=1), 100 * MIB)]
    assert figures.judge(item(kind), Figures(NOW, 0), past, Thresholds()) == Verdict()
    assert figures.judge(item("fileset"), Figures(NOW, 0), past, None) == Verdict()


def test_what_the_operator_accepts_outdoes_the_run_until_it_agrees() -> None:
    """The machine that makes the runs may not know that another one has accepted them."""
    acceptance = Acceptance({"A": ["20260102_030000"]})
    bad, good = item("fileset", "small"), item("fileset")
    assert acceptance.refuses(bad)
    assert not acceptance.begins("A", "20260101_030000")
    assert not acceptance.begins("B", "20260103_030000")
    assert acceptance.begins("A", "20260103_030000")
    assert not acceptance.refuses(bad)
    assert not acceptance.begins("A", "20260104_030000")
    assert not acceptance.refuses(bad)
    assert not acceptance.refuses(good)
    assert acceptance.refuses(bad)
