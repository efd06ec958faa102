"""The runs of a store as the policy judges them: which copies of items are good."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cleanup import moved_config
from cleanup.moved_config import Adopted
from cleanup.policy import Copy, Key, Run, State
from tools.base import foreign, garbage, run_ids
from tools.base.errors import ManifestError
from tools.catalog import figures
from tools.catalog.catalog import Catalog, Claim
from tools.catalog.figures import Acceptance
from tools.catalog.manifest import Manifest
from tools.flow import forms
from tools.flow.anomaly import Figures, Thresholds
from tools.flow.item_record import StoredItem
from tools.modules import registry

_APART = timedelta(days=1)  # between the time in a run id and that of its manifest
_AHEAD = timedelta(minutes=1)  # of the store's clock, which may be a little fast
_UNKNOWN = "not signed by a known signer"


@dataclass(frozen=True)
class Known:
    """What is known beside the store.

    discarded: ids of runs whose manifest does not stop clean-up
    accepted:  by label of an item: the run from which on it may be smaller
    thresholds: by section: from which change on a copy is suspicious; None: nothing is compared
    adopted:   by id of a config: the one that it is now
    """

    discarded: Set[str] = frozenset()
    accepted: Mapping[str, Sequence[str]] = field(default_factory=dict)
    thresholds: Callable[[str], Thresholds | None] = lambda _section: Thresholds()
    adopted: Mapping[str, Adopted] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidates:
    """The runs of one host in one store.

    runs:      by the time of the store, oldest first
    manifests: by run id, of the runs that the policy may judge
    digests:   by run id: SHA-256 of the manifest
    needed:    names of the parts that the other manifests name
    obstacles: by run id: why nothing is removed until the operator has looked at it
    """

    runs: Sequence[Run]
    manifests: Mapping[str, Manifest]
    digests: Mapping[str, str]
    needed: Set[str]
    obstacles: Mapping[str, str]


def read(catalog: Catalog, known: Known) -> Candidates:
    """Return the runs of a catalog. Raises StoreError or OSError where it cannot be read."""
    with garbage.collected_rarely():
        return _Reader(catalog, known).read()


class _Reader:
    """One reading of a catalog."""

    def __init__(self, catalog: Catalog, known: Known) -> None:
        self._catalog = catalog
        self._known = known
        self._manifests: dict[str, Manifest] = {}
        self._digests: dict[str, str] = {}
        self._needed: set[str] = set()
        self._obstacles: dict[str, str] = {}
        self._odd: dict[str, str] = {}  # by run id: why it counts for nothing
        self._good: dict[Key, deque[Figures]] = {}  # of the newest good copies
        self._thresholds = functools.cache(known.thresholds)
        self._acceptance = Acceptance(known.accepted)

    def read(self) -> Candidates:
        for run_id in self._catalog.in_turn():
            self._take(run_id)
        order = sorted((self._catalog.stored_at(one), one) for one in self._catalog.run_ids)
        runs = [self._run(run_id, stored) for stored, run_id in order]
        return Candidates(runs, self._manifests, self._digests, self._needed, self._obstacles)

    def _take(self, run_id: str) -> None:
        """Read one manifest, and decide whether the policy may judge it."""
        try:
            claim = self._catalog.claim(run_id)
        except ManifestError as error:
            self._obstruct(run_id, foreign.line(str(error)))
            return
        self._digests[run_id] = claim.sha256
        if claim.untrusted is None or self._is_older(claim):
            self._manifests[run_id] = claim.manifest
        else:
            self._odd[run_id] = _UNKNOWN
            self._needed.update(self._names(claim.manifest))
            if claim.untrusted.altered:
                self._obstruct(run_id, foreign.line(str(claim.untrusted)))
        for item in claim.manifest.refused:
            self._obstruct(run_id, foreign.line(f"{item.label}: {item.problem}"))

    def _obstruct(self, run_id: str, why: str) -> None:
        """Note a manifest of which it is not known what it needs."""
        run = self._manifests.pop(run_id, None)
        if run is not None:
            self._needed.update(self._names(run))
        self._odd[run_id] = why
        if run_id not in self._known.discarded:
            self._obstacles[run_id] = why

    def _is_older(self, claim: Claim) -> bool:
        """Return whether a run was made before signing began, and counts as good."""
        run_id = claim.manifest.run_id
        if self._catalog.has_signature(run_id) or not self._catalog.is_unsigned(run_id):
            return False
        return bool(self._catalog.trust.signers) or run_id < self._first_signature

    @functools.cached_property
    def _first_signature(self) -> str:
        """Return the id of the oldest signed run; without any, one that sorts after all ids."""
        return next(filter(self._catalog.has_signature, self._catalog.run_ids), "~")

    def _names(self, run: Manifest) -> Iterator[str]:
        for item in run.items:
            for part in forms.needed(self._catalog.store, self._catalog.host, item):
                yield part.name

    # --- what the policy gets

    def _run(self, run_id: str, stored: datetime) -> Run:
        pinned = run_id in self._catalog.pinned
        run = self._manifests.get(run_id)
        if run is None:
            why = self._odd[run_id]
            return Run(run_id, stored, {}, config_id="", complete=False, problem=why, pinned=pinned)
        return Run(
            run_id,
            stored,
            dict(self._copies(run, counts=not _is_apart(run_id, stored))),
            config_id=moved_config.config_of(run, self._known.adopted),
            complete=run.is_complete,
            pinned=pinned,
        )

    def _copies(self, run: Manifest, *, counts: bool) -> Iterator[tuple[Key, Copy]]:
        """Yield the copies of a run. counts: whether later ones are compared with them."""
        config_id = moved_config.config_of(run, self._known.adopted)
        for label in run.missing:
            section = label.partition("/")[0]
            yield (config_id, label), Copy(State.MISSING, stored=False, section=section)
        for item in run.items:
            key = (config_id, item.label)
            yield key, self._copy(item, self._state(run, item, key, counts=counts))
        for item in run.cleaned:
            if self._is_stored(item):
                yield (config_id, item.label), self._copy(item, State.MISSING)

    def _copy(self, item: StoredItem, state: State) -> Copy:
        return Copy(
            state,
            stored=self._is_stored(item),
            base=item.base or "",
            log=registry.kind(item.kind).log,
            section=item.section,
        )

    def _is_stored(self, item: StoredItem) -> bool:
        return any(part.name in self._catalog.sizes for part in item.parts)

    def _state(self, run: Manifest, item: StoredItem, key: Key, *, counts: bool) -> State:
        """Return whether a copy is whole, and its figures are as usual."""
        if not self._catalog.holds(item):
            return State.MISSING
        now = figures.of_item(item, self._catalog.stored_at(run.run_id))
        if self._acceptance.begins(item.label, run.run_id):
            self._good.pop(key, None)
        if self._is_suspicious(item, now, key):
            return State.SUSPICIOUS
        if counts:
            self._good.setdefault(key, deque(maxlen=self._most(item.section))).append(now)
        return State.GOOD

    def _is_suspicious(self, item: StoredItem, now: Figures, key: Key) -> bool:
        """Return whether the run itself called a copy suspicious, or a comparison here does."""
        thresholds = self._thresholds(item.section)
        refused = self._acceptance.refuses(item) and thresholds is not None
        good = self._good.get(key, ())
        return refused or bool(figures.judge(item, now, tuple(good), thresholds).suspicious)

    def _most(self, section: str) -> int:
        thresholds = self._thresholds(section)
        return 1 if thresholds is None else thresholds.runs


def _is_apart(run_id: str, stored: datetime) -> bool:
    return abs(stored - run_ids.time_of(run_id)) > _APART


def clock_problem(inventory: Candidates, now: datetime) -> str:
    """Return why the times of a store must not be used; "" where they agree with this clock.

    A single run whose clock was wrong means nothing; all of them do. A run may take days, so the
    time of its end counts.
    """
    readable = [run for run in inventory.runs if not run.problem]
    if readable and readable[-1].stored - now > _AHEAD:
        return f"run {readable[-1].run_id} was stored in the future: a clock is wrong"
    ends = {run.run_id: _end(inventory.manifests[run.run_id]) for run in readable}
    if readable and all(abs(run.stored - ends[run.run_id]) > _APART for run in readable):
        return (
            "the times of all runs differ from those of their manifests in the store by more than "
            "a day: the clock of this machine is wrong, or the files were copied without their "
            "times (cp -a and rsync -t keep them)"
        )
    return ""


def _end(run: Manifest) -> datetime:
    """Return when a run ended, from its manifest; when it began where that is missing."""
    return run_ids.time_of_stamp(run.end) if run.end else run_ids.time_of(run.run_id)
