"""The keys for how much clean-up keeps, and the rules from them.

`KEEP_DAILY 7` and the documented dictionary `"KEEP": {"DAILY": {"NUMBER": "7"}}` say the same.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta, timezone, tzinfo
from typing import Any, NoReturn

from cleanup.policy import Key, Rules
from tools.base import foreign_json
from tools.base.errors import ConfigError
from tools.modules import options
from tools.modules.options import Fields, option

_NUMBERS = ("LAST", "HOURLY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY")
_WITHIN = "WITHIN"
_NUMBER, _DAY = "NUMBER", "DAY"
_LAST_DAY = {"WEEKLY": 7, "MONTHLY": 31}  # of the periods whose first day can be chosen
_DAYS = {"WEEKLY": "1 (Monday) to 7 (Sunday)", "MONTHLY": "1 to 31"}
_AMOUNT = re.compile(r"(?<![0-9.])[0-9.]+\s*[smhdw]", re.I)
_MOST = 1_000_000  # of anything that is kept
_LONGEST = 36_500 * 86_400  # seconds of KEEP_WITHIN: a hundred years


@dataclass(frozen=True)
class Retention:
    """The keys of CLEANUP about what is kept."""

    keep_last: int = option("newest good copies of each item to keep", default=0, least=0)
    keep_hourly: int = option("hours whose first good copy is kept", default=0, least=0)
    keep_daily: int = option("days whose first good copy is kept", default=0, least=0)
    keep_weekly: int = option("weeks whose first good copy is kept", default=0, least=0)
    keep_monthly: int = option("months whose first good copy is kept", default=0, least=0)
    keep_yearly: int = option("years whose first good copy is kept", default=0, least=0)
    keep_within: str = option(
        "age up to which all good copies are kept, counted back from the newest one (`30d`, "
        "`5w 12h`)",
        default="",
    )
    keep: Fields = option(
        'the same as a dictionary: `{"DAILY": {"NUMBER": 7}, "WEEKLY": {"NUMBER": 2, "DAY": 1}}`, '
        "with LAST, HOURLY, DAILY, WEEKLY, MONTHLY, YEARLY and WITHIN",
        default=Fields(""),
    )
    minimum: int = option("good copies of each item that always stay", default=3, least=1)
    timezone: str = option("time zone in which days begin, as `Europe/Berlin`", default="UTC")

    def __post_init__(self) -> None:
        rules(self)  # raises ConfigError when the config is loaded


def rules(options: Retention, forgotten: Collection[Key | str] = ()) -> Rules:
    """Return the rules that the keys make.

    forgotten: items, by key or label, of which no copy is wanted any more.
    Raises ConfigError, which names the key: KEEP.WEEKLY.DAY.
    """
    table = _Table(_dictionary(options.keep))
    for word, text in _plain(options):
        table.add(word, text)
    return Rules(
        **{word.lower(): table.numbers.get(word, 0) for word in _NUMBERS},
        within=table.within,
        minimum=options.minimum,
        week_day=table.days.get("WEEKLY", 1),
        month_day=table.days.get("MONTHLY", 1),
        timezone=zone(options.timezone),
        forgotten=frozenset(forgotten),
    )


def zone(name: str) -> tzinfo:
    """Return a time zone by its name. Raises ConfigError where this machine does not know it."""
    if name.upper() == "UTC":
        return timezone.utc
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        zone_names = zoneinfo.available_timezones()
    if not zone_names:
        raise ConfigError(
            f"TIMEZONE: {name}: this system has no time zone data",
            "Install the package tzdata, or remove TIMEZONE: days then begin at 00:00 UTC.",
        )
    near = difflib.get_close_matches(name, sorted(zone_names), 1, 0.5)
    hint = f"Did you mean {near[0]}?" if near else "Write a name such as Europe/Berlin or UTC."
    raise ConfigError(f"TIMEZONE: {name}: no such time zone", hint)


def period(name: str, text: str) -> timedelta:
    """Return a duration with several units, as 30d or 5w 12h. Raises ConfigError."""
    parts = _AMOUNT.findall(text)
    try:
        seconds = sum(options.duration(part.lower()) for part in parts)
        if not 0 < seconds <= _LONGEST or _AMOUNT.sub("", text).strip():
            raise ValueError(text)
    except ValueError:
        raise ConfigError(
            f"{name}: {text!r} is not a duration with units",
            "Write numbers with the unit h, d or w, for example 30d or 5w 12h.",
        ) from None
    return timedelta(seconds=seconds)


def _plain(retention: Retention) -> Iterator[tuple[str, str]]:
    """Yield the rules that have a key of their own, with their values as texts."""
    for word in _NUMBERS:
        number = getattr(retention, f"keep_{word.lower()}")
        if number:
            yield word, str(number)
    if retention.keep_within:
        yield _WITHIN, retention.keep_within


def _dictionary(text: str) -> Mapping[str, Any]:
    """Return the value of KEEP. Raises ConfigError where it is no dictionary."""
    if not text:
        return {}
    try:
        values = foreign_json.load(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ConfigError(
            f"KEEP: {text} is not a dictionary",
            'Write it as in "KEEP": {"DAILY": {"NUMBER": 7}, "WEEKLY": {"NUMBER": 2}}.',
        )
    return values


@dataclass
class _Table:
    """The values of the keys. numbers, days: by the word of the rule (DAILY)"""

    values: Mapping[str, Any]
    numbers: dict[str, int] = field(default_factory=dict)
    days: dict[str, int] = field(default_factory=dict)
    within: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        for word, value in self.values.items():
            _check_word(f"KEEP.{word}", word, (*_NUMBERS, _WITHIN))
            self._read(word, value)

    def add(self, word: str, text: str) -> None:
        """Take a rule that has a key of its own. Raises ConfigError where KEEP has it too."""
        if word in self.values:
            raise ConfigError(
                f"KEEP.{word}: KEEP_{word} is set as well", f"Remove KEEP_{word} or KEEP.{word}."
            )
        self._set(word, f"KEEP_{word}", text)

    def _read(self, word: str, value: object) -> None:
        """Take one entry of KEEP: a number, or an object with NUMBER and DAY."""
        name = f"KEEP.{word}"
        if not isinstance(value, dict):
            self._set(word, name, value)
            return
        keys = (_NUMBER, _DAY) if word in _LAST_DAY else (_NUMBER,)
        for key in value:
            if key == _DAY and word not in _LAST_DAY:
                _refuse(f"{name}.{_DAY}", "only WEEKLY and MONTHLY have a day", "Remove it.")
            _check_word(f"{name}.{key}", key, keys)
        if _NUMBER not in value:
            _refuse(name, "has no NUMBER", f'Write "{word}": {{"NUMBER": 7}}.')
        self._set(word, f"{name}.{_NUMBER}", value[_NUMBER])
        if _DAY in value:
            self.days[word] = _whole_number(
                f"{name}.{_DAY}", value[_DAY], (1, _LAST_DAY[word]), _DAYS[word]
            )

    def _set(self, word: str, name: str, value: object) -> None:
        if word == _WITHIN:
            self.within = period(name, str(value))
        else:
            self.numbers[word] = _whole_number(name, value, (0, _MOST), f"0 to {_MOST}")


def _refuse(name: str, problem: str, hint: str) -> NoReturn:
    raise ConfigError(f"{name}: {problem}", hint)


def _whole_number(name: str, value: object, limits: tuple[int, int], choices: str) -> int:
    """Return a whole number within limits. Raises ConfigError."""
    number = re.fullmatch(r"\s*([+-]?[0-9]{1,9})\s*", str(value))
    if isinstance(value, bool) or number is None:
        _refuse(name, f"{value!r} is not a whole number", f"Choose from {choices}.")
    if not limits[0] <= int(number[1]) <= limits[1]:
        _refuse(name, f"{value} is not one of {choices}", f"Choose from {choices}.")
    return int(number[1])


def _check_word(name: str, word: str, keys: Collection[str]) -> None:
    """Reject a word that is no key here; the hint names the nearest one."""
    if word in keys:
        return
    near = difflib.get_close_matches(word.upper(), keys, 1, 0.5)
    hint = f"Did you mean {near[0]}?" if near else f"Choose from {', '.join(keys)}."
    _refuse(name, "unknown key", hint)
