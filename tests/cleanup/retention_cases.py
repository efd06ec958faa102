"""The histories whose plans stand in tests/data/cleanup, and how a plan is written there.

`python3 -m tests.cleanup.retention_cases` writes the files anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

from cleanup.policy import Copy, Plan, Rules, Run, State
from tests.cleanup.histories import History
from tools.base import project

FOLDER = project.ROOT / "tests/data/cleanup"
BERLIN = ZoneInfo("Europe/Berlin")
DAY = timedelta(days=1)
GOOD = Copy(State.GOOD, stored=True, section="S")
EMPTY = Copy(State.SUSPICIOUS, stored=True, section="S")
FAILED = Copy(State.MISSING, stored=False, section="S")
LOG = Copy(State.GOOD, stored=True, log=True, section="S")


def run(begun: datetime, copies: Mapping[str, Copy], stored: datetime | None = None) -> Run:
    """Return a run whose manifest was stored nine minutes after its begin, unless a time is given.

    copies: by name of the item in section S
    """
    begun = begun.astimezone(timezone.utc)
    moment = begun + timedelta(minutes=9) if stored is None else stored
    keys = {("c", f"S/{name}"): copy for name, copy in copies.items()}
    return Run(f"{begun:%Y%m%d_%H%M%S}", moment, keys, "c", complete=True)


def daily(first: str, days: int, copies: Callable[[int], Mapping[str, Copy]]) -> list[Run]:
    """Return a run at 03:00 UTC of each day. copies: by number of the day"""
    begin = datetime.fromisoformat(f"{first}T03:00:00+00:00")
    return [run(begin + number * DAY, copies(number)) for number in range(days)]


def history(runs: Iterable[Run], rules: Rules, later: timedelta = timedelta(hours=1)) -> History:
    """Return the history of runs, planned so long after the last one."""
    runs = list(runs)
    return History(runs, rules, max(one.stored for one in runs) + later)


def failed_runs() -> History:
    """C25: 5 good runs, then 10 that failed; KEEP_LAST 5."""
    runs = daily("2026-11-01", 15, lambda day: {"db": GOOD if day < 5 else FAILED})
    return history(runs, Rules(last=5))


def failing_item() -> History:
    """C26: one item fails for 60 days, another one does not."""
    states = (GOOD, FAILED)
    runs = daily("2026-08-20", 80, lambda day: {"db": states[day >= 20], "etc": GOOD})
    return history(runs, Rules(daily=7, weekly=4, monthly=2))


def untrue_times() -> History:
    """C27: 60 daily runs; then runs with IDs in the last 8 weeks, all stored today."""
    runs = daily("2026-09-21", 60, lambda _day: {"db": GOOD})
    now = runs[-1].stored + timedelta(hours=6)
    ends = (
        runs[-1].stored.replace(hour=23, minute=59) - number * 7 * DAY for number in range(1, 9)
    )
    return history([*runs, *(run(end, {"db": GOOD}, now) for end in ends)], Rules(weekly=8))


def _nights(first: str, days: int) -> Iterator[Run]:
    """Yield runs at 00:30, 01:30, 02:30, 03:30 and 23:30 by the clock of Berlin."""
    begin = datetime.fromisoformat(first)
    for number in range(days):
        day = begin + number * DAY
        moments = {
            local.astimezone(timezone.utc)
            for hour in (0, 1, 2, 3, 23)
            for fold in (0, 1)
            for local in [day.replace(hour=hour, minute=30, fold=fold, tzinfo=BERLIN)]
        }
        yield from (run(moment, {"db": GOOD}, moment) for moment in sorted(moments))


def spring() -> History:
    """C28: the night of 23 hours in Berlin, 2026-03-29."""
    rules = Rules(hourly=12, daily=3, weekly=2, timezone=BERLIN)
    return history(_nights("2026-03-28", 3), rules)


def autumn() -> History:
    """C28: the night of 25 hours in Berlin, 2026-10-25: the hour from 2 to 3 is there twice."""
    rules = Rules(hourly=12, daily=3, weekly=2, timezone=BERLIN)
    return history(_nights("2026-10-24", 3), rules)


def long_year() -> History:
    """C28: 2026 has 53 ISO weeks; the first days of 2027 belong to the last of them."""
    runs = daily("2026-12-20", 22, lambda _day: {"db": GOOD})
    return history(runs, Rules(weekly=3, yearly=2))


def other_weeks() -> History:
    """Weeks that begin on Wednesday, months that begin on the 31st or the last day."""
    runs = daily("2027-12-28", 130, lambda _day: {"db": GOOD})
    return history(runs, Rules(weekly=3, monthly=5, week_day=3, month_day=31))


def logs() -> History:
    """C29: a dump each Sunday, logs each day; those before the oldest kept dump go."""

    def copies(day: int) -> Mapping[str, Copy]:
        return {"binlogs": LOG, "db": GOOD} if day % 7 == 0 else {"binlogs": LOG}

    return history(daily("2026-10-04", 36, copies), Rules(weekly=2, minimum=1))


def empty_source() -> History:
    """C30: the source is empty for 10 nights; KEEP_LAST 7."""
    runs = daily("2026-11-01", 20, lambda day: {"www": GOOD if day < 10 else EMPTY})
    return history(runs, Rules(last=7))


def increments() -> History:
    """400 daily runs by 7/4/12/2, each day added to the day before, with a full one each week."""
    runs: list[Run] = []

    def copies(day: int) -> Mapping[str, Copy]:
        before = datetime(2026, 1, 1, 3, tzinfo=timezone.utc) + (day - 1) * DAY
        base = f"{before:%Y%m%d_%H%M%S}" if day % 7 else ""
        return {"db": Copy(State.GOOD, stored=True, base=base, section="S")}

    runs = daily("2026-01-01", 400, copies)
    return history(runs, Rules(daily=7, weekly=4, monthly=12, yearly=2))


def gone_item() -> History:
    """An item that is no longer in the config: its newest three copies stay."""
    runs = daily("2026-09-01", 60, lambda day: {"db": GOOD, **({"old": GOOD} if day < 20 else {})})
    return history(runs, Rules(daily=5, minimum=1))


CASES: Mapping[str, Callable[[], History]] = {
    case.__name__: case
    for case in (
        *(failed_runs, failing_item, untrue_times, spring, autumn, long_year, other_weeks, logs),
        *(empty_source, increments, gone_item),
    )
}


def text_of(case: Callable[[], History]) -> str:
    """Return the plan of a history as it stands in its file: what stays and why."""
    plan = case().plan()
    return "".join(f"{line}\n" for line in (f"# {case.__doc__}", *_lines(plan)))


def _lines(plan: Plan) -> Iterator[str]:
    for one in plan.decisions:
        if one.keep:
            yield f"{one.run_id} {one.key[1]}: {one.reason}"
    items = [f"{one.run_id} {one.key[1]}" for one in plan.decisions if not one.keep]
    whole_runs = set(plan.whole_runs)
    yield f"removed: {len(items)} copies; whole runs: {len(plan.whole_runs)}"
    yield from (f"only this item goes: {one}" for one in items if one.split()[0] not in whole_runs)
    for frozen in plan.frozen:
        suffix = ", not in the config" if frozen.dropped else ""
        yield f"frozen: {frozen.key[1]} since {frozen.since:%Y-%m-%d}, {frozen.days} days{suffix}"
    yield from (f"time differs: {run_id}" for run_id in plan.named)


def path_of(name: str) -> Path:
    """Return the file of a case."""
    return FOLDER / f"{name}.txt"


if __name__ == "__main__":
    for case, draw in CASES.items():
        path_of(case).write_text(text_of(draw), encoding="utf-8")
