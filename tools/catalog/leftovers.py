"""What runs leave in a store, and what of it is removed.

The files of a crashed run are known by its marker, or because they have neither a marker nor a
manifest. They are removed once they are old enough.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from tools.base import foreign, run_ids
from tools.base.errors import BackupError, ManifestError
from tools.base.log import logger
from tools.catalog import cleaned, liveness, manifest, markers, trust
from tools.catalog.catalog import Catalog
from tools.catalog.manifest import Manifest
from tools.catalog.markers import MARKER_SUFFIX
from tools.flow import forms, item_record
from tools.flow.store import StoreEntry


def remove_marker(catalog: Catalog, run_id: str) -> None:
    """Remove the marker, unless the run left files that its manifest does not name.

    A later run removes those. A store that cannot remove keeps the marker; beside a manifest it
    means nothing.
    """
    try:
        entries = catalog.store.entries(catalog.host)
        of_run = [entry for entry in entries if _run_id(entry) == run_id]
        expected = {run_id + MARKER_SUFFIX, *_referenced_names(catalog, of_run)}
        if set(map(_base, of_run)) <= expected:
            markers.remove(catalog.store, f"{catalog.host}/{run_id}{MARKER_SUFFIX}")
    except (BackupError, OSError) as error:
        logger.warning("%s: run marker not removed: %s", catalog.store, error)


def remove_crashed_runs(
    catalog: Catalog, run_id: str, age: float, sections: Collection[str] = ()
) -> list[str]:
    """Remove the files of crashed runs that are older than `age` seconds; return their names.

    Never what a manifest names, trusted or not, or what belongs to a run in progress. Where a
    manifest cannot be read, nothing is removed. Of a store whose listing may lack a manifest,
    only what was never published.
    sections: those of the config, beside those that manifests name (see `_unmarked`)
    """
    backup_store = catalog.store
    visible = list(backup_store.entries(catalog.host))
    marked = {_run_id(entry): entry for entry in visible if entry.name.endswith(MARKER_SUFFIX)}
    # Where nothing may be removed each run has left its marker: beside a manifest none is read.
    complete = {manifest.run_of(_base(entry)) for entry in visible}
    crashed = {
        run
        for run, marker in marked.items()
        if run != run_id
        and marker.age >= age
        and (run in complete or liveness.has_ended(backup_store, marker))
    }
    names: list[str] = []
    if backup_store.consistent:
        names += _visible_of(catalog, visible, crashed)
        names += _unmarked(catalog, visible, {run_id, *marked}, age, sections)
    for entry in backup_store.unfinished(catalog.host):
        run = _run_id(entry)
        in_progress = run == run_id or (run in marked and run not in crashed)
        if run and not in_progress and entry.age >= age:
            names.append(entry.name)
    old_markers = [marked[run].name for run in crashed if backup_store.consistent]
    for batch in filter(None, (names, old_markers)):  # markers last: they name unfinished work
        backup_store.remove(batch)
    for name in (*names, *old_markers):
        logger.info("removed %s of a crashed run from %s", name, backup_store)
    return [*names, *old_markers]


def _unmarked(
    catalog: Catalog,
    visible: list[StoreEntry],
    marked: Collection[str],
    age: float,
    sections: Collection[str],
) -> list[str]:
    """Return the files of runs that have neither a marker nor a manifest.

    Only names that a run gives to parts of the sections, and to its recovery sheet: what a user
    or the documented old system stored here has other names. None of a run that has a file
    younger than `age`.
    marked: runs that have a marker, and the one in progress
    """
    excluded = {*marked, *(_run_id(entry) for entry in visible if _is_kept(entry, age))}
    orphans = [entry for entry in visible if _run_id(entry) and _run_id(entry) not in excluded]
    if not orphans:
        return []
    referenced = _referenced_names(catalog, visible)
    runs = filter(None, (manifest.run_of(_base(entry)) for entry in visible))
    stored = {item.section for run in runs for item in _readable(catalog, run).items}
    names = _own_names({*sections, *stored})
    return [
        entry.name
        for entry in orphans
        if names.fullmatch(_base(entry)) and _base(entry) not in referenced
    ]


def _is_kept(entry: StoreEntry, age: float) -> bool:
    """Return whether a file shows that its run is complete or may be in progress."""
    return bool(manifest.run_of(_base(entry))) or entry.age < age


def _own_names(sections: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern for the names that runs give to parts of sections and to their sheets."""
    either = "|".join(re.escape(item_record.quoted(section)) for section in sections)
    part = rf"\.(?:{either})(?:\..+)?\.[0-9]{{3,}}"
    fixed = (manifest.RECOVERY, manifest.ENDING + trust.ENDING, cleaned.PIN)
    records = "|".join((*map(re.escape, fixed), cleaned.PATTERN))
    return re.compile(rf"[0-9]{{8}}_[0-9]{{6}}(?:{part}|{records})")


def _visible_of(catalog: Catalog, visible: list[StoreEntry], crashed: set[str]) -> Iterator[str]:
    """Return the names of crashed runs that no manifest names, without the markers."""
    referenced = _referenced_names(catalog, visible) if crashed else frozenset()
    for entry in visible:
        name = _base(entry)
        free = name not in referenced and not name.endswith(MARKER_SUFFIX)
        if _run_id(entry) in crashed and free:
            yield entry.name


def _readable(catalog: Catalog, run_id: str) -> Manifest:
    """Return a manifest, trusted or not. Raises ManifestError where an item of it is invalid."""
    run = catalog.claim(run_id).manifest
    for item in run.refused:
        name = f"{catalog.host}/{manifest.name_of(run_id)}"
        raise ManifestError(foreign.line(f"{name}: {item.label}: {item.problem}"))
    return run


def _base(entry: StoreEntry) -> str:
    return entry.name.rpartition("/")[2]


def _run_id(entry: StoreEntry) -> str:
    return run_ids.run_in(_base(entry))


def _referenced_names(catalog: Catalog, visible: list[StoreEntry]) -> frozenset[str]:
    """Return every name in a manifest, and the names of manifests and recovery sheets."""
    names: set[str] = set()
    for entry in visible:
        name = _base(entry)
        run_id = manifest.run_of(name)
        if run_id:
            run = _readable(catalog, run_id)
            names |= {name, name + trust.ENDING, run_id + manifest.RECOVERY, run_id + cleaned.PIN}
            names.update(catalog.notes.get(run_id, ()))
            for item in run.items:
                names |= {part.name for part in forms.needed(catalog.store, run.host, item)}
    return frozenset(names)
