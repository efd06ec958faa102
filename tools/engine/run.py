"""The run: its lock, its sections in order, what may be removed, and what came of it all."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

from tools import date_str_utils, filesystem_handling
from tools.base import foreign, hung_mount, lock, signals
from tools.base.errors import BackupError, Cancelled, LockedError, in_words
from tools.base.log import logger
from tools.base.result import Result, Status, worst
from tools.base.run_result import ProgressListener, RunResult, SectionResult
from tools.catalog import identity
from tools.catalog.memory import Memory
from tools.config import model, run_mode
from tools.config.model import Config, Section
from tools.config.paths import unwritable
from tools.engine import hooks, priority, run_details, section_runner, state
from tools.engine.consent import Consent
from tools.engine.hooks import Outcome, RunHooks
from tools.engine.mode import Mode, StreamedMode
from tools.engine.run_recorder import Recording
from tools.engine.section_runner import CallResults, Context
from tools.engine.staged import Staged
from tools.engine.work_files import WorkFiles
from tools.flow import reachability
from tools.modules import registry, work_folder

_CLEANUP = "cleanup"  # role of sections that run when everything is stored
_DEEPEST = 10  # the run stops when free space falls below a tenth of the threshold


def _private(work_folder: Path) -> Path:
    """Return the private folder; where it cannot be made, the error names the key."""
    try:
        return state.folder(work_folder)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BackupError(
            f"WORK_FOLDER: {error.filename or work_folder}: {reason}",
            hint=unwritable("WORK_FOLDER", work_folder),
        ) from None


def perform(
    config: Config,
    chosen: Sequence[Section],
    watcher: ProgressListener | None,
    consent: Consent | None = None,
    began: Callable[[str], None] = lambda _run_id: None,
) -> RunResult:
    """Run the chosen sections. Every way to end but a bug gives an RunResult.

    began: called with the run ID once the run holds the lock
    """
    return _Run(config, chosen, watcher, consent or Consent()).perform(began)


class _Run:
    """One run while it goes on."""

    def __init__(
        self,
        config: Config,
        chosen: Sequence[Section],
        watcher: ProgressListener | None,
        consent: Consent,
    ) -> None:
        self.consent = consent
        self.config = config
        self.chosen = chosen
        self.watcher = watcher
        self.begin = datetime.now(timezone.utc)
        self.run_id = date_str_utils.run_id(self.begin)
        self.started = time.monotonic()
        self.steps: list[SectionResult] = []
        self.stopped = ""  # why the sections that are left do not run
        self.private = private_paths(config)
        self.calls: dict[str, CallResults] = defaultdict(CallResults)  # by section
        self.mode: Mode  # once the work folder may be looked at
        self.recording: Recording | None = None  # once the lock is held
        self.hooks = RunHooks(config, lambda: self.run_id)

    def perform(self, began: Callable[[str], None]) -> RunResult:
        """Run, and record what came of it."""
        priority.lower(self.config.general)
        result = self._caught(lambda: self._locked(began))
        if self.recording is not None:
            self.recording.remember(result)
        return result

    def _locked(self, began: Callable[[str], None]) -> RunResult:
        """Run between the commands before and after it, while the lock is held."""
        folder = _private(self.config.general.work_folder)
        self.run_id = state.claimed_run_id(folder)
        with lock.hold(folder / "lock"):
            self._clear(folder)
            outcome = Outcome(Status.FAILED, "internal error")
            try:
                result = self._caught(lambda: self._run_all(folder, began))
                reasons = () if result.status.stored else result.problem_lines()
                outcome = Outcome(result.status, next(iter(reasons), result.message))
            finally:
                failures = self.hooks.end(outcome)
            return hooks.noted_in_run(result, failures)

    def _run_all(self, folder: Path, began: Callable[[str], None]) -> RunResult:
        """Run, write the manifests, remove what may be removed. Raises what ends the run."""
        with ExitStack() as stack:
            stack.callback(_remove_quietly, folder / "run")
            self.hooks.begin()
            self._allow_waiting()
            self.mode = self._mode(folder)
            recording = self.recording = Recording(
                self.config, self.run_id, self.begin, self.mode, self.consent
            )
            recording.refused.update(self.hooks.enter_beside(self.chosen, self.mode.streamed))
            following = functools.partial(state.claimed_run_id, folder)
            self.run_id = recording.open(
                self.chosen, self.context, Memory(folder), following, stack
            )
            began(self.run_id)
            self._sections()
            recording.write(self.steps)
            self.mode.finish(self.steps)
            self.hooks.leave_beside(self.steps)
            self._clean_up(recording)
        return self._result()

    def _caught(self, call: Callable[[], RunResult]) -> RunResult:
        """Return the result of a call, also where an error or a signal ends it."""
        try:
            return call()
        except LockedError as error:
            return self._outcome(Status.LOCKED, str(error), error.hint)
        except Cancelled as cancelled:
            status = signals.status(cancelled.signal_number)
            return self._outcome(status, str(cancelled))
        except (BackupError, OSError) as error:
            status = Status.of_exit_code(getattr(error, "exit_code", 1))
            return self._outcome(status, *in_words(error))

    def _allow_waiting(self) -> None:
        """Let the run wait for what cannot be reached yet: CONNECT_WAIT, MAX_RUNTIME at most."""
        general = self.config.general
        longest: float = general.connect_wait
        if general.max_runtime is not None:
            ending = self.started + general.max_runtime
            longest = min(longest, max(0.0, ending - time.monotonic()))
        reachability.allow(longest, self.watcher.notice if self.watcher else None)

    def _mode(self, private: Path) -> Mode:
        """Return whether the run is staged or streamed, and log why."""
        way = run_mode.of_run(self.config)
        logger.info("This is a %s run: %s.", way.name, way.reason)
        if way.streamed:
            return StreamedMode(self.chosen, self.context, WorkFiles(self.config))
        return Staged(self.config, private, self.context)

    def _result(self) -> RunResult:
        """Return the worst of the sections; what was collected and not stored is no success."""
        status = worst(step.result.status for step in self.steps)
        kinds = frozenset(step.kind for step in self.steps)
        collected = bool(kinds & {"source", "stage"})
        if status.stored and collected and not self.mode.may_store(kinds):
            hint = "Run a section that stores as well: without one nothing can be restored."
            return self._outcome(Status.FAILED, "nothing was stored: no section of it stores", hint)
        return self._outcome(status)

    def _outcome(self, status: Status, message: str = "", hint: str = "") -> RunResult:
        return RunResult(
            run_id=self.run_id,
            hostname=self.config.general.hostname,
            begin=self.begin,
            seconds=time.monotonic() - self.started,
            status=status,
            sections=tuple(self.steps),
            message=message,
            hint=hint,
            destinations=destinations(self.chosen),
            mode=self.mode.name if self.steps else "",
            stores=run_details.stores(self.chosen, self.recording, self.steps),
            items=run_details.items(self.recording),
            origin=identity.origin(self.config),
        )

    def _clear(self, private_folder: Path) -> None:
        """Remove what a dead run left: it can have no owner, for we hold the lock."""
        filesystem_handling.remove(private_folder / "run")
        _remove_quietly(private_folder / "failed")
        waits = [entry.timeout for entry in self.config.sections if entry.timeout is not None]
        longest = min(waits, default=None)
        private = {str(hung_mount.real_path(path, longest)) for path in self.private}
        for entry in filesystem_handling.entries_below(
            self.config.general.work_folder,
            enter=lambda one: one.name[0] != "." and not _is_one_of(private, one.path),
            problem=lambda error: logger.warning("%s", error),
        ):
            if filesystem_handling.is_temporary(entry.name):
                logger.info("removing %s, which an ended run left unfinished", entry.path)
                _remove_quietly(Path(entry.path))

    def context(self, current: Section) -> Context:
        """Return what the run tells a section."""
        general = self.config.general
        private = state.folder(general.work_folder)
        return Context(
            self.config,
            self.run_id,
            filesystem_handling.make_folder(private / "run" / current.name),
            self.private,
            None if general.max_runtime is None else self.started + general.max_runtime,
            self.watcher.advance if self.watcher else None,
            self.mode.size,
            None if self.mode.streamed else private / work_folder.NAME,
            self.calls[current.name],
        )

    # --- the sections

    def _sections(self) -> None:
        """Run the sections in batches; those without a time of their own are noted in the end."""
        chosen = [current for current in self.chosen if current.kind != _CLEANUP]
        for number, current in enumerate(chosen, 1):
            if self.mode.streamed and current.kind in ("stage", "store"):
                logger.info("Section %d: %s.", number, current.name)
                self._log_arguments(current)
        for batch in self.mode.batches(chosen):
            able = [current for number, current in batch if self._may_run(number, current)]
            if able:
                self._run(able)
        for current, result, seconds in self.mode.untimed_results():
            self._note(current, result, seconds)
        order = [section.name for section in chosen]
        self.steps.sort(key=lambda step: order.index(step.name))

    def _clean_up(self, recording: Recording) -> None:
        """Run the clean-up sections, now that the manifests are there: nothing else waits.

        The backup is stored already, so a failure of clean-up is never worse than `unclean`.
        """
        cleaning = [current for current in self.chosen if current.kind == _CLEANUP]
        for number, current in enumerate(cleaning, len(self.chosen) - len(cleaning) + 1):
            if not self._may_run(number, current):
                continue
            began = time.monotonic()
            context = dataclasses.replace(self.context(current), advance=None)  # it moves no bytes
            if any(section.kind == "store" for section in self.chosen):
                context = dataclasses.replace(context, written=tuple(recording.manifests))
            result = section_runner.execute(current, context)
            self._note(current, result, time.monotonic() - began)

    def _run(self, batch: Sequence[Section]) -> None:
        """Run one batch and note what became of each section."""
        flows = self.mode.streamed and batch[0].kind == "source"
        if flows:
            for current in batch:
                self._log_arguments(current)
        if self.watcher and flows:
            self.watcher.expect(self.mode.expected(batch))
        began = time.monotonic()
        try:
            results = self.mode.run(batch, self.watcher.advance if self.watcher else None)
        except Exception as error:  # noqa: BLE001  (see section_runner.failed)
            results = dict.fromkeys((one.name for one in batch), section_runner.failed(error))
        for current in batch:
            self._note(current, results[current.name], time.monotonic() - began)

    def _may_run(self, number: int, current: Section) -> bool:
        """Return whether the section's turn has come; where not, its result says why."""
        self._check_space()
        logger.info("Section %d: %s.", number, current.name)
        if self.watcher:
            self.watcher.begin(number, current.name)
        reason = self.stopped or self._unmet(current)
        try:
            deadline = None if reason else self.context(current).deadline
        except Exception as error:  # noqa: BLE001  (see section_runner.failed)
            self._note(current, section_runner.failed(error), 0.0)
            return False
        if deadline is not None and time.monotonic() >= deadline:
            reason = self.stopped = "MAX_RUNTIME is over"
        message = f"not run: {reason}"
        not_run = Result(Status.FAILED, message, consequence=True) if reason else None
        if (refusal := not_run or self.hooks.enter(current)) is not None:
            self._note(current, refusal, 0.0)
        return refusal is None

    def _log_arguments(self, current: Section) -> None:
        """Log how a section of a streamed run works, and its arguments, secrets masked."""
        order = section_runner.command(current, self.config)
        logger.info("%s is a %s of the stream: %s", current.name, current.kind, order.masked())

    def _note(self, current: Section, result: Result, seconds: float) -> None:
        if current.kind == _CLEANUP and result.status is Status.FAILED:
            result = dataclasses.replace(result, status=Status.UNCLEAN)
        result = self.hooks.leave(current, result)
        self.steps.append(SectionResult(current.name, current.kind, result, seconds))
        level = {Status.OK: logger.info, Status.FAILED: logger.error}.get(
            result.status, logger.warning
        )
        level("%s: %s", current.name, result.message)
        for line in (*result.warnings, *foreign.lines(result.hint)):
            level("%s: %s", current.name, line)
        logger.info("Execution time in seconds: %s", round(seconds, 3))
        if self.watcher:
            self.watcher.end(current.name, result, seconds)
        if result.status is Status.FAILED and current.on_error == "stop" and not self.stopped:
            self.stopped = f"{current.name} failed, and its ON_ERROR is stop"

    def _unmet(self, current: Section) -> str:
        """Return why a section must not run now: what it needs has failed; "" if it may."""
        failed = {
            step.name: step.kind for step in self.steps if step.result.status is Status.FAILED
        }
        for name in current.needs:
            if name in failed:
                return f"it needs {name}, which failed"
        if current.kind in ("stage", "store"):
            stages = [name for name, kind in failed.items() if kind == "stage"]
            if stages:
                return f"it needs {stages[0]}, which failed"
            givers = [step for step in self.steps if step.kind in ("source", "")]
            empty = (s.result.status is Status.FAILED and not s.result.files for s in givers)
            if givers and all(empty):
                return f"{', '.join(step.name for step in givers)} failed"
        return ""

    def _check_space(self) -> None:
        """Apply the documented levels: a warning, an error, and the end (MANUAL)."""
        general = self.config.general
        if not general.disk_space_check or self.stopped:
            return
        folder = general.work_folder
        try:
            free = hung_mount.answer(folder, lambda: filesystem_handling.free_percent(folder))
        except OSError as error:
            self.stopped = f"free space of WORK_FOLDER: {in_words(error)[0]}"
            logger.critical("%s", self.stopped)
            return
        threshold = general.disk_space_threshold
        text = f"{free:.1f} % of the partition of {general.work_folder} is free"
        if free < threshold / _DEEPEST:
            self.stopped = f"{text}, less than a tenth of DISK_SPACE_THRESHOLD ({threshold:g} %)"
            logger.critical("%s", self.stopped)
        elif free < threshold / 2:
            logger.error("%s, less than half of DISK_SPACE_THRESHOLD (%g %%)", text, threshold)
        elif free < threshold:
            logger.warning("%s, less than DISK_SPACE_THRESHOLD (%g %%)", text, threshold)


