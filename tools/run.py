"""The run: its lock, its sections in order, what may be removed, and what came of it all."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from tools import date_str_utils, filesystem_handling, lock, options, os_works, section
from tools.config import Config, Section
from tools.errors import BackupError, Cancelled, ConfigError, LockedError
from tools.log import logger
from tools.result import Result, Status, worst

_STATE = ".nc-backup-py"  # in WORK_FOLDER: lock, undelivered reports, results of a running run
_DEEPEST = 10  # the run stops when free space falls below a tenth of the threshold


class Watcher(Protocol):
    """Whoever looks on while a run goes: each call stands for one event, in their order."""

    def begin(self, number: int, name: str) -> None:
        """A section begins; the first is number 1."""

    def advance(self, size: int) -> None:
        """So many bytes of the section have passed."""

    def end(self, name: str, result: Result, seconds: float) -> None:
        """A section has ended."""


@dataclass(frozen=True)
class Step:
    """One section of a run, its result, and how many seconds it took."""

    name: str
    kind: str
    result: Result
    seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What came of a run: the report, --json, the table and the exit code are made from it."""

    run_id: str
    hostname: str
    begin: datetime
    seconds: float
    status: Status
    steps: tuple[Step, ...] = ()
    message: str = ""
    hint: str = ""
    destinations: tuple[str, ...] = ()

    @property
    def size(self) -> str:
        """The size that a size plugin measured, else of what a store took, else N/A."""
        for step in reversed(self.steps):
            if step.result.size:
                return step.result.size
        stored = max((s.result.bytes for s in self.steps if s.kind == "store"), default=0)
        return date_str_utils.human_size(stored) if stored else "N/A"

    def troubles(self) -> tuple[str, ...]:
        """What went wrong or is missing, a line each; empty when all is well."""
        lines = [self.message] if self.message else []
        for step in self.steps:
            if step.result.status is not Status.OK:
                lines.append(f"{step.name}: {step.result.message}")
                lines += [f"{step.name}: {warning}" for warning in step.result.warnings]
        return tuple(lines)


def state_folder(work_folder: Path) -> Path:
    """The private folder of the run's own files, made where it is missing."""
    return filesystem_handling.make_folder(work_folder / _STATE)


def owned_state_folder(work_folder: Path) -> Path | None:
    """The same where the work folder is there and is this user's; None elsewhere.

    For whoever may not run: what root made here would lock out the user of the backup.
    """
    ours = work_folder.is_dir() and work_folder.stat().st_uid == os.geteuid()
    return state_folder(work_folder) if ours else None


def claimed_run_id(state: Path) -> str:
    """A run id that no other start has got, though several start in one second.

    The one that finds another run going on, and the one that is refused, report too, and the
    report server drops what comes twice under one run id.
    """
    last = state / "last_run_id"
    with lock.waiting(state / "last_run_id.lock"):
        while True:
            run_id = date_str_utils.run_id()
            if not last.exists() or last.read_text(encoding="ascii") != run_id:
                last.write_text(run_id, encoding="ascii")
                return run_id
            time.sleep(0.05)


def perform(config: Config, chosen: Sequence[Section], watcher: Watcher | None) -> Outcome:
    """Run the chosen sections. Every way to end but a bug gives an Outcome."""
    return _Run(config, chosen, watcher).perform()


