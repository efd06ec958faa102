"""The removal of runs and items from a store, in an order that survives a crash at any point.

A run loses its manifest first, then the files beside it, then the parts that no other manifest
names. A run that keeps some of its items gets a note about the others first. Newer runs are
removed before older ones: an increment never stays without its base.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cleanup.candidates import Candidates
from cleanup.remembered import Remembered
from tools.base import run_ids
from tools.base.errors import BackupError, ForbiddenError, StoreError
from tools.base.log import logger
from tools.catalog import cleaned, manifest, trust
from tools.catalog.catalog import Catalog
from tools.catalog.manifest import Manifest
from tools.catalog.markers import MARKER_SUFFIX
from tools.flow import forms, store
from tools.flow.item_record import StoredItem
from tools.flow.store import Versioned

_TOGETHER = 100  # runs whose manifests one call removes
_HIDDEN = "the bucket keeps old versions: freed 0 B now (VERSIONS True removes them)"
_CHANGED = "Run it again: another run or clean-up has written to this store."


@dataclass(frozen=True)
class RunRemoval:
    """What is removed of one run.

    is_whole: whether the run itself is removed
    records:  names of its manifest and the files beside it, the manifest first; of a whole run
    labels:   items that are removed, SECTION/name
    parts:    names of parts that are in the store and that no remaining manifest names
    size:     bytes of all of these
    bases:    ids of the runs that its items were added to
    """

    run_id: str
    is_whole: bool
    records: tuple[str, ...]
    labels: tuple[str, ...]
    parts: tuple[str, ...]
    size: int
    bases: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Outcome:
    """The outcome of a removal.

    runs, items:  how many were removed
    freed:        bytes that are free now
    keep_reason:  why the store still keeps what was removed; "" where it does not
    still_listed: names that the store still lists
    locked:       a line for each run of which a version may not be removed
    """

    runs: int = 0
    items: int = 0
    freed: int = 0
    keep_reason: str = ""
    still_listed: tuple[str, ...] = ()
    locked: tuple[str, ...] = ()


def removals(
    catalog: Catalog,
    inventory: Candidates,
    whole_ids: Collection[str],
    items: Mapping[str, Collection[str]],
) -> list[RunRemoval]:
    """Return what is removed of each run, newest first.

    whole_ids: ids of runs that are removed; items: labels that are, by the ids of other runs
    An item stays where no newer run replaces it, or no note can be added: its run would then seem
    damaged.
    """
    names = _Names(catalog)
    going = {
        run_id: {label for label in labels if catalog.is_replaced(run_id, label)}
        for run_id, labels in items.items()
        if cleaned.free_number(catalog.notes.get(run_id, ()))
    }
    needed = set(inventory.needed)
    for run_id, run in inventory.manifests.items():
        if run_id not in whole_ids:
            removed_labels = going.get(run_id, ())
            needed.update(
                n for one in run.items if one.label not in removed_labels for n in names.of(one)
            )
    both = {*whole_ids, *(run_id for run_id, labels in going.items() if labels)}
    ordered = sorted(both, key=lambda one: (catalog.stored_at(one), one), reverse=True)
    return [
        _removal(
            catalog,
            inventory.manifests[one],
            None if one in whole_ids else going[one],
            needed,
            names,
        )
        for one in ordered
    ]


class _Names:
    """The names of the objects of items, by what they are of."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def of(self, item: StoredItem) -> Iterator[str]:
        """Yield the names of all objects that an item needs."""
        parts = forms.needed(self._catalog.store, self._catalog.host, item)
        return (part.name for part in parts)


def _removal(
    catalog: Catalog,
    run: Manifest,
    labels: Collection[str] | None,
    needed: Collection[str],
    names: _Names,
) -> RunRemoval:
    """Return what is removed of one run. labels: None for all of it"""
    everything = (*run.items, *run.cleaned)
    removed = [one for one in everything if labels is None or one.label in labels]
    listed = (name for one in removed for name in names.of(one))
    parts = {name: None for name in listed if name in catalog.sizes and name not in needed}
    beside = records(catalog, run.run_id) if labels is None else ()
    return RunRemoval(
        run.run_id,
        labels is None,
        beside,
        tuple(one.label for one in removed),
        tuple(parts),
        sum(catalog.sizes[name] for name in (*beside, *parts)),
        frozenset(one.base for one in removed if one.base),
    )


