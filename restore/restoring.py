"""Restore selected items into a folder or into a database server; one that fails fails alone."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from restore import database_restore, destination, incomplete, unpack, verifying
from restore.archive_errors import UnsafeArchiveError
from tools.base import crash, run_ids
from tools.base.errors import BackupError
from tools.base.log import logger
from tools.base.result import Result, Status, of_error, worst
from tools.base.run_result import ProgressListener, SectionResult
from tools.catalog import readback
from tools.catalog.catalog import Catalog
from tools.catalog.location import BackupLocation
from tools.catalog.readback import StoredRun
from tools.catalog.runs import list_runs
from tools.catalog.selection import Selection
from tools.flow import stream
from tools.flow.item_record import StoredItem as Item
from tools.modules import loader, registry
from tools.modules.contracts import Again, Following, Server

Advance = Callable[[int], None]  # called with the stored bytes of an item that have been read


def run_steps(
    items: Sequence[Item],
    action: Callable[[Item, Advance], Result],
    watcher: ProgressListener | None,
    label: str = "",
) -> list[SectionResult]:
    """Call the action for each item and return the results. label: precedes the items' names."""
    steps = []
    for number, item in enumerate(items, 1):
        name = f"{label} {item.label}".strip()
        if watcher:
            watcher.begin(number, name)
        started = time.monotonic()
        result = _guarded(action, item, watcher.advance if watcher else lambda _size: None)
        seconds = time.monotonic() - started
        if watcher:
            watcher.end(name, result, seconds)
        steps.append(SectionResult(name, "item", result, seconds))
    return steps


def _guarded(action: Callable[[Item, Advance], Result], item: Item, advance: Advance) -> Result:
    """Return what the action returns; an error, or a bug of ours, is a failure of this item."""
    try:
        return action(item, advance)
    except Exception as error:  # noqa: BLE001  (the other items are still restored)
        return dataclasses.replace(of_error(crash.reportable(error)), status=Status.FAILED)


@dataclasses.dataclass
class Done:
    """Labels of the items that are restored, and of the one that is being moved into its place."""

    restored: list[str] = dataclasses.field(default_factory=list)
    in_part: str = ""

    @contextlib.contextmanager
    def moving(self, label: str) -> Iterator[None]:
        """Note that the item of this label is moved into its place during the block."""
        self.in_part = label
        try:
            yield
        except (BackupError, OSError):  # the result of the item reports it
            self.in_part = ""
            raise
        self.restored.append(label)
        self.in_part = ""


@dataclasses.dataclass(frozen=True)
class _Folder:
    """Where items are restored to. patterns: only these files of a fileset; special: see Rules"""

    path: Path
    overwrite: bool
    patterns: Sequence[str]
    special: bool


