#!/usr/bin/env python3
"""Runs and restores of very many small files against tar: time, CPU, and peak memory.

    python3 benchmarks/many_files.py [--count N] [--runs N] [--restore-below FOLDER]

Targets: a run at most 110 MB and 1.2 times tar's time, a restore with --overwrite at most 1.5 times
one without. `tar x` and `tar x --overwrite` show what the file system itself needs for that.
The peak is that of the largest process (wait4(2) of the command and all of its children). The tree
is kept in the temporary folder and read once; then each pair is measured in turn.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import functools
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tools.base import project, removal
from tools.catalog import writer_key

ROOT = project.ROOT
_PER_FOLDER = 1000
_FOLDERS = 20  # in each folder above them
_SMALLEST, _LARGEST = 100, 1600  # bytes of a file
_TAR = ["tar", "--create", "--format=posix", "--numeric-owner", "--acls", "--xattrs", "--sparse"]


def tree(count: int) -> Path:
    """Return a folder with so many files; it is made in the temporary folder once and kept."""
    top = Path(tempfile.gettempdir()) / f"nc-backup-benchmark-many-{count}"
    if (top / "done").exists():
        return top / "tree"
    content = os.urandom(1 << 16)
    for number in range(count):
        folder = number // _PER_FOLDER
        path = top / "tree" / f"{folder // _FOLDERS:03}" / f"{folder:04}"
        if number % _PER_FOLDER == 0:
            path.mkdir(parents=True, exist_ok=True)
        start, size = number % 60000, _SMALLEST + number % (_LARGEST - _SMALLEST)
        with (path / f"{number:07}.txt").open("wb") as file:
            file.write(content[start : start + size])
    (top / "done").touch()
    return top / "tree"


@dataclass
class Figures:
    """What the runs of one command took: seconds, processor seconds, and the peak in MB."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: float = 0.0

    def add(self, command: Sequence[str | Path]) -> None:
        """Run a command and add its figures. Exits if it fails."""
        os.sync()
        started = time.monotonic()
        process = subprocess.Popen(
            [*map(str, command)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{' '.join(map(str, command))} ended with exit code {process.returncode}")
        self.seconds.append(time.monotonic() - started)
        self.cpu.append(usage.ru_utime + usage.ru_stime)
        self.peak = max(self.peak, usage.ru_maxrss / 1024)

    @property
    def median(self) -> float:
        """Return the median of the seconds."""
        return statistics.median(self.seconds)


class Bench:
    """A config of a fileset and a local store, and the commands that are measured."""

    def __init__(self, source: Path, folder: Path, restored: Path) -> None:
        """Use `folder` for the store and all else that is written, `restored` for restores."""
        self.source = source
        self.restored = restored
        self.folder = folder
        self.store = folder / "store"
        self.conf = folder / "conf.json"
        writer_key.create(folder / "writer.key", "benchmark")
        general = {
            "HOSTNAME": "benchmark",
            "WORK_FOLDER": str(folder / "work"),
            "LOCAL_BACKUP": str(self.store),
            "HOME_FOLDER": str(ROOT),
            "LOG_FOLDER": str(folder / "log"),
            "WRITER_KEY": str(folder / "writer.key"),
            "ALLOW_ROOT": "True",
            "DISK_SPACE_CHECK": "False",
            "STREAM": "True",
        }
        sections = {
            "GENERAL": general,
            "FILESET": _execute("filesbackup", FILESET_INCLUDE=str(source)),
            "STORAGE": _execute("storage", DESTINATION="local"),
        }
        self.conf.write_text(json.dumps(sections), encoding="utf-8")
        self.conf.chmod(0o600)

    def run(self) -> list[str | Path]:
        """Return the command of a run into an empty store."""
        for folder in (self.store, self.folder / "work"):  # which remembers the store
            removal.tree(folder)
        return [sys.executable, ROOT / "backup.py", "-r", "-c", self.conf]

    def tar(self) -> list[str | Path]:
        """Return the command of tar with the options of a run, into a file."""
        archive = self.folder / "archive.tar"
        archive.unlink(missing_ok=True)
        return [*_TAR, f"--file={archive}", "--directory=/", self.source.relative_to("/")]

    def restore(self, name: str, *more: str) -> list[str | Path]:
        """Return the command of a restore into a folder of this name."""
        goal = str(self.restored / name)
        arguments = ["--restore", "latest", "--destination", goal, *more]
        return [sys.executable, ROOT / "restore/restore.py", "-c", self.conf, *arguments]

    def fresh(self) -> list[str | Path]:
        """Return the command of a restore into a new folder."""
        removal.tree(self.restored / "fresh")
        return self.restore("fresh")

    def overwrite(self) -> list[str | Path]:
        """Return the command of a restore into the folder that `fresh` filled."""
        return self.restore("fresh", "--overwrite")

    def unpack(self) -> list[str | Path]:
        """Return the command of tar that unpacks its own archive into a new folder."""
        folder = self.restored / "unpacked"
        removal.tree(folder)
        folder.mkdir()
        return [
            "tar",
            "--extract",
            f"--file={self.folder / 'archive.tar'}",
            f"--directory={folder}",
        ]

    def unpack_again(self) -> list[str | Path]:
        """Return the command of tar that replaces the files that `unpack` made."""
        archive, folder = self.folder / "archive.tar", self.restored / "unpacked"
        return ["tar", "--extract", "--overwrite", f"--file={archive}", f"--directory={folder}"]


def _execute(name: str, **parameters: str) -> dict[str, object]:
    return {"ACTION": "execute", "NAME": name, "PARAMETERS": parameters}


def measure(rows: dict[str, Callable[[], list[str | Path]]], runs: int) -> dict[str, Figures]:
    """Measure the commands in turn, so many times, and print a table."""
    figures = {name: Figures() for name in rows}
    for _ in range(runs):
        for name, command in rows.items():
            figures[name].add(command())
    for name, one in figures.items():
        cpu = statistics.median(one.cpu)
        print(f"| {name} | {one.median:.1f} | {cpu:.1f} | {one.peak:.0f} |", flush=True)
    return figures


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Very many small files against tar.")
    parser.add_argument("--count", type=int, default=1_000_000, help="number of files")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--restore-below", type=Path, help="default: the temporary folder")
    options = parser.parse_args(argv)
    source = tree(options.count)
    temporary = functools.partial(tempfile.TemporaryDirectory, prefix="nc-backup-bench-")
    with temporary() as folder, temporary(dir=options.restore_below) as restored:
        bench = Bench(source, Path(folder), Path(restored))
        print(f"{options.count} files, {options.runs} runs\n")
        print("| What | Time, s | CPU, s | Peak, MB |\n|---|---|---|---|", flush=True)
        Figures().add(bench.tar())  # both commands find in memory what fits there
        backups = measure({"run": bench.run, "tar c": bench.tar}, options.runs)
        restores = measure({"restore": bench.fresh, "--overwrite": bench.overwrite}, options.runs)
        removal.tree(bench.restored / "fresh")
        rows = {"tar x": bench.unpack, "tar x --overwrite": bench.unpack_again}
        plain = measure(rows, options.runs)
    print(f"run / tar c: {backups['run'].median / backups['tar c'].median:.2f}")
    ratio = restores["--overwrite"].median / restores["restore"].median
    print(f"restore with --overwrite / without: {ratio:.2f}")
    ratio = plain["tar x --overwrite"].median / plain["tar x"].median
    print(f"tar x with --overwrite / without: {ratio:.2f}")
    return 0
