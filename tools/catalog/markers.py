"""The records of a run in its stores: that it goes on, its recovery sheet, its manifest.

The mark comes first (`<run id>.UNFINISHED`), the manifest last; then the mark goes. What a dead
run left is known by its mark, and removed once it is old enough.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tools.base import masking, run_ids
from tools.base.errors import BackupError, StoreError, TakenError
from tools.base.log import logger
from tools.catalog import manifest, recovery_sheet
from tools.catalog.manifest import Manifest
from tools.flow import item_record, store
from tools.flow.store import Store, StoreEntry

UNFINISHED = ".UNFINISHED"
_MOST_BYTES = 1 << 16  # of a mark that is read
_NUMERIC = re.compile(r"[0-9.,:-]*")  # facts that a restore computes with: no secrets


def begin(place: Store, host: str, run_id: str) -> None:
    """Mark in a store that a run goes on, and who runs it.

    Raises TakenError where another run has this id already, BackupError or OSError. A store of
    the user's own may replace what it holds: the mark is read back, and the last one counts.
    """
    token = secrets.token_hex(8)  # without it two containers could write the same mark
    who = json.dumps({"run_id": run_id, "token": token, **_self()}, sort_keys=True) + "\n"
    name = f"{host}/{run_id}{UNFINISHED}"
    store.store_object(place, name, [who.encode()])
    if b"".join(place.get(name)) != who.encode():
        raise TakenError(f"{name} was replaced in {place} by another run")


def finish(place: Store, made: Manifest) -> None:
    """Store the recovery sheet, and last the manifest, with every known secret masked.

    Raises BackupError or OSError, also where a part that the manifest names is not there (any
    more): another program has removed it, or the store lists less than it took.
    """
    made = masked(made)
    folder = made.host
    _refuse_absent(place, made)
    sheet = recovery_sheet.sheet(made).encode("utf-8", "backslashreplace")
    store.store_object(place, f"{folder}/{made.run_id}{manifest.RECOVERY}", [sheet])
    name = f"{folder}/{manifest.name_of(made.run_id)}"
    store.store_object(place, name, [made.to_json()])
    if b"".join(place.get(name)) != made.to_json():
        raise BackupError(f"{name} reads back differently", "Distrust this store.")


def _refuse_absent(place: Store, made: Manifest) -> None:
    sizes = {entry.name.rpartition("/")[2]: entry.size for entry in place.entries(made.host)}
    for part in (part for item in made.items for part in item.parts):
        if sizes.get(part.name) != part.size:
            size = sizes.get(part.name)
            problem = "is missing" if size is None else f"has {size} bytes instead of {part.size}"
            raise StoreError(
                f"{part.name} {problem} in the list of {place}",
                "Did something remove it during the run? Otherwise do not trust this store.",
            )


def masked(made: Manifest) -> Manifest:
    """Return the manifest with every known secret masked in all texts that sources gave.

    Names of items stay: the names of their parts hold them, and a restore looks for them.
    """
    return dataclasses.replace(
        made,
        items=tuple(_masked(item) for item in made.items),
        missing=_all_masked(made.missing),
        warnings=_all_masked(made.warnings),
        config_file=masking.text(made.config_file),
    )


def _masked(item: item_record.StoredItem) -> item_record.StoredItem:
    facts = {
        key: value if _NUMERIC.fullmatch(value) else masking.text(value)
        for key, value in item.facts.items()
    }
    return dataclasses.replace(
        item, facts=facts, warnings=_all_masked(item.warnings), notes=_all_masked(item.notes)
    )


def _all_masked(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(masking.text(line) for line in lines)


def end(place: Store, host: str, run_id: str) -> None:
    """Take the mark away, unless the run left what no manifest names: then a later run cleans.

    A store that only takes and never removes keeps the mark; beside a manifest it says nothing.
    """
    try:
        visible = [entry for entry in place.entries(host) if _run_id(entry) == run_id]
        kept = {run_id + UNFINISHED, *_named(place, host, visible)}
        if {entry.name.rpartition("/")[2] for entry in visible} <= kept:
            place.remove([f"{host}/{run_id}{UNFINISHED}"])
    except (BackupError, OSError) as error:
        logger.warning("%s: the mark of the run stays: %s", place, error)


def read(place: Store, host: str, run_id: str) -> Manifest:
    """The manifest of a run. Raises ManifestError, StoreError or OSError."""
    name = f"{host}/{manifest.name_of(run_id)}"
    found = manifest.read(b"".join(place.get(name)), name)
    if (found.host, found.run_id) != (host, run_id):
        raise manifest.ManifestError(
            f"{name}: is the manifest of {found.host}/{found.run_id}", "It was moved or renamed."
        )
    return found


def sweep(place: Store, host: str, run_id: str, age: float) -> list[str]:
    """Remove what dead runs of this host left, once it is older than `age` seconds.

    Never what a manifest names, what belongs to a living run, and what was made on another
    machine. Where one manifest cannot be read, nothing is removed. Gives what was removed.
    """
    visible = list(place.entries(host))
    marks = {_run_id(entry): entry for entry in visible if entry.name.endswith(UNFINISHED)}
    dead = {
        run
        for run, mark in marks.items()
        if run != run_id and mark.age >= age and _dead(place, mark)
    }
    gone = []
    kept = _named(place, host, visible) if dead else frozenset()
    for entry in visible:
        name = entry.name.rpartition("/")[2]
        if _run_id(entry) in dead and name not in kept and not name.endswith(UNFINISHED):
            gone.append(entry.name)
    for entry in place.unfinished(host):
        run = _run_id(entry)
        living = run == run_id or (run in marks and run not in dead)
        if run and not living and entry.age >= age:
            gone.append(entry.name)
    gone += [marks[run].name for run in dead]  # last: until then they say what is to be done
    for name in gone:
        place.remove([name])
        logger.info("removed %s, which a dead run left in %s", name, place)
    return gone


def _run_id(entry: StoreEntry) -> str:
    return run_ids.run_in(entry.name.rpartition("/")[2])


def _named(place: Store, host: str, visible: list[StoreEntry]) -> frozenset[str]:
    """Every name that a manifest vouches for, the manifests and their sheets included."""
    kept: set[str] = set()
    for entry in visible:
        name = entry.name.rpartition("/")[2]
        run = manifest.run_of(name)
        if run:
            found = read(place, host, run)
            kept |= {name, run + manifest.RECOVERY}
            kept |= {part.name for item in found.items for part in item.parts}
    return frozenset(kept)


def _dead(place: Store, mark: StoreEntry) -> bool:
    """Whether the run of a mark has ended; what is not certain is alive."""
    try:
        who: Any = json.loads(b"".join(place.get(mark.name))[:_MOST_BYTES])
        ours = _self()
        if who["machine"] != ours["machine"]:
            return False
        if who["boot"] != ours["boot"]:
            return True
        if who.get("pids", ours["pids"]) != ours["pids"]:
            return False  # the process numbers of another container mean nothing here
        return bool(_started(int(who["process"])) != who["started"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return False


def _self() -> dict[str, Any]:
    """This machine, its boot, its namespace of processes, this process."""
    return {
        "machine": _text("/etc/machine-id") or os.uname().nodename,
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "pids": _link("/proc/self/ns/pid"),
        "process": os.getpid(),
        "started": _started(os.getpid()),
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


def _started(process: int) -> str:
    """When a process started, in ticks since the boot (proc(5), field 22); "" if there is none."""
    status = _text(f"/proc/{process}/stat")
    return status.rpartition(")")[2].split()[19] if status else ""