class Restoring:
    """Restores items of one location."""

    def __init__(
        self,
        location: BackupLocation,
        catalog: Catalog,
        watcher: ProgressListener | None = None,
        done: Done | None = None,
        *,
        allow_special: bool = False,
    ) -> None:
        """Restore nothing yet. done: gets the labels of the items that are restored

        allow_special: device nodes and set-id bits come back from runs of unknown signers too
        """
        self._location = location
        self._catalog = catalog
        self._watcher = watcher
        self._done = done or Done()
        self._allow_special = allow_special

    def require_stages(self, items: Sequence[Item]) -> None:
        """Raise ConfigError or StageError where a key or a package is missing."""
        for stage in dict.fromkeys(stage for item in items for stage in item.stages):
            if registry.row_of_stage(stage):
                self._location.inverse_stage(stage)

    def open_chunks(self, run: StoredRun, item: Item, advance: Advance) -> Again:
        """Return a function that returns the plaintext of an item, from its beginning."""
        return functools.partial(
            readback.read_item, run, item, self._location.inverse_stage, advance
        )

    # --- into a folder

    def into_folder(
        self, selection: Selection, folder: Path, *, overwrite: bool, patterns: Sequence[str] = ()
    ) -> list[SectionResult]:
        """Restore each item below the folder. patterns: only these files of a fileset."""

        def restore(item: Item, advance: Advance) -> Result:
            run = selection.run(item)
            verifying.check_item(run, item)
            again = self.open_chunks(run, item, advance)
            into = _Folder(folder, overwrite, patterns, special=run.signed or self._allow_special)
            with readback.naming_filters(item, UnsafeArchiveError):
                result = self._item_into_folder(item, again, into)
            return incomplete.with_backup_warnings(item, result, run.run_id, patterns)

        return run_steps(selection.items, restore, self._watcher)

    def _item_into_folder(self, item: Item, again: Again, into: _Folder) -> Result:
        """Restore an item into a staging folder, and move it into place when it is complete."""
        below = destination.item_path(item)
        moving = functools.partial(self._done.moving, item.label)
        goal = into.path / below
        with destination.staging(into.path, overwrite=into.overwrite, moving=moving) as staging:
            if registry.kind(item.kind).archive:
                path = staging.make_folders(below, 0o755)
                unpacked = unpack.unpack(
                    again, item.ending, path, into.patterns, special=into.special
                )
                if not unpacked.entries:
                    path.rmdir()
                prefix = os.fsencode(below) + b"/"
                staging.implied.update(prefix + name for name in unpacked.implied if name)
                result = _of_fileset(unpacked, goal)
            else:
                result = self._into_staging(item, again, staging, goal)
        return _with_differences(result, staging.warnings)

    def _into_staging(
        self, item: Item, again: Again, staging: destination.Staging, goal: Path
    ) -> Result:
        """Restore an item that is one file, or a folder made by the restorer of its kind."""
        below = destination.item_path(item)
        path = staging.make_folders(below.parent, 0o700) / below.name
        if registry.kind(item.kind).folder:
            path.mkdir(mode=0o700)
            since = functools.partial(self._items_since, item.section, "")
            restorer = loader.folder_restorer(registry.file_of_kind(item.kind))
            result = restorer.restore_to_folder(item, again, path, since)
            return dataclasses.replace(result, message=f"{goal}: {result.message}")
        with stream.closed(again()) as chunks:
            size = destination.write_file(chunks, path)
        return Result(Status.OK, f"written to {goal}", items=1, bytes=size)

    # --- into a server

    def into_server(self, selection: Selection, server: Server) -> list[SectionResult]:
        """Restore databases. An item makes its next step when all others have made theirs."""
        advance = self._watcher.advance if self._watcher else lambda _size: None
        with contextlib.ExitStack() as stack:
            running: dict[str, Iterator[Result]] = {}
            for item in selection.items:
                run = selection.run(item)
                item_server = dataclasses.replace(
                    server,
                    following=functools.partial(self._items_since, item.section, run.run_id),
                    options=self._location.options(item),
                )
                again = self.open_chunks(run, item, advance)
                refuse = functools.partial(readback.check, run, item)
                steps_of_item = database_restore.restore_item(item, again, item_server, refuse)
                running[item.label] = stack.enter_context(contextlib.closing(steps_of_item))
            waiting: list[Item] = []

            def next_step(item: Item, _advance: Advance) -> Result:
                try:
                    result = next(running[item.label])
                except StopIteration as end:
                    last: Result = end.value
                    self._done.restored.append(item.label)
                    run_id = selection.run(item).run_id
                    return incomplete.with_backup_warnings(item, last, run_id, ())
                waiting.append(item)
                return result

            steps = run_steps(selection.items, next_step, self._watcher)
            while waiting:
                remaining, waiting = waiting, []
                label = database_restore.SECOND_STEP_LABEL
                steps += run_steps(remaining, next_step, self._watcher, label)
        return steps

    def _items_since(self, section: str, first: str) -> Iterator[Following]:
        """Return the items of a section in all runs from the run `first` on, oldest first."""
        for summary in list_runs(self._catalog):
            if summary.run_id < first:
                continue
            if summary.manifest is None:
                logger.warning("run %s is left out: %s", summary.run_id, summary.error)
                continue
            if run_ids.in_future(summary.run_id) and summary.run_id != first:
                continue
            run = StoredRun(self._catalog, summary.manifest)
            for item in summary.manifest.items:
                if item.section == section:
                    again = self.open_chunks(run, item, lambda _size: None)
                    yield Following(run.run_id, item, again)


def _of_fileset(unpacked: unpack.UnpackResult, path: Path) -> Result:
    """Return the result of a fileset that was restored to a path."""
    result = Result(
        Status.OK,
        f"{unpack.count_entries(unpacked.entries)} restored to {path}",
        items=unpacked.entries,
        bytes=unpacked.size,
    )
    return _with_differences(result, unpacked.warnings())


def _with_differences(result: Result, lines: Sequence[str]) -> Result:
    """Return a result that is incomplete if something differs from the backup."""
    if not lines:
        return result
    status = worst((result.status, Status.INCOMPLETE))
    return dataclasses.replace(result, status=status, warnings=(*result.warnings, *lines))
