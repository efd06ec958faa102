"""The keys that say how much clean-up keeps; what is wrong with them is one clear line."""

from __future__ import annotations

import json
import zoneinfo
from datetime import timedelta

import pytest

from cleanup import rules
from cleanup.policy import Rules
from cleanup.rules import Retention
from tools.base.errors import ConfigError
from tools.modules import options

DOCUMENTED = {
    "DAILY": {"NUMBER": "7"},
    "WEEKLY": {"NUMBER": "2", "DAY": "1"},
    "MONTHLY": {"NUMBER": "2", "DAY": "1"},
}


def read(**keys: object) -> Rules:
    """Return the rules that the keys of a section make."""
    return rules.rules(options.fill(Retention, options.texts(Retention, keys)))


def test_the_documented_dictionary() -> None:
    assert read(KEEP=DOCUMENTED) == Rules(daily=7, weekly=2, monthly=2)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, Rules()),
        ({"KEEP": {}}, Rules()),
        ({"KEEP": {"LAST": 5, "HOURLY": "24", "YEARLY": {"NUMBER": 3}}}, Rules(5, 24, yearly=3)),
        (
            {"KEEP": {"WEEKLY": {"NUMBER": 2, "DAY": 3}, "MONTHLY": {"NUMBER": 1, "DAY": "31"}}},
            Rules(weekly=2, monthly=1, week_day=3, month_day=31),
        ),
        (
            {"KEEP": {"DAILY": 7}, "KEEP_WEEKLY": 4, "MINIMUM": 1},
            Rules(daily=7, weekly=4, minimum=1),
        ),
        ({"KEEP_WITHIN": "5w 12h"}, Rules(within=timedelta(days=35, hours=12))),
        ({"KEEP": {"WITHIN": "30D"}}, Rules(within=timedelta(days=30))),
        ({"KEEP": {"WITHIN": {"NUMBER": "1.5d"}}}, Rules(within=timedelta(hours=36))),
        ({"TIMEZONE": "Europe/Berlin"}, Rules(timezone=zoneinfo.ZoneInfo("Europe/Berlin"))),
    ],
)
def test_keys(keys: dict[str, object], expected: Rules) -> None:
    assert read(**keys) == expected


@pytest.mark.parametrize(
    ("keys", "problem", "hint"),
    [
        ({"KEEP": {"WEEKLY": {"NUMBER": 2, "DAY": 9}}}, "KEEP.WEEKLY.DAY: 9 is not", "7 (Sunday)"),
        ({"KEEP": {"MONTHLY": {"NUMBER": 2, "DAY": 0}}}, "KEEP.MONTHLY.DAY: 0 is", "1 to 31"),
        ({"KEEP": {"DAILY": {"NUMBER": 2, "DAY": 1}}}, "KEEP.DAILY.DAY: only WEEKLY", "Remove"),
        ({"KEEP": {"WEKLY": {"NUMBER": 2}}}, "KEEP.WEKLY: unknown key", "mean WEEKLY?"),
        ({"KEEP": {"daily": 2}}, "KEEP.daily: unknown key", "mean DAILY?"),
        ({"KEEP": {"DAILY": {"NUMBR": 2}}}, "KEEP.DAILY.NUMBR: unknown key", "mean NUMBER?"),
        ({"KEEP": {"DAILY": {"NUMBER": "-2"}}}, "KEEP.DAILY.NUMBER: -2 is not", "0 to"),
        ({"KEEP": {"DAILY": {"NUMBER": "many"}}}, "KEEP.DAILY.NUMBER: 'many' is not", "0 to"),
        ({"KEEP": {"DAILY": None}}, "KEEP.DAILY: None is not a whole number", "0 to"),
        ({"KEEP": {"DAILY": True}}, "KEEP.DAILY: True is not a whole number", "0 to"),
        ({"KEEP": {"DAILY": {}}}, "KEEP.DAILY: has no NUMBER", '"NUMBER": 7'),
        ({"KEEP": {"DAILY": 7}, "KEEP_DAILY": 7}, "KEEP.DAILY: KEEP_DAILY is set", "Remove"),
        ({"KEEP": "DAILY 7"}, "KEEP: DAILY 7 is not a dictionary", '"KEEP": {'),
        ({"KEEP_DAILY": "-1"}, "--KEEP_DAILY: -1 is less than 0", "0 or more"),
        ({"MINIMUM": "0"}, "--MINIMUM: 0 is less than 1", "1 or more"),
        ({"KEEP_WITHIN": "30"}, "KEEP_WITHIN: '30' is not a duration with units", "30d"),
        ({"KEEP_WITHIN": "30 apples"}, "KEEP_WITHIN: '30 apples' is not", "30d"),
        ({"KEEP_WITHIN": "9999999w"}, "KEEP_WITHIN: '9999999w' is not", "30d"),
        ({"KEEP": {"WITHIN": 30}}, "KEEP.WITHIN: '30' is not a duration with units", "30d"),
        ({"TIMEZONE": "Europe/Berlni"}, "TIMEZONE: Europe/Berlni: no such", "Europe/Berlin?"),
        ({"TIMEZONE": "../../etc/passwd"}, "TIMEZONE: ../../etc/passwd: no such", "UTC"),
    ],
)
def test_bad_keys(keys: dict[str, object], problem: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**keys)
    assert str(caught.value).startswith(problem)
    assert "\n" not in str(caught.value)
    assert hint in caught.value.hint


def test_a_system_without_time_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> zoneinfo.ZoneInfo:
        raise zoneinfo.ZoneInfoNotFoundError(name)

    monkeypatch.setattr(zoneinfo, "ZoneInfo", missing)
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    assert read(TIMEZONE="UTC") == Rules()
    with pytest.raises(ConfigError, match="TIMEZONE: Europe/Berlin: this system has no") as caught:
        read(TIMEZONE="Europe/Berlin")
    assert "tzdata" in caught.value.hint


def test_the_dictionary_on_a_command_line() -> None:
    retention = options.parse(Retention, ["--KEEP", json.dumps(DOCUMENTED), "--KEEP_LAST", "2"])
    assert rules.rules(retention) == Rules(last=2, daily=7, weekly=2, monthly=2)
