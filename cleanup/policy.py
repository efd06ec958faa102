"""Which copies of items clean-up keeps and why: a pure function of runs, rules and a moment.

A copy is one item of one run. Each item is judged by itself. In each period the first good copy
is kept, so that no later run can push it out of its period.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone, tzinfo
from enum import Enum

from cleanup import periods
from cleanup.periods import Calendar, Period
from tools.base import run_ids

APART = timedelta(days=1)  # between the time in a run id and that of the store
FROZEN_COPIES = 3  # good copies of an item whose newest run is not good

Key = tuple[str, str]  # ID of the config of the run, label of the item


class State(Enum):
    """What a copy is worth. MISSING: the run should have it and does not have it whole"""

    GOOD = "good"
    SUSPICIOUS = "suspicious"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Copy:
    """One item of one run.

    stored:  whether anything of it is in the store
    base:    ID of the run that it was added to; "" for a copy that stands alone
    log:     whether it is replayed after a dump of its section, and nothing by itself
    section: of the config, which ties logs to dumps
    """

    state: State
    stored: bool
    base: str = ""
    log: bool = False
    section: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a store.

    stored:   the store's time of its manifest, UTC
    complete: whether it ended well: an item that it lacks is no longer in the config
    problem:  why it counts for no rule and stays; "" for an ordinary run
    pinned:   whether it stays whatever the rules are
    """

    run_id: str
    stored: datetime
    copies: Mapping[Key, Copy]
    config_id: str
    complete: bool
    problem: str = ""
    pinned: bool = False


@dataclass(frozen=True)
class Rules:
    """How much is kept of each item; 0 turns a rule off.

    last, minimum:    newest good copies. minimum is no rule: it comes on top of the others
    hourly to yearly: newest periods with a good copy, of which the first one is kept
    within:           all good copies up to this age, counted back from the newest one
    week_day:         1 (Monday) to 7: the day on which weeks begin
    month_day:        1 to 31: the day on which months begin
    forgotten:        items, by key or label, of which no copy is wanted any more
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: timedelta = timedelta(0)
    minimum: int = 3
    week_day: int = 1
    month_day: int = 1
    timezone: tzinfo = timezone.utc
    forgotten: frozenset[Key | str] = frozenset()

    @property
    def calendar(self) -> Calendar:
        """Return the time zone and the first days by which periods are counted."""
        return Calendar(self.timezone, self.week_day, self.month_day)

    @property
    def periods(self) -> Iterator[tuple[Period, int]]:
        """Return the periods that have a rule, each with the number that is kept."""
        numbers = (self.hourly, self.daily, self.weekly, self.monthly, self.yearly)
        return ((kind, number) for kind, number in zip(periods.ALL, numbers, strict=True) if number)

    @property
    def any(self) -> bool:
        """Return whether there is a rule at all: without one nothing is removed."""
        return bool(self.last or self.within or any(self.periods))


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a copy is kept. reason: all rules that keep it, or why it is removed"""

    run_id: str
    key: Key
    keep: bool
    reason: str


@dataclass(frozen=True)
class Frozen:
    """An item whose newest run has no good copy of it: little of it is removed.

    since:   the store's time of the first run after its newest good copy; of that copy itself
             where that run does not have the item
    days:    between `since` and the moment of the plan
    dropped: whether the newest run is complete and lacks it: it is no longer in the config
    """

    key: Key
    since: datetime
    days: int
    dropped: bool


@dataclass(frozen=True)
class Plan:
    """What is kept of a store.

    decisions:  one for each copy, by time of the run, then by key
    whole_runs: IDs of the runs that are removed as a whole, oldest first
    frozen:     items that are cleaned with more care, by key
    named:      IDs of the runs that count for no rule because their time differs from the store's
    """

    decisions: tuple[Decision, ...]
    whole_runs: tuple[str, ...]
    frozen: tuple[Frozen, ...]
    named: tuple[str, ...]


def plan(runs: Sequence[Run], rules: Rules, now: datetime) -> Plan:
    """Return what is kept of the runs of one store, and what is removed.

    now: decides nothing but how long items have been frozen, and which runs lie in the future.
    """
    return _Planner(runs, rules, now).plan()


def differs(run: Run, now: datetime) -> bool:
    """Return whether the time in a run ID and the store's time are more than a day apart.

    Also true where the ID is no time, and where the run was stored more than a day after now.
    """
    if not run_ids.is_time(run.run_id) or run.stored - now > APART:
        return True
    return abs(run.stored - run_ids.time_of(run.run_id)) > APART


