"""Random histories of a store, random rules, and what a hostile server adds to them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from cleanup import policy
from cleanup.policy import Copy, Key, Rules, Run, State
from tests.cleanup import oracle

_ZONES: Sequence[tzinfo] = (
    timezone.utc,
    *(ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("Asia/Kathmandu")),
    *(ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Pacific/Apia")),
)
_BEGINS = (  # the clock changes, the ISO year has 53 weeks, February has 29 days
    *("2026-10-23T20:30", "2026-03-27T20:30", "2026-12-26T22:10", "2028-02-27T23:30"),
    *("2026-01-29T12:00", "2011-12-28T08:00", "2026-06-01T00:00"),
)
_STEPS = (1 / 3, 1, 7, 23, 24, 25, 24 * 7, 24 * 31, 24 * 365)  # hours between runs
_STATES = (*(State.GOOD,) * 6, State.SUSPICIOUS, State.MISSING)


@dataclass(frozen=True)
class History:
    """The runs of a store, the rules, and the moment of the plan."""

    runs: list[Run]
    rules: Rules
    now: datetime

    def plan(self) -> policy.Plan:
        """Return what the policy says."""
        return policy.plan(self.runs, self.rules, self.now)


def drawn(rng: random.Random) -> History:
    """Return one history."""
    moment = datetime.fromisoformat(rng.choice(_BEGINS)).replace(tzinfo=timezone.utc)
    step = rng.choice(_STEPS)
    items = [f"S{rng.randrange(2)}/{number}" for number in range(rng.randint(1, 4))]
    bad = rng.choice((0.0, 0.1, 0.5))  # how many runs lack items
    runs: list[Run] = []
    for _ in range(rng.choice((0, 1, 3, 6, 9, 14, 22))):
        runs.append(_run(rng, moment, runs, items, bad))
        skips = rng.choice((0, 0.01, 1, 1, 1, 1, 1.02, 2, 5))
        moment += timedelta(seconds=int(step * 3600 * skips))
    now = moment + timedelta(hours=rng.choice((0, 1, 24, 24 * 40)))
    runs = list({run.run_id: run for run in runs}.values())
    rng.shuffle(runs)
    return History(runs, _rules(rng, items), now)


def _run(
    rng: random.Random, moment: datetime, before: Sequence[Run], items: Sequence[str], bad: float
) -> Run:
    """Return one run. bad: the share of items that are not in order"""
    config = rng.choice(("a", "a", "a", "b"))
    wrong = rng.choice((0,) * 15 + (-400, 2, 40))  # days by which a clock was wrong
    begun = moment - timedelta(minutes=rng.randrange(300), days=-wrong)
    ids = [run.run_id for run in before[-3:]] or [""]
    copies: dict[Key, Copy] = {}
    for number, label in enumerate(items):
        if rng.random() < bad / 3:
            continue
        state = rng.choice(_STATES) if rng.random() < bad else State.GOOD
        stored = state is not State.MISSING or rng.random() < 1 / 3
        base = rng.choice(ids) if number == 1 and rng.random() < 2 / 3 else ""
        copies[config, label] = Copy(state, stored, base, number == 2, label.partition("/")[0])
    return Run(
        f"{begun:%Y%m%d_%H%M%S}" if rng.random() < 0.99 else f"20261399_{len(before):06}",
        moment,
        copies,
        config,
        complete=rng.random() < 0.9,
        problem="not signed" if rng.random() < 0.04 else "",
        pinned=rng.random() < 0.04,
    )


def _rules(rng: random.Random, items: Sequence[str]) -> Rules:
    def number() -> int:
        return rng.choice((0, 0, 0, 1, 2, 4, 7))

    forgotten: list[Key | str] = [item for item in items if rng.random() < 0.05]
    return Rules(
        last=rng.choice((0, 0, 1, 5)),
        hourly=number(),
        daily=number(),
        weekly=number(),
        monthly=number(),
        yearly=number(),
        within=timedelta(hours=rng.choice((0, 0, 0, 5, 24 * 5, 24 * 40))),
        minimum=rng.choice((1, 2, 3, 3, 5)),
        week_day=rng.randint(1, 7),
        month_day=rng.choice((1, 1, 15, 29, 30, 31)),
        timezone=rng.choice(_ZONES),
        forgotten=frozenset(forgotten),
    )


def hostile(rng: random.Random, history: History, *, untrue_ids: bool) -> list[Run]:
    """Return runs that a hostile server writes at this moment.

    told: their IDs tell times of the last weeks, which the store knows to be untrue.
    """
    keys = sorted({key for run in history.runs for key in run.copies})
    runs = []
    for number in range(rng.choice((1, 2, 5, 30))):
        config = rng.choice(sorted({key[0] for key in keys} or {"a"}))
        begun = history.now - timedelta(seconds=number)
        if untrue_ids:
            begun = history.now - timedelta(days=rng.randint(2, 60), seconds=number)
        copies = {
            key: Copy(
                rng.choice(_STATES),
                rng.random() < 0.9,
                rng.choice([""] * 5 + [run.run_id for run in history.runs]),
                rng.random() < 0.2,
                key[1].partition("/")[0],
            )
            for key in keys
            if key[0] == config and rng.random() < 0.8
        }
        copies[config, "S0/new"] = Copy(State.GOOD, stored=True, section="S0")
        complete = rng.random() < 0.7
        runs.append(Run(f"{begun:%Y%m%d_%H%M%S}", history.now, copies, config, complete))
    known = {run.run_id for run in history.runs}
    return [run for run in runs if run.run_id not in known]


def faults(rng: random.Random) -> list[str]:
    """Draw one history; return what its plan does wrong, alone and beside hostile runs."""
    history = drawn(rng)
    plan = history.plan()
    problems = oracle.faults(history.runs, history.rules, history.now, plan)
    calm = replace(history, rules=replace(history.rules, forgotten=frozenset()))
    kept = {(one.run_id, one.key) for one in calm.plan().decisions if one.keep}
    untrue = replace(calm, runs=[*calm.runs, *hostile(rng, calm, untrue_ids=True)]).plan()
    still = {(one.run_id, one.key) for one in untrue.decisions if one.keep}
    problems += [f"runs with untrue times remove {one}" for one in sorted(kept - still)]
    attacked = replace(history, runs=[*calm.runs, *hostile(rng, calm, untrue_ids=False)])
    if rng.random() < 1 / 4:
        plan = attacked.plan()
        problems += oracle.faults(attacked.runs, attacked.rules, attacked.now, plan)
    added = replace(attacked, rules=calm.rules).plan()
    still = {(one.run_id, one.key) for one in added.decisions if one.keep}
    lasting = oracle.lasting(calm.runs, calm.rules, calm.now)
    return problems + [f"hostile runs remove {one}" for one in sorted(lasting - still)]