class _Run:
    """One run while it goes on."""

    def __init__(self, config: Config, chosen: Sequence[Section], watcher: Watcher | None) -> None:
        self.config = config
        self.chosen = chosen
        self.watcher = watcher
        self.begin = datetime.now(timezone.utc)
        self.run_id = date_str_utils.run_id(self.begin)
        self.started = time.monotonic()
        self.steps: list[Step] = []
        self.stopped = ""  # why the sections that are left do not run

    def perform(self) -> Outcome:
        """Take the lock, run, remove what may be removed."""
        try:
            state = state_folder(self.config.general.work_folder)
            self.run_id = claimed_run_id(state)
            with ExitStack() as stack:
                stack.enter_context(lock.hold(state / "lock"))
                self._clear(state)
                stack.callback(_remove_quietly, state / "run")
                self._sections(state)
                self._remove_stored()
            return self._ended()
        except LockedError as error:
            return self._outcome(Status.LOCKED, str(error), error.hint)
        except Cancelled as cancelled:
            status = os_works.status_of_signal(cancelled.signal_number)
            return self._outcome(status, str(cancelled))
        except (BackupError, OSError) as error:
            status = Status.of_exit_code(getattr(error, "exit_code", 1))
            return self._outcome(status, str(error), getattr(error, "hint", ""))

    def _ended(self) -> Outcome:
        """The worst of the sections; what was collected and went nowhere is no success."""
        status = worst(step.result.status for step in self.steps)
        kinds = {step.kind for step in self.steps}
        collected = bool(kinds & {"source", "stage"})
        may_store = bool(kinds & {"store", ""})  # a module of the user's own may be a store
        if status.stored and collected and not may_store:
            hint = "Run a section that stores as well: without one nothing can be restored."
            return self._outcome(Status.FAILED, "nothing was stored: no section of it stores", hint)
        return self._outcome(status)

    def _outcome(self, status: Status, message: str = "", hint: str = "") -> Outcome:
        return Outcome(
            run_id=self.run_id,
            hostname=self.config.general.hostname,
            begin=self.begin,
            seconds=time.monotonic() - self.started,
            status=status,
            steps=tuple(self.steps),
            message=message,
            hint=hint,
            destinations=destinations(self.chosen),
        )

    def _clear(self, state: Path) -> None:
        """Remove what a dead run left: it can have no owner, for we hold the lock."""
        for leftover in (state / "run", state / "failed"):
            filesystem_handling.remove(leftover)
        for folder in sorted(self.config.general.work_folder.iterdir()):
            if folder.is_dir() and not folder.is_symlink() and folder.name != _STATE:
                for entry in folder.iterdir():
                    if filesystem_handling.is_temporary(entry.name):
                        logger.info("removing %s, which an ended run left unfinished", entry)
                        filesystem_handling.remove(entry)

    def _sections(self, state: Path) -> None:
        general = self.config.general
        deadline = None if general.max_runtime is None else self.started + general.max_runtime
        private = private_paths(self.config)
        for number, current in enumerate(self.chosen, 1):
            self._check_space()
            if deadline is not None and time.monotonic() >= deadline and not self.stopped:
                self.stopped = "MAX_RUNTIME is over"
            logger.info("Section %d: %s.", number, current.name)
            if self.watcher:
                self.watcher.begin(number, current.name)
            reason = self.stopped or self._unmet(current)
            began = time.monotonic()
            if reason:
                result = Result(Status.FAILED, f"not run: {reason}")
            else:
                folder = filesystem_handling.make_folder(state / "run" / current.name)
                advance = self.watcher.advance if self.watcher else None
                context = section.Context(
                    self.config, self.run_id, folder, private, deadline, advance
                )
                result = self._guarded(current, context, state)
            self._note(current, result, time.monotonic() - began)

    def _guarded(self, current: Section, context: section.Context, state: Path) -> Result:
        """Run one section; what a failed source leaves is never stored as if it were whole."""
        if current.kind not in ("", "source"):
            return section.execute(current, context)
        before = self._work_files()
        result = section.execute(current, context)
        if result.status is Status.FAILED:
            aside = state / "failed" / current.name
            new = [path for path, seen in self._work_files().items() if before.get(path) != seen]
            for path in new:
                place = aside / path.relative_to(self.config.general.work_folder)
                filesystem_handling.make_folder(place.parent)
                path.rename(place)
                logger.warning("%s failed: %s is put aside until the next run", current.name, path)
        return result

    def _work_files(self) -> dict[Path, tuple[int, int, int]]:
        """The files in the work folder that could be stored, with inode, size and time."""
        general = self.config.general
        kept = [general.local_backup] if general.local_backup else []
        found = {}
        for top in general.work_folder.iterdir():
            if top.name.startswith(".") or top in kept:
                continue
            for path in filesystem_handling.files_below(top):
                status = path.stat()
                found[path] = (status.st_ino, status.st_size, status.st_mtime_ns)
        return found

    def _note(self, current: Section, result: Result, seconds: float) -> None:
        self.steps.append(Step(current.name, current.kind, result, seconds))
        level = {Status.OK: logger.info, Status.FAILED: logger.error}.get(
            result.status, logger.warning
        )
        level("%s: %s", current.name, result.message)
        for line in (*result.warnings, *result.hint.splitlines()):
            level("%s: %s", current.name, line)
        logger.info("Execution time in seconds: %s", round(seconds, 3))
        if self.watcher:
            self.watcher.end(current.name, result, seconds)
        if result.status is Status.FAILED and current.on_error == "stop" and not self.stopped:
            self.stopped = f"{current.name} failed, and its ON_ERROR is stop"

    def _unmet(self, current: Section) -> str:
        """Why a section must not run now: what it needs has failed; "" if it may."""
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
            if givers and all(step.result.status is Status.FAILED for step in givers):
                return f"{', '.join(step.name for step in givers)} failed"
        return ""

    def _check_space(self) -> None:
        """The documented levels: a warning, an error, and the end (MANUAL)."""
        general = self.config.general
        if not general.disk_space_check or self.stopped:
            return
        free = filesystem_handling.free_percent(general.work_folder)
        threshold = general.disk_space_threshold
        text = f"{free:.1f} % of the partition of {general.work_folder} is free"
        if free < threshold / _DEEPEST:
            self.stopped = f"{text}, less than a tenth of DISK_SPACE_THRESHOLD ({threshold:g} %)"
            logger.critical("%s", self.stopped)
        elif free < threshold / 2:
            logger.error("%s, less than half of DISK_SPACE_THRESHOLD (%g %%)", text, threshold)
        elif free < threshold:
            logger.warning("%s, less than DISK_SPACE_THRESHOLD (%g %%)", text, threshold)

    def _remove_stored(self) -> None:
        """Remove the sources of the stores, when every store of the run has confirmed."""
        stores = [step for step in self.steps if step.kind == "store"]
        if not all(step.result.status.stored for step in stores):
            logger.warning("nothing is removed from the work folder: a store has not confirmed")
            return
        for number, step in enumerate(self.steps):
            if step.kind == "store" and step.result.removable:
                self.steps[number] = dataclasses.replace(step, result=_removed(step.result))


