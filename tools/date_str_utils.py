"""Dates and sizes as texts."""

from __future__ import annotations

from datetime import datetime, timezone

RUN_ID = "%Y%m%d_%H%M%S"
_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")
_STEP = 1024


def run_id(now: datetime | None = None) -> str:
    """Return the ID of a run: its UTC time, YYYYMMDD_HHMMSS."""
    return (now or datetime.now(timezone.utc)).astimezone(timezone.utc).strftime(RUN_ID)


def human_size(size: float) -> str:
    """Return a size as the report server reads it: 4.39 GB (1 KB = 1024 B)."""
    for unit in _UNITS[:-1]:
        if size < _STEP:
            return f"{size:.0f} B" if unit == "B" else f"{size:.2f} {unit}"
        size /= _STEP
    return f"{size:.2f} {_UNITS[-1]}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: 1 file, 2 files."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def human_time(seconds: float) -> str:
    """Return a duration for people: 0.8 s, 42 s, 3 min 05 s, 2 h 07 min."""
    if seconds < 10:  # noqa: PLR2004  (below ten a tenth of a second is worth showing)
        return f"{seconds:.1f} s"
    minutes, remainder = divmod(round(seconds), 60)
    if not minutes:
        return f"{remainder} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {remainder:02} s"
