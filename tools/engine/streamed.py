"""The streamed run: items flow from their sources through the stages into every store at once."""

from __future__ import annotations

import functools
import queue
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tools import date_str_utils, os_works
from tools.base.errors import BackupError
from tools.base.log import logger
from tools.base.result import Result, Status, of_error
from tools.catalog.history import Past
from tools.config import model
from tools.config.model import Section
from tools.engine import user_modules
from tools.engine.section_runner import Context
from tools.flow import dump_stream, item_results, pipeline, process
from tools.flow.fan_out import StoreProgress
from tools.flow.item import Item, SourceContext, Stage
from tools.flow.pipeline import FlowResult
from tools.flow.stopwatch import Stopwatch
from tools.flow.store import Store, beside
from tools.modules import loader, registry

_TICK = 0.2  # seconds between two looks at time limits and progress
_LINGER = 15.0  # seconds that a thread gets to end when its item has been stopped


@dataclass
class _Source:
    """One source section while its items flow."""

    section: Section
    flowed: list[FlowResult] = field(default_factory=list)
    errors: list[tuple[str, BackupError | OSError]] = field(default_factory=list)
    stopped: str = ""  # why its items were ended
    began: float = 0.0
    moved: float = 0.0  # when bytes came last
    size: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, size: int) -> None:
        """So many plain bytes have passed. Raises BackupError where it has been stopped."""
        if self.stopped:
            raise BackupError(self.stopped)
        with self.lock:
            self.size += size
        self.moved = time.monotonic()


def open_section_store(current: Section, context: Context) -> Store:
    """The store of a section, built-in or the user's own. Raises BackupError."""
    if current.declaration is None:
        return user_modules.ProgramStore(current, context)
    return loader.store(current.file).open_store(model.filled(current, context.config))