def _removed(result: Result) -> Result:
    """Remove what a store named; the result says so where that fails."""
    try:
        for name in result.removable:
            filesystem_handling.remove(Path(name))
    except (OSError, BackupError) as error:
        text = f"stored, but its source could not be removed: {error}"
        return dataclasses.replace(
            result, status=worst((result.status, Status.UNCLEAN)), message=text
        )
    return result


def _remove_quietly(folder: Path) -> None:
    try:
        filesystem_handling.remove(folder)
    except OSError as error:
        logger.warning("%s could not be removed: %s", folder, error.strerror)


def destinations(sections: Sequence[Section]) -> tuple[str, ...]:
    """The storages, as the report names them."""
    stores = (entry for entry in sections if entry.kind == "store")
    return tuple(dict.fromkeys(str(s.parameters.get("DESTINATION", "local")) for s in stores))


def private_paths(config: Config) -> tuple[str, ...]:
    """What no source may back up: work folder, stores, key files, folders between stages."""
    found = [config.general.work_folder]
    if config.general.local_backup:
        found.append(config.general.local_backup)
    for entry in config.sections:
        if entry.declaration is None or entry.kind not in ("stage", "store"):
            continue
        texts = {k: options.to_text(v) for k, v in {**config.handed, **entry.parameters}.items()}
        filled = options.fill(entry.declaration, texts)
        for name in ("key_file", "local_backup", "destination"):
            value = getattr(filled, name, None)
            if isinstance(value, Path):
                found.append(value)
    return tuple(dict.fromkeys(str(path) for path in found))


def select(config: Config, only: Sequence[str], skip: Sequence[str]) -> list[Section]:
    """The sections to run. Raises ConfigError for a name that no section has."""
    names = [entry.name for entry in config.sections]
    for wanted in (*only, *skip):
        if wanted not in names:
            raise ConfigError(f"there is no section {wanted}", f"Sections: {', '.join(names)}.")
    return [s for s in config.sections if (not only or s.name in only) and s.name not in skip]
