"""Which runs are copied, and in which order: a base before what was added to it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from copy_runs import comparison
from copy_runs.arguments import ALL, MISSING, NEWEST
from copy_runs.comparison import Comparison
from tools.base import run_ids
from tools.base.errors import BackupError, ConfigError
from tools.catalog.catalog import Catalog
from tools.catalog.manifest import Manifest

_NEVER_REMOVED = 3  # newest runs of a store: clean-up keeps them, so what lacks there was missed


def chosen(pair: Comparison, names: Sequence[str]) -> list[str]:
    """Return the ids of the runs that `--runs` means, oldest first. Raises ConfigError."""
    catalog = pair.source
    match list(names):
        case [word] if word == ALL:
            return list(catalog.run_ids)
        case [word] if word == MISSING:
            return [run_id for run_id in catalog.run_ids if not pair.holds(run_id)]
        case [word] if word == NEWEST:
            return sorted(set(_newest(catalog)))
    unknown = [name for name in names if name not in catalog.run_ids]
    if unknown:
        raise ConfigError(
            f"{catalog.store}: no run {unknown[0]} of host {catalog.host}",
            "Run restore.py --list to see all runs.",
        )
    return sorted(set(names))


def _newest(catalog: Catalog) -> Iterator[str]:
    """Yield the newest complete run of each config; later ones that cannot be used as well.

    Those are named, so that nobody takes an older run for the newest one.
    """
    configs: set[str] = set()
    for run_id in reversed(list(catalog.in_turn())):
        if run_ids.in_future(run_id):
            continue
        run = _trusted(catalog, run_id)
        if run is None:
            if not configs:
                yield run_id
        elif run.is_complete and run.config_id not in configs:
            configs.add(run.config_id)
            yield run_id


def _trusted(catalog: Catalog, run_id: str) -> Manifest | None:
    try:
        return catalog.manifest(run_id)
    except (BackupError, OSError):
        return None


def recent(pair: Comparison, config_id: str) -> list[str]:
    """Return the ids of the recent runs of a config, oldest first: the target should have all.

    Those up to its third newest run are left out: clean-up may have removed some there.
    """
    past = (one for one in reversed(pair.target.run_ids) if not run_ids.in_future(one))
    of_config = (one for one in past if _is_of(_trusted(pair.target, one), config_id))
    since = min(itertools.islice(of_config, _NEVER_REMOVED), default="")
    later = (run_id for run_id in pair.source.run_ids if run_id > since)
    return [run_id for run_id in later if _is_of(_claimed(pair.source, run_id), config_id)]


def _claimed(catalog: Catalog, run_id: str) -> Manifest | None:
    try:
        return catalog.claim(run_id).manifest
    except (BackupError, OSError):
        return None


def _is_of(run: Manifest | None, config_id: str) -> bool:
    return run is not None and run.config_id in ("", config_id)


def with_bases(pair: Comparison, chosen_ids: Iterable[str]) -> list[str]:
    """Return the ids with those of all bases, each base before the runs that need it.

    In the order in which they were stored: so an interrupted copy has all up to some time, and
    the others are newer than what the target has (see Copier).
    """
    ordered: dict[str, None] = {}
    ordered_ids = sorted(chosen_ids, key=lambda run_id: (pair.source.stored_at(run_id), run_id))
    pair.read_ahead(ordered_ids)
    for run_id in ordered_ids:
        _visit(pair, run_id, ordered)
    return list(ordered)


def _visit(pair: Comparison, run_id: str, ordered: dict[str, None]) -> None:
    """Add a run behind its bases; a circle of bases ends where it began."""
    waiting = [run_id]
    path: set[str] = set()
    while waiting:
        current = waiting[-1]
        run = None if current in path else _trusted(pair.source, current)
        path.add(current)
        needed = [] if run is None else comparison.bases(run)
        missing = [one for one in needed if one not in ordered and one not in path]
        available = [one for one in missing if one in pair.source.run_ids]
        if available:
            waiting += reversed(available)
        else:
            ordered.setdefault(waiting.pop())
