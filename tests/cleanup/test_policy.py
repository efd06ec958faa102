"""Which copies clean-up keeps: golden files, a brute-force oracle, and hostile servers."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from cleanup import policy
from cleanup.policy import Copy, Rules, State
from tests.cleanup import histories, oracle, retention_cases
from tests.cleanup.histories import History
from tests.cleanup.retention_cases import DAY, FAILED, GOOD, daily, history, run

DATABASE = {"db": GOOD}


def kept(plan: policy.Plan) -> set[str]:
    """The runs of which something stays."""
    return {one.run_id for one in plan.decisions if one.keep}


@pytest.mark.parametrize("name", retention_cases.CASES)
def test_the_plan_is_as_in_its_file(name: str) -> None:
    """C25 to C30, and more; `python3 -m tests.cleanup.retention_cases` writes the files."""
    text = retention_cases.path_of(name).read_text(encoding="utf-8")
    assert retention_cases.text_of(retention_cases.CASES[name]) == text


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_seeded_histories(part: int) -> None:
    """Issue 16: the part of `python3 benchmarks/retention.py` that runs each time."""
    for seed in range(part * 60, part * 60 + 60):
        assert not histories.faults(random.Random(seed)), f"seed {seed}"


def changed_plan(number: int) -> policy.Plan:
    """A plan with one decision turned round."""
    plan = retention_cases.failing_item().plan()
    decisions = list(plan.decisions)
    decisions[number] = replace(decisions[number], keep=not decisions[number].keep)
    return replace(plan, decisions=tuple(decisions))


@pytest.mark.parametrize("number", [0, 7, 60, 150])
def test_the_oracle_finds_one_wrong_decision(number: int) -> None:
    case = retention_cases.failing_item()
    assert not oracle.faults(case.runs, case.rules, case.now, case.plan())
    assert oracle.faults(case.runs, case.rules, case.now, changed_plan(number))


@pytest.mark.fault(
    "a broken-in server writes 100 signed runs at once",
    "clean-up removes no run that the rules for days, weeks, months or years keep",
)
@pytest.mark.parametrize("state", list(State))
def test_a_hostile_server_pushes_nothing_out(state: State) -> None:
    """Issue 16: 100 new signed runs, beside the runs of more than a year."""
    case = history(daily("2026-01-01", 400, lambda _day: DATABASE), Rules(7, 0, 7, 4, 12, 2))
    before = kept(case.plan())
    copies = {"db": Copy(state, stored=True, section="S")}
    begins = (case.now - timedelta(seconds=number) for number in range(100))
    forged = [run(begin, copies, case.now) for begin in begins]
    remaining = [one for one in case.runs if one.run_id in before]
    after = kept(policy.plan([*remaining, *forged], case.rules, case.now))
    assert before <= after
    assert 12 + 7 < len(before) <= 12 + 7 + 4 + 2


def test_last_and_minimum_count_copies() -> None:
    """What only they keep can be pushed out by anybody who may write runs (docs)."""
    case = history(daily("2026-11-01", 9, lambda _day: DATABASE), Rules(last=5))
    assert len(kept(case.plan())) == 5
    forged = [run(case.now + timedelta(seconds=n), DATABASE, case.now) for n in range(9)]
    assert len(kept(replace(case, runs=[*case.runs, *forged]).plan())) == 5


def test_within_counts_back_from_the_newest_good_copy() -> None:
    """Not from now: a server that stood still for a year keeps its copies."""
    case = history(daily("2026-11-01", 9, lambda _day: DATABASE), Rules(within=3 * DAY), 365 * DAY)
    assert sorted(kept(case.plan())) == [run.run_id for run in case.runs[-4:]]


def test_without_a_rule_nothing_is_removed() -> None:
    case = history(daily("2026-11-01", 9, lambda _day: DATABASE), Rules(minimum=1))
    plan = case.plan()
    assert not plan.whole_runs
    assert {one.reason for one in plan.decisions[:-1]} >= {"no rule is set"}


def set_apart(days: float) -> History:
    """A history whose last run has an ID so many days after the store's time."""
    case = history(daily("2026-11-01", 9, lambda _day: DATABASE), Rules(daily=3))
    moment = case.runs[-1].stored + timedelta(hours=1)
    return replace(case, runs=[*case.runs, run(moment + days * DAY, DATABASE, moment)], now=moment)


