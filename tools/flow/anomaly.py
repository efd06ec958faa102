"""The anomaly guard: whether the figures of an item differ from its usual ones. Pure functions.

A run and clean-up judge by this one rule. The usual figure is the median of the last good copies.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tools.date_str_utils import human_size, human_time

_GAP = timedelta(days=8)  # after which only the last copy counts: clean-up has removed others
_LEAST_SIZE = 1 << 20  # bytes: the size of smaller items changes without any meaning
_LEAST_SECONDS = 60.0
_GRAVE = 0.2  # of a threshold: a tenth of the usual figure where the threshold is a half of it


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which change on figures are named; 0 turns a comparison off.

    runs:     number of good copies whose median is the usual figure
    shrink:   percent of the usual size or number, below which a copy is suspicious
    ratio:    percentage points by which stored to plaintext bytes may change
    growth:   times the usual size or number, above which a copy is named
    duration: times the usual duration, above which an item or a section is named
    """

    runs: int = 7
    shrink: float = 50.0
    ratio: float = 30.0
    growth: float = 10.0
    duration: float = 5.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What is compared of one copy of an item, or of one run of a section; None: not known.

    size:    bytes of the plaintext; stored: bytes of the parts
    count:   number of what is in it: files, tables, items of a section
    seconds: how long an item was read, or a section worked
    stages:  that made the stored bytes of the plaintext
    """

    moment: datetime
    size: int | None = None
    stored: int | None = None
    count: int | None = None
    seconds: float | None = None
    stages: tuple[str, ...] = ()

    @property
    def share(self) -> float | None:
        """Return the stored bytes per byte of plaintext; None where they mean nothing."""
        if self.size is None or self.stored is None or self.size < _LEAST_SIZE:
            return None
        return self.stored / self.size


@dataclass(frozen=True, slots=True)
class Counted:
    """What `count` is the number of. least: the usual number from which on it is compared"""

    noun: str = "files"
    least: int = 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is unusual about a copy.

    suspicious: why it may be a bad one; it does not count as good then
    unusual:    what is worth knowing
    grave:      whether it may be so bad that `latest` must not select it
    """

    suspicious: tuple[str, ...] = ()
    unusual: tuple[str, ...] = ()
    grave: bool = False


@dataclass(frozen=True, slots=True)
class _Change:
    """A figure and its usual value, both known and large enough to be compared."""

    now: float
    usual: float
    format: Callable[[float], str]
    noun: str = ""

    def __str__(self) -> str:
        noun = f"{self.noun}: " if self.noun else ""
        return f"{noun}{self.format(self.now)}, usually {self.format(self.usual)}"


def judge(
    now: Figures,
    good: Sequence[Figures],
    thresholds: Thresholds,
    counted: Counted | None = None,
) -> Verdict:
    """Return what is unusual about figures. good: of the good copies before, oldest first."""
    past = comparable(good, now.moment)[-thresholds.runs :]
    counter = counted or Counted()
    sizes = _change(now, past, lambda one: one.size, _LEAST_SIZE, human_size)
    counts = _change(now, past, lambda one: one.count, counter.least, "{:.0f}".format, counter.noun)
    times = _change(now, past, lambda one: one.seconds, _LEAST_SECONDS, human_time)
    limit = thresholds.shrink / 100
    lower = [one for one in (*sizes, *counts) if one.now < one.usual * limit]
    upper = [one for one in (*sizes, *counts) if 0 < one.usual * thresholds.growth < one.now]
    upper += [one for one in times if 0 < one.usual * thresholds.duration < one.now]
    return Verdict(
        (*map(str, lower), *_converted(now, past, thresholds.ratio)),
        tuple(map(str, upper)),
        any(one.now < one.usual * limit * _GRAVE for one in lower),
    )


def comparable(good: Sequence[Figures], moment: datetime) -> list[Figures]:
    """Return the copies that the one of a moment is compared with.

    After a gap it is the last one alone. An item that shrinks slowly would otherwise seem to have
    lost most of its data between copies of which clean-up has removed those between.
    """
    compared: list[Figures] = []
    for figures in good:
        if compared and figures.moment - compared[-1].moment > _GAP:
            del compared[:-1]
        compared.append(figures)
    return compared[-1:] if compared and moment - compared[-1].moment > _GAP else compared


def _change(
    now: Figures,
    past: Sequence[Figures],
    of: Callable[[Figures], float | None],
    least: float,
    format_value: Callable[[float], str],
    noun: str = "",
) -> list[_Change]:
    """Return a figure with its median in the past; nothing where they cannot be compared."""
    value = of(now)
    past_values = [one for one in map(of, past) if one is not None]
    if value is None or not past_values or (usual := statistics.median(past_values)) < least:
        return []
    return [_Change(value, usual, format_value, noun)]


def _converted(now: Figures, past: Sequence[Figures], points: float) -> list[str]:
    """Return why data that compress in another way than before are suspicious.

    Files that somebody has encrypted do not compress any longer. Files of zeros compress well.
    """
    same = [one for one in past if one.stages == now.stages]
    changes = _change(now, same, lambda one: one.share, 0, "{:.0%}".format)
    return [
        f"stored with {one.format(one.now)} of its size, usually {one.format(one.usual)}: is the "
        "data encrypted, or zeros?"
        for one in changes
        if 0 < points < abs(one.now - one.usual) * 100
    ]
