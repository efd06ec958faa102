"""How old the newest complete run of a store is, and what became of the runs after it."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from tools.base import run_ids
from tools.base.finding import Finding, warning
from tools.catalog import markers
from tools.catalog.catalog import Catalog
from tools.catalog.history import History
from tools.date_str_utils import count, human_time

_LEAST = timedelta(days=2)  # an age that is no reason to worry, however often there are runs
_MISSED = 2  # intervals between runs that may pass without a complete one
_LOOKED_AT = 10  # runs whose intervals count
_NAMED = 3  # runs
_LOG = "Read the log (LOG_FOLDER) and the reports of these runs."
_OTHER_KEY = (
    "Runs that another WRITER_KEY has signed do not count: where it was replaced, make a run."
)
_SCHEDULE = "Check that the schedule runs (systemctl list-timers, /etc/cron.d), and read the log."


@dataclass(frozen=True)
class Runs:
    """The runs of a store, oldest first.

    complete: the newest complete one; "" where there is none
    others:   those that have a manifest
    left:     those that have only a marker: they are in progress, or were killed
    """

    complete: str
    others: Sequence[str]
    unfinished: Sequence[str]


def of(catalog: Catalog, history: History, config_id: str) -> Runs:
    """Return the runs of a catalog; those that lie in the future are left out."""
    newest = history.newest_complete(config_id)
    future = set(catalog.future)
    past = [run_id for run_id in catalog.run_ids if run_id not in future]
    marked = {
        name.removesuffix(markers.MARKER_SUFFIX)
        for name in catalog.sizes
        if name.endswith(markers.MARKER_SUFFIX)
    }
    unfinished = sorted(run_id for run_id in marked - {*past, *future} if run_ids.is_time(run_id))
    return Runs(newest.run_id if newest else "", past, unfinished)


def findings(subject: object, runs: Runs, now: datetime | None = None) -> Iterator[Finding]:
    """Yield how old the newest complete run is, and which later ones are not complete."""
    now = now or datetime.now(timezone.utc)
    if not runs.complete:
        if not runs.others and not runs.unfinished:
            yield Finding(f"{subject}: no run yet")
            return
        total = count(len(runs.others) + len(runs.unfinished), "run")
        yield warning(f"{subject}: no complete run among {total}", f"{_LOG} {_OTHER_KEY}")
        return
    age = max(timedelta(), now - run_ids.time_of(runs.complete))  # two runs in a second: ahead
    text = f"{subject}: the newest complete run, {runs.complete}, is {_days(age)} old"
    yield warning(text, _SCHEDULE) if age > longest(runs.others) else Finding(text)
    later = [one for one in (*runs.others, *runs.unfinished) if one > runs.complete]
    if later:
        names = ", ".join(later[-_NAMED:])
        more = f" and {len(later) - _NAMED} before" if len(later) > _NAMED else ""
        is_one = len(later) == 1
        which = "the run after it is" if is_one else f"the {len(later)} runs after it are"
        yield warning(f"{subject}: {which} not complete, or still in progress: {names}{more}", _LOG)


def longest(ids: Sequence[str]) -> timedelta:
    """Return after which age a run is too old: runs once a week are not late after two days."""
    times = [run_ids.time_of(run_id) for run_id in ids[-_LOOKED_AT:]]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    usual = statistics.median(gap.total_seconds() for gap in gaps) if gaps else 0.0
    return max(_LEAST, timedelta(seconds=_MISSED * usual))


def _days(age: timedelta) -> str:
    days = age // timedelta(days=1)
    return count(days, "day") if days else human_time(max(0.0, age.total_seconds()))
