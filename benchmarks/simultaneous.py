#!/usr/bin/env python3
"""Backups, restores, copies and clean-ups of the same stores at the same time, as real processes.

    python3 benchmarks/simultaneous.py [--seconds N] [--store local|s3]

One process after the other makes backups of a folder that changes; at the same time others restore
the newest run, copy all runs to a second store, copy them back, and clean up both stores. Every
restored file must be what one backup has read, every error must be one of a run that had gone by
then, and at the end all runs of both stores must verify. Ends with 1 where one of these fails.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import collections
import os
import random
import re
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence

from tests import s3_servers
from tests.s3_servers import BUCKET
from tests.system import System, execute
from tools.base import project

_KEEP = ("--keep-last", "3", "--minimum", "2", "--confirm", "--yes-really")
_SIZES = (1 << 10, 3 << 20)  # bytes of the file that each backup reads
_RUN = re.compile(r"[0-9]{8}_[0-9]{6}")
# What a command may say instead of success: another one was faster.
_OVERTAKEN = (
    "another clean-up of this store is in progress",
    "nothing was removed",
    "other runs keep coming",
    "a run or another copy is writing it into",
)


class Trial:
    """Two stores, and the commands that use them until the time is over."""

    def __init__(self, folder: Path, kind: str, seconds: float) -> None:
        self.system = System(folder)
        self.folder = folder
        self.until = time.monotonic() + seconds
        self.counts: collections.Counter[str] = collections.Counter()
        self.problems: list[str] = []
        self._read: set[bytes] = set()  # contents that a backup may have read
        self._lock = threading.Lock()
        whole = self.system.short()
        if kind == "s3":
            server = s3_servers.seaweedfs()
            os.environ.update(server.environment)
            keys = {"BUCKET_NAME": BUCKET, "ENDPOINT_URL": server.endpoint}
            whole["STORAGE_LOCAL"] = execute(
                "storage", DESTINATION="s3", PREFIX=uuid.uuid4().hex, **keys
            )
        other = str(folder / "other")
        whole["OTHER"] = execute("storage", DESTINATION="local", LOCAL_BACKUP=other)
        self.system.configure(whole, STREAM="True", SHRINK_CHECK="False")

    def command(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the project."""
        argv = [
            sys.executable,
            str(project.ROOT / program),
            "-c",
            str(self.system.conf),
            *arguments,
        ]
        return subprocess.run(argv, cwd="/", capture_output=True, text=True, check=False)

    def run(self) -> None:
        """Run all commands side by side, then check what is left."""
        self.backup()
        works: tuple[Callable[[], None], ...] = (
            self.backup,
            *(lambda store=store: self.restore(store) for store in ("STORAGE_LOCAL", "OTHER")),
            *(lambda store=store: self.clean(store) for store in ("STORAGE_LOCAL", "OTHER", "")),
            lambda: self.copy("STORAGE_LOCAL", "OTHER"),
            lambda: self.copy("OTHER", "STORAGE_LOCAL"),
        )
        threads = [threading.Thread(target=self._repeated, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.verify()

    def _repeated(self, work: Callable[[], None]) -> None:
        while time.monotonic() < self.until:
            work()

    def backup(self) -> None:
        """Change the source, and store it."""
        content = os.urandom(random.choice(_SIZES))  # noqa: S311  (no secret)
        with self._lock:
            self._read.add(content)
        path = self.system.source / "file"
        path.with_suffix(".new").write_bytes(content)
        path.with_suffix(".new").replace(path)
        done = self.command("backup.py", "-r")
        self._count("backup", done, lambda: False)

    def restore(self, store: str) -> None:
        """Restore the newest run: what comes is what a backup has read."""
        listed = self.command("restore/restore.py", "--store", store, "--list").stdout
        run = max(_RUN.findall(listed), default="")
        into = Path(tempfile.mkdtemp(dir=self.folder)) / "out"
        arguments = ("--restore", run, "--destination", str(into))
        done = self.command("restore/restore.py", "--store", store, *arguments)
        self._count(f"restore {store}", done, lambda: self._is_gone(store, run))
        for file in into.rglob("file") if done.returncode == 0 else ():
            if file.read_bytes() not in self._read:
                self.problems.append(f"restore of {run} from {store}: not what was backed up")
        shutil.rmtree(into.parent)

    def clean(self, store: str) -> None:
        """Clean up a store, or all of them."""
        chosen = ("--store", store) if store else ()
        done = self.command("cleanup/cleanup.py", *chosen, *_KEEP)
        self._count(f"clean-up {store or 'of all'}", done, lambda: False)

    def copy(self, source: str, target: str) -> None:
        """Copy all runs that the target lacks: clean-up may remove some of them meanwhile."""
        done = self.command("copy_runs/copy_runs.py", "--from", source, "--to", target)
        runs = _RUN.findall(done.stdout + done.stderr)
        self._count(f"copy {source}", done, lambda: any(self._is_gone(source, run) for run in runs))

    def _is_gone(self, store: str, run: str) -> bool:
        listed = self.command("restore/restore.py", "--store", store, "--list").stdout
        return run not in listed

    def _count(
        self,
        subject: str,
        done: "subprocess.CompletedProcess[str]",
        overtaken: Callable[[], bool],
    ) -> None:
        """Count an outcome. overtaken: whether a failure is that of something that has gone"""
        text = (done.stdout + done.stderr).strip()
        if done.returncode == 0:
            self.counts[f"{subject}: done"] += 1
        elif "Traceback" not in text and (any(one in text for one in _OVERTAKEN) or overtaken()):
            self.counts[f"{subject}: overtaken"] += 1
        else:
            self.counts[f"{subject}: FAILED"] += 1
            self.problems.append(f"{subject}: exit code {done.returncode}: {text[-800:]}")

    def verify(self) -> None:
        """Clean up once more; every run that is left verifies, and nothing else is left."""
        for store in ("STORAGE_LOCAL", "OTHER"):
            self.clean(store)
            done = self.command("restore/restore.py", "--store", store, "--verify", "all")
            self._count(f"verify {store}", done, lambda: False)
        self.problems += self._garbage()

    def _garbage(self) -> "Iterator[str]":
        folder = self.folder / "other/srv-test"
        names = {path.name for path in folder.iterdir()}
        runs = {name.partition(".")[0] for name in names if name.endswith(".manifest.json")}
        for name in sorted(names):
            run = name.partition(".")[0]
            if _RUN.fullmatch(run) and run not in runs and f"{run}.UNFINISHED" not in names:
                yield f"OTHER: {name} belongs to no run"


def main(argv: Sequence[str]) -> int:
    """Run the trial; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--store", choices=("local", "s3"), default="local")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="nc-backup-benchmark-") as top:
        trial = Trial(Path(top), options.store, options.seconds)
        trial.run()
    for outcome, times in sorted(trial.counts.items()):
        print(f"{times:5} {outcome}")
    for problem in trial.problems:
        print(f"problem: {problem}")
    return 1 if trial.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
