#!/usr/bin/env python3
"""Clean-up of many runs in a store: the time of a plan, and what is left.

    python3 benchmarks/cleanup.py [--store KIND] [--runs N] [--items N] [--hours H] [--act]

Targets: a plan for 10,000 signed runs in a local store in 5 s, for 1,000 on S3 in 10 s. The runs
are stored without a backup: one every H hours, item 1 of each an increment of the one before, and
full every seventh time. With --act the plan is printed and carried out, every part of what is
left is read, and a second plan must be empty. KIND: local, ssh, rclone, s3, s3-versioned or
s3-locked, each with a server of its own on this machine.
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
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone

from benchmarks import cleanup_stores
from benchmarks.cleanup_stores import File
from cleanup import cleaning, lines
from cleanup.cleaning import Order
from cleanup.policy import Rules
from cleanup.remembered import Remembered
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


def files(moment: datetime, items: Sequence[StoredItem], key: WriterKey) -> Iterator[File]:
    """Yield the files of one run."""
    run = run_id(moment)
    record = Manifest(HOST, run, "", "", "streamed", "ok", tuple(items), config_id="a")
    name = manifest.name_of(run)
    content = record.to_json()
    contents = {name: content, name + trust.ENDING: key.sign(content), run + manifest.RECOVERY: b""}
    contents |= {part.name: _CONTENT for one in items for part in one.parts}
    for file, data in contents.items():
        yield File(f"{HOST}/{file}", data, moment)


def runs(number_of_runs: int, items: int, hours: float, key: WriterKey) -> Iterator[File]:
    """Yield the files of all runs, the newest one an hour ago."""
    now = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(hours=1)
    before: str | None = None
    for number in range(number_of_runs):
        moment = now - timedelta(hours=hours * (number_of_runs - number - 1))
        base = before if number % _CHAIN else None
        before = run_id(moment)
        stored_items = [
            item(before, one, base if one == 1 else None) for one in range(1, items + 1)
        ]
        yield from files(moment, stored_items, key)


def check(catalog: Catalog) -> int:
    """Return how many runs are listed; all of them are read, and must have their bases."""
    manifests = [summary.manifest for summary in list_runs(catalog)]
    for run in manifests:
        assert run is not None  # noqa: S101
        stored_run = readback.StoredRun(catalog, run)
        assert not readback.missing_parts(stored_run, run.items)  # noqa: S101
        for one in run.items:
            bases = catalog.manifest(one.base).items if one.base else run.items
            assert one.label in {other.label for other in bases}  # noqa: S101
            assert b"".join(readback.read_parts(stored_run, one)) == _CONTENT  # noqa: S101
    return len(manifests)


def main(argv: Sequence[str]) -> int:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--store", choices=cleanup_stores.KINDS, default="local")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=2)
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--act", action="store_true")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="nc-backup-benchmark-") as top:
        path = Path(top) / "writer.key"
        writer_key.create(path, HOST)
        key = writer_key.read(path)
        target = cleanup_stores.target(options.store, Path(top) / "store")
        target.fill(runs(options.runs, options.items, options.hours, key))
        line = writer_key.allowed_signer(HOST, key.public)
        known = Trust(signers.Signers(tuple(signers.of_text(line, "key"))))

        def catalog() -> Catalog:
            return Catalog(target.opened(), HOST, known)

        remembered = Remembered(Memory(None), "store", HOST)
        began, cpu = time.monotonic(), time.process_time()
        order = Order(RULES, versions=target.versions)
        result, plan = cleaning.clean(catalog(), order, remembered)
        figures: dict[str, object] = {
            "store": options.store,
            "runs": options.runs,
            "seconds": round(time.monotonic() - began, 2),
            "cpu_seconds": round(time.process_time() - cpu, 2),
            "plan": result.message,
        }
        if options.act:
            lines.show(plan)
            began = time.monotonic()
            acting = dataclasses.replace(order, acts=True)
            figures["done"] = cleaning.clean(catalog(), acting, remembered)[0].message
            figures["seconds_of_removal"] = round(time.monotonic() - began, 2)
            figures["whole"] = check(catalog())
            figures["again"] = cleaning.clean(catalog(), order, remembered)[0].message
    figures["program"] = f"nc-backup-py {project.version()}"
    print(json.dumps(figures, indent=1))
    return 0
