"""List, verify and restore the runs that backup.py stored, with a conf.json or without."""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from restore import (
    arguments,
    database_restore,
    destination,
    incomplete,
    listing,
    remembered,
    unpack,
    verifying,
)
from restore.restoring import Advance, Done, Restoring, run_steps
from tools import os_works
from tools.base import foreign, run_ids, signals
from tools.base.errors import BackupError, Cancelled, ConfigError
from tools.base.result import Result, Status, of_error, worst
from tools.base.run_result import ProgressListener, RunResult, SectionResult
from tools.catalog import identity, location, readback, selection, sequence
from tools.catalog.catalog import Catalog
from tools.catalog.manifest import Manifest
from tools.catalog.readback import StoredRun
from tools.catalog.runs import IN_FUTURE, RunSummary, list_runs
from tools.catalog.selection import Selection
from tools.engine import section_runner
from tools.engine.user_modules import ForRestore
from tools.flow.item_record import StoredItem as Item
from tools.modules import registry
from tools.modules.contracts import Server
from tools.reporting import terminal


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code (docs/exit-codes.md)."""
    options = arguments.read(argv)
    os_works.harden()
    signals.catch()
    done = Done()
    try:
        arguments.check(options)
        with destination.scratch() as scratch:
            code = _Command(options, scratch, done).run()
    except (BackupError, OSError) as error:
        result = of_error(error)
        terminal.say(f"error: {result.message}", error=True)
        if result.hint:
            terminal.say(f"hint: {terminal.indented(result.hint)}", error=True)
        code = result.status.exit_code
    except Cancelled as cancelled:
        terminal.say(foreign.line(_cancelled(options, done)), error=True)
        code = signals.status(cancelled.signal_number).exit_code
    return code


def _cancelled(options: argparse.Namespace, done: Done) -> str:
    """Return what a cancelled call leaves behind."""
    if not options.restore or options.dry_run:
        return "cancelled: nothing was changed"
    target = options.to_host or options.destination
    parts = []
    if done.restored:
        parts.append(f"{', '.join(done.restored)} restored to {target} and kept")
    if done.in_part and done.in_part not in done.restored:
        parts.append(
            f"{done.in_part} was being moved into {target} and may be there in part: "
            "restore it again with --overwrite"
        )
    else:
        parts.append("the unfinished item was removed")
    if not (done.restored or done.in_part):
        parts.insert(0, "nothing was restored")
    return "cancelled: " + "; ".join(parts)


class _Command:
    """One call of restore.py."""

    def __init__(self, options: argparse.Namespace, scratch: Path, done: Done) -> None:
        source = arguments.source(options)
        config = location.load_config(source)
        section_runner.learn_secrets(config)
        self._options = options
        self._done = done
        self._location = location.open_location(config, source, ForRestore(scratch))
        self._begin = datetime.now(timezone.utc)
        self._started = time.monotonic()

    def run(self) -> int:
        """Run the command of the arguments; return the exit code."""
        options = self._options
        if options.list:
            return listing.print_runs(self._location, as_json=options.json)
        if options.show:
            return self._show()
        return self._verify() if options.verify else self._restore()

    @functools.cached_property
    def _catalog(self) -> Catalog:
        return self._location.catalog()

    def _select(self, selector: str) -> Selection:
        """Return what a run id, "latest" or a date selects.

        Raises ManifestError where runs of the store were rolled back, replaced or removed; a run
        that is named by its id is what was asked for.
        """
        if not self._catalog.run_ids:
            remembered.require_store(self._location, self._catalog.host)
        preference = self._location.preference(self._catalog.host)
        if not run_ids.is_run_id(selector):
            sequence.require(self._catalog, self._options.newest)
            remembered.require(self._location, self._catalog)
        return selection.select_run(self._catalog, preference, selector)

    def _show(self) -> int:
        selected = self._select(self._options.show)
        if self._options.json:
            terminal.say(selected.newest.manifest.to_json().decode("ascii", "replace"))
        else:
            listing.print_selection(selected)
        return 0

    # --- verify

    def _verify(self) -> int:
        options = self._options
        if options.verify == "all":
            steps, selections = self._every_run()
        else:
            steps, selections = [], [self._select(options.verify)]
        statuses = []
        with terminal.watcher(quiet=options.json) as watcher:
            for run_selection in selections:
                part = run_selection.narrowed(options.section, options.item)
                self._warn(part)
                if options.level == "full":
                    self._require_stages(part.items)
                label = run_selection.newest.run_id if len(selections) > 1 else ""
                verify = functools.partial(self._verify_item, part)
                of_run = [*self._missing(run_selection), *_sheets(run_selection)]
                of_run += run_steps(part.items, verify, watcher, label)
                statuses.append(worst(step.result.status for step in of_run))
                steps += of_run
        return self._finish(_named(selections, statuses), steps)

    def _every_run(self) -> tuple[list[SectionResult], list[Selection]]:
        """Return a failed step for each unreadable manifest, and a selection of each other run."""
        summaries = list(list_runs(self._catalog))
        if not summaries:
            raise ConfigError(
                f"{self._location.store}: no runs of host {self._catalog.host}",
                self._location.hint(),
            )
        steps = [_unreadable(summary) for summary in summaries if summary.manifest is None]
        return steps, [
            selection.of_run(StoredRun(self._catalog, summary.manifest))
            for summary in summaries
            if summary.manifest
        ]

    def _verify_item(self, selected: Selection, item: Item, advance: Advance) -> Result:
        """Verify one item up to the level. Raises BackupError or OSError."""
        run = selected.run(item)
        inverse = self._location.inverse_stage
        options = self._options
        result = verifying.verify_item(
            run, item, options.level, inverse, advance, allow_special=options.allow_special
        )
        return incomplete.with_backup_warnings(item, result, run.run_id, ())

    def _warn(self, selected: Selection) -> None:
        """Print which run each section is taken from, where they differ, and doubtful runs."""
        for line in selected.notes:
            terminal.say(foreign.line(f"note: {line}"), error=True)
        if selected.newer:
            text = foreign.line(f"note: not the newest run, which is {selected.newer}")
            terminal.say(text, error=True)
        for run in selected.runs():
            if not run.catalog.claim(run.run_id).signer:
                text = f"run {run.run_id} is not signed by a known signer (--allow-unsigned)"
                terminal.say(f"warning: {text}", error=True)
        for manifest in (run.manifest for run in selected.runs()):
            if manifest.cleaned:
                names = ", ".join(item.label for item in manifest.cleaned)
                text = foreign.line(f"note: cleaned away from run {manifest.run_id}: {names}")
                terminal.say(text, error=True)
            if not manifest.is_complete:
                text = f"run {manifest.run_id} is not complete ({manifest.status})"
                terminal.say(f"warning: {text}", error=True)
            if run_ids.in_future(manifest.run_id):
                terminal.say(f"warning: run {manifest.run_id} {IN_FUTURE}", error=True)

    def _require_stages(self, items: Sequence[Item]) -> None:
        """Raise ConfigError before anything begins where a key or a package is missing."""
        options = self._options
        encrypted = any(registry.stage_encrypts(stage) for item in items for stage in item.stages)
        if encrypted and not (options.config or options.key_file or options.passphrase):
            terminal.say(f"note: without --key-file {arguments.KEY} is used", error=True)
        self._restoring().require_stages(items)

    def _restoring(self, watcher: ProgressListener | None = None) -> Restoring:
        return Restoring(
            self._location,
            self._catalog,
            watcher,
            self._done,
            allow_special=self._options.allow_special,
        )

    def _missing(self, selected: Selection) -> list[SectionResult]:
        """Return a step for each selected item that a run does not hold in this store."""
        section, names = self._options.section, self._options.item
        return [
            step
            for run in selected.runs()
            for step in incomplete.missing_items(run.manifest, section, names)
        ]

    # --- restore

    def _restore(self) -> int:
        options = self._options
        selected = self._select_items()
        self._warn(selected)
        if options.destination:
            self._check_destination(selected.items)
        self._require_stages(selected.items)
        if options.dry_run:
            return self._dry_run(selected)
        with terminal.watcher(quiet=options.json) as watcher:
            restoring = self._restoring(watcher)
            if options.to_host:
                steps = restoring.into_server(selected, arguments.server(options))
            else:
                steps = restoring.into_folder(
                    selected,
                    options.destination,
                    overwrite=options.overwrite,
                    patterns=options.path,
                )
        if options.path and not any(_matched(step.result) for step in steps):
            raise verifying.no_match(selected, options.path)
        if not options.path and not options.to_host:
            steps += self._missing(selected)
        return self._finish(selected.runs()[0].manifest, steps)

    def _select_items(self) -> Selection:
        """Return the selected items; all of their parts are in the store."""
        options = self._options
        selected = self._select(options.restore).narrowed(options.section, options.item)
        if options.path:
            selected = selected.only(
                item for item in selected.items if registry.kind(item.kind).archive or item.problem
            )
            if not selected.items:
                raise ConfigError(
                    "--path: none of the selected items is a fileset",
                    "Remove --path, or select a fileset with --item.",
                )
        for run in selected.runs():
            readback.require_parts(run, selected.of(run))
        if not options.to_host:
            return selected
        refused = [item for item in selected.items if item.problem]
        good = [item for item in selected.items if not item.problem]
        databases = database_restore.select_databases(good, options.to_database)
        return selected.only([*refused, *databases])

    def _check_destination(self, items: Sequence[Item]) -> None:
        """Raise ConfigError for an unusable destination; warn where space is short."""
        options = self._options
        destination.check_destination(options.destination, overwrite=options.overwrite)
        size = sum(item.size or 0 for item in items)
        warning = destination.space_warning(options.destination, size)
        if warning and not options.path:
            terminal.say(f"warning: {warning}", error=True)

    def _dry_run(self, selected: Selection) -> int:
        options = self._options
        target: Path | Server = options.destination or Path("DESTINATION")
        if options.to_host:
            target = arguments.server(options)
        inverse = self._location.inverse_stage
        special = options.allow_special
        return verifying.dry_run(selected, target, options.path, inverse, allow_special=special)

    # --- the result

    def _finish(self, manifest: Manifest | None, steps: Sequence[SectionResult]) -> int:
        """Print the result, report a restore, and return the exit code."""
        options = self._options
        result = RunResult(
            run_id=manifest.run_id if manifest else "",
            hostname=manifest.host if manifest else "",
            begin=self._begin,
            seconds=time.monotonic() - self._started,
            status=worst(step.result.status for step in steps),
            sections=tuple(steps),
            action="restore" if options.restore else "verify",
            origin=identity.origin(self._location.config if options.config else None),
        )
        deliveries = self._report(result) if options.restore and not options.no_report else {}
        code = terminal.render(result, deliveries, as_json=options.json)
        if not options.json and not terminal.on_terminal():
            for line in terminal.table_lines(result, brief=True):
                terminal.say(line)
        return code

    def _report(self, result: RunResult) -> dict[str, str]:
        """Report a restore through the channels of the config; return the results by channel."""
        from tools.reporting import channels, delivery
        from tools.reporting.document import run_document

        table = "\n".join(terminal.table_lines(result))
        config = self._location.config
        recipients = channels.of_restores(config.general, config.notify)
        return delivery.deliver(recipients, run_document(result), table, None)


def _sheets(selected: Selection) -> list[SectionResult]:
    """Return a failed step for each recovery sheet that is missing or was altered."""
    problems = [(run.run_id, readback.sheet_problem(run)) for run in selected.runs()]
    return [
        SectionResult(f"{run_id} RECOVERY.txt", "item", Result(Status.FAILED, problem))
        for run_id, problem in problems
        if problem
    ]


def _named(selections: Sequence[Selection], statuses: Sequence[Status]) -> Manifest | None:
    """Return the run that the result names: the newest of those with the worst result."""
    if not selections:
        return None
    last = max(at for at, status in enumerate(statuses) if status is worst(statuses))
    return selections[last].newest.manifest


def _unreadable(summary: RunSummary) -> SectionResult:
    return SectionResult(summary.run_id, "item", Result(Status.FAILED, summary.error))


def _matched(result: Result) -> bool:
    """Return whether a pattern matched a file of an item; True where it failed before that."""
    only_unmatched = all(line.startswith(unpack.UNMATCHED) for line in result.warnings)
    return bool(result.items) or not result.status.stored or not only_unmatched
