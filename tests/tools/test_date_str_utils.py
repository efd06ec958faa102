from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from tools import date_str_utils


def test_a_run_id_is_utc_and_never_goes_back_at_the_end_of_summer_time() -> None:
    summer = datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=2)))
    winter = datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=1)))
    assert date_str_utils.run_id(summer) == "20261025_003000"
    assert date_str_utils.run_id(winter) == "20261025_013000"
    assert date_str_utils.run_id(datetime(2100, 1, 1, tzinfo=timezone.utc)) == "21000101_000000"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KB"),
        (4713735618, "4.39 GB"),
        (2**60, "1024.00 PB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert date_str_utils.human_size(size) == text


def test_counts() -> None:
    assert [date_str_utils.count(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.84, "0.8 s"), (42, "42 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")]
)
def test_times(seconds: float, text: str) -> None:
    assert date_str_utils.human_time(seconds) == text
