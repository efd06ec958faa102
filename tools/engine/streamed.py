"""The streamed run: items flow from their sources through the stages into every store at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tools import date_str_utils, os_works
from tools.base import crash, hung_mount
from tools.base.errors import BackupError, in_words
from tools.base.log import logger
from tools.base.result import Result, Status
from tools.catalog import location
from tools.catalog.history import Past
from tools.config import model
from tools.config.model import Section
from tools.engine import section_runner, user_modules
from tools.engine.limits import Limits, within
from tools.engine.section_runner import Context
from tools.engine.workers import Job, SourceState, Workers
from tools.flow import dump_stream, item_results, pipeline, rate_limit
from tools.flow.fan_out import StoreProgress
from tools.flow.item import Item, SourceContext, Stage, about
from tools.flow.pipeline import FlowResult
from tools.flow.stopwatch import Stopwatch
from tools.flow.store import Store, note, same_disk_note
from tools.flow.task import StoppedError
from tools.modules import loader

_LOOK = 60.0  # seconds for the sizes of sections in earlier runs
_NOTE = 5.0  # seconds that a note on a store may take


def open_section_store(current: Section, context: Context) -> Store:
    """Return the store of a section, built-in or user-defined. Raises BackupError."""
    if current.declaration is None:
        general = context.config.general
        program = user_modules.ProgramStore(current, context)
        return rate_limit.limited(program, general.limit_upload, general.limit_download)
    return location.opened(current, context.config)


class Streamed:
    """The flows of one run: what has been stored, and what became of stages and stores."""

    def __init__(self, chosen: Sequence[Section], contexts: Callable[[Section], Context]) -> None:
        """Prepare a run. contexts: what the run tells a section"""
        self._contexts = contexts
        self._stages = [entry for entry in chosen if entry.kind == "stage"]
        self._stores = [entry for entry in chosen if entry.kind == "store"]
        self._failed: dict[str, Result] = {}  # stages and stores that could not begin
        self._open_stages: list[Stage] | None = None
        self._notices: dict[str, str] = {}  # of stages
        self._watches: dict[str, Stopwatch] = {}  # of stages and stores
        self.targets: list[StoreProgress] = []
        self.flowed: list[FlowResult] = []
        self.missing: list[str] = []  # items that no store has, SECTION/name
        self._past = Past()
        self._opened: dict[str, Store] = {}  # by section: stores that took the mark of the run

    def begin(self, stores: Mapping[str, Store], refused: Mapping[str, Result], past: Past) -> None:
        """Take over the stores that are marked, by section, and why the others take no part."""
        self._opened = dict(stores)
        self._failed.update(refused)
        self._past = past

    @property
    def size(self) -> int:
        """Return the bytes that the fullest store has taken."""
        return max((target.size for target in self.targets), default=0)

    def run(
        self, group: Sequence[Section], advance: Callable[[int], None] | None
    ) -> dict[str, Result]:
        """Let the items of these sources flow, PARALLEL at a time; a result for each section.

        advance: gets the plain bytes that have passed in all. Raises Cancelled, and then
        nothing is left running.
        """
        self._open()
        if reason := self._blocked():
            return {entry.name: Result(Status.FAILED, reason, consequence=True) for entry in group}
        sources = {entry.name: self._state(entry) for entry in group}
        jobs = [Job(source, item) for source in sources.values() for item in self._items(source)]
        order = {(job.source.section.name, job.item.name): at for at, job in enumerate(jobs)}
        before = len(self.flowed)
        general = self._contexts(group[0]).config.general

        def look() -> None:
            if advance is not None:
                advance(sum(source.size for source in sources.values()))

        Workers(self._flow_one, self._record_loss).run(jobs, general.parallel, look)
        # as the sources give them, not as they end: a restore needs the roles before the databases
        self.flowed[before:] = sorted(
            self.flowed[before:], key=lambda done: order[done.item.section, done.item.name]
        )
        return {name: _source_result(source) for name, source in sources.items()}

    def expected(self, group: Sequence[Section]) -> int | None:
        """Return the plaintext bytes of these sources in the last good run; None if unknown."""
        limits = Limits("the comparison with earlier runs", _LOOK)
        sizes = (self._past.section_size(entry.name) or 0 for entry in group)
        try:
            return within(limits, lambda: sum(sizes)) or None
        except StoppedError:
            return None

    def _open(self) -> None:
        """Open the stages and stores, when the first source is there."""
        if self._open_stages is not None:
            return
        self._open_stages = []
        for entry in self._stages:
            try:
                stage = self._stage(entry)
                watch = self._watches[entry.name] = Stopwatch()
                self._open_stages.append(replace(stage, forward=watch.stage(stage.forward)))
                if stage.notice:
                    self._notices[entry.name] = stage.notice
                    logger.warning("%s: %s", entry.name, stage.notice)
            except Exception as error:  # noqa: BLE001  (see section_runner.failed)
                self._failed[entry.name] = section_runner.failed(error)
        for entry in self._stores:
            if entry.name in self._opened:
                target = StoreProgress(entry.name, self._opened[entry.name])
                self._watches[entry.name] = target.watch
                self.targets.append(target)

    def _stage(self, entry: Section) -> Stage:
        """Return the stage of a section, under its limits: its key file may not answer."""
        context = self._contexts(entry)
        stall = context.config.general.stall_timeout
        limits = Limits(entry.name, entry.timeout, stall, context.deadline)
        return within(limits, lambda: _stage(entry, context))

    def _blocked(self) -> str:
        """Return why nothing can flow; "" if it can."""
        for entry in self._stages:
            if entry.name in self._failed:
                return f"not run: it needs {entry.name}, which failed"
        if not self.targets:
            failed = [entry.name for entry in self._stores if entry.name in self._failed]
            reason = (
                f"it needs {failed[0]}, which failed" if failed else "no section stores anything"
            )
            return f"not run: {reason}"
        return ""

    def _state(self, entry: Section) -> SourceState:
        """Return the state of a source before its first item."""
        context = self._contexts(entry)
        stall = context.config.general.stall_timeout
        return SourceState(entry, Limits(entry.name, entry.timeout, stall, context.deadline))

    def _items(self, source: SourceState) -> Sequence[Item]:
        """Return the items of a source; an error is kept as its result."""
        entry = source.section
        try:
            context = self._contexts(entry)
            if entry.declaration is None:
                return (user_modules.item(entry, context),)
            source_context = SourceContext(
                context.run_id,
                entry.name,
                tuple(map(Path, context.private)),
                functools.partial(self._past.earlier, entry.name),
            )

            def listed() -> Sequence[Item]:
                with os_works.passing(entry.environment):
                    options = model.filled(entry, context.config)
                    return tuple(loader.source(entry.file).items(options, source_context))

            return within(source.limits, listed)
        except Exception as error:  # noqa: BLE001  (see section_runner.failed)
            source.errors.append(("", crash.reportable(error)))
            self.missing.append(entry.name)
            return ()

    def _flow_one(self, job: Job) -> None:
        """Store one item; whatever happens is kept as its result."""
        with os_works.passing(job.source.section.environment):
            self._flow(job)

    def _flow(self, job: Job) -> None:
        source, item = job.source, job.item
        entry, name = source.section, job.name
        context = self._contexts(entry)
        where = pipeline.ItemContext(
            f"{context.config.general.hostname}/{context.run_id}",
            job.count,
        )
        try:
            job.count(0)  # not even begun, where the section has been stopped
            done = dump_stream.again(
                name,
                lambda: pipeline.store_item(
                    item, entry.name, self._open_stages or [], self.targets, where
                ),
                lambda line: logger.warning("%s: %s", name, line),
            )
        except Exception as error:  # noqa: BLE001  (see section_runner.failed)
            if job.settle():
                self._record_loss(job, crash.reportable(error))
        else:
            if not job.settle():
                return
            for note in done.report.notes:
                logger.info("%s: %s", done.item.label, note)
            source.errors += [(item.name, error) for error in done.failures]
            source.flowed.append(done)
            self.flowed.append(done)

    def _record_loss(self, job: Job, error: BackupError | OSError) -> None:
        """Keep why no store has an item.

        Not the error itself: its traceback would keep the chunks of each failed item.
        """
        stopped = job.task.stopped
        kept = BackupError(stopped) if stopped else BackupError(*in_words(error))
        job.source.errors.append((job.item.name, kept))
        self.missing.append(job.name)

    # --- results

    def seconds_of(self, entry: Section) -> float:
        """Return how long a stage or a store worked, in all threads, without its waiting."""
        watch = self._watches.get(entry.name)
        return 0.0 if watch is None else max(0.0, watch.seconds)

    def result_of(self, entry: Section) -> Result:
        """Return the result of a stage or a store in this run."""
        if entry.name in self._failed:
            return self._failed[entry.name]
        return self._contexts(entry).calls.of(self._result_of(entry))

    def _result_of(self, entry: Section) -> Result:
        if self._open_stages is None:
            return Result(Status.OK, "nothing to do: no source ran")
        count = date_str_utils.count
        if entry.kind == "stage":
            notice = self._notices.get(entry.name)
            text = f"{count(len(self.flowed), 'item')} went through"
            return Result(Status.OK, text, warnings=(notice,) if notice else ())
        target = next(one for one in self.targets if one.section == entry.name)
        summary = f"{count(target.parts, 'part')}, {date_str_utils.human_size(target.size)}"
        summary += f", in {target.store}{note(target.store)}"
        summary += _disk_note(target, self._contexts(entry).config.general.work_folder)
        if target.errors:
            message = f"{target.errors[0]} ({target.failed_items} not stored; {summary})"
            return Result(Status.FAILED, message, target.hint, warnings=tuple(target.errors[1:]))
        if not self.flowed:
            message = "nothing was stored: no source gave a whole item"
            return Result(Status.FAILED, message, consequence=True)
        return Result(Status.OK, summary, items=target.parts, bytes=target.size)


def _disk_note(target: StoreProgress, work_folder: Path) -> str:
    """Return a note where a store lies on the same disk as WORK_FOLDER."""
    store = target.store
    try:
        return hung_mount.answer(str(store), lambda: same_disk_note(store, [work_folder]), _NOTE)
    except OSError:  # it was reached before, and what it holds counts
        return ""


def _source_result(source: SourceState) -> Result:
    """Return the result of a source whose items have ended."""
    items = [done.item for done in source.flowed]
    unclean = [
        about(done.item.name, line) for done in source.flowed for line in done.report.unclean
    ]
    return item_results.of_items(items, source.errors, stored=True, unclean=unclean)


def _stage(entry: Section, context: Context) -> Stage:
    """Return the stage of a section, built-in or user-defined. Raises BackupError."""
    if entry.declaration is None:
        return user_modules.stage(entry, context)
    return loader.stage(entry.file).stage(model.filled(entry, context.config))
