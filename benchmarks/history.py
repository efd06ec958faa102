#!/usr/bin/env python3
"""What the history of figures and the anomaly guard add to a run: CPU and elapsed time.

    python3 benchmarks/history.py [--items N] [--runs N]

Target: 20 ms for a run of 20 items. 80 runs of one database source are recorded, then each
measured run is compared with them and recorded, in a real database.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from tools.base.result import Result, Status
from tools.base.run_result import RunResult, SectionResult
from tools.catalog.memory import Memory
from tools.config.declarations import General
from tools.config.model import Config, Section
from tools.date_str_utils import run_id
from tools.engine.anomaly_guard import AnomalyGuard
from tools.flow.item_record import Part, StoredItem

_FIRST = datetime(2026, 1, 1, 3, tzinfo=timezone.utc)
_RECORDED = 80  # runs before the measured ones
_SIZE = 100 << 20
_KINDS = {"DB": "source", "COMPRESSION": "stage", "ENCRYPTION": "stage", "STORE": "store"}


def config() -> Config:
    """Return a config of a source, two stages and a store."""
    sections = (Section(name, "", "execute", Path("x"), kind=_KINDS[name]) for name in _KINDS)
    return Config(Path("/etc/nc-backup-py/conf.json"), General("srv-1"), {}, tuple(sections))


def items(run: str, count: int) -> list[StoredItem]:
    """Return the items of a run: databases of 100 MiB."""
    stages = ("zstd", "age")
    return [
        StoredItem(
            "DB", f"3306/db{number}", "mysql", ".sql", stages,
            (Part(f"{run}.DB.{number}.sql.zst.age.000", _SIZE // 3, "0" * 64),),
            _SIZE, "0" * 64, seconds=9.0,
        )
        for number in range(count)
    ]  # fmt: skip


def compared(folder: Path, day: int, count: int) -> tuple[float, float]:
    """Compare and record a run. Return seconds of CPU and of the clock."""
    begin = _FIRST + timedelta(days=day)
    run = run_id(begin)
    stored = items(run, count)
    steps = tuple(
        SectionResult(name, kind, Result(Status.OK, ""), 100.0) for name, kind in _KINDS.items()
    )
    cpu, clock = time.process_time(), time.perf_counter()
    guard = AnomalyGuard(config(), Memory(folder), run, tolerant=False)
    judged = guard.judge(lambda _known: (), stored, frozenset(), steps)
    stored = [judged.marked(item) for item in stored]
    guard.record(RunResult(run, "srv-1", begin, 100.0, Status.OK, steps), stored)
    return time.process_time() - cpu, time.perf_counter() - clock


def main(argv: Sequence[str]) -> int:
    """Measure. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--runs", type=int, default=20, help="measured runs")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        times = [
            compared(Path(folder), day, options.items) for day in range(_RECORDED + options.runs)
        ]
    for name, of_runs in zip(("CPU", "elapsed"), zip(*times[_RECORDED:], strict=True), strict=True):
        low, middle, high = (1000 * of(of_runs) for of in (min, statistics.median, max))
        print(f"{name}, ms: {low:.1f} to {high:.1f}, median {middle:.1f}")
    return 0
