"""What clean-up must keep, by brute force: simple, slow, and not made from cleanup/policy.py.

Only the dataclasses of the policy are used. Each question is answered for one copy by looking at
all others.
"""

from __future__ import annotations

import calendar
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

from cleanup.policy import Copy, Key, Plan, Rules, Run, State

DAY = timedelta(days=1)
Name = tuple[str, Key]  # of a copy: run ID, item


def begin(kind: str, run: Run, rules: Rules) -> str:
    """Return the first hour or day of the period of a run, as a text that sorts by time."""
    local = run.stored.astimezone(rules.timezone)
    if kind == "hourly":
        first = local.replace(minute=0, second=0, microsecond=0)
        return f"{first.astimezone(timezone.utc):%Y-%m-%d %H:%M} {local.utcoffset()}"
    day = local.date()
    while not _is_first(kind, day.year, day.month, day.day, rules):
        day -= DAY
    return day.isoformat()


def _is_first(kind: str, year: int, month: int, day: int, rules: Rules) -> bool:
    if kind == "weekly":
        return calendar.weekday(year, month, day) + 1 == rules.week_day
    if kind == "monthly":
        length = calendar.monthrange(year, month)[1]
        return day == (rules.month_day if rules.month_day <= length else length)
    return kind == "daily" or (month, day) == (1, 1)


