"""Select a run by its id, a date or "latest", and with it the items.

`latest` and a date select a run for each section, because a run need not have all of them:
several configs may share a host and a store, and --only leaves sections out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tools.base import run_ids
from tools.base.errors import ConfigError, ManifestError
from tools.catalog import identity, runs
from tools.catalog.catalog import Catalog, hosts, named
from tools.catalog.manifest import Manifest
from tools.catalog.readback import StoredRun
from tools.date_str_utils import count
from tools.flow.item_record import EARLIER
from tools.flow.item_record import StoredItem as Item
from tools.flow.store import check_store
from tools.modules import registry

_LATEST = "latest"
_BEST = 2  # rank of a run of the same config and machine


@dataclass(frozen=True)
class Preference:
    """Which runs are preferred.

    sections: those of the config; none means every section that is stored
    config_id, machine: whose runs come first (tools.catalog.identity); "" for no preference
    """

    sections: tuple[str, ...] = ()
    config_id: str = ""
    machine: str = ""

    def rank(self, manifest: Manifest) -> int:
        """Return how well a run fits; runs of a lower rank are used where none is higher."""
        same_config = not self.config_id or manifest.config_id in ("", self.config_id)
        same_machine = not self.machine or manifest.machine in ("", self.machine)
        return _BEST if same_config and same_machine else int(same_config)


@dataclass(frozen=True)
class Selection:
    """Items, each with the run that it is taken from.

    newest: the run that was named, or the newest of those that were selected
    notes:  which section is taken from which run, where these differ
    newer:  a newer run that is not complete, and its result; "" for none
    """

    newest: StoredRun
    pairs: tuple[tuple[StoredRun, Item], ...]
    notes: tuple[str, ...] = ()
    newer: str = ""
    _runs: Mapping[str, StoredRun] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ordered = sorted(self.pairs, key=lambda pair: not registry.kind(pair[1].kind).first)
        object.__setattr__(self, "pairs", tuple(ordered))
        by_item = {item.label: run for run, item in self.pairs}
        object.__setattr__(self, "_runs", by_item)

    @property
    def items(self) -> list[Item]:
        """Return all items."""
        return [item for _run, item in self.pairs]

    def run(self, item: Item) -> StoredRun:
        """Return the run that an item is taken from."""
        return self._runs[item.label]

    def runs(self) -> list[StoredRun]:
        """Return the runs, newest first."""
        by_id = {run.run_id: run for run, _item in self.pairs}
        by_id = by_id or {self.newest.run_id: self.newest}
        return [by_id[run_id] for run_id in sorted(by_id, reverse=True)]

    def of(self, run: StoredRun) -> list[Item]:
        """Return the items that are taken from one run."""
        return [item for one, item in self.pairs if one.run_id == run.run_id]

    def label(self) -> str:
        """Return the run or the runs as messages name them."""
        names = [run.run_id for run in self.runs()]
        return f"run {names[0]}" if len(names) == 1 else f"runs {', '.join(names)}"

    def narrowed(self, section: str, names: Sequence[str]) -> Selection:
        """Return the selected items. Raises ConfigError where a name selects none."""
        return self.only(runs.select_items(self.items, section, names, self.label()))

    def only(self, items: Iterable[Item]) -> Selection:
        """Return just these items."""
        names = {item.label for item in items}
        pairs = tuple((run, item) for run, item in self.pairs if item.label in names)
        several = len({run.run_id for run, _item in pairs}) > 1
        return Selection(self.newest, pairs, self.notes if several else (), self.newer)


def select_run(catalog: Catalog, preference: Preference, selector: str) -> Selection:
    """Return what a run id, a date or "latest" selects. Raises ConfigError where that is no run.

    An id may also select a run that is incomplete or dated in the future.
    Raises ManifestError where a newer run than those selected is unreadable or not trusted: an
    older state is never restored unasked.
    """
    if run_ids.is_run_id(selector):
        return of_run(_by_id(catalog, selector))
    until = None if selector == _LATEST else runs.parse_date(selector)
    summaries = list(map(_in_short, runs.list_runs(catalog)))
    candidates = (run.manifest for run in reversed(summaries) if _counts(run, until))
    complete = [manifest for manifest in candidates if manifest is not None]
    if not complete:
        raise _none_complete(catalog, summaries, until)
    selected = _per_section(catalog, preference, complete)
    for run in summaries:
        if run.run_id > selected.newest.run_id and _might_fit(run, preference, until):
            if run.manifest is None:
                raise _newer(run, selected)
            selected = dataclasses.replace(selected, newer=f"run {run.run_id} ({run.result})")
    return selected


def _in_short(run: runs.RunSummary) -> runs.RunSummary:
    """Return a run without what an untrusted manifest lists: it may be much, in many runs."""
    if run.manifest is not None or run.claimed is None:
        return run
    claimed = dataclasses.replace(run.claimed, items=(), missing=(), warnings=())
    return dataclasses.replace(run, claimed=claimed)


def of_run(run: StoredRun) -> Selection:
    """Return all items of one run."""
    return Selection(run, tuple((run, item) for item in run.manifest.items))


def _by_id(catalog: Catalog, run_id: str) -> StoredRun:
    if run_id in catalog.run_ids:
        return StoredRun(catalog, catalog.manifest(run_id))
    raise ConfigError(
        f"{catalog.store}: no run {run_id} of host {catalog.host}",
        "Run restore.py --list to see all runs.",
    )


def _counts(run: runs.RunSummary, until: datetime | None) -> bool:
    """Return whether "latest" or a date may select a run."""
    return run.manifest is not None and run.manifest.is_complete and _in_time(run, until)


def _in_time(run: runs.RunSummary, until: datetime | None) -> bool:
    return not run.in_future and (until is None or run_ids.time_of(run.run_id) <= until)


def _might_fit(run: runs.RunSummary, preference: Preference, until: datetime | None) -> bool:
    """Return whether a run might be the right one if it could be read, trusted, or were whole."""
    fits = run.claimed is None or preference.rank(run.claimed) == _BEST
    return fits and _in_time(run, until)


def _newer(run: runs.RunSummary, selected: Selection) -> ManifestError:
    other = f"Use the copy in another store (--store), or {selected.label()} by its id."
    return ManifestError(
        f"run {run.run_id} of {run.host} is newer, and {run.result}",
        f"{run.hint} {other}".strip(),
    )


def _per_section(
    catalog: Catalog, preference: Preference, complete: Sequence[Manifest]
) -> Selection:
    """Return the newest run of each section. complete: newest first, at least one."""
    by_section: dict[str, Manifest] = {}
    for section in _sections(preference, complete):
        having = [one for one in complete if any(item.section == section for item in one.items)]
        best = max(preference.rank(one) for one in having)
        by_section[section] = next(one for one in having if preference.rank(one) == best)
    newest = max(by_section.values(), key=lambda one: one.run_id, default=complete[0])
    source = {**by_section, EARLIER: newest}  # what an earlier run left belongs to no section
    pairs = tuple(
        (StoredRun(catalog, manifest), item)
        for manifest in complete
        for item in manifest.items
        if source.get(item.section) is manifest
    )
    return Selection(StoredRun(catalog, newest), pairs, tuple(_notes(by_section)))


def _sections(preference: Preference, complete: Sequence[Manifest]) -> list[str]:
    """Return the sections to select; all stored ones where none of the config was ever stored."""
    stored = dict.fromkeys(item.section for manifest in complete for item in manifest.items)
    stored.pop(EARLIER, None)
    return [name for name in stored if name in preference.sections] or list(stored)


def _notes(by_section: Mapping[str, Manifest]) -> list[str]:
    """Return a line for each section where the sections are taken from different runs."""
    if len({manifest.run_id for manifest in by_section.values()}) <= 1:
        return []
    several = len({manifest.machine for manifest in by_section.values()}) > 1
    return [
        f"{section} comes from run {manifest.run_id}{_made_by(manifest) if several else ''}"
        for section, manifest in by_section.items()
    ]


def _made_by(manifest: Manifest) -> str:
    if not manifest.machine:
        return ""
    return f", made by {identity.named(manifest.machine, manifest.machine_name)}"


def _none_complete(
    catalog: Catalog, summaries: Sequence[runs.RunSummary], until: datetime | None
) -> ConfigError:
    """Return the error for a store without a complete run; its hint names what there is.

    Raises UntrustedError where the newest run is not trusted.
    """
    when = "" if until is None else f" at or before {until:%Y-%m-%d %H:%M:%S} UTC"
    total = f"{count(len(summaries), 'run')} in total" if summaries else "no runs at all"
    message = f"{catalog.store}: no complete run of host {catalog.host}{when} ({total})"
    if summaries:
        newest = summaries[-1]
        if newest.claimed is not None and newest.manifest is None:
            catalog.manifest(newest.run_id)  # raises the reason
        return ConfigError(
            message,
            f"Check the newest run with --show {newest.run_id} ({newest.result}), then use its id.",
        )
    others = named([host for host in hosts(catalog.store) if host != catalog.host])
    return ConfigError(
        message,
        f"Choose a host of the store with --hostname: {others}."
        if others
        else check_store(catalog.store),
    )
