#!/usr/bin/env python3
"""Compare the plans of clean-up with a brute-force oracle, and measure a large one.

    python3 benchmarks/retention.py [--count N] [--seed N] [--jobs N]

Each case draws a history of a store and rules, and adds runs of a hostile server. Exit code 1
where a plan is not what the oracle says, or where hostile runs push out what they must not.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import multiprocessing
import os
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta, timezone

from cleanup import policy
from cleanup.policy import Copy, Rules, Run, State
from tests.cleanup import histories

_TASK = 500  # cases of one task
_RUNS, _ITEMS = 10_000, 10  # of the plan that is measured


def faults(seeds: Sequence[int]) -> "list[str]":
    """Return what is wrong with the plans of some cases."""
    return [
        f"seed {seed}: {one}"
        for seed in seeds
        for one in histories.faults(random.Random(seed))  # noqa: S311  (repeatable)
    ]


def tasks(count: int, seed: int) -> "Iterator[range]":
    """Cut the cases into tasks: the seeds of each."""
    first = seed * 1_000_000_007
    for begin in range(0, count, _TASK):
        yield range(first + begin, first + min(begin + _TASK, count))


def seconds() -> float:
    """Return how long a plan of 10,000 runs with 10 items takes, with all rules set."""
    begin = datetime(2005, 1, 1, tzinfo=timezone.utc)
    moments = [begin + timedelta(hours=20 * number) for number in range(_RUNS)]
    copies = {
        ("c", f"S/{item}"): Copy(State.GOOD, stored=True, section="S") for item in range(_ITEMS)
    }
    runs = [
        Run(f"{moment:%Y%m%d_%H%M%S}", moment, copies, "c", complete=True) for moment in moments
    ]
    rules = Rules(7, 24, 7, 4, 12, 10, timedelta(days=30))
    started = time.monotonic()
    policy.plan(runs, rules, moments[-1])
    return time.monotonic() - started


def main(argv: Sequence[str]) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args(argv)
    print(f"{_RUNS:,} runs with {_ITEMS} items planned in {seconds():.2f} s")
    started, wrong = time.monotonic(), []
    pool = ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn"))
    for some in pool.map(faults, tasks(options.count, options.seed)):
        wrong += some
    pool.shutdown()
    for line in wrong[:100]:
        print(line)
    took = time.monotonic() - started
    print(f"{options.count:,} histories in {took:.0f} s: {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
