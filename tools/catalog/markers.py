"""The marker of an unfinished run, the publishing of a run, and the files of crashed runs.

The marker comes first (`<run id>.UNFINISHED`), the manifest last; then the marker is removed.
The files of a crashed run are known by its marker, and removed once they are old enough.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tools.base import masking, run_ids
from tools.base.errors import BackupError, StoreError, TakenError
from tools.base.log import logger
from tools.catalog import manifest, recovery_sheet
from tools.catalog.catalog import Catalog
from tools.catalog.manifest import Manifest
from tools.flow import forms, store
from tools.flow.facts import Json
from tools.flow.item_record import StoredItem
from tools.flow.store import Store, StoreEntry

MARKER_SUFFIX = ".UNFINISHED"
_MAX_BYTES = 1 << 16  # of a marker that is read
_NUMERIC = re.compile(r"[0-9.,:-]*")  # facts that a restore computes with: no secrets


def create_marker(place: Store, host: str, run_id: str) -> None:
    """Mark in a store that a run is in progress, and which process runs it.

    Raises TakenError where another run has this id already, BackupError or OSError. A
    user-defined store may replace what it holds, so the marker is read back: the last one counts.
    """
    token = secrets.token_hex(8)  # without it two containers could write the same marker
    identity = {"run_id": run_id, "token": token, **_process_identity()}
    text = json.dumps(identity, sort_keys=True) + "\n"
    name = f"{host}/{run_id}{MARKER_SUFFIX}"
    store.store_object(place, name, [text.encode()])
    if b"".join(place.get(name)) != text.encode():
        raise TakenError(f"{name} was replaced in {place} by another run")


def publish_manifest(catalog: Catalog, run: Manifest) -> None:
    """Store the recovery sheet, and last the manifest, with every known secret masked.

    Raises BackupError or OSError, also where a part of the manifest is missing: another program
    removed it, or the store lists less than it took.
    """
    run = masked(run)
    place, folder = catalog.store, run.host
    _require_parts(place, run)
    sheet = recovery_sheet.sheet(run).encode("utf-8", "backslashreplace")
    store.store_object(place, f"{folder}/{run.run_id}{manifest.RECOVERY}", [sheet])
    name = f"{folder}/{manifest.name_of(run.run_id)}"
    store.store_object(place, name, [run.to_json()])
    if b"".join(place.get(name)) != run.to_json():
        raise BackupError(
            f"{name}: read-back mismatch",
            f"Check the disk or share of this store, then run restore.py --verify {run.run_id}.",
        )
    catalog.add(run)


def _require_parts(place: Store, run: Manifest) -> None:
    sizes = {entry.name.rpartition("/")[2]: entry.size for entry in place.entries(run.host)}
    for part in (one for item in run.items for one in forms.needed(place, run.host, item)):
        size = sizes.get(part.name)
        if size != part.size:
            problem = "no such part" if size is None else f"{size} bytes, expected {part.size}"
            raise StoreError(
                f"{place}: {part.name}: {problem}",
                "Check whether another program removes files of this store during runs, "
                "and check its disk.",
            )


def masked(run: Manifest) -> Manifest:
    """Return the manifest with every known secret masked in all texts that sources gave.

    Names of items stay: they are in the names of their parts, and a restore looks for them.
    """
    return dataclasses.replace(
        run,
        items=tuple(_masked(item) for item in run.items),
        missing=_all_masked(run.missing),
        warnings=_all_masked(run.warnings),
        config_file=masking.text(run.config_file),
    )


def _masked(item: StoredItem) -> StoredItem:
    facts = {key: _masked_fact(value) for key, value in item.facts.items()}
    return dataclasses.replace(
        item, facts=facts, warnings=_all_masked(item.warnings), notes=_all_masked(item.notes)
    )


def _masked_fact(value: Json) -> Json:
    if isinstance(value, list):
        return [_masked_fact(one) for one in value]
    if not isinstance(value, str) or _NUMERIC.fullmatch(value):
        return value
    return masking.text(value)


def _all_masked(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(masking.text(line) for line in lines)


def remove_marker(catalog: Catalog, run_id: str) -> None:
    """Remove the marker, unless the run left files that its manifest does not name.

    A later run removes those. A store that cannot remove keeps the marker; beside a manifest it
    means nothing.
    """
    try:
        entries = catalog.store.entries(catalog.host)
        own = [entry for entry in entries if _run_id(entry) == run_id]
        expected = {run_id + MARKER_SUFFIX, *_referenced_names(catalog, own)}
        if {entry.name.rpartition("/")[2] for entry in own} <= expected:
            catalog.store.remove([f"{catalog.host}/{run_id}{MARKER_SUFFIX}"])
    except (BackupError, OSError) as error:
        logger.warning("%s: run marker not removed: %s", catalog.store, error)


def remove_crashed_runs(catalog: Catalog, run_id: str, age: float) -> list[str]:
    """Remove the files of crashed runs that are older than `age` seconds; return their names.

    Never what a manifest names, what belongs to a run in progress, or what another machine
    made. Where a manifest cannot be read, nothing is removed.
    """
    place = catalog.store
    visible = list(place.entries(catalog.host))
    marked = {_run_id(entry): entry for entry in visible if entry.name.endswith(MARKER_SUFFIX)}
    crashed = {
        run
        for run, marker in marked.items()
        if run != run_id and marker.age >= age and _has_ended(place, marker)
    }
    names = list(_visible_of(catalog, visible, crashed))
    for entry in place.unfinished(catalog.host):
        run = _run_id(entry)
        in_progress = run == run_id or (run in marked and run not in crashed)
        if run and not in_progress and entry.age >= age:
            names.append(entry.name)
    markers = [marked[run].name for run in crashed]
    for some in filter(None, (names, markers)):  # markers last: they say what is still to be done
        place.remove(some)
    for name in (*names, *markers):
        logger.info("removed %s of a crashed run from %s", name, place)
    return [*names, *markers]


def _visible_of(catalog: Catalog, visible: list[StoreEntry], crashed: set[str]) -> Iterator[str]:
    """Return the names of crashed runs that no manifest names, without the markers."""
    referenced = _referenced_names(catalog, visible) if crashed else frozenset()
    for entry in visible:
        name = entry.name.rpartition("/")[2]
        free = name not in referenced and not name.endswith(MARKER_SUFFIX)
        if _run_id(entry) in crashed and free:
            yield entry.name


def _run_id(entry: StoreEntry) -> str:
    return run_ids.run_in(entry.name.rpartition("/")[2])


def _referenced_names(catalog: Catalog, visible: list[StoreEntry]) -> frozenset[str]:
    """Return every name in a manifest, and the names of manifests and recovery sheets."""
    names: set[str] = set()
    for entry in visible:
        name = entry.name.rpartition("/")[2]
        run = manifest.run_of(name)
        if run:
            found = catalog.manifest(run)
            names |= {name, run + manifest.RECOVERY}
            for item in found.items:
                names |= {part.name for part in forms.needed(catalog.store, found.host, item)}
    return frozenset(names)


def _has_ended(place: Store, marker: StoreEntry) -> bool:
    """Return whether the run of a marker has ended; one that may be alive has not."""
    try:
        marked: Any = json.loads(b"".join(place.get(marker.name))[:_MAX_BYTES])
        own = _process_identity()
        if marked["machine"] != own["machine"]:
            return False
        if marked["boot"] != own["boot"]:
            return True
        if marked.get("pids", own["pids"]) != own["pids"]:
            return False  # process ids of another container mean nothing here
        return bool(_process_start_time(int(marked["process"])) != marked["started"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return False  # of the marker: what it does not say may be alive


def _process_identity() -> dict[str, Any]:
    """Return this machine, its boot, its namespace of process ids, and this process."""
    return {
        "machine": _text("/etc/machine-id") or os.uname().nodename,
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "pids": _link("/proc/self/ns/pid"),
        "process": os.getpid(),
        "started": _process_start_time(os.getpid()),
    }


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _process_start_time(process: int) -> str:
    """Return when a process started, in ticks since the boot (proc(5), field 22); "": none."""
    status = _text(f"/proc/{process}/stat")
    return status.rpartition(")")[2].split()[19] if status else ""
