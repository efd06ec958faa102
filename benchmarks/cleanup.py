#!/usr/bin/env python3
"""Clean-up of many runs in a local store: the time of a plan, and what is left.

    python3 benchmarks/cleanup.py [--runs N] [--items N] [--hours H] [--act]

Target: a plan for 10,000 signed runs in 5 s. The runs are written as files into a temporary
folder, without a backup: one every H hours, item 1 of each an increment of the one before, and
full every seventh time. With --act the plan is printed and carried out, every part of what is
left is looked up, and a second plan must be empty.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import dataclasses
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from cleanup import cleaning, lines
from cleanup.cleaning import Order
from cleanup.policy import Rules
from cleanup.remembered import Remembered
from storage.local_store import LocalStore
from tools.base import project
from tools.catalog import manifest, readback, signers, trust, writer_key
from tools.catalog.catalog import Catalog
from tools.catalog.manifest import Manifest
from tools.catalog.memory import Memory
from tools.catalog.runs import list_runs
from tools.catalog.trust import Trust
from tools.catalog.writer_key import WriterKey
from tools.date_str_utils import run_id
from tools.flow.item_record import Part, StoredItem

HOST = "srv-1"
RULES = Rules(daily=7, weekly=4, monthly=12, yearly=2)
_CHAIN = 7  # runs from one full copy to the next
_CONTENT = b"data"
_DIGEST = hashlib.sha256(_CONTENT).hexdigest()


def item(run: str, number: int, base: str | None) -> StoredItem:
    """Return an item of one part of four bytes."""
    section = f"SECTION{number}"
    part = Part(f"{run}.{section}.tar.zst.age.000", 4, _DIGEST)
    stages = ("zstd", "age")
    return StoredItem(section, "", "fileset", ".tar", stages, (part,), 4, _DIGEST, base=base)


def write(folder: Path, moment: datetime, items: Sequence[StoredItem], key: WriterKey) -> None:
    """Write the files of one run."""
    run = run_id(moment)
    made = Manifest(HOST, run, "", "", "streamed", "ok", tuple(items), config_id="a")
    name = manifest.name_of(run)
    content = made.to_json()
    files = {name: content, name + trust.ENDING: key.sign(content), run + manifest.RECOVERY: b""}
    files |= {part.name: _CONTENT for one in items for part in one.parts}
    for called, data in files.items():
        (folder / called).write_bytes(data)
        os.utime(folder / called, (moment.timestamp(), moment.timestamp()))


def fill(folder: Path, runs: int, items: int, hours: float, key: WriterKey) -> None:
    """Write all runs, the newest one an hour ago."""
    folder.mkdir()
    now = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(hours=1)
    before: str | None = None
    for number in range(runs):
        moment = now - timedelta(hours=hours * (runs - number - 1))
        base = before if number % _CHAIN else None
        before = run_id(moment)
        found = [item(before, one, base if one == 1 else None) for one in range(1, items + 1)]
        write(folder, moment, found, key)


def check(catalog: Catalog) -> int:
    """Return how many runs are listed; all of them must be whole, and their bases there."""
    runs = [summary.manifest for summary in list_runs(catalog)]
    for run in runs:
        assert run is not None  # noqa: S101
        found = readback.StoredRun(catalog, run)
        assert not readback.missing_parts(found, run.items)  # noqa: S101
        for one in run.items:
            bases = catalog.manifest(one.base).items if one.base else run.items
            assert one.label in {other.label for other in bases}  # noqa: S101
    return len(runs)


def main(argv: Sequence[str]) -> int:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=2)
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--act", action="store_true")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="nc-backup-benchmark-") as top:
        path = Path(top) / "writer.key"
        writer_key.create(path, HOST)
        key = writer_key.read(path)
        fill(Path(top) / HOST, given.runs, given.items, given.hours, key)
        line = writer_key.allowed_signer(HOST, key.public)
        known = Trust(signers.Signers(tuple(signers.of_text(line, "key"))))

        def catalog() -> Catalog:
            return Catalog(LocalStore(Path(top)), HOST, known)

        remembered = Remembered(Memory(None), "store", HOST)
        began, cpu = time.monotonic(), time.process_time()
        result, plan = cleaning.clean(catalog(), Order(RULES), remembered)
        figures = {
            "runs": given.runs,
            "seconds": round(time.monotonic() - began, 2),
            "cpu_seconds": round(time.process_time() - cpu, 2),
            "plan": result.message,
        }
        if given.act:
            lines.show(plan)
            order = dataclasses.replace(Order(RULES), acts=True)
            figures["done"] = cleaning.clean(catalog(), order, remembered)[0].message
            figures["whole"] = check(catalog())
            figures["again"] = cleaning.clean(catalog(), Order(RULES), remembered)[0].message
    figures["program"] = f"nc-backup-py {project.version()}"
    print(json.dumps(figures, indent=1))
    return 0
