"""Which items are meant, and of which run: by a run id, a date, or "latest".

`latest` and a date choose a run for each section, because a run need not have them all: several
configs may share a host and a store, and a run may have been made of some sections only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from restore import reading, runs
from tools.base import run_ids
from tools.base.errors import ConfigError
from tools.catalog import identity, manifest, markers
from tools.catalog.manifest import Manifest
from tools.date_str_utils import count
from tools.engine import staged
from tools.flow.item_record import StoredItem as Item
from tools.flow.store import Store
from tools.modules import registry

_LATEST = "latest"
_SEVERAL = 2  # runs: from here on it is said which section comes from which


@dataclass(frozen=True)
class Wanted:
    """Whose runs are meant.

    sections: those of the config; none means every section that is stored
    config_id, machine: whose runs go first (tools.identity); "" for no preference
    """

    host: str
    sections: tuple[str, ...] = ()
    config_id: str = ""
    machine: str = ""

    def rank(self, made: Manifest) -> int:
        """Return how well a run fits: runs of a lower rank are taken only where none is better."""
        ours = not self.config_id or made.config_id in ("", self.config_id)
        here = not self.machine or made.machine in ("", self.machine)
        return 2 if ours and here else int(ours)


@dataclass(frozen=True)
class Selection:
    """Items, each with the run that it is taken from; `notes` says what was chosen and why.

    newest: the run that was named, or the newest of those that were chosen
    """

    newest: reading.Run
    pairs: tuple[tuple[reading.Run, Item], ...]
    notes: tuple[str, ...] = ()
    _runs: Mapping[str, reading.Run] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ordered = sorted(self.pairs, key=lambda pair: not registry.kind(pair[1].kind).first)
        object.__setattr__(self, "pairs", tuple(ordered))
        by_item = {item.called: run for run, item in self.pairs}
        object.__setattr__(self, "_runs", by_item)

    @property
    def items(self) -> list[Item]:
        """All items."""
        return [item for _run, item in self.pairs]

    def run(self, item: Item) -> reading.Run:
        """Return the run that an item is taken from."""
        return self._runs[item.called]

    def runs(self) -> list[reading.Run]:
        """Return the runs, newest first."""
        found = {run.manifest.run_id: run for run, _item in self.pairs}
        found = found or {self.newest.manifest.run_id: self.newest}
        return [found[name] for name in sorted(found, reverse=True)]

    def of(self, run: reading.Run) -> list[Item]:
        """Return the items that are taken from one run."""
        return [item for one, item in self.pairs if one.manifest.run_id == run.manifest.run_id]

    def named(self) -> str:
        """Return the run or the runs as messages name them."""
        names = [run.manifest.run_id for run in self.runs()]
        return f"run {names[0]}" if len(names) == 1 else f"the runs {', '.join(names)}"

    def narrowed(self, section: str, names: Sequence[str]) -> Selection:
        """Return the items of a section, by name. Raises ConfigError where a name means none."""
        kept = {item.called for item in runs.items(self.items, section, names, self.named())}
        return self.only(item for item in self.items if item.called in kept)

    def only(self, items: Iterable[Item]) -> Selection:
        """Return just these items."""
        kept = {item.called for item in items}
        pairs = tuple((run, item) for run, item in self.pairs if item.called in kept)
        several = len({run.manifest.run_id for run, _item in pairs}) > 1
        return Selection(self.newest, pairs, self.notes if several else ())


def chosen(store: Store, wanted: Wanted, text: str) -> Selection:
    """Return what a run id, a date or "latest" means. Raises ConfigError where there is no run.

    An id may name a run that is not good, or one of the future.
    """
    if re.fullmatch(r"[0-9]{8}_[0-9]{6}", text):
        run = reading.Run(store, _named(store, wanted.host, text))
        return of_run(run)
    until = None if text == _LATEST else runs.until(text)
    everything = list(runs.found(store, wanted.host))
    counting = (run.manifest for run in reversed(everything) if _counts(run, until))
    good = [made for made in counting if made is not None]
    if not good:
        raise _none(store, wanted, everything, until)
    return _per_section(store, wanted, good)


def of_run(run: reading.Run) -> Selection:
    """Return all items of one run."""
    return Selection(run, tuple((run, item) for item in run.manifest.items))


def _named(store: Store, host: str, run_id: str) -> Manifest:
    names = {entry.name for entry in store.entries(host)}
    if f"{host}/{manifest.name_of(run_id)}" in names:
        return markers.read(store, host, run_id)
    raise ConfigError(f"there is no run {run_id} of {host} in {store}", "--list shows them.")


def _counts(run: runs.Found, until: datetime | None) -> bool:
    """Whether a run can be meant by "latest" or a date."""
    if run.manifest is None or not run.manifest.good or run_ids.in_future(run.run_id):
        return False
    return until is None or run_ids.time_of(run.run_id) <= until


def _per_section(store: Store, wanted: Wanted, good: Sequence[Manifest]) -> Selection:
    """The newest run of each section. good: newest first, at least one."""
    by_section: dict[str, Manifest] = {}
    for section in _sections(wanted, good):
        having = [made for made in good if any(item.section == section for item in made.items)]
        best = max(wanted.rank(made) for made in having)
        by_section[section] = next(made for made in having if wanted.rank(made) == best)
    newest = max(by_section.values(), key=lambda made: made.run_id, default=good[0])
    by_section[staged.EARLIER] = newest  # what an earlier run left belongs to no section
    pairs = tuple(
        (reading.Run(store, made), item)
        for made in good
        for item in made.items
        if by_section.get(item.section) is made
    )
    del by_section[staged.EARLIER]
    return Selection(reading.Run(store, newest), pairs, tuple(_notes(by_section)))


def _sections(wanted: Wanted, good: Sequence[Manifest]) -> list[str]:
    """The sections that are meant; where the config's own were never stored, all that were."""
    stored = dict.fromkeys(item.section for made in good for item in made.items)
    stored.pop(staged.EARLIER, None)
    return [name for name in stored if name in wanted.sections] or list(stored)


def _notes(by_section: Mapping[str, Manifest]) -> list[str]:
    """Say which run each section comes from, where they differ."""
    if len({made.run_id for made in by_section.values()}) < _SEVERAL:
        return []
    several = len({made.machine for made in by_section.values()}) > 1
    return [
        f"{section} comes from run {made.run_id}{_by(made) if several else ''}"
        for section, made in by_section.items()
    ]


def _by(made: Manifest) -> str:
    return f", made by {identity.named(made.machine, made.machine_name)}" if made.machine else ""


def _none(
    store: Store, wanted: Wanted, everything: Sequence[runs.Found], until: datetime | None
) -> ConfigError:
    """There is no good run: name what there is instead."""
    what = "" if until is None else f" at or before {until:%Y-%m-%d %H:%M:%S} UTC"
    there = f"{count(len(everything), 'run')} of it in all" if everything else "no run of it at all"
    message = f"there is no good run of {wanted.host}{what} in {store} ({there})"
    if everything:
        newest = everything[-1]
        return ConfigError(
            message,
            f"The newest run is {newest.run_id} ({newest.result}): name it by its id, and "
            "look at it with --show first.",
        )
    others = ", ".join(host for host in store.folders() if host != wanted.host)
    return ConfigError(
        message,
        f"Hosts in the store: {others}. Name one with --hostname."
        if others
        else "Is it the right store, and is its disk mounted?",
    )