class Streamed:
    """The flows of one run: what has been stored, and what became of stages and stores."""

    def __init__(self, chosen: Sequence[Section], contexts: Callable[[Section], Context]) -> None:
        """contexts: what the run tells a section."""
        self._contexts = contexts
        self._stages = [entry for entry in chosen if entry.kind == "stage"]
        self._stores = [entry for entry in chosen if entry.kind == "store"]
        self._failed: dict[str, Result] = {}  # stages and stores that could not begin
        self._made: list[Stage] | None = None
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
        """The bytes that the fullest store has taken."""
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
            return {entry.name: Result(Status.FAILED, reason) for entry in group}
        sources = {entry.name: _Source(entry) for entry in group}
        tasks: queue.SimpleQueue[tuple[_Source, Item]] = queue.SimpleQueue()
        order: dict[tuple[str, str], int] = {}
        for source in sources.values():
            for item in self._items(source):
                order[source.section.name, item.name] = len(order)
                tasks.put((source, item))
        before = len(self.flowed)
        self._drive(list(sources.values()), tasks, advance)
        # as the sources give them, not as they end: a restore needs the roles before the databases
        self.flowed[before:] = sorted(
            self.flowed[before:], key=lambda done: order[done.item.section, done.item.name]
        )
        return {
            name: item_results.of_items(
                [done.item for done in source.flowed], source.errors, stored=True
            )
            for name, source in sources.items()
        }

    def expected(self, group: Sequence[Section]) -> int | None:
        """Return the plaintext bytes of these sources in the last good run; None if unknown."""
        return sum(self._past.section_size(entry.name) or 0 for entry in group) or None

    def _open(self) -> None:
        """The stages and stores, when the first source is there."""
        if self._made is not None:
            return
        self._made = []
        for entry in self._stages:
            context = self._contexts(entry)
            try:
                stage = _stage(entry, context)
                watch = self._watches[entry.name] = Stopwatch()
                self._made.append(replace(stage, forward=watch.stage(stage.forward)))
                if stage.notice:
                    logger.warning("%s: %s", entry.name, stage.notice)
            except (BackupError, OSError) as error:
                self._failed[entry.name] = _failure(error)
        for entry in self._stores:
            if entry.name in self._opened:
                target = StoreProgress(entry.name, self._opened[entry.name])
                self._watches[entry.name] = target.watch
                self.targets.append(target)

    def _blocked(self) -> str:
        """Why nothing can flow; "" if it can."""
        for entry in self._stages:
            if entry.name in self._failed:
                return f"not run: it needs {entry.name}, which failed"
        if not self.targets:
            failed = [entry.name for entry in self._stores if entry.name in self._failed]
            what = f"it needs {failed[0]}, which failed" if failed else "no section stores anything"
            return f"not run: {what}"
        return ""

    def _items(self, source: _Source) -> Sequence[Item]:
        """What a source has to give; an error is kept as its result."""
        entry = source.section
        context = self._contexts(entry)
        try:
            if entry.declaration is None:
                return (user_modules.item(entry, context),)
            source_context = SourceContext(
                context.run_id,
                entry.name,
                tuple(map(Path, context.private)),
                functools.partial(self._past.earlier, entry.name),
            )
            with os_works.passing(entry.environment):
                found = loader.source(entry.file).items(
                    model.filled(entry, context.config), source_context
                )
        except (BackupError, OSError) as error:
            source.errors.append(("", error))
            self.missing.append(entry.name)
            return ()
        return found

    # --- threads

    def _drive(
        self,
        sources: Sequence[_Source],
        tasks: queue.SimpleQueue[tuple[_Source, Item]],
        advance: Callable[[int], None] | None,
    ) -> None:
        """Work through the tasks in threads, and look after time limits meanwhile."""
        general = self._contexts(sources[0].section).config.general
        # Not Thread.join: interrupted by a signal, it may take a living thread for a dead one
        # (https://github.com/python/cpython/issues/90882).
        ended: queue.SimpleQueue[None] = queue.SimpleQueue()
        living = 0
        try:
            for _ in range(min(general.parallel, tasks.qsize())):
                threading.Thread(target=self._work, args=(tasks, ended), daemon=True).start()
                living += 1
            while living:
                for source in sources:
                    self._limit(source)
                if advance is not None:
                    advance(sum(source.size for source in sources))
                living -= _ended(ended, _TICK)
        except BaseException:
            for source in sources:
                source.stopped = source.stopped or "the run was ended"
            for source in sources:
                process.end_all(source.section.name)
            until = time.monotonic() + _LINGER
            while living and time.monotonic() < until:
                living -= _ended(ended, _TICK)
            raise

    def _work(
        self,
        tasks: queue.SimpleQueue[tuple[_Source, Item]],
        ended: queue.SimpleQueue[None],
    ) -> None:
        """One thread: item after item."""
        try:
            while True:
                try:
                    source, item = tasks.get_nowait()
                except queue.Empty:
                    return
                process.owner.set(source.section.name)
                with os_works.passing(source.section.environment):
                    self._one(source, item)
        finally:
            ended.put(None)

    def _one(self, source: _Source, item: Item) -> None:
        """One item from its source into the stores; whatever happens is kept as its result."""
        entry = source.section
        context = self._contexts(entry)
        called = f"{entry.name}/{item.name}" if item.name else entry.name
        where = pipeline.ItemContext(
            f"{context.config.general.hostname}/{context.run_id}",
            source.count,
            self._past.size_of(called) if registry.kind(item.kind).steady else None,
        )
        source.began = source.began or time.monotonic()
        source.moved = time.monotonic()
        try:
            source.count(0)  # not even begun, where the section has been stopped
            done = dump_stream.again(
                lambda: pipeline.store_item(
                    item, entry.name, self._made or [], self.targets, where
                ),
                lambda line: logger.warning("%s: %s", called, line),
            )
        except (BackupError, OSError) as error:
            self._lost(source, item, error)
        except Exception as bug:  # noqa: BLE001  (a bug is a failure of this item alone)
            logger.critical("%s", traceback.format_exc())
            self._lost(source, item, BackupError(f"crashed: {type(bug).__name__}: {bug}"))
        else:
            for note in done.report.notes:
                logger.info("%s: %s", done.item.label, note)
            source.errors += [(item.name, error) for error in done.failures]
            source.flowed.append(done)
            self.flowed.append(done)

    def _lost(self, source: _Source, item: Item, error: BackupError | OSError) -> None:
        called = f"{source.section.name}/{item.name}" if item.name else source.section.name
        source.errors.append((item.name, BackupError(source.stopped) if source.stopped else error))
        self.missing.append(called)

    def _limit(self, source: _Source) -> None:
        """End the items of a source whose time is over."""
        if source.stopped or not source.began:
            return
        now = time.monotonic()
        entry, context = source.section, self._contexts(source.section)
        stall = context.config.general.stall_timeout
        if context.deadline is not None and now >= context.deadline:
            _stop(source, f"{entry.name} took longer than its MAX_RUNTIME and was ended")
        elif entry.timeout is not None and now >= source.began + entry.timeout:
            limit = f"TIMEOUT of {entry.timeout:g} s"
            _stop(source, f"{entry.name} took longer than its {limit} and was ended")
        elif stall is not None and now >= source.moved + stall:
            _stop(source, f"nothing came from {entry.name} for {stall:g} s (STALL_TIMEOUT)")

    # --- results

    def seconds_of(self, entry: Section) -> float:
        """Return how long a stage or a store worked, in all threads, without its waiting."""
        watch = self._watches.get(entry.name)
        return 0.0 if watch is None else max(0.0, watch.seconds)

    def result_of(self, entry: Section) -> Result:
        """What became of a stage or a store in this run."""
        if entry.name in self._failed:
            return self._failed[entry.name]
        if self._made is None:
            return Result(Status.OK, "nothing to do: no source ran")
        count = date_str_utils.count
        if entry.kind == "stage":
            notice = self._made[self._stages.index(entry)].notice
            text = f"{count(len(self.flowed), 'item')} went through"
            return Result(Status.OK, text, warnings=(notice,) if notice else ())
        target = next(found for found in self.targets if found.section == entry.name)
        summary = f"{count(target.parts, 'part')}, {date_str_utils.human_size(target.size)}"
        summary += f", in {target.store}"
        summary += beside(target.store, [self._contexts(entry).config.general.work_folder])
        if target.errors:
            what = f"{target.errors[0]} ({target.lost} not stored; {summary})"
            return Result(Status.FAILED, what, target.hint, warnings=tuple(target.errors[1:]))
        if not self.flowed:
            return Result(Status.FAILED, "nothing was stored: no source gave a whole item")
        return Result(Status.OK, summary, items=target.parts, bytes=target.size)


def _stage(entry: Section, context: Context) -> Stage:
    """The stage of a section, built-in or user-defined. Raises BackupError."""
    if entry.declaration is None:
        return user_modules.stage(entry, context)
    return loader.stage(entry.file).stage(model.filled(entry, context.config))


def _failure(error: BackupError | OSError) -> Result:
    """The result of a stage or store that cannot begin: the run has started, so it failed."""
    return replace(of_error(error), status=Status.FAILED)


def _ended(ended: queue.SimpleQueue[None], seconds: float) -> int:
    """Wait for a thread to end: 1 where one has, 0 where the time is over."""
    try:
        ended.get(timeout=seconds)
    except queue.Empty:
        return 0
    return 1


def _stop(source: _Source, reason: str) -> None:
    """End what a source has running; its threads then end by themselves."""
    source.stopped = source.stopped or reason
    process.end_all(source.section.name)
