#!/usr/bin/env python3
"""What is stored, listed, verified and restored: from a conf.json, or from arguments alone."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone

from restore import (
    arguments,
    fileset,
    incomplete,
    listing,
    origin,
    reading,
    runs,
    selection,
    server,
    target,
    verifying,
)
from tools import os_works
from tools.base import run_ids
from tools.base.errors import BackupError, Cancelled, ConfigError
from tools.base.result import Result, Status, of_error, worst
from tools.base.run_result import ProgressListener, RunResult, SectionResult
from tools.catalog import identity
from tools.catalog.manifest import Manifest
from tools.flow import stream
from tools.flow.item_record import StoredItem as Item
from tools.modules import loader, registry
from tools.modules.contracts import Following
from tools.reporting import terminal


def main(argv: Sequence[str]) -> int:
    """The command line; the exit code is that of DESIGN 8."""
    given = arguments.read(argv)
    os_works.harden()
    os_works.catch_signals()
    done: list[str] = []  # what was restored whole, as messages name it
    try:
        arguments.check(given)
        server.check(given)
        with target.scratch() as scratch:
            code = _Session(given, origin.of(given, scratch), done).answer()
    except (BackupError, OSError) as error:
        result = of_error(error)
        terminal.say(f"error: {result.message}", error=True)
        if result.hint:
            terminal.say(f"hint: {result.hint}", error=True)
        code = result.status.exit_code
    except Cancelled as cancelled:
        terminal.say(_cancelled(given, done), error=True)
        code = os_works.status_of_signal(cancelled.signal_number).exit_code
    return terminal.final_code(code)


def _cancelled(given: argparse.Namespace, done: Sequence[str]) -> str:
    """What a restore that was cancelled leaves behind."""
    if not given.restore or given.dry_run:
        return "cancelled: nothing was changed"
    if not done:
        return "cancelled: nothing was restored; what had been begun was removed"
    where = given.to_host or given.destination
    return f"cancelled: restored in {where}: {', '.join(done)}; what had been begun was removed"


class _Session:
    """One call: what was asked for, and where it comes from."""

    def __init__(self, given: argparse.Namespace, came: origin.Origin, done: list[str]) -> None:
        self._done = done
        self.given = given
        self.origin = came
        self.begin = datetime.now(timezone.utc)
        self.started = time.monotonic()

    def answer(self) -> int:
        """Do what was asked for."""
        if self.given.list:
            return self._list()
        if self.given.show:
            return self._show()
        if self.given.verify:
            return self._verify()
        return self._restore()

    def _list(self) -> int:
        return listing.runs_of(self.origin, as_json=self.given.json)

    def _chosen(self, wanted: str) -> selection.Selection:
        """What a run id, "latest" or a date means; the choice is shown where it is one."""
        found: selection.Selection = selection.chosen(
            self.origin.store, self.origin.wanted(), wanted
        )
        return found

    def _show(self) -> int:
        chosen = self._chosen(self.given.show)
        if self.given.json:
            terminal.say(chosen.newest.manifest.to_json().decode())
            return 0
        listing.shown(chosen)
        return 0

    # --- verify

    def _verify(self) -> int:
        if self.given.verify == "all":
            host = self.origin.host()
            found = list(runs.found(self.origin.store, host))
            steps = [self._unreadable(run) for run in found if run.manifest is None]
            chosen = [
                selection.of_run(reading.Run(self.origin.store, run.manifest))
                for run in found
                if run.manifest
            ]
            if not found:
                raise ConfigError(
                    f"there is no run of {host} in {self.origin.store}", self.origin.elsewhere()
                )
        else:
            steps, chosen = [], [self._chosen(self.given.verify)]
        with terminal.watcher(quiet=self.given.json) as watcher:
            for whole in chosen:
                some = whole.narrowed(self.given.section, self.given.item)
                self._tell(some)
                if self.given.level == "full":
                    self._unlock(some.items)
                steps += self._missing(whole)
                steps += self._steps(
                    some.items,
                    functools.partial(self._verified, some),
                    watcher,
                    whole.newest.manifest.run_id if len(chosen) > 1 else "",
                )
        return self._ended(chosen[-1].newest.manifest if chosen else None, steps)

    def _tell(self, chosen: selection.Selection) -> None:
        """Show which run each section comes from, where they differ."""
        for line in chosen.notes:
            terminal.say(f"note: {line}", error=True)
        for made in (run.manifest for run in chosen.runs()):
            if not made.good:
                terminal.say(f"warning: run {made.run_id} is not good ({made.status})", error=True)
            if run_ids.in_future(made.run_id):
                terminal.say(f"warning: run {made.run_id} {runs.IN_FUTURE}", error=True)

    @staticmethod
    def _unreadable(run: runs.Found) -> SectionResult:
        return SectionResult(run.run_id, "item", Result(Status.FAILED, run.trouble))

    def _verified(
        self, chosen: selection.Selection, item: Item, advance: Callable[[int], None]
    ) -> Result:
        """One item, as far as the level goes. Raises BackupError or OSError."""
        run = chosen.run(item)
        result: Result = verifying.verified(run, item, self.given.level, self.origin.undo, advance)
        return incomplete.told(item, result, run.manifest.run_id, ())

    def _unlock(self, items: Sequence[Item]) -> None:
        """Raises ConfigError before anything begins where a key or a package is missing."""
        for stage in dict.fromkeys(stage for item in items for stage in item.stages):
            named = self.given.config or self.given.key_file or self.given.passphrase
            if not named and stage in registry.STAGES and registry.STAGES[stage].encrypts:
                terminal.say(f"note: --key-file is not given: {arguments.KEY} is used", error=True)
            if registry.row_of_stage(stage):
                self.origin.undo(stage)

    def _missing(self, chosen: selection.Selection) -> list[SectionResult]:
        """A step for each item that a run does not hold in this store."""
        return [
            step
            for run in chosen.runs()
            for step in incomplete.missing(run.manifest, self.given.section, self.given.item)
        ]

    # --- restore

    def _restore(self) -> int:
        given = self.given
        chosen = self._to_restore()
        items = chosen.items
        self._tell(chosen)
        if given.destination:
            verifying.check_destination(given, sum(item.size or 0 for item in items))
        self._unlock(items)
        if given.dry_run:
            verifying.dry(given, chosen, self.origin.undo)
            return 0
        with terminal.watcher(quiet=given.json) as watcher:
            if given.to_host:
                steps = self._into_server(chosen, watcher)
            else:
                steps = self._steps(items, functools.partial(self._back, chosen), watcher)
        matched = any(self._came(step.result) for step in steps)
        if given.path and not matched:
            raise verifying.no_match(chosen, given.path)
        if not given.path and not given.to_host:
            steps += self._missing(chosen)
        return self._ended(chosen.runs()[0].manifest, steps)

    @staticmethod
    def _came(result: Result) -> bool:
        """Whether a pattern matched something of an item, or nobody knows because it failed."""
        only_unmatched = all(line.startswith(fileset.UNMATCHED) for line in result.warnings)
        return bool(result.items) or not result.status.stored or not only_unmatched

    def _to_restore(self) -> selection.Selection:
        """The items that are meant, all of whose parts are there."""
        given = self.given
        chosen = self._chosen(given.restore).narrowed(given.section, given.item)
        if given.path:
            chosen = chosen.only(item for item in chosen.items if registry.kind(item.kind).archive)
            if not chosen.items:
                raise ConfigError("--path: none of these items holds files", "Leave it out.")
        for run in chosen.runs():
            reading.refuse_absent(run, chosen.of(run))
        return chosen.only(server.chosen(chosen.items, given)) if given.to_host else chosen

    def _into_server(
        self, chosen: selection.Selection, watcher: ProgressListener | None
    ) -> list[SectionResult]:
        """Items into a server: each makes its next step when all others have made theirs."""
        advance = watcher.advance if watcher else lambda _size: None
        with contextlib.ExitStack() as stack:
            going: dict[str, Iterator[Result]] = {}
            for item in chosen.items:
                run = chosen.run(item)
                again = functools.partial(reading.plain, run, item, self.origin.undo, advance)
                following = functools.partial(self._stored, item.section, run.manifest.run_id)
                options = self.origin.options(item)
                made = server.into(item, again, self.given, following, options)
                going[item.called] = stack.enter_context(contextlib.closing(made))
            waiting: list[Item] = []

            def step(item: Item, _advance: Callable[[int], None]) -> Result:
                try:
                    result = next(going[item.called])
                except StopIteration as ended:
                    last: Result = ended.value
                    self._done.append(item.called)
                    return incomplete.told(item, last, chosen.run(item).manifest.run_id, ())
                waiting.append(item)
                return result

            steps = self._steps(chosen.items, step, watcher)
            while waiting:
                left, waiting = waiting, []
                steps += self._steps(left, step, watcher, server.REST)
        return steps

    def _back(
        self, chosen: selection.Selection, item: Item, advance: Callable[[int], None]
    ) -> Result:
        """One item in the destination, and what its backup lacks."""
        result = self._restored(chosen, item, advance)
        self._done.append(item.called)
        run_id = chosen.run(item).manifest.run_id
        return incomplete.told(item, result, run_id, self.given.path)

    def _restored(
        self, chosen: selection.Selection, item: Item, advance: Callable[[int], None]
    ) -> Result:
        """One item, made where nobody looks and moved into place when all of it is whole."""
        verifying.refuse_unusable(item)
        given, run = self.given, chosen.run(item)
        again = functools.partial(reading.plain, run, item, self.origin.undo, advance)
        goal = given.destination / target.place_of(item)
        with target.staging(given.destination, overwrite=given.overwrite) as staging:
            place = staging.place / target.place_of(item)
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if registry.kind(item.kind).folder:
                place.mkdir(mode=0o700)
                stored = functools.partial(self._stored, item.section, "")
                with server.told(item):
                    made = loader.folder_restorer(registry.file_of_kind(item.kind)).laid_out(
                        item, again, place, stored
                    )
                return dataclasses.replace(made, message=f"in {goal}: {made.message}")
            if not registry.kind(item.kind).archive:
                with stream.closed(again()) as chunks:
                    size = target.written(chunks, place)
                return Result(Status.OK, f"in {goal}", items=1, bytes=size)
            place.mkdir(mode=0o755)
            found = fileset.unpack(again, item.ending, place, given.path)
            if not found.entries:
                place.rmdir()
            below = os.fsencode(target.place_of(item))
            staging.implied.update(below + b"/" + name for name in found.implied if name)
        return _of_fileset(found, staging.troubles, goal)

    def _stored(self, section: str, first: str) -> Iterator[Following]:
        """The items of a section in all runs from this one on, oldest run first."""
        for found in runs.found(self.origin.store, self.origin.host()):
            if found.manifest is None or found.run_id < first:
                continue
            if run_ids.in_future(found.run_id) and found.run_id != first:
                continue
            later = reading.Run(self.origin.store, found.manifest)
            for item in found.manifest.items:
                if item.section == section:
                    undo, quiet = self.origin.undo, lambda _size: None
                    again = functools.partial(reading.plain, later, item, undo, quiet)
                    yield Following(found.run_id, item, again)

    # --- what came of it

    def _steps(
        self,
        items: Sequence[Item],
        do: Callable[[Item, Callable[[int], None]], Result],
        watcher: ProgressListener | None,
        what: str = "",
    ) -> list[SectionResult]:
        """Do it for each item; one that fails does not stop the others."""
        steps = []
        for number, item in enumerate(items, 1):
            name = f"{what} {item.called}".strip()
            if watcher:
                watcher.begin(number, name)
            began = time.monotonic()
            try:
                result = do(item, watcher.advance if watcher else lambda _size: None)
            except (BackupError, OSError) as error:
                result = dataclasses.replace(of_error(error), status=Status.FAILED)
            except (ValueError, OverflowError) as error:  # of what a manifest says
                what = f"what its manifest says cannot be used ({error})"
                result = Result(Status.FAILED, what, "Use another copy of the run.")
            seconds = time.monotonic() - began
            if watcher:
                watcher.end(name, result, seconds)
            steps.append(SectionResult(name, "item", result, seconds))
        return steps

    def _ended(self, made: Manifest | None, steps: Sequence[SectionResult]) -> int:
        """Show it, report a restore, and give the exit code."""
        outcome = RunResult(
            run_id=made.run_id if made else "",
            hostname=made.host if made else "",
            begin=self.begin,
            seconds=time.monotonic() - self.started,
            status=worst(step.result.status for step in steps),
            sections=tuple(steps),
            action="restore" if self.given.restore else "verify",
            origin=identity.origin(self.origin.config if self.given.config else None),
        )
        told = self.given.restore and not self.given.no_report
        deliveries = self.origin.report(outcome) if told else {}
        code = terminal.render(outcome, deliveries, as_json=self.given.json)
        if not self.given.json and not terminal.on_terminal():
            for line in terminal.table_lines(outcome):
                terminal.say(line)
        return code


def _of_fileset(found: fileset.Unpacked, troubles: Sequence[str], goal: Path) -> Result:
    """What came of a fileset; incomplete where something is not as it was."""
    warnings = (*found.warnings(), *troubles)
    return Result(
        Status.INCOMPLETE if warnings else Status.OK,
        f"{fileset.entries(found.entries)} in {goal}",
        items=found.entries,
        bytes=found.size,
        warnings=warnings,
    )