@dataclass
class _History:
    """The copies of one item in the runs that count, oldest first, as numbers of runs."""

    all: list[int] = field(default_factory=list)
    good: list[int] = field(default_factory=list)
    dumps: list[int] = field(default_factory=list)  # those of `good` that are no logs
    logs: list[int] = field(default_factory=list)  # the others of `good`


class _Planner:
    """One plan. Runs are named by their number in the order of the store's time."""

    def __init__(self, runs: Sequence[Run], rules: Rules, now: datetime) -> None:
        self._runs = sorted(runs, key=lambda run: (run.stored, run.run_id))
        self._rules = rules
        self._now = now
        self._named = {i for i, run in enumerate(self._runs) if differs(run, now)}
        self._kept: list[dict[Key, list[str]]] = [{} for _ in self._runs]
        self._numbers = {run.run_id: i for i, run in enumerate(self._runs)}
        self._newest = {
            run.config_id: i for i, run in enumerate(self._runs) if self._counts(i, run)
        }
        self._histories = self._read_histories()
        self._frozen: list[Frozen] = []

    def plan(self) -> Plan:
        self._keep_whole_runs()
        periods = self._periods()
        for key, history in sorted(self._histories.items()):
            self._judge(key, history, periods)
        self._keep_bases()
        self._keep_logs()
        self._keep_bases()
        return Plan(
            tuple(self._decisions()),
            tuple(run.run_id for i, run in enumerate(self._runs) if self._goes(i, run)),
            tuple(self._frozen),
            tuple(self._runs[i].run_id for i in sorted(self._named)),
        )

    def _counts(self, number: int, run: Run) -> bool:
        return not run.problem and number not in self._named

    def _read_histories(self) -> Mapping[Key, _History]:
        histories: dict[Key, _History] = defaultdict(_History)
        for i, run in enumerate(self._runs):
            if not self._counts(i, run):
                continue
            for key, copy in run.copies.items():
                history = histories[key]
                history.all.append(i)
                if copy.state is State.GOOD:
                    history.good.append(i)
                    (history.logs if copy.log else history.dumps).append(i)
        return histories

    def _periods(self) -> list[tuple[Period, int, list[int]]]:
        """Return each rule about periods with the period of each run."""
        calendar = self._rules.calendar
        return [
            (kind, number, [kind.number(calendar, run.stored) for run in self._runs])
            for kind, number in self._rules.periods
        ]

    # --- what is kept

    def _keep(self, number: int, key: Key, reason: str) -> None:
        self._kept[number].setdefault(key, []).append(reason)

    def _keep_whole_runs(self) -> None:
        """Keep runs that count for no rule, pinned ones, and the newest one of each config."""
        newest = set(self._newest.values())
        for i, run in enumerate(self._runs):
            reasons = (
                run.problem,
                "time differs from the store's" if i in self._named else "",
                "pinned" if run.pinned else "",
                "newest run" if i in newest else "",
                "" if self._rules.any else "no rule is set",
            )
            for reason in filter(None, reasons):
                for key in run.copies:
                    self._keep(i, key, reason)

    def _judge(
        self, key: Key, history: _History, periods: Iterable[tuple[Period, int, list[int]]]
    ) -> None:
        """Keep what the rules require of one item, and more of it where it is frozen."""
        if self._is_forgotten(key):
            return
        for copies in (history.dumps, history.logs):
            self._keep_newest(key, copies)
        for i in history.dumps[-self._rules.last :] if self._rules.last else ():
            self._keep(i, key, "last")
        for rule in periods:
            self._keep_periods(key, history.dumps, rule)
        self._keep_within(key, history.dumps)
        newest = self._runs[self._newest[key[0]]]
        copy = newest.copies.get(key)
        if copy is None or copy.state is not State.GOOD:
            self._freeze(key, history, dropped=copy is None and newest.complete)

    def _is_forgotten(self, key: Key) -> bool:
        """Return whether an item was forgotten, and the newest run of its config lacks it."""
        forgotten = key in self._rules.forgotten or key[1] in self._rules.forgotten
        return forgotten and key not in self._runs[self._newest[key[0]]].copies

    def _keep_newest(self, key: Key, good: Sequence[int]) -> None:
        for age, i in enumerate(reversed(good[-max(self._rules.minimum, 1) :])):
            self._keep(i, key, "minimum" if age else "newest good")

    def _keep_periods(
        self, key: Key, good: Sequence[int], rule: tuple[Period, int, list[int]]
    ) -> None:
        """Keep the first good copy of each of the newest periods."""
        kind, most, numbers = rule
        firsts: dict[int, int] = {}
        for i in reversed(good):
            firsts[numbers[i]] = i
        for number in sorted(firsts, reverse=True)[:most]:
            label = kind.label(self._rules.calendar, number)
            self._keep(firsts[number], key, f"{kind.name} {label}")

    def _keep_within(self, key: Key, good: Sequence[int]) -> None:
        if not self._rules.within or not good:
            return
        begin = self._runs[good[-1]].stored - self._rules.within
        for i in reversed(good):
            if self._runs[i].stored < begin:
                return
            self._keep(i, key, "within")

    def _freeze(self, key: Key, history: _History, *, dropped: bool) -> None:
        """Keep the newest good copies of an item, and everything of it that is newer."""
        newest = history.good[-1] if history.good else -1
        begin = history.good[-FROZEN_COPIES:][0] if history.good else -1
        for i in history.all:
            if i >= begin and self._runs[i].copies[key].stored:
                self._keep(i, key, "no newer good copy")
        since = self._runs[self._begin(key, newest)].stored
        days = max((self._now - since).days, 0)
        self._frozen.append(Frozen(key, since, days, dropped))

    def _begin(self, key: Key, newest: int) -> int:
        """Return the run since which an item is frozen, and keep that run where it has the item.

        It would be removed otherwise where nothing of the item is stored, and the freeze would
        seem to begin later and later.
        """
        for i in range(newest + 1, len(self._runs)):
            run = self._runs[i]
            if run.config_id != key[0] or not self._counts(i, run):
                continue
            if key in run.copies:
                self._keep(i, key, "first without a good copy")
                return i
            if newest >= 0:
                return newest
        return newest

    def _keep_bases(self) -> None:
        """Keep the bases of kept copies, down to the full copies."""
        waiting = [(number, key) for number, kept in enumerate(self._kept) for key in kept]
        done = set(waiting)
        while waiting:
            number, key = waiting.pop()
            base = self._numbers.get(self._runs[number].copies[key].base, number)
            reason = f"base of {self._runs[number].run_id}"
            for one in self._same_item(base, key) if base != number else ():
                if reason not in self._kept[base].get(one, ()):
                    self._keep(base, one, reason)
                if (base, one) not in done:
                    done.add((base, one))
                    waiting.append((base, one))

    def _same_item(self, number: int, key: Key) -> list[Key]:
        """Return the key of an item in another run, whose config may have had another ID."""
        return [one for one in self._runs[number].copies if one[1] == key[1]]

    def _keep_logs(self) -> None:
        """Keep the logs that are not older than the oldest kept dump of their section.

        Without such a dump all of them stay.
        """
        counting: dict[tuple[str, str], int] = {}
        oldest: dict[tuple[str, str], int] = {}
        for i, run in reversed(list(enumerate(self._runs))):
            for key in self._kept[i]:
                copy = run.copies[key]
                if copy.state is State.GOOD and not copy.log:
                    oldest[key[0], copy.section] = i
                    if self._counts(i, run):
                        counting[key[0], copy.section] = i
        for i, run in enumerate(self._runs):
            for key, copy in run.copies.items():
                section = (key[0], copy.section)
                if copy.log and copy.stored and section not in counting:
                    self._keep(i, key, "log without a kept dump")
                elif copy.log and copy.stored and i >= oldest[section]:
                    self._keep(i, key, "log since the oldest kept dump")

    # --- what is removed

    def _goes(self, number: int, run: Run) -> bool:
        """Return whether a run is removed as a whole: nothing of it is kept."""
        stays = run.pinned or not self._counts(number, run) or not self._rules.any
        return not (stays or self._kept[number] or self._newest.get(run.config_id) == number)

    def _decisions(self) -> Iterator[Decision]:
        for i, run in enumerate(self._runs):
            for key in sorted(run.copies):
                reasons = self._kept[i].get(key)
                if reasons:
                    yield Decision(run.run_id, key, keep=True, reason=", ".join(reasons))
                else:
                    yield Decision(run.run_id, key, keep=False, reason=self._why_not(run, key))

    def _why_not(self, run: Run, key: Key) -> str:
        copy = run.copies[key]
        if not copy.stored:
            return "nothing of it is stored"
        if self._is_forgotten(key):
            return "forgotten"
        if copy.log:
            return "log older than the oldest kept dump"
        if copy.state is not State.GOOD:
            return f"{copy.state.value}, older than a good one"
        return "not kept by any rule"