def _is_one_of(paths: Collection[str], path: str) -> bool:
    """Return whether a path is one of these real paths; a mount point is not even looked at."""
    return path in paths or os.path.realpath(path) in paths


def _remove_quietly(folder: Path) -> None:
    try:
        filesystem_handling.remove(folder)
    except OSError as error:
        logger.warning("%s could not be removed: %s", folder, error.strerror)


def destinations(sections: Sequence[Section]) -> tuple[str, ...]:
    """Return the storages, as the report names them."""
    return tuple(dict.fromkeys(run_details.store_kind(s) for s in sections if s.kind == "store"))


def private_paths(config: Config) -> tuple[str, ...]:
    """Return what no source may back up: work folder, stores, key files, the writer key."""
    paths = [config.general.work_folder, config.general.writer_key]
    if config.general.local_backup:
        paths.append(config.general.local_backup)
    for entry in config.sections:
        row = registry.row(entry.file)
        if row is None or not row.private:
            continue
        filled = model.filled(entry, config)
        for name in row.private:
            value = getattr(filled, name, None)
            if isinstance(value, Path):
                paths.append(value)
                if name == "key_file":
                    paths.append(value.with_name(value.name + registry.IDENTITY))
    return tuple(dict.fromkeys(str(path) for path in paths))