def records(catalog: Catalog, run_id: str) -> tuple[str, ...]:
    """Return the names of the manifest of a run and of the files beside it."""
    first = manifest.name_of(run_id)
    others = (first + trust.ENDING, run_id + manifest.RECOVERY)
    notes = sorted(catalog.notes.get(run_id, ()))
    return tuple(name for name in (first, *others, *notes) if name in catalog.sizes)


def is_unchanged(catalog: Catalog, inventory: Candidates) -> bool:
    """List the store again; return False where runs have come, and a new plan is needed.

    Raises StoreError where the newest manifest is another one by now, and where a run that was
    there, or an object of it, is gone or has changed.
    """
    fresh = Catalog(catalog.store, catalog.host, catalog.trust)
    planned_ids = set(catalog.run_ids)
    for name, size in catalog.sizes.items():
        of_run = run_ids.run_in(name) in planned_ids and not name.endswith(MARKER_SUFFIX)
        if of_run and fresh.sizes.get(name) != size:
            raise StoreError(
                f"{catalog.store}: {catalog.host}/{name} has changed: nothing was removed",
                _CHANGED,
            )
    newest = inventory.runs[-1].run_id if inventory.runs else ""
    if newest in inventory.digests and fresh.claim(newest).sha256 != inventory.digests[newest]:
        raise StoreError(
            f"{catalog.store}: the manifest of run {newest} was replaced: nothing was removed",
            "Check who can write to this store.",
        )
    return set(fresh.run_ids) == planned_ids


