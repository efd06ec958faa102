#!/usr/bin/env python3
"""Make system calls of backups and restores fail, or end them by signals; count what goes wrong.

    python3 benchmarks/faults.py [--count N] [--seed N] [--flow NAME ...] [--jobs N] [--minutes N]
    python3 benchmarks/faults.py --signals [--count N] ...

Every fault is drawn by the seed from the calls that the flow makes (fault_calls.py), and judged
by what must hold after it (fault_flows.py). --signals: SIGKILL or SIGTERM at a moment of the
streamed or the staged run. Needs strace. Exit code 1 where anything is wrong.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import math
import multiprocessing
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

from benchmarks import fault_calls, fault_flows
from benchmarks.fault_calls import Outcome
from benchmarks.fault_lab import Lab
from tools.base import imports

_SIGNALLED = ("streamed", "staged")
_TASK = 10  # faults of one task: its calls are recorded once
_DRAWS = 20  # faults that are drawn until one is hit
_IMPORTED = (
    *("tools.commands.backup", "restore.command", "encryption.stage"),
    *("cleanup.command", "copy_runs.command", "benchmarks.fault_installer"),
)


@dataclass(frozen=True)
class Task:
    """So many faults in one flow, drawn by one seed."""

    flow: str
    count: int
    seed: int
    signals: bool
    folder: str


@dataclass(frozen=True)
class Judged:
    """One fault. wrong: what does not hold after it, nothing where all is well.

    hit: whether the command made the call that was to fail
    """

    flow: str
    fault: str
    code: int | None
    seconds: float
    wrong: tuple[str, ...]
    text: str = ""
    hit: bool = True


def faults(task: Task) -> list[Judged]:
    """Carry out one task."""
    folder = Path(tempfile.mkdtemp(prefix=f"{task.flow}-", dir=task.folder))
    flow = fault_flows.FLOWS[task.flow]
    lab: Lab = flow.lab(folder, flow)
    chance = random.Random(task.seed)  # noqa: S311  (the same faults every time, no secret)
    draw = _signals(lab, chance) if task.signals else _errors(lab, chance)
    judged = [_one(lab, draw, task.signals) for _ in range(task.count)]
    shutil.rmtree(folder)
    return judged


def _errors(lab: Lab, chance: random.Random) -> Iterator[tuple[str, Outcome]]:
    """Yield faults of system calls, each with the outcome of the command that had it."""
    command = lab.flow.command(lab)
    traced = fault_calls.calls(command, lab.live)
    while True:
        lab.reset()
        fault = fault_calls.choose(chance, traced)
        yield str(fault), fault_calls.injected(command, fault, lab.live)


def _signals(lab: Lab, chance: random.Random) -> Iterator[tuple[str, Outcome]]:
    """Yield signals at moments of a run, each with its outcome."""
    command = lab.flow.command(lab)
    length = fault_calls.signalled(command, 0, fault_calls.LIMIT, lab.live).seconds
    while True:
        fault_calls.wait_for_orphans(lab.live)
        lab.reset()
        number = chance.choice((signal.SIGKILL, signal.SIGTERM))
        after = chance.uniform(0.2, 1.0) * length  # before that, Python starts
        text = f"{number.name} after {after:.3f} s"
        yield text, fault_calls.signalled(command, number, after, lab.live)


def _one(lab: Lab, draw: Iterator[tuple[str, Outcome]], signals: bool) -> Judged:
    """Draw faults until one is hit, and judge it."""
    for _ in range(_DRAWS):
        fault, outcome = next(draw)
        if outcome.hits or outcome.code is None:
            break
    try:
        wrong = tuple(dict.fromkeys(_wrong(lab, outcome, signals)))
    except TimeoutError as error:
        wrong = (f"no end within {fault_calls.LIMIT:g} s without a fault: {error}",)
    text = "" if not wrong else f"{outcome.text}\n{lab.log()}\n" + "\n".join(outcome.hits[:3])
    hit = bool(outcome.hits)
    return Judged(lab.flow.name, fault, outcome.code, outcome.seconds, wrong, text, hit)


def _wrong(lab: Lab, outcome: Outcome, signals: bool) -> Iterator[str]:
    for problem in lab.flow.check(lab, outcome):
        if not (signals and problem.startswith("ended by signal")):
            yield problem


def tasks(
    names: Sequence[str], count: int, seed: int, folder: str, *, signals: bool = False
) -> list[Task]:
    """Return a count of faults, shared equally among flows, in short tasks."""
    short_tasks: list[Task] = []
    for number, name in enumerate(names):
        remaining = count // len(names) + (number < count % len(names))
        while remaining:
            some = min(remaining, _TASK)
            short_tasks.append(Task(name, some, seed * 10_000 + len(short_tasks), signals, folder))
            remaining -= some
    random.Random(seed).shuffle(short_tasks)  # noqa: S311  (short and long ones mixed)
    return short_tasks


def sweep(chosen: Sequence[Task], jobs: int) -> Iterator[Judged]:
    """Carry out tasks in so many processes."""
    for name in _IMPORTED:
        imports.module(name)
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(jobs, mp_context=fork) as pool:
        try:
            for done in as_completed([pool.submit(faults, task) for task in chosen]):
                yield from done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def table(judged: Sequence[Judged]) -> Iterator[str]:
    """Yield a table of the faults by flow and exit code."""
    codes = sorted({one.code for one in judged}, key=str)
    head = ["Flow", "Faults", "Wrong", "Longest", *(f"exit {code}" for code in codes)]
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for flow in dict.fromkeys(one.flow for one in judged):
        of_flow = [one for one in judged if one.flow == flow]
        counts = Counter(one.code for one in of_flow)
        cells = [flow, len(of_flow), sum(bool(one.wrong) for one in of_flow)]
        cells += [f"{max(one.seconds for one in of_flow):.1f} s", *(counts[code] for code in codes)]
        yield "| " + " | ".join(map(str, cells)) + " |"


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    options = _options(argv)
    names = options.flow or (_SIGNALLED if options.signals else list(fault_flows.FLOWS))
    began = time.monotonic()
    judged: list[Judged] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        chosen = tasks(names, options.count, options.seed, folder, signals=options.signals)
        for one in sweep(chosen, options.jobs):
            judged += [one] if one.hit or one.wrong else []
            _show(one)
            if time.monotonic() - began > options.minutes * 60:
                break
    print(*table(judged), sep="\n")
    print(f"{len(judged)} faults in {time.monotonic() - began:.0f} s, seed {options.seed}")
    return int(any(one.wrong for one in judged))


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--count", type=int, default=2000, help="faults over all flows")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--flow", action="append", choices=sorted(fault_flows.FLOWS), default=[])
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--minutes", type=float, default=math.inf, help="end earlier after these")
    parser.add_argument("--signals", action="store_true", help="signals instead of errors")
    return parser.parse_args(argv)


def _show(one: Judged) -> None:
    """Print what is wrong, and what the command printed."""
    for problem in one.wrong:
        print(f"WRONG {one.flow}: {one.fault}: exit {one.code}: {problem}", flush=True)
    if one.wrong:
        print(one.text, flush=True)
