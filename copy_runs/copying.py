"""Copy what a store lacks of one run: parts first, then its records, the manifest last."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone

from copy_runs import comparison, originals
from copy_runs.comparison import Comparison, Lack, LeftOutError
from copy_runs.originals import Record
from copy_runs.parts import Advance, Parts
from tools.base import run_ids
from tools.base.errors import (
    BackupError,
    StoreError,
    TakenError,
    TransientError,
)
from tools.base.result import Result, Status
from tools.catalog import leftovers, liveness, manifest, markers
from tools.catalog.catalog import Catalog
from tools.catalog.markers import MARKER_SUFFIX
from tools.catalog.trust import UntrustedError
from tools.date_str_utils import count, human_size
from tools.flow import store
from tools.flow.store import StoreEntry

_BRIEF = 60.0  # seconds
_RENEWED = 86400.0  # seconds after which the marker of a copy is renewed: see markers


class Copier:
    """Copies runs of one host from one store into another."""

    def __init__(
        self,
        pair: Comparison,
        *,
        all_times: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write nothing yet. all_times: whether every copy keeps the time of its original.

        Otherwise only a run that was stored after all that the target has: a hostile source
        could date its runs before them, and clean-up keeps the first of each period.
        clock: seconds, for the age of its markers
        """
        self._pair = pair
        self._target_store = pair.target.store
        self._host = pair.target.host
        self._keeps_times = store.keeps_times(self._target_store)
        self._floor = None if all_times else _newest(pair.target)
        self._marked_at: float | None = None
        self._clock = clock
        self._parts = Parts(pair.source.store, self._target_store, self._host)
        self.is_writing = False  # the last run has got as far as the target

    def begin(self) -> None:
        """Forget the errors of the run before."""
        self._parts.source_error, self.is_writing = None, False

    @property
    def source_error(self) -> BaseException | None:
        """Return the error of the source in the last run; None for none."""
        return self._parts.source_error

    def copy_statements(self) -> Iterator[str]:
        """Copy the statements about signers that the target lacks; yield failures."""
        for records in originals.statements(self._pair.source):
            for record in records:
                if record.name in self._pair.target.sizes:
                    continue
                try:
                    self._store(record)
                except TakenError as error:
                    yield f"{record.name}: {error}"

    def copy(self, lack: Lack, advance: Advance) -> Result:
        """Copy what is lacking of a run. Raises BackupError, OSError."""
        warnings = list(lack.warnings)
        with self._parts.reading():
            records = self._records(lack)
            sheet = self._sheet(lack, warnings)
        self.is_writing = True
        with self._marked(lack):
            since = self._clock()
            size = self._copy_parts(lack, advance)
            if lack.is_new:
                self._require_all(lack, since)
            for record in (*sheet, *records):
                self._store(record)
            if lack.is_new:
                self._published(lack, records[-1])
        return _result(lack, size, warnings)

    # --- parts

    def _copy_parts(self, lack: Lack, advance: Advance) -> int:
        """Copy the parts that are absent, and compare those that are there. Return the bytes."""
        renew = functools.partial(self._renew, lack.run_id)
        self._parts.send(lack.absent, advance, renew)
        for part in lack.present:
            renew()
            self._parts.compare(part)
        return sum(part.size for part in lack.absent)

    def _require_all(self, lack: Lack, since: float) -> None:
        """Raise LeftOutError where the target no longer has a part or a base: it was removed.

        The parts of a copy that took no time are looked up when all runs are copied (see
        Transfer): a list for each of many small runs would take longer than they.
        """
        brief = self._clock() - since < _BRIEF and not lack.present
        try:
            if not (brief and self._target_store.consistent):
                markers.require_parts(self._target_store, lack.manifest)
            for base in comparison.bases(lack.manifest):
                store.beginning(self._target_store, f"{self._host}/{manifest.name_of(base)}", 0)
        except TransientError:
            raise
        except StoreError as error:
            raise LeftOutError(
                f"removed from {self._target_store} meanwhile: {error}",
                "Copy again, when no clean-up of that store is running.",
            ) from None

    # --- records

    def _records(self, lack: Lack) -> list[Record]:
        """Return the notes, signature and manifest that are to be copied. Raises LeftOutError."""
        if lack.records in ((), (lack.run_id + manifest.RECOVERY,)):
            return []
        catalog = self._pair.source
        keeps_time = self._age_of(catalog.stored_at(lack.run_id)) is not None
        when = None if keeps_time else datetime.now(timezone.utc)
        try:
            records = [
                *originals.notes(catalog, lack.run_id),
                *originals.of_manifest(catalog, lack.claim, when),
            ]
        except UntrustedError as error:
            if when is None:
                raise
            raise LeftOutError(
                f"{error}: its copy would count as stored now, and not be trusted",
                "Copy it into an empty local store or ssh store: it keeps the times.",
            ) from None
        return [record for record in records if record.name in lack.records]

    def _sheet(self, lack: Lack, warnings: list[str]) -> list[Record]:
        """Return the recovery sheet, if it is to be copied. Without it the run is still whole."""
        if lack.run_id + manifest.RECOVERY not in lack.records:
            return []
        sheet = originals.sheet(self._pair.source, lack.claim)
        if isinstance(sheet, Record):
            return [sheet]
        warnings.append(f"{sheet}; the run was copied without it")
        return []

    def _age_of(self, when: datetime) -> float | None:
        """Return how long ago a copy counts as written; None where it is new."""
        if not self._keeps_times or (self._floor is not None and when <= self._floor):
            return None
        return max(0.0, (datetime.now(timezone.utc) - when).total_seconds())

    def _store(self, record: Record) -> None:
        """Store a record with its time, and read it back."""
        name = f"{self._host}/{record.name}"
        age = self._age_of(record.when)
        with store.atomic_publish(self._target_store, [name]):
            self._target_store.put(name, [record.content])
            if age is not None:
                store.set_age(self._target_store, name, age)
        if not markers.is_same(self._target_store, name, record.content):
            raise StoreError(
                f"{self._target_store}: {name}: read-back mismatch", "Check the store."
            )

    def _published(self, lack: Lack, record: Record) -> None:
        name = f"{self._host}/{record.name}"
        markers.require_listed(self._target_store, name, len(record.content))
        self._pair.add(lack.claim, record.content)

    # --- the marker

    @contextlib.contextmanager
    def _marked(self, lack: Lack) -> Iterator[None]:
        """Keep clean-up from the parts of a run until its manifest is there.

        The marker of a copy that fails stays while parts of it are there: the next copy goes on
        with them, and a later run removes them once they are old enough.
        """
        self._marked_at = None
        if not lack.is_new:
            yield
            return
        self._mark(lack.run_id)
        try:
            yield
        except (BackupError, OSError):
            if self.source_error is not None:  # otherwise the target may not answer at all
                leftovers.remove_marker(self._pair.target, lack.run_id)
            raise
        if self._is_whole(lack):
            markers.remove(self._target_store, self._marker(lack.run_id))

    def _marker(self, run_id: str) -> str:
        return f"{self._host}/{run_id}{MARKER_SUFFIX}"

    def _mark(self, run_id: str) -> None:
        """Write the marker. Raises LeftOutError where a run or another copy is at work."""
        self._marked_at = self._clock()
        if run_id + MARKER_SUFFIX not in self._pair.target.sizes:
            with contextlib.suppress(TakenError):
                return markers.create_marker(self._target_store, self._host, run_id, copy=True)
        marker = self._found_marker(run_id)
        if marker is not None and not liveness.may_continue(self._target_store, marker):
            raise LeftOutError(
                f"a run or another copy is writing it into {self._target_store}",
                f"If that is not so, remove {marker.name} there, or wait until it is 7 days old.",
            )
        self._mark_anew(run_id)
        return None

    def _found_marker(self, run_id: str) -> StoreEntry | None:
        name = self._marker(run_id)
        return next(
            (one for one in self._target_store.entries(self._host) if one.name == name), None
        )

    def _mark_anew(self, run_id: str) -> None:
        """Replace the marker of a process that has ended; one that must stay is reused."""
        markers.remove(self._target_store, self._marker(run_id))
        self._marked_at = self._clock()
        with contextlib.suppress(TakenError):
            markers.create_marker(self._target_store, self._host, run_id, copy=True)

    def _renew(self, run_id: str) -> None:
        """Renew the marker before another machine takes it for that of a dead process."""
        if self._marked_at is not None and self._clock() - self._marked_at > _RENEWED:
            self._mark_anew(run_id)

    def _is_whole(self, lack: Lack) -> bool:
        """Return whether the target holds nothing of a run but what its manifest names."""
        own_names = {part.name for part in (*lack.absent, *lack.present)}
        own_names |= {*lack.records, lack.run_id + MARKER_SUFFIX}
        return own_names.issuperset(self._named.get(lack.run_id, ()))

    @functools.cached_property
    def _named(self) -> Mapping[str, list[str]]:
        """Return what the target had of each run before the copy."""
        by_run: dict[str, list[str]] = {}
        for name in self._pair.target.sizes:
            by_run.setdefault(run_ids.run_in(name), []).append(name)
        return by_run


def _newest(catalog: Catalog) -> datetime | None:
    """Return when the newest manifest of a catalog was stored; None where there is none."""
    times = (catalog.stored_at(run_id) for run_id in catalog.run_ids)
    return max(times, default=None)


def _result(lack: Lack, size: int, warnings: list[str]) -> Result:
    verb = "copied" if lack.is_new else "filled in"
    text = f"{verb}: {count(lack.objects, 'object')}, {human_size(size)}"
    if not lack.objects:
        text = "nothing to copy"
    status = Status.INCOMPLETE if warnings else Status.OK
    return Result(status, text, bytes=size, items=lack.objects, warnings=tuple(warnings))