@pytest.mark.parametrize(("days", "named"), [(0, 0), (1, 0), (1.01, 1), (-1.01, 1), (4050, 1)])
def test_a_run_whose_times_differ_counts_for_no_rule(days: float, named: int) -> None:
    """A run dated 2038, and one whose clock was two days late."""
    case = set_apart(days)
    plan = case.plan()
    assert plan.named == ((case.runs[-1].run_id,) if named else ())
    newest = [one for one in plan.decisions if one.keep and "newest run" in one.reason]
    assert [one.run_id for one in newest] == [case.runs[-1 - named].run_id]


def test_a_run_that_the_store_dates_in_the_future_counts_for_no_rule() -> None:
    """A store whose times the server can set: 2038 must not be the newest copy of WITHIN."""
    case = history(daily("2026-11-01", 9, lambda _day: DATABASE), Rules(within=5 * DAY))
    future = datetime(2038, 1, 1, tzinfo=timezone.utc)
    forged = replace(case, runs=[*case.runs, run(future, DATABASE, future)])
    assert kept(case.plan()) <= kept(forged.plan())
    assert forged.plan().named == ("20380101_000000",)


def test_the_clock_of_the_cleaning_machine_decides_nothing() -> None:
    """Forty days ahead: only how long items have been frozen is another figure."""
    case = retention_cases.failing_item()
    late = replace(case, now=case.now + 40 * DAY)
    assert late.plan().decisions == case.plan().decisions
    assert [one.days for one in late.plan().frozen] == [one.days + 40 for one in case.plan().frozen]


def test_pinned_runs_and_runs_with_a_problem_stay() -> None:
    case = history(daily("2026-11-01", 9, lambda _day: DATABASE), Rules(last=1, minimum=1))
    runs = list(case.runs)
    runs[1] = replace(runs[1], pinned=True)
    runs[2] = replace(runs[2], problem="not signed by a known signer")
    plan = replace(case, runs=runs).plan()
    assert kept(plan) == {runs[1].run_id, runs[2].run_id, runs[-1].run_id}


def dropped_item(*names: str) -> History:
    """An item that is not in the newest runs, and that nobody wants any more."""
    case = retention_cases.gone_item()
    return replace(case, rules=replace(case.rules, forgotten=frozenset(names)))


def test_a_forgotten_item_goes() -> None:
    plan = dropped_item("S/old").plan()
    assert not [one for one in plan.decisions if one.key[1] == "S/old" and one.keep]
    assert not plan.frozen


def test_an_item_that_the_newest_run_has_cannot_be_forgotten() -> None:
    assert dropped_item("S/db", "S/old").plan().decisions == dropped_item("S/old").plan().decisions


def test_a_run_without_copies_goes() -> None:
    case = history(daily("2026-11-01", 9, lambda day: DATABASE if day else {}), Rules(last=9))
    assert case.plan().whole_runs == (case.runs[0].run_id,)


def cleaned_each_day(days: int) -> History:
    """An item that failed from the fifth day on, in a store that is cleaned after each run."""
    rules = Rules(daily=3)
    remaining: list[policy.Run] = []
    for one in daily("2026-11-01", days, lambda day: {"db": (GOOD, FAILED)[day > 3], "etc": GOOD}):
        remaining.append(one)
        stays = kept(policy.plan(remaining, rules, one.stored))
        remaining = [run for run in remaining if run.run_id in stays]
    return history(remaining, rules)


def test_a_freeze_begins_with_the_first_failed_run() -> None:
    """That run stays, though nothing of the item is stored in it."""
    case = cleaned_each_day(30)
    (frozen,) = case.plan().frozen
    assert (frozen.since.date().isoformat(), frozen.days) == ("2026-11-05", 25)
    assert len(case.runs) == 3 + 1 + 3
