#!/usr/bin/env python3
"""Alter manifests and stored objects at random, and count what a restore does wrong with them.

    python3 benchmarks/mutations.py [--count N] [--seed N] [--jobs N]

Half of the cases have signed runs, of which no altered one may be used. In the other half the
runs are unsigned and the operator uses --allow-unsigned: what the altered manifest says is
believed, and each item must be what it says, or be refused. Exit code 1 where anything is wrong.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import contextlib
import functools
import logging
import multiprocessing
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from benchmarks import mutation_checks, mutation_kinds
from benchmarks.mutation_lab import Lab
from tools.base.log import logger
from tools.catalog import manifest

_TASK = 500  # cases of one task: its runs are made once


@dataclass(frozen=True)
class Task:
    """So many cases, drawn by one seed. folder: for the keys and what is restored"""

    count: int
    seed: int
    folder: str


@dataclass
class Tally:
    """What came out. wrong: a line for each case that was not as it must be"""

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Take over what another task has counted."""
        self.cases += other.cases
        self.outcomes += other.outcomes
        self.wrong += other.wrong


@contextlib.contextmanager
def _parsed_once() -> Iterator[None]:
    """Parse each text of a manifest once: most of them are unaltered."""
    read = manifest.read
    try:
        manifest.read = functools.lru_cache(64)(read)
        yield
    finally:
        manifest.read = read


def mutations(task: Task) -> Tally:
    """Alter the runs of one lab again and again; each case begins with the unaltered runs."""
    tally = Tally()
    logger.setLevel(logging.ERROR)
    with _parsed_once(), tempfile.TemporaryDirectory(dir=task.folder) as folder:
        lab = Lab(Path(folder))
        for number in range(task.count):
            seed = task.seed * 1_000_003 + number
            rng = random.Random(seed)  # noqa: S311  (repeatable)
            signed = rng.random() < 0.5  # noqa: PLR2004
            objects, done = mutation_kinds.altered(lab, rng, signed=signed)
            outcomes, wrong = mutation_checks.judged(lab, objects, rng, signed=signed)
            tally.cases += 1
            tally.outcomes += outcomes
            tally.wrong += [
                f"seed {seed}, signed {signed}: {', '.join(done)}: {one}" for one in wrong
            ]
    return tally


def all_tasks(count: int, seed: int, folder: str) -> Iterator[Task]:
    """Cut the cases into tasks."""
    for number, begin in enumerate(range(0, count, _TASK)):
        yield Task(min(_TASK, count - begin), seed * 10_007 + number, folder)


def main(argv: Sequence[str]) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args(argv)
    total, started = Tally(), time.monotonic()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        pool = ProcessPoolExecutor(options.jobs, mp_context=context)
        for one in pool.map(mutations, all_tasks(options.count, options.seed, folder)):
            total.add(one)
        pool.shutdown()
    for line in total.wrong[:100]:
        print(line)
    print(f"{total.cases} cases in {time.monotonic() - started:.0f} s: {len(total.wrong)} wrong")
    for name, times in sorted(total.outcomes.items()):
        print(f"| {name} | {times} |")
    return 1 if total.wrong else 0