@dataclass
class Remover:
    """Remove from one store, and report exactly what that has freed.

    versions: whether older versions in a versioned bucket are removed as well
    """

    catalog: Catalog
    remembered: Remembered
    versions: bool = False
    _done: list[RunRemoval] = field(default_factory=list)
    _locked: list[str] = field(default_factory=list)
    _bases: set[str] = field(default_factory=set)  # runs that locked ones were added to
    _freed: int = 0

    def finish(self, needed: Collection[str]) -> list[str]:
        """Remove what an interrupted clean-up has left, but for what a manifest needs again.

        A run with a marker is being copied back, and will have its manifest again.
        """
        sizes = self.catalog.sizes
        copied = {run_ids.run_in(name) for name in sizes if name.endswith(MARKER_SUFFIX)}
        leftovers = [
            one
            for one in self.remembered.condemned
            if one in sizes and one not in needed and run_ids.run_in(one) not in copied
        ]
        if leftovers:
            self._remove(leftovers)
        self.remembered.condemn(())
        return leftovers

    def remove(self, removals: Sequence[RunRemoval]) -> Outcome:
        """Remove what was planned, and list what is left of it.

        Raises ForbiddenError where the store lets this account remove nothing, StoreError or
        OSError; what has begun is finished by the next clean-up.
        """
        if self._takes_versions:
            for removal in removals:
                self._remove_versions(removal)
        else:
            for group in _groups(removals):
                self._remove_group(group)
        listed = self._still_listed()
        if not listed:
            self.remembered.condemn(())
        return self._outcome(listed)

    def _outcome(self, listed: tuple[str, ...]) -> Outcome:
        hidden = self._hidden()
        sizes = self.catalog.sizes
        freed = sum(one.size for one in self._done) - sum(sizes[name] for name in listed)
        return Outcome(
            sum(one.is_whole for one in self._done),
            sum(len(one.labels) for one in self._done if not one.is_whole),
            self._freed if self._takes_versions else 0 if hidden else freed,
            hidden,
            listed,
            tuple(self._locked),
        )

    def _remove_group(self, group: Sequence[RunRemoval]) -> None:
        """Remove runs, none of which is the base of another one."""
        whole_runs = [removal for removal in group if removal.is_whole]
        self._condemn(group)
        for removal in group:
            if not removal.is_whole:
                self._note(removal)
        self._remove([removal.records[0] for removal in whole_runs])
        self._remove([name for removal in group for name in (*removal.records[1:], *removal.parts)])
        for removal in group:
            self._take(removal)

    def _remove_versions(self, removal: RunRemoval) -> None:
        """Remove all versions of a run; one that is locked stays, and so do its bases."""
        if removal.run_id in self._bases:
            self._bases |= removal.bases
            return
        self._condemn([removal])
        try:
            if not removal.is_whole:
                self._note(removal)
            self._remove([*removal.records, *removal.parts])
        except ForbiddenError as error:
            self._locked.append(f"run {removal.run_id}: {error}")
            self._bases |= removal.bases
            return
        self._take(removal)

    def _condemn(self, group: Iterable[RunRemoval]) -> None:
        """Remember the files of these runs: this may be killed when their manifests are gone."""
        self.remembered.condemn(name for one in group for name in (*one.records[1:], *one.parts))

    def _take(self, removal: RunRemoval) -> None:
        self._done.append(removal)
        if removal.is_whole:
            logger.info("removed run %s from %s", removal.run_id, self.catalog.store)

    def _note(self, removal: RunRemoval) -> None:
        """Add a note of the removed items of a run, unless an interrupted clean-up has."""
        backup_store, host = self.catalog.store, self.catalog.host
        note_names = self.catalog.notes.get(removal.run_id, ())
        new = set(removal.labels) - cleaned.labels(backup_store, host, note_names)
        if new:
            cleaned.note(backup_store, host, removal.run_id, note_names, new)

    def _remove(self, names: Sequence[str]) -> None:
        if not names:
            return
        paths = [f"{self.catalog.host}/{name}" for name in names]
        versioned = self._versioned
        if versioned is not None and self.versions:
            self._freed += versioned.remove_versions(paths)
        else:
            self.catalog.store.remove(paths)

    @property
    def _takes_versions(self) -> bool:
        return self.versions and self._versioned is not None

    @property
    def _versioned(self) -> Versioned | None:
        return store.ability(self.catalog.store, Versioned)  # type: ignore[type-abstract]

    def _hidden(self) -> str:
        """Return why a store that was asked to remove objects still has their bytes."""
        versioned = self._versioned
        if versioned is None or not self._done or self.versions:
            return ""
        try:
            hides = versioned.versioning()
        except (BackupError, OSError) as error:  # whether it does is not known
            logger.info("%s: versioning: %s", self.catalog.store, error)
            return ""
        return _HIDDEN if hides else ""

    def _still_listed(self) -> tuple[str, ...]:
        """Return the removed names that the store still lists.

        Raises StoreError where it lists none of the runs that stay: an empty folder is there
        instead of a disk.
        """
        if not self._done:
            return ()
        entries = self.catalog.store.entries(self.catalog.host)
        listed = {entry.name.rpartition("/")[2] for entry in entries}
        stay = {*self.catalog.run_ids} - {one.run_id for one in self._done if one.is_whole}
        if stay and not any(manifest.name_of(run_id) in listed for run_id in stay):
            raise StoreError(
                f"{self.catalog.store}: no longer lists the runs that stay",
                "Check whether the disk is mounted, and what restore.py --list shows.",
            )
        names = (name for one in self._done for name in (*one.records, *one.parts))
        return tuple(name for name in names if name in listed)


def _groups(removals: Sequence[RunRemoval]) -> Iterator[list[RunRemoval]]:
    """Yield groups of runs that are removed together: none of them is the base of another one."""
    group: list[RunRemoval] = []
    bases: set[str] = set()
    for removal in removals:
        if len(group) >= _TOGETHER or removal.run_id in bases:
            yield group
            group, bases = [], set()
        group.append(removal)
        bases |= removal.bases
    if group:
        yield group