@dataclass
class Oracle:
    """The answers about one store."""

    runs: Sequence[Run]
    rules: Rules
    now: datetime

    def __post_init__(self) -> None:
        self.runs = sorted(self.runs, key=lambda run: (run.stored, run.run_id))
        self.counting = [run for run in self.runs if not run.problem and not self.is_apart(run)]
        rules = self.rules
        self.numbers = {
            "hourly": rules.hourly,
            "daily": rules.daily,
            "weekly": rules.weekly,
            "monthly": rules.monthly,
            "yearly": rules.yearly,
        }
        self.has_rule = any(self.numbers.values()) or rules.last > 0 or bool(rules.within)
        self.begins = {
            (kind, run.run_id): begin(kind, run, rules)
            for kind, number in self.numbers.items()
            for run in self.counting
            if number
        }

    def is_apart(self, run: Run) -> bool:
        """The time in the ID and the store's time differ by more than a day."""
        try:
            claimed = datetime.strptime(run.run_id, "%Y%m%d_%H%M%S").replace(tzinfo=timezone.utc)
        except ValueError:
            return True
        return not -DAY <= run.stored - claimed <= DAY or run.stored > self.now + DAY

    # --- one item

    def good(self, key: Key, *, log: bool) -> list[Run]:
        """The runs that count and have a good copy, oldest first."""
        copies = [(run, run.copies.get(key)) for run in self.counting]
        return [r for r, c in copies if c and c.state is State.GOOD and c.log == log]

    def newest(self, config: str) -> Run | None:
        """The newest run of a config that counts."""
        return next((run for run in reversed(self.counting) if run.config_id == config), None)

    def is_frozen(self, key: Key) -> bool:
        """The newest run has no good copy of the item."""
        newest = self.newest(key[0])
        if newest is None or not any(key in run.copies for run in self.counting):
            return False
        copy = newest.copies.get(key)
        return not self.is_gone(key) and (copy is None or copy.state is not State.GOOD)

    def is_gone(self, key: Key) -> bool:
        """Nobody wants the item any more, and its config does not have it any more."""
        newest = self.newest(key[0])
        forgotten = any(one in self.rules.forgotten for one in (key, key[1]))
        return forgotten and newest is not None and key not in newest.copies

    def first_after(self, key: Key) -> Run | None:
        """The first run of the config after the newest good copy; the first one with the item."""
        good = [r for r in self.counting if key in r.copies and r.copies[key].state is State.GOOD]
        later = [run for run in self.counting if run.config_id == key[0]]
        if good:
            later = later[later.index(good[-1]) + 1 :]
        else:
            later = [run for run in later if key in run.copies]
        return later[0] if later else None

    # --- one copy

    def stays_by_itself(self, run: Run, key: Key) -> bool:
        """A copy is kept for a reason that is not another kept copy."""
        if run.problem or run.pinned or self.is_apart(run) or not self.has_rule:
            return True
        if self.newest(key[0]) is run:
            return True
        if self.is_gone(key):
            return False
        return self.is_wanted(run, key) or self.stays_frozen(run, key)

    def is_wanted(self, run: Run, key: Key) -> bool:
        """A good copy is one of the newest, or the rules keep it."""
        copy = run.copies[key]
        if copy.state is not State.GOOD:
            return False
        good = self.good(key, log=copy.log)
        newer = len(good) - 1 - good.index(run)
        if newer < max(self.rules.minimum, 1):
            return True
        return not copy.log and (
            newer < self.rules.last
            or any(self.is_first(kind, run, good) for kind in self.numbers)
            or (bool(self.rules.within) and run.stored >= good[-1].stored - self.rules.within)
        )

    def is_first(self, kind: str, run: Run, good: Sequence[Run]) -> bool:
        """The first good copy of its period, and that is one of the newest periods."""
        if not self.numbers[kind]:
            return False
        period = self.begins[kind, run.run_id]
        before = good[: good.index(run)]
        later = {self.begins[kind, one.run_id] for one in good} - {period}
        later = {one for one in later if one > period}
        first = all(self.begins[kind, one.run_id] != period for one in before)
        return first and len(later) < self.numbers[kind]

    def stays_frozen(self, run: Run, key: Key) -> bool:
        """One of the newest three good copies of a frozen item, or newer than one of them."""
        if not self.is_frozen(key):
            return False
        if self.first_after(key) is run:
            return True
        with_it = [one for one in self.counting if key in one.copies]
        good = [one for one in with_it if one.copies[key].state is State.GOOD]
        oldest = good[-3:][0] if good else with_it[0]
        return run.copies[key].stored and with_it.index(run) >= with_it.index(oldest)

    # --- all copies

    def kept(self) -> set[Name]:
        """The copies that stay."""
        kept = {
            (run.run_id, key)
            for run in self.runs
            for key in run.copies
            if self.stays_by_itself(run, key)
        }
        kept = self.with_bases(kept)
        kept |= set(self.needed_logs(kept))
        return self.with_bases(kept)

    def with_bases(self, kept: set[Name]) -> set[Name]:
        """Add bases until there are none left."""
        by_id = {run.run_id: run for run in self.runs}
        while True:
            more = set()
            for run_id, key in kept:
                base = by_id.get(by_id[run_id].copies[key].base)
                same = [one for one in base.copies if one[1] == key[1]] if base else []
                same = [key] if key in same else same
                more |= {(base.run_id, one) for one in same if base}
            if more <= kept:
                return kept
            kept = kept | more

    def needed_logs(self, kept: set[Name]) -> Iterator[Name]:
        """The logs that a kept dump of the section, or one after it, needs."""
        for run in self.runs:
            for key, copy in run.copies.items():
                if not copy.log or not copy.stored:
                    continue
                dumps = [one for one in self.runs if self.has_dump(one, key[0], copy, kept)]
                certain = [one for one in dumps if one in self.counting]
                older = [one for one in dumps if self.runs.index(one) <= self.runs.index(run)]
                if (older and certain) or not certain:
                    yield run.run_id, key

    def has_dump(self, run: Run, config: str, log: Copy, kept: set[Name]) -> bool:
        """A run keeps a good dump of the section of a log."""
        return any(
            key[0] == config
            and copy.section == log.section
            and copy.state is State.GOOD
            and not copy.log
            and (run.run_id, key) in kept
            for key, copy in run.copies.items()
        )

    def whole(self, kept: set[Name]) -> list[str]:
        """The runs of which nothing stays."""
        return [
            run.run_id
            for run in self.counting
            if self.has_rule
            and not run.pinned
            and self.newest(run.config_id) is not run
            and not any((run.run_id, key) in kept for key in run.copies)
        ]

    def frozen(self) -> list[tuple[Key, datetime, int, bool]]:
        """The frozen items: since when, for how many days, and whether the config lacks them."""
        frozen_items = []
        for key in sorted({key for run in self.counting for key in run.copies}):
            if self.is_frozen(key):
                since = self.since(key)
                newest = self.newest(key[0])
                dropped = newest is not None and newest.complete and key not in newest.copies
                frozen_items.append((key, since, max((self.now - since) // DAY, 0), dropped))
        return frozen_items

    def since(self, key: Key) -> datetime:
        """When the first run after the newest good copy was stored."""
        first = self.first_after(key)
        if first is not None and key in first.copies:
            return first.stored
        good = [*self.good(key, log=False), *self.good(key, log=True)]
        return max(run.stored for run in good)


def faults(runs: Sequence[Run], rules: Rules, now: datetime, plan: Plan) -> list[str]:
    """Return what is wrong with a plan; nothing where it is right."""
    oracle = Oracle(runs, rules, now)
    kept = oracle.kept()
    by_plan = {(one.run_id, one.key) for one in plan.decisions if one.keep}
    problems = [f"removed: {one}" for one in sorted(kept - by_plan)]
    problems += [f"kept: {one}" for one in sorted(by_plan - kept)]
    everything = sorted((run.run_id, key) for run in runs for key in run.copies)
    if sorted((one.run_id, one.key) for one in plan.decisions) != everything:
        problems.append("not one decision for each copy")
    if sorted(plan.whole_runs) != sorted(oracle.whole(kept)):
        problems.append(f"whole: {plan.whole_runs}, not {oracle.whole(kept)}")
    frozen = [(one.key, one.since, one.days, one.dropped) for one in plan.frozen]
    if frozen != oracle.frozen():
        problems.append(f"frozen: {frozen}, not {oracle.frozen()}")
    if list(plan.named) != [run.run_id for run in oracle.runs if oracle.is_apart(run)]:
        problems.append(f"named: {plan.named}")
    return problems


def lasting(runs: Sequence[Run], rules: Rules, now: datetime) -> set[Name]:
    """Return the copies older than a day that runs written now must not push out.

    A hostile server can do no more than an honest one that makes one good run of everything now.
    LAST and MINIMUM count copies: what only they keep can be pushed out.
    """
    known = {run.run_id for run in runs}
    ids = (f"{now + timedelta(seconds=number):%Y%m%d_%H%M%S}" for number in itertools.count())
    free = (one for one in ids if one not in known)
    honest = [
        Run(
            next(free),
            now,
            _everything(runs, config),
            config,
            complete=True,
        )
        for config in sorted({run.config_id for run in runs})
    ]
    lasting_rules = replace(rules, last=0, minimum=1)
    oracle = Oracle([*runs, *honest], lasting_rules, now)
    if not oracle.has_rule:
        return set()
    old = {run.run_id for run in runs if run.stored < now - DAY}
    return {one for one in oracle.kept() if one[0] in old}


def _everything(runs: Sequence[Run], config: str) -> dict[Key, Copy]:
    """Return a good copy of each item of a config, and a new dump in each section."""
    copies: dict[Key, Copy] = {}
    for run in runs:
        for key, copy in run.copies.items():
            if key[0] == config:
                log = copy.log and (key not in copies or copies[key].log)
                copies[key] = Copy(State.GOOD, stored=True, log=log, section=copy.section)
    for section in {copy.section for copy in copies.values()}:
        copies[config, f"{section}/new"] = Copy(State.GOOD, stored=True, section=section)
    return copies
