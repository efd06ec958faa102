"""Copy the chosen runs of one host from one store into another, oldest first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from copy_runs import selecting
from copy_runs.comparison import Comparison, Lack, LeftOutError, left_out
from copy_runs.copying import Copier
from tools.base import crash
from tools.base.errors import (
    DamagedError,
    ManifestError,
    TakenError,
    TruncatedError,
)
from tools.base.result import Result, Status
from tools.base.run_result import ProgressListener
from tools.date_str_utils import count, human_size
from tools.flow import store

_MOST_FAILED = 3  # runs in a row that cannot be read: a store that is down takes minutes for each
_OF_ONE_RUN = (DamagedError, LeftOutError, ManifestError, TakenError, TruncatedError)


@dataclass(frozen=True)
class RunCopy:
    """What became of one run. objects, size: that were copied, or would be in a preview"""

    host: str
    run_id: str
    source: str
    target: str
    result: Result
    objects: int = 0
    size: int = 0
    seconds: float = 0.0

    @property
    def is_there(self) -> bool:
        """Return whether the target had all of it already."""
        return self.result.status is Status.OK and not self.objects


class Transfer:
    """One pair of stores and one host."""

    def __init__(
        self,
        pair: Comparison,
        run_ids: Sequence[str],
        *,
        all_times: bool,
        dry_run: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare a copy of runs and of their bases. all_times, clock: see Copier"""
        self._pair = pair
        self._ids = selecting.with_bases(pair, run_ids)
        self._copier = Copier(pair, all_times=all_times, clock=clock)
        self._dry_run = dry_run
        self._planned: set[str] = set()
        self._unread = 0
        self._copied: list[Lack] = []
        self.warnings: list[str] = []
        self.name = f"{pair.source.store} to {pair.target.store}"

    def steps(self, watcher: ProgressListener | None) -> Iterator[RunCopy]:
        """Yield what became of each run. One that fails does not stop the others.

        A target that takes no more does, and a source that cannot be read.
        Raises BackupError or OSError where nothing can be copied at all.
        """
        if self._ids and not self._dry_run:
            self.warnings += self._copier.copy_statements()
        for number, run_id in enumerate(self._ids, 1):
            if watcher:
                watcher.begin(number, f"{self._pair.source.host} {run_id}")
            step, error = self._step(run_id, watcher)
            if watcher:
                watcher.end(run_id, step.result, step.seconds)
            yield step
            if self._is_over(error):
                if remaining := len(self._ids) - number:
                    self.warnings.append(f"{count(remaining, 'more run')} not tried")
                break
        self.warnings += self._removed()

    def _removed(self) -> Iterator[str]:
        """Yield a warning for each copied run of which a part has been removed since."""
        if not self._copied:
            return
        target = self._pair.target
        listed = {entry.name: entry.size for entry in target.store.entries(target.host)}
        for lack in self._copied:
            names = [(f"{target.host}/{part.name}", part.size) for part in lack.absent]
            removed = [name for name, size in names if listed.get(name) != size]
            if removed:
                yield (
                    f"run {lack.run_id}: {removed[0]} was removed from {target.store} meanwhile "
                    f"({count(len(removed), 'part')}). Copy it again with --runs {lack.run_id}"
                )

    def _step(
        self, run_id: str, watcher: ProgressListener | None
    ) -> tuple[RunCopy, Exception | None]:
        """Return what became of a run, and the error that it ended with."""
        began = time.monotonic()
        lack, problem = None, None
        self._copier.begin()
        try:
            lack = self._pair.lack(run_id)
            self._require_bases(lack)
            if watcher:
                watcher.expect(lack.size)
            result = self._done(lack, watcher)
        except Exception as error:  # noqa: BLE001  (the other runs are copied all the same)
            problem = error
            result = self._failed(error)
        good = lack if problem is None else None
        step = RunCopy(
            self._pair.source.host,
            run_id,
            str(self._pair.source.store),
            str(self._pair.target.store),
            result,
            good.objects if good else 0,
            good.size if good else 0,
            time.monotonic() - began,
        )
        return step, problem

    def _require_bases(self, lack: Lack) -> None:
        self._pair.require_bases(lack, self._planned)
        if self._dry_run:
            self._planned.add(lack.run_id)

    def _done(self, lack: Lack, watcher: ProgressListener | None) -> Result:
        if self._dry_run:
            return _preview(lack)
        advance = watcher.advance if watcher else lambda _size: None
        result = self._copier.copy(lack, advance)
        self._copied.append(lack)
        return result

    def _failed(self, error: Exception) -> Result:
        """Return the result of a run that was not copied; it names a target that is full."""
        known_error = crash.reportable(error)
        if isinstance(known_error, _OF_ONE_RUN) or self._copier.source_error is not None:
            return left_out(known_error)
        return Result(Status.FAILED, *store.explained(known_error, self._pair.target.store))

    def _is_over(self, error: Exception | None) -> bool:
        """Return whether no further run can be copied."""
        if error is None or isinstance(error, _OF_ONE_RUN):
            self._unread = 0
            return False
        self._unread += 1
        of_target = self._copier.is_writing and self._copier.source_error is None
        return of_target or self._unread >= _MOST_FAILED


def _preview(lack: Lack) -> Result:
    """Return what would be copied of a run."""
    text = "nothing to copy"
    if lack.objects:
        verb = "would be copied" if lack.is_new else "would be filled in"
        text = f"{verb}: {count(lack.objects, 'object')}, {human_size(lack.size)}"
    if lack.present:
        text += f", {count(len(lack.present), 'part')} compared"
    status = Status.INCOMPLETE if lack.warnings else Status.OK
    return Result(status, text, warnings=lack.warnings, bytes=lack.size, items=lack.objects)
