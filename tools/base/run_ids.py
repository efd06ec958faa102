"""Run IDs and the times of a run: UTC, to the second."""

from __future__ import annotations

import functools
import re
from datetime import datetime, timedelta, timezone

_RUN_ID = re.compile(r"[0-9]{8}_[0-9]{6}")
_TIME = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})_([0-9]{2})([0-9]{2})([0-9]{2})")
_WRITTEN = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})Z")
_STAMP = "%Y-%m-%dT%H:%M:%SZ"
_AHEAD = timedelta(days=1)  # a run later than this from now was made with a wrong clock


def is_run_id(text: str) -> bool:
    """Return whether a text has the form of a run ID."""
    return bool(_RUN_ID.fullmatch(text))


def run_in(name: str) -> str:
    """Return the run ID that the name of a file of a run begins with; "" for other names."""
    match = _RUN_ID.match(name.lstrip("."))
    return match[0] if match else ""


def now() -> str:
    """Return the current time for `begin` and `end`."""
    return stamp(datetime.now(timezone.utc))


def stamp(moment: datetime) -> str:
    """Return a time as the manifest writes it."""
    return moment.astimezone(timezone.utc).strftime(_STAMP)


def is_stamp(text: str) -> bool:
    """Return whether a text is a time as the manifest writes it; "" for an unknown one."""
    try:
        return not text or bool(_read(_WRITTEN, text))
    except ValueError:
        return False


def time_of_stamp(text: str) -> datetime:
    """Return the time that a manifest writes. Raises ValueError for another text."""
    return _read(_WRITTEN, text)


@functools.lru_cache(1 << 14)
def time_of(run_id: str) -> datetime:
    """Return when a run began. Raises ValueError for an invalid run ID."""
    return _read(_TIME, run_id)


def _read(form: re.Pattern[str], text: str) -> datetime:
    """Return the time that a text is; strptime takes five times as long."""
    match = form.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time")
    return datetime(*map(int, match.groups()), tzinfo=timezone.utc)  # type: ignore[arg-type,misc]


def is_time(run_id: str) -> bool:
    """Return whether a run id names a time: its month is not 13."""
    try:
        time_of(run_id)
    except ValueError:
        return False
    return True


def in_future(run_id: str) -> bool:
    """Return whether a run began more than a day from now: the clock was wrong when it was made.

    Also true for a name that is no time at all (month 13).
    """
    return not is_time(run_id) or time_of(run_id) > datetime.now(timezone.utc) + _AHEAD
