"""Faults in the commands that change a store: a clean-up, and a copy into another store."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import fault_checks
from benchmarks.fault_calls import Outcome
from benchmarks.fault_lab import HOST, BackupLab, Flow
from storage.local_store import LocalStore
from tools.base import project, run_ids
from tools.catalog import manifest, markers
from tools.catalog.markers import MARKER_SUFFIX
from tools.filesystem_handling import PART

_RUNS = 6
_KEPT = 3  # the newest ones; the oldest is pinned
_CRASHED = "20200101_000000"  # a run of which only a part of the files is there
_COPIED = 2  # runs


class CleanupLab(BackupLab):
    """A store with six runs, the oldest of them pinned, and the files of a crashed run."""

    def build(self) -> None:
        """Store the runs. Two of them have to go, and the files of the crashed one."""
        super().build()
        _store_more(self, _RUNS - 1)
        runs = self.runs()
        assert self.call("cleanup.command", "-c", str(self.conf), "--pin", runs[0]) == 0  # noqa: S101
        self.removable = {*runs[1:-_KEPT], _CRASHED}
        assert self.forked(self._crash, "a crashed run") == 0, self.text()  # noqa: S101

    def _crash(self) -> int:
        """Leave the files of a run that has ended before its manifest was there."""
        markers.create_marker(LocalStore(self.store), HOST, _CRASHED)
        newest = self.runs()[-1]
        for part in sorted((self.store / HOST).glob(f"{newest}.*.age.*")):
            shutil.copyfile(part, part.with_name(part.name.replace(newest, _CRASHED)))
        (self.store / HOST / f".{_CRASHED}.FILESET.tar.zst.age.009{PART}0123abcd").write_text("x")
        return 0

    def arguments(self) -> list[str]:
        """Return the arguments of the clean-up."""
        rules = ("--keep-last", str(_KEPT), "--minimum", str(_KEPT))
        return ["-c", str(self.conf), *rules, "--confirm"]

    def harmed(self) -> Iterator[str]:
        """Yield what has changed of the runs that stay."""
        for problem, run in _changes(self.pristine / "store", self.store):
            if run not in self.removable:
                yield problem

    def remaining(self) -> Iterator[str]:
        """Yield what had to go, and is still there."""
        for path in self.names():
            if run_ids.run_in(path.name) in self.removable or PART in path.name:
                yield f"is still there: {path.name}"

    def half_gone(self) -> Iterator[str]:
        """Yield the runs that have a manifest, and lack something that they had."""
        manifests = set(self.runs())
        for problem, run in _changes(self.pristine / "store", self.store):
            if run in manifests:
                yield f"{problem}, and the manifest is there"


class CopyLab(BackupLab):
    """A store with two runs, and another one without any."""

    def build(self) -> None:
        """Store the runs."""
        super().build()
        _store_more(self, _COPIED - 1)
        self.target.mkdir()

    @property
    def target(self) -> Path:
        """Return the folder of the store that gets the copy."""
        return self.live / "target"

    def arguments(self) -> list[str]:
        """Return the arguments of the copy."""
        return ["-c", str(self.conf), "--from", "STORAGE", "--to", f"local://{self.target}"]

    def harmed(self) -> Iterator[str]:
        """Yield what has changed in the store that is copied, or came into it."""
        yield from (problem for problem, _run in _changes(self.pristine / "store", self.store))
        known = {path.name for path in (self.pristine / "store" / HOST).iterdir()}
        yield from (f"{path.name} is new" for path in self.names() if path.name not in known)

    def lacking(self) -> Iterator[str]:
        """Yield what the copy lacks."""
        yield from (problem for problem, _run in _changes(self.store, self.target))
        if self.call("restore.command", *self._verifying()) != 0:
            yield f"the copy cannot be verified: {self.text().strip()[-200:]}"

    def _verifying(self) -> list[str]:
        store = f"local://{self.target}"
        return ["-c", str(self.conf), "--store", store, "--verify", "all", "--no-report"]

    def half_copied(self) -> Iterator[str]:
        """Yield the runs whose manifest was copied, and of which something is missing."""
        complete = {manifest.run_of(path.name) for path in self._copies()} - {""}
        for problem, run in _changes(self.store, self.target):
            if run in complete:
                yield f"{problem}, and its manifest was copied"

    def _copies(self) -> list[Path]:
        folder = self.target / HOST
        return list(folder.iterdir()) if folder.exists() else []

    def unfinished(self) -> list[str]:
        """Return the names that are no part of a complete run, which no copy removes."""
        names = [path.name for path in self._copies()]
        return [name for name in names if name.endswith(MARKER_SUFFIX) or PART in name]

    def sweep(self) -> int:
        """Clean up the copy; return the exit code."""
        arguments = ("-c", str(self.conf), "--store", f"local://{self.target}", "--keep-last", "9")
        return self.call("cleanup.command", *arguments, "--confirm")


def _store_more(lab: BackupLab, count: int) -> None:
    for number in range(count):
        lab.write(f"state {number}")
        assert lab.run() == 0, lab.text()  # noqa: S101


def _changes(before: Path, now: Path) -> Iterator[tuple[str, str]]:
    """Yield what a store lacks of another one, or has with other bytes; each with its run."""
    for path in sorted((before / HOST).iterdir()):
        other = now / HOST / path.name
        run = run_ids.run_in(path.name)
        if not other.exists():
            yield f"{path.name} is missing", run
        elif other.read_bytes() != path.read_bytes():
            yield f"{path.name} has changed", run


def after_cleanup(lab: CleanupLab, outcome: Outcome) -> Iterator[str]:
    """Yield what is wrong after a clean-up with a fault, and after the next one without."""
    yield from fault_checks.always(lab, outcome)
    yield from lab.half_gone()
    # without /proc nobody can tell whether the crashed run has ended: then its files stay
    if outcome.code == 0 and not any("</proc/" in hit for hit in outcome.hits):
        yield from (f"exit 0, and {problem}" for problem in lab.remaining())
    if (code := lab.call("cleanup.command", *lab.arguments())) != 0:
        yield f"the next clean-up ends with {code}: {lab.text().strip()[-200:]}"
    yield from (f"after the next clean-up {problem}" for problem in lab.remaining())
    yield from lab.harmed()


def after_copy(lab: CopyLab, outcome: Outcome) -> Iterator[str]:
    """Yield what is wrong after a copy with a fault, and after the next one without."""
    yield from fault_checks.always(lab, outcome)
    yield from lab.half_copied()
    if outcome.code == 0:
        yield from (f"exit 0, and {problem}" for problem in lab.lacking())
    if (code := lab.call("copy_runs.command", *lab.arguments())) != 0:
        yield f"the next copy ends with {code}: {lab.text().strip()[-200:]}"
    yield from (f"after the next copy {problem}" for problem in lab.lacking())
    if lab.unfinished() and lab.sweep() != 0:
        yield f"the clean-up of the copy fails: {lab.text().strip()[-200:]}"
    yield from (f"no clean-up removes {name} of the copy" for name in lab.unfinished())
    yield from lab.harmed()


def _cleaning(lab: CleanupLab) -> list[str]:
    return [sys.executable, str(project.ROOT / "cleanup/cleanup.py"), *lab.arguments()]


def _copying(lab: CopyLab) -> list[str]:
    return [sys.executable, str(project.ROOT / "copy_runs/copy_runs.py"), *lab.arguments()]


FLOWS: tuple[Flow[Any], ...] = (
    Flow("cleanup", CleanupLab, _cleaning, after_cleanup, backup=False),
    Flow("copy", CopyLab, _copying, after_copy, backup=False),
)
