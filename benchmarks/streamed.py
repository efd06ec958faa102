#!/usr/bin/env python3
"""Streamed runs and restores against the same work by standard programs: time, CPU, memory.

    python3 benchmarks/streamed.py [--size MB] [--files N] [--runs N] [--only WORD]

Needs age, zstd and tar. Each pair is measured in turn; the ratio is that of the medians.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone

from benchmarks import staged, tree
from benchmarks.staged import Bench, Measured
from tools.base import project, run_ids
from tools.catalog import manifest, trust, writer_key
from tools.catalog.writer_key import WriterKey
from tools.flow import item_record

ROOT = project.ROOT
_RUNS = 1000  # that --list lists
_CHUNK = 64 << 20


class Streamed(Bench):
    """Streamed runs of a folder into a local store, and back."""

    def _conf(self, **general: str) -> Path:
        return super()._conf(STREAM="True", **general)

    def restore(self, *arguments: str) -> list[str]:
        """Return the command of a restore."""
        store = ["--local-backup", str(self.out / "store"), "--key-file", str(self.key)]
        signer = ["--signer", str(self.signer)]
        return [sys.executable, str(ROOT / "restore/restore.py"), *store, *signer, *arguments]

    def pair(self, title: str, ours: list[str], theirs: str, before: str = "") -> float:
        """Measure two commands in turn and show them."""
        measured: tuple[list[Measured], list[Measured]] = ([], [])
        other = ["bash", "-c", f"set -eo pipefail; cd {self.out}; {theirs}"]
        for _ in range(self.runs):
            for number, command in enumerate((ours, other)):
                clear = self.clear if not before else lambda: self.fresh(before)
                measured[number].append(staged.measure(command, 1, clear))
        return shown(title, *measured)

    def fresh(self, name: str) -> None:
        """Remove what a restore made."""
        shutil.rmtree(self.out / name, ignore_errors=True)
        (self.out / f"{name}2").mkdir(exist_ok=True)
        shutil.rmtree(self.out / f"{name}2")
        (self.out / f"{name}2").mkdir()

    def backups(self, title: str) -> None:
        """Measure a run against tar, zstd, age and split."""
        below = self.tree.relative_to("/")
        self.pair(
            f"{title}, streamed run / tar | zstd -3 -T0 | age | split",
            [sys.executable, str(ROOT / "backup.py"), "-r", "-c", str(self.conf)],
            f"tar -C / -c {below} | zstd -3 -T0 -q | age -r {self.recipient} "
            f"| split -b {staged.PART}M - p.",
        )
        largest = max(
            (p.stat().st_size for p in (self.out / "work").rglob("*") if p.is_file()), default=0
        )
        print(f"   largest file in WORK_FOLDER: {largest} bytes")

    def restores(self, title: str) -> None:
        """Measure a restore against age, zstd and tar, and a restore of one file."""
        self.clear()
        staged.measure(
            [sys.executable, str(ROOT / "backup.py"), "-r", "-c", str(self.conf)], 1, lambda: None
        )
        parts = sorted((self.out / "store/benchmark").glob("*.age.*"), key=lambda p: p.suffix)
        joined = " ".join(map(str, parts))
        goal = str(self.out / "back")
        self.pair(
            f"{title}, restore / cat | age -d | zstd -d | tar x",
            self.restore("--restore", "latest", "--destination", goal),
            f"cat {joined} | age -d -i {self.key} | zstd -dc "
            f"| {{ tar -x -p -C {self.out}/back2; cat > /dev/null; }}",
            before="back",
        )
        some = next(path for path in sorted(self.tree.rglob("*")) if path.is_file())
        full = self.restore("--restore", "latest", "--destination", goal)
        self.pair(
            f"{title}, restore of one file / of all of it",
            [*full, "--path", str(some)],
            " ".join([*full[:-1], f"{self.out}/back2/all"]),
            before="back",
        )

    def listing(self) -> None:
        """Measure --list of many runs."""
        self.clear()
        folder = self.out / "store/benchmark"
        folder.mkdir(parents=True)
        key = writer_key.read(self.writer_key)
        for name, content in signed_runs(key):
            (folder / name).write_bytes(content)
        command = self.restore("--list")
        done = staged.measure(command, self.runs, lambda: None)
        print(f"--list of {_RUNS} signed runs: {done.median:.2f} s, {done.peak:.0f} MB")


def signed_runs(key: WriterKey) -> Iterator[tuple[str, bytes]]:
    """Yield the manifests of many runs of the host benchmark by their names, and signatures."""
    begin = datetime(2026, 1, 1, tzinfo=timezone.utc)
    part = item_record.Part("x", 1 << 30, "0" * 64)
    for number in range(_RUNS):
        moment = begin + timedelta(hours=number)
        run_id = moment.strftime("%Y%m%d_%H%M%S")
        parts = tuple(
            dataclasses.replace(part, name=f"{run_id}.FILESET.tar.zst.age.{n:03}")
            for n in range(10)
        )
        item = item_record.StoredItem("FILESET", "", "fileset", ".tar", ("zstd", "age"), parts)
        stamp = run_ids.stamp(moment)
        record = manifest.Manifest("benchmark", run_id, stamp, stamp, "streamed", "ok", (item,))
        name, content = manifest.name_of(run_id), record.to_json()
        yield name, content
        yield f"{name}{trust.ENDING}", key.sign(content)


def shown(title: str, ours: list[Measured], theirs: list[Measured]) -> float:
    """Print a pair; return the ratio of the wall times."""

    def middle(measured: list[Measured]) -> tuple[float, float, float]:
        seconds = statistics.median(one.seconds[0] for one in measured)
        cpu = statistics.median(one.cpu[0] for one in measured)
        return seconds, cpu, max(one.peak for one in measured)

    (a, a_cpu, a_peak), (b, b_cpu, b_peak) = middle(ours), middle(theirs)
    print(title)
    print(f"   ours   {a:6.2f} s  {a_cpu:6.2f} s CPU  {a_peak:4.0f} MB")
    print(f"   theirs {b:6.2f} s  {b_cpu:6.2f} s CPU  {b_peak:4.0f} MB")
    print(f"   ratio  {a / b:6.2f}    {a_cpu / b_cpu:6.2f}", flush=True)
    return a / b


def incompressible(megabytes: int) -> Path:
    """Return a folder with one file of random bytes, which is made once and kept."""
    folder = Path(tempfile.gettempdir()) / f"nc-backup-benchmark-random-{megabytes}"
    file = folder / "random"
    if not file.exists() or file.stat().st_size != megabytes << 20:
        folder.mkdir(exist_ok=True)
        with file.open("wb") as target:
            for _ in range((megabytes << 20) // _CHUNK):
                target.write(os.urandom(_CHUNK))
    return folder


def zeros(folder: Path, gigabytes: int) -> None:
    """Measure the peak memory of a user-defined source that yields zeros."""
    home = folder / "home"
    (home / "zeros").mkdir(parents=True)
    for name in ("compression", "encryption", "storage"):
        (home / name).symlink_to(ROOT / name)
    program = home / "zeros/zeros.sh"
    program.write_text(f"head -c {gigabytes}G /dev/zero\n", encoding="ascii")
    bench = Streamed(folder, folder, 1)
    config = json.loads(bench.conf.read_text(encoding="utf-8"))
    config["GENERAL"]["HOME_FOLDER"] = str(home)
    script = {
        "ACTION": "execute",
        "NAME": "zeros",
        "EXECUTABLE": "zeros.sh",
        "EXECUTE_WITH": "bash",
    }
    config["FILESET"] = {**script, "STREAM": "source"}
    bench.conf.write_text(json.dumps(config), encoding="utf-8")
    command = [sys.executable, str(ROOT / "backup.py"), "-r", "-c", str(bench.conf)]
    done = staged.measure(command, 1, bench.clear)
    print(f"{gigabytes} GiB of zeros: {done.median:.1f} s, peak {done.peak:.0f} MB", flush=True)


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1100, help="MB of the tree")
    parser.add_argument("--files", type=int, default=40000)
    parser.add_argument("--random", type=int, default=2048, help="MB of the incompressible file")
    parser.add_argument("--zeros", type=int, default=20, help="GiB of zeros")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="tree, random, restore, list or zeros")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="nc-backup-bench-") as name:
        top = Path(name)

        def bench(folder: Path) -> Streamed:
            results = top / folder.name
            results.mkdir()
            return Streamed(folder, results, options.runs)

        if options.only in ("", "tree", "restore"):
            whole = bench(tree.make(options.size, options.files))
            if options.only != "restore":
                whole.backups("tree")
            if options.only != "tree":
                whole.restores("tree")
        if options.only in ("", "random"):
            bench(incompressible(options.random)).backups("incompressible file")
        if options.only in ("", "list"):
            bench(top).listing()
        if options.only in ("", "zeros"):
            (top / "zeros").mkdir()
            zeros(top / "zeros", options.zeros)
    return 0
