"""Clean-up of one host in one store: what is removed, why, and the outcome."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from cleanup import candidates, moved_config, policy, removing
from cleanup.candidates import Candidates, Known
from cleanup.moved_config import EarlierConfig
from cleanup.policy import Frozen, Plan, Rules, State
from cleanup.remembered import Remembered
from cleanup.removing import Outcome, RunRemoval
from tools.base import foreign, run_ids
from tools.base.errors import (
    BackupError,
    ForbiddenError,
    LockedError,
    ManifestError,
    StoreError,
    in_words,
)
from tools.base.log import logger
from tools.base.result import Result, Status
from tools.catalog import leftovers
from tools.catalog.catalog import Catalog
from tools.catalog.manifest import Manifest
from tools.date_str_utils import count, human_size
from tools.flow import forms
from tools.flow.anomaly import Thresholds

_FROZEN_DAYS = 14  # without a good copy, after which every report names an item
_DROPPED_DAYS = 30  # after an item has left the config
_ATTEMPTS = 3  # to make a plan that no other run has overtaken
_NO_RULE = "No rule is set: set one in the cleanup section, or add one, as --keep-daily 7."
FEW = 10  # lines about runs: anyone who can write to the store makes thousands of bad ones
_LAGS = "its listing may lack objects that are there"
KEEPS = "this store keeps everything: its credentials may not delete"


@dataclass(frozen=True)
class Order:
    """How a store is cleaned up.

    acts:     whether anything is removed; otherwise the plan alone is made
    by_hand:  whether somebody asked for it on the command line: then a refusal is a failure
    really:   whether more than half of the good runs may be removed by hand
    versions: whether older versions in a versioned bucket are removed as well
    thresholds: by section: from which change on a copy is suspicious; None: nothing is compared
    config_id: of the config whose items are named in reports; "" for all of them
    age:      seconds after which the files of crashed runs are removed
    sections: of the config, for the names of such files
    """

    rules: Rules
    acts: bool = False
    by_hand: bool = False
    really: bool = False
    versions: bool = False
    thresholds: Callable[[str], Thresholds | None] = lambda _section: Thresholds()
    config_id: str = ""
    age: float = 86400.0
    sections: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cleaning:
    """The plan for one host in one store.

    whole_runs: ids of runs that are removed
    removals:   what is removed of each run, newest first
    problem:    why nothing may be removed; "" for nothing. hint: what to do then
    earlier:    configs that may have been this one, before it was moved
    """

    catalog: Catalog
    inventory: Candidates
    plan: Plan
    whole_runs: frozenset[str]
    removals: Sequence[RunRemoval]
    problem: str = ""
    hint: str = ""
    earlier: tuple[EarlierConfig, ...] = ()

    @property
    def size(self) -> int:
        """Return the bytes of all that is removed."""
        return sum(one.size for one in self.removals)

    @property
    def takes_most(self) -> bool:
        """Return whether more than half of the good runs are removed."""
        good = [run.run_id for run in self.inventory.runs if _is_good(run)]
        return 2 * sum(run_id in self.whole_runs for run_id in good) > len(good)

    def summary(self) -> str:
        """Return what is removed in one line."""
        runs = sum(one.is_whole for one in self.removals)
        items = sum(len(one.labels) for one in self.removals if not one.is_whole)
        remaining = len(self.inventory.runs) - runs
        return f"{_counted(runs, items)} would be removed, {count(remaining, 'run')} left"

    def notices(self, config_id: str) -> list[str]:
        """Return a line for each item that has had no good copy for long, and earlier config."""
        frozen = (one for one in self.plan.frozen if config_id in ("", one.key[0]))
        lines = [line for one in frozen if (line := _notice(one))]
        return [*lines, *(one.line() for one in self.earlier)]

    def suspicious(self) -> list[str]:
        """Return the items that stay because their newest copy is suspicious."""
        return [
            foreign.line(one.key[1])
            for one in self.plan.frozen
            if not one.dropped and self._newest(one.key) is State.SUSPICIOUS
        ]

    def _newest(self, key: policy.Key) -> State | None:
        copies = (run.copies[key] for run in reversed(self.inventory.runs) if key in run.copies)
        return next((copy.state for copy in copies if copy.stored), None)


def _counted(runs: int, items: int) -> str:
    more = f" and {count(items, 'item')} of other runs" if items else ""
    return f"{count(runs, 'run')}{more}"


def planned(catalog: Catalog, order: Order, remembered: Remembered, now: datetime) -> Cleaning:
    """Return what is removed. Raises StoreError or OSError where the store cannot be read."""
    adopted = remembered.adopted
    known = Known(remembered.discarded, remembered.accepted, order.thresholds, adopted)
    inventory = candidates.read(catalog, known)
    rules = dataclasses.replace(order.rules, forgotten=_forgotten(inventory, remembered))
    plan = policy.plan(inventory.runs, rules, now)
    whole_runs = frozenset(plan.whole_runs)
    items: dict[str, list[str]] = {}
    stored = {run.run_id: run.copies for run in inventory.runs}
    removed = ((one.run_id, one.key) for one in plan.decisions if not one.keep)
    for run_id, key in removed:
        if run_id not in whole_runs and stored[run_id][key].stored:
            items.setdefault(run_id, []).append(key[1])
    removals = removing.removals(catalog, inventory, whole_runs, items)
    problem, hint = _obstacle(catalog, inventory, now)
    earlier = moved_config.earlier(inventory.manifests.values(), order.config_id, adopted)
    return Cleaning(catalog, inventory, plan, whole_runs, removals, problem, hint, tuple(earlier))


def _forgotten(inventory: Candidates, remembered: Remembered) -> frozenset[policy.Key | str]:
    """Return the items that are no longer wanted, and that no run since then has."""
    until = remembered.forgotten
    newest: dict[policy.Key, str] = {}
    for run in inventory.runs:
        for key in run.copies:
            newest[key] = max(run.run_id, newest.get(key, ""))
    return frozenset(key for key, run_id in newest.items() if run_id <= until.get(key[1], ""))


def clean(catalog: Catalog, order: Order, remembered: Remembered) -> tuple[Result, Cleaning]:
    """Clean up, or make the plan alone; return what came of it, and the plan.

    Raises StoreError or OSError where the store cannot be read: nothing was removed then.
    """
    cleaning = _planned(catalog, order, remembered)
    catalog = cleaning.catalog
    if not catalog.store.consistent:
        status = Status.UNCLEAN if order.by_hand and order.acts else Status.OK
        return Result(status, f"nothing is removed: {_LAGS}"), cleaning
    if cleaning.problem:
        return Result(Status.UNCLEAN, cleaning.problem, cleaning.hint), cleaning
    if not order.acts:
        return Result(Status.OK, cleaning.summary(), _nothing_found(cleaning, order)), cleaning
    if order.by_hand and cleaning.takes_most and not order.really:
        text = f"{cleaning.summary()}: more than half of the good runs, so nothing was removed"
        return Result(Status.UNCLEAN, text, "If that is meant, add --yes-really."), cleaning
    try:
        with remembered.alone():
            return _acted(cleaning, order, remembered)
    except LockedError:
        text = "nothing was removed: another clean-up of this store is in progress"
        status = Status.UNCLEAN if order.by_hand else Status.OK
        return Result(status, text, "Run it again when the other one has ended."), cleaning


def _planned(catalog: Catalog, order: Order, remembered: Remembered) -> Cleaning:
    """Return the plan, from a new listing where another clean-up has removed runs meanwhile."""
    for _attempt in range(_ATTEMPTS - 1):
        try:
            return planned(catalog, order, remembered, _now())
        except StoreError:
            fresh = Catalog(catalog.store, catalog.host, catalog.trust)
            if set(catalog.run_ids) <= set(fresh.run_ids):
                raise
            catalog = fresh
    return planned(catalog, order, remembered, _now())


def _acted(cleaning: Cleaning, order: Order, remembered: Remembered) -> tuple[Result, Cleaning]:
    """Remove what was planned; where another run has come meanwhile, what is planned then."""
    for _attempt in range(_ATTEMPTS):
        if removing.is_unchanged(cleaning.catalog, cleaning.inventory):
            return _removed(cleaning, order, remembered), cleaning
        catalog = cleaning.catalog
        fresh = Catalog(catalog.store, catalog.host, catalog.trust)
        cleaning = planned(fresh, order, remembered, _now())
        if cleaning.problem:
            return Result(Status.UNCLEAN, cleaning.problem, cleaning.hint), cleaning
    text = f"{cleaning.catalog.store}: other runs keep coming: nothing was removed"
    raise StoreError(text, "Run cleanup.py when no backup of this host is running.")


def _removed(cleaning: Cleaning, order: Order, remembered: Remembered) -> Result:
    catalog = cleaning.catalog
    remover = removing.Remover(catalog, remembered, order.versions)
    try:
        remover.finish(_needed(cleaning))
        outcome = remover.remove(cleaning.removals)
    except ForbiddenError as error:
        return _forbidden(cleaning, order, error)
    except (BackupError, OSError) as error:
        return _interrupted(cleaning, error)
    try:
        swept = _swept(catalog, order)
    except (BackupError, OSError) as error:
        return _not_swept(catalog, order, _result(cleaning, outcome, [], order), error)
    return _result(cleaning, outcome, swept, order)


def _forbidden(cleaning: Cleaning, order: Order, error: ForbiddenError) -> Result:
    """Return the result for a store in which this account may remove nothing, or only a part."""
    remaining = Catalog(cleaning.catalog.store, cleaning.catalog.host, cleaning.catalog.trust)
    planned_names = {n for one in cleaning.removals for n in (*one.records, *one.parts)}
    why = foreign.line(str(error))
    status = Status.UNCLEAN if order.by_hand else Status.OK
    hint = error.hint if order.by_hand else ""
    if planned_names <= remaining.sizes.keys():
        return Result(status, f"{KEEPS} ({why})", hint)
    runs = len(set(cleaning.catalog.run_ids) - set(remaining.run_ids))
    text = f"{count(runs, 'run')} removed, {count(len(remaining.run_ids), 'run')} left"
    text += f"; the rest of the plan may not be removed ({why})"
    return Result(status, text, hint, items=runs, warnings=(text,))


def _interrupted(cleaning: Cleaning, error: BackupError | OSError) -> Result:
    """Return the result of a clean-up that an error has ended: how many runs it had removed."""
    catalog = cleaning.catalog
    why, hint = in_words(error)
    try:
        remaining = Catalog(catalog.store, catalog.host, catalog.trust).run_ids
    except (BackupError, OSError):
        return Result(Status.UNCLEAN, f"{why}; how many runs were removed is not known", hint)
    planned_ids = cleaning.whole_runs
    runs = len(planned_ids - set(remaining))
    text = f"{why}; {count(runs, 'run')} of {len(planned_ids)} removed, {len(remaining)} left"
    return Result(Status.UNCLEAN, text, hint or "Run it again to continue.", items=runs)


def _nothing_found(cleaning: Cleaning, order: Order) -> str:
    """Return a hint for a store without runs, or for no rule."""
    if not order.by_hand:
        return ""
    if not cleaning.inventory.runs:
        return "Check --hostname, and whether the disk is mounted."
    return "" if order.rules.any else _NO_RULE


def _result(cleaning: Cleaning, outcome: Outcome, swept: Sequence[str], order: Order) -> Result:
    freed = outcome.keep_reason or f"{human_size(outcome.freed)} freed"
    runs = len(cleaning.inventory.runs) - outcome.runs
    text = f"{_counted(outcome.runs, outcome.items)} removed, {count(runs, 'run')} left, {freed}"
    hint = _nothing_found(cleaning, order)
    if not cleaning.inventory.runs:
        text = f"no runs of host {foreign.line(cleaning.catalog.host)}: no run was removed"
    if swept:
        text += f", {count(len(swept), 'file')} of crashed runs removed"
    if outcome.locked:
        text += f"; {count(len(outcome.locked), 'run')} may not be removed yet"
    if not (listed := outcome.still_listed):
        status = Status.UNCLEAN if outcome.locked and order.by_hand else Status.OK
        locked = tuple(map(foreign.line, outcome.locked))
        return Result(status, text, hint, items=outcome.runs, bytes=outcome.freed, warnings=locked)
    first = f"{cleaning.catalog.host}/{listed[0]}"
    problem = f"{text}; {count(len(listed), 'object')} still there, the first is {first}"
    return Result(Status.UNCLEAN, problem, "Check the rights of this account in the store.")


def _swept(catalog: Catalog, order: Order) -> list[str]:
    """Remove the files of crashed runs; return their names. Raises BackupError, OSError."""
    fresh = Catalog(catalog.store, catalog.host, catalog.trust)
    return leftovers.remove_crashed_runs(fresh, "", order.age, order.sections)


def _not_swept(
    catalog: Catalog, order: Order, result: Result, error: BackupError | OSError
) -> Result:
    """Return the result where files of crashed runs stay: a failure if that was requested.

    The next run removes them otherwise: a warning in its log.
    """
    why, hint = in_words(error)
    if not order.by_hand:
        logger.warning("%s: files of crashed runs: %s", catalog.store, why)
        return result
    text = f"{result.message}; files of crashed runs: {why}"
    hint = result.hint or hint or "Run it again to continue."
    return dataclasses.replace(result, status=Status.UNCLEAN, message=text, hint=hint)


def _needed(cleaning: Cleaning) -> set[str]:
    """Return the names that belong to runs with a manifest, also to runs that are removed now."""
    catalog, inventory = cleaning.catalog, cleaning.inventory
    records = (name for one in catalog.run_ids for name in removing.records(catalog, one))
    items = (item for run in inventory.manifests.values() for item in run.items)
    parts = (part for item in items for part in forms.needed(catalog.store, catalog.host, item))
    return {*records, *inventory.needed, *(part.name for part in parts)}


def _obstacle(catalog: Catalog, inventory: Candidates, now: datetime) -> tuple[str, str]:
    """Return why nothing may be removed, and what to do; "" for nothing."""
    if inventory.obstacles:
        run_id, why = next(iter(inventory.obstacles.items()))
        more = len(inventory.obstacles) - 1
        others = f" ({count(more, 'other run')} as well)" if more else ""
        return (
            f"nothing is removed: run {run_id}: {why}{others}",
            f"Check it with restore.py --verify {run_id}. If the run is lost, "
            f"cleanup.py --discard {run_id} lets clean-up continue.",
        )
    if inventory.runs and not inventory.manifests:
        text = "nothing is removed: no run is signed by a known signer"
        return text, "Name the signers with --signer FILE, or SIGNERS in the config."
    problem = candidates.clock_problem(inventory, now)
    if problem:
        return f"nothing is removed: {problem}", "Check the clock (date)."
    return "", ""


def with_notes(result: Result, plan: Cleaning, order: Order) -> Result:
    """Return a result with the lines of reports about items and runs."""
    apart = "its id and the time of its manifest are more than a day apart: it is kept"
    named = foreign.listing((f"run {one}: {apart}" for one in plan.plan.named), FEW)
    others = list(plan.inventory.obstacles.items())[1:]
    obstacles = foreign.listing((f"run {run_id}: {why}" for run_id, why in others), FEW)
    return dataclasses.replace(
        result,
        warnings=(*result.warnings, *obstacles, *named),
        notices=tuple(plan.notices(order.config_id)),
    )


def _notice(frozen: Frozen) -> str:
    label, argument = foreign.line(frozen.key[1]), foreign.argument(frozen.key[1])
    if frozen.dropped and frozen.days >= _DROPPED_DAYS:
        return (
            f"{label} has not been backed up for {frozen.days} days, and its runs are complete "
            f"without it: old copies are kept until cleanup.py --forget-item {argument}"
        )
    if not frozen.dropped and frozen.days >= _FROZEN_DAYS:
        return (
            f"{label} has no good copy since {frozen.since:%Y-%m-%d} ({frozen.days} days): "
            "its old copies are kept"
        )
    return ""


def _is_good(run: policy.Run) -> bool:
    return not run.problem and any(one.state is State.GOOD for one in run.copies.values())


def _now() -> datetime:
    return datetime.now(timezone.utc)


def reasons(cleaning: Cleaning) -> Mapping[str, str]:
    """Return for each run why it is kept or removed: the reasons of its items, each once."""
    by_run: dict[str, dict[str, list[str]]] = {}
    for decision in cleaning.plan.decisions:
        if decision.keep or decision.run_id in cleaning.whole_runs:
            by_reason = by_run.setdefault(decision.run_id, {})
            by_reason.setdefault(decision.reason, []).append(decision.key[1])
    return {run_id: "; ".join(_reason_texts(why)) for run_id, why in by_run.items()}


def _reason_texts(why: Mapping[str, list[str]]) -> Iterator[str]:
    """Yield the reasons of a run, with an item where they differ."""
    if len(why) == 1:
        yield from why
        return
    for reason, labels in why.items():
        yield f"{reason}: {labels[0]}" + (f" and {len(labels) - 1} more" if labels[1:] else "")


def usable(catalog: Catalog, run_id: str) -> Manifest | None:
    """Return a manifest that counts for the rules, by its signer; None for others."""
    try:
        claim = catalog.claim(run_id)
    except ManifestError:
        return None
    trusted = claim.untrusted is None or catalog.is_unsigned(run_id)
    return claim.manifest if trusted and not run_ids.in_future(run_id) else None
