"""How `-t` judges the age of the newest complete run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import pytest

from tools.base.finding import Level
from tools.engine import newest_runs
from tools.engine.newest_runs import Runs

NOW = datetime(2026, 3, 31, 12, tzinfo=timezone.utc)


def ago(*days: float) -> list[str]:
    """The ids of runs that began so many days ago."""
    return [(NOW - timedelta(days=one)).strftime("%Y%m%d_%H%M%S") for one in days]


DAILY = (6.5, 5.5, 4.5, 3.5, 2.5, 1.5, 0.5)
WEEKLY = (28, 21, 14, 7)


@pytest.mark.parametrize(
    ("others", "complete", "failed", "levels", "says"),
    [
        ((), None, (), [Level.OK], "no run yet"),
        (DAILY, 6, (), [Level.OK], "is 12 h 00 min old"),
        (DAILY[:5], 4, (), [Level.WARN], "is 2 days old"),
        (DAILY, 5, (), [Level.OK, Level.WARN], "the run after it is not complete"),
        (DAILY, 1, (0.1,), [Level.WARN, Level.WARN], "the 6 runs after it are not complete"),
        (DAILY, 6, (0.1,), [Level.OK, Level.WARN], "or still in progress"),
        (WEEKLY, 3, (), [Level.OK], "is 7 days old"),
        (WEEKLY[:2], 1, (), [Level.WARN], "is 21 days old"),
        (DAILY, None, (), [Level.WARN], "no complete run among 7 runs"),
        ((), None, (0.1,), [Level.WARN], "no complete run among 1 run"),
        ((1.9,), 0, (), [Level.OK], "is 1 day old"),
        ((-0.00001,), 0, (), [Level.OK], "is 0.0 s old"),
    ],
)
def test_the_newest_complete_run(
    others: Sequence[float],
    complete: int | None,
    failed: Sequence[float],
    levels: list[Level],
    says: str,
) -> None:
    run_ids = ago(*others)
    runs = Runs("" if complete is None else run_ids[complete], run_ids, ago(*failed))
    findings = list(newest_runs.findings("store", runs, NOW))
    assert [one.level for one in findings] == levels
    assert any(says in one.text for one in findings)
    assert all(one.hint for one in findings if one.level is Level.WARN)


def test_many_runs_that_failed_are_not_listed_all() -> None:
    run_ids = ago(*(number / 100 for number in range(5_000, 0, -1)))
    (first, second) = newest_runs.findings("store", Runs(run_ids[0], run_ids, ()), NOW)
    assert first.level is second.level is Level.WARN
    assert f"{run_ids[-1]} and 4996 before" in second.text
