"""The stores of one run, from its mark to its manifest."""

from __future__ import annotations

import dataclasses
import functools
import shlex
import time
from collections.abc import Callable, Collection, Iterator, Sequence, Set
from contextlib import ExitStack
from datetime import datetime
from typing import TypeVar

from tools.base import crash, log, project, run_ids
from tools.base.errors import BackupError, ForbiddenError, StoreError, in_words
from tools.base.log import logger
from tools.base.result import Result, Status, worst
from tools.base.run_result import RunResult, SectionResult
from tools.catalog import identity, leftovers, markers, sequence, sshsig, writer_key
from tools.catalog.history import Past
from tools.catalog.manifest import Manifest
from tools.catalog.memory import Memory, Reached
from tools.catalog.sequence import Numbered
from tools.catalog.writer_key import WriterKey
from tools.config.model import Config, Section
from tools.engine import admission, section_runner
from tools.engine.admission import Admitted
from tools.engine.anomaly_guard import AnomalyGuard, Judged
from tools.engine.consent import Consent
from tools.engine.limits import Limits, within
from tools.engine.mode import Mode
from tools.engine.section_runner import Context
from tools.flow import item_record, reachability, store
from tools.flow.task import StoppedError

T = TypeVar("T")
Call = Callable[[], T]
_COMPARISON = 60.0  # seconds for the manifests of earlier runs
_ENDING = 60.0  # seconds that a store has for the end of a run whose MAX_RUNTIME is over


class Recording:
    """What is written into every store about a run, before and after its sections."""

    def __init__(
        self,
        config: Config,
        run_id: str,
        begin: datetime,
        mode: Mode,
        consent: Consent,
    ) -> None:
        """Record a run. mode: how the sections run, and what the stores hold in the end"""
        self._consent = consent
        self._config = config
        self._run_id = run_id
        self._begin = begin
        self._mode = mode
        self._stores: dict[str, Admitted] = {}  # by section: those that took the mark
        self._past = Past()
        self._limits: dict[str, Limits] = {}  # by section
        self._silent: set[str] = set()  # sections whose store did not answer in time
        self.refused: dict[str, Result] = {}  # by section: why the others take no part
        self.items: dict[str, item_record.StoredItem] = {}  # by label: those that a store holds
        self.missing: set[str] = set()  # labels of items that no store holds
        self.manifests: dict[str, Manifest] = {}  # by section: those that were written
        self._key = writer_key.of_config(config)
        self._memory = Memory(None)
        self._guard = AnomalyGuard(config, self._memory, run_id, tolerant=consent.shrink)
        self._numbered = Numbered()

    def open(
        self,
        chosen: Sequence[Section],
        contexts: Callable[[Section], Context],
        memory: Memory,
        following: Callable[[str], str],
        stack: ExitStack,
    ) -> str:
        """Mark the stores; what dead runs left there is removed. `stack` takes the marks away.

        following: gives the next run id where one is taken. Return the run id that all stores
        took. A store that is not the right one, cannot be reached or takes no mark takes no part.
        """
        self._memory = memory
        admitted_stores = self._admitted(chosen, contexts, memory)
        self._run_id, failed = admission.claimed(
            admitted_stores, self._run_id, following, self._within
        )
        for name, error in failed.items():
            self._refuse(name, error)
        for target in admitted_stores:
            if target.section not in failed:
                stack.callback(self._unmark, target)
                self._stores[target.section] = target
                self._sweep(target)
        histories = [target.history for target in self._stores.values()]
        config_id = identity.config_id(self._config.path)
        self._numbered = self._following(config_id)
        self._log_signer()
        self._past = Past(histories)
        self._guard = AnomalyGuard(
            self._config, memory, self._run_id, tolerant=self._consent.shrink
        )
        stores = {name: target.store for name, target in self._stores.items()}
        self._mode.begin(stores, self.refused, self._past)
        return self._run_id

    def _admitted(
        self,
        chosen: Sequence[Section],
        contexts: Callable[[Section], Context],
        memory: Memory,
    ) -> list[Admitted]:
        admitted: dict[str, Admitted] = {}  # by the store's id
        for entry in chosen:
            if entry.kind != "store" or entry.name in self.refused:
                continue
            try:
                context = contexts(entry)
                self._limits[entry.name] = _limits(entry, context)
                call = self._admission(entry, context, memory)
                one = reachability.waited(
                    entry.name, functools.partial(self._within, entry.name, call)
                )
                if one.identity in admitted:
                    raise StoreError(
                        f"{one.store} is the store of {admitted[one.identity].section} as well",
                        "Give one of the sections another place.",
                    )
                admitted[one.identity] = one
            except Exception as error:  # noqa: BLE001  (see section_runner.failed)
                self._refuse(entry.name, error)
        return list(admitted.values())

    def _admission(self, entry: Section, context: Context, memory: Memory) -> Call[Admitted]:
        return lambda: admission.admitted(entry, context, memory, self._consent)

    def _within(self, section: str, call: Call[T]) -> T:
        """Return what a call of a store returns, under its limits: its disk may not answer.

        Raises StoppedError, and at once if it did not answer before.
        """
        limits = self._limits[section]
        if limits.deadline is not None:  # a run that took too long ends with its manifest
            deadline = max(limits.deadline, time.monotonic() + _ENDING)
            limits = dataclasses.replace(limits, deadline=deadline)
        if section in self._silent:
            raise StoppedError(f"{section} did not answer before")
        try:
            return within(limits, call)
        except StoppedError:
            self._silent.add(section)
            raise

    def _unmark(self, target: Admitted) -> None:
        try:
            self._within(
                target.section, lambda: leftovers.remove_marker(target.catalog, self._run_id)
            )
        except BackupError as error:
            logger.warning("%s: run marker not removed: %s", target.store, error)

    @property
    def signer(self) -> str:
        """Return the line of allowed_signers for this run's manifests; "" if they are unsigned."""
        if self._key is None:
            return ""
        return writer_key.allowed_signer(self._config.general.hostname, self._key.public)

    def _following(self, config_id: str) -> Numbered:
        """Return the number of this run and the run that it follows, over all stores."""
        catalogs = [target.catalog for target in self._stores.values()]
        newest = sequence.newest(catalogs, config_id)
        for name, target in self._stores.items():
            for line in sequence.missed([target.catalog], config_id, newest):
                command = self._catch_up(name, config_id, newest)
                logger.warning("%s. To copy them: %s", line, command)
        host = self._config.general.hostname
        remembered = self._memory.highest(host, config_id)
        reached = max(remembered, sequence.highest_claimed(catalogs, config_id))
        return dataclasses.replace(newest, number=reached + 1)

    def _catch_up(self, name: str, config_id: str, newest: Numbered) -> str:
        """Return the command that copies to a store the runs that it has missed.

        After this run --catch-up takes newer ones only: a store without runs needs all of them.
        """
        options = ["--catch-up"]
        if not any(sequence.claims(self._stores[name].catalog, config_id)):
            holders = (
                other for other, one in self._stores.items() if newest.run_id in one.catalog.run_ids
            )
            options = ["--from", next(holders), "--to", name]
        program = str(project.ROOT / "copy_runs/copy_runs.py")
        return f"python3 {shlex.join([program, '-c', str(self._config.path), *options])}"

    def _log_signer(self) -> None:
        """Tell who signs this run: always where it is the first of its signer, or nobody."""
        if self._key is None:
            path = self._config.general.writer_key
            logger.info("Runs are not signed: WRITER_KEY %s does not exist.", path)
        elif not self._numbered.run_id:
            log.always("Runs are signed. Keep this line where you restore: %s", self.signer)

    def _refuse(self, name: str, error: Exception) -> None:
        self.refused[name] = section_runner.failed(error)
        logger.info("%s takes no part: %s", name, self.refused[name].message)  # its result tells

    def _sweep(self, target: Admitted) -> None:
        age = self._config.general.leftovers_age
        sections = [section.name for section in self._config.sections]
        try:
            self._within(
                target.section,
                lambda: leftovers.remove_crashed_runs(target.catalog, self._run_id, age, sections),
            )
        except ForbiddenError as error:  # the line about the marker of this run tells it as well
            logger.info("%s: files of crashed runs stay: %s", target.section, error)
        except Exception as error:  # noqa: BLE001  (clean-up never ends a run)
            problem = crash.reportable(error)
            logger.warning("%s: nothing is cleaned up: %s", target.section, problem)

    def _judge(self, steps: list[SectionResult]) -> Judged:
        """Return what is unusual about this run; the sections tell."""
        judged = self._guard.judge(self._unread, list(self.items.values()), self.missing, steps)
        for line in judged.lines():
            if line.suspicious:
                hint = self._guard.hint(line.label)
                _worsen(steps, line.section, line.text, Status.INCOMPLETE, hint)
            else:
                _notice(steps, line.section, line.text)
        return judged

    def _unread(self, recorded: Set[str]) -> Iterator[tuple[str, Manifest | None]]:
        """Yield the runs of the stores that are not known, as many as can be read in a minute."""
        limits = Limits("the comparison with earlier runs", _COMPARISON)
        for name, target in self._stores.items():
            manifests: list[tuple[str, Manifest | None]] = []
            read = functools.partial(_extend, manifests, target, recorded)
            try:
                within(limits, read)
            except (BackupError, OSError) as error:
                text = in_words(error)[0]
                logger.warning("%s: not compared with all earlier runs: %s", name, text)
            yield from list(manifests)

    def remember(self, result: RunResult) -> None:
        """Record the figures of the run in the history of this machine."""
        self._guard.record(result, list(self.items.values()))

    def write(self, steps: list[SectionResult]) -> None:
        """Write a manifest into every store that holds something of this run."""
        items = {name: self._mode.items(name) for name in self._stores}
        self.items = {item.label: item for held in items.values() for item in held}
        self.missing = set(self._mode.missing())
        judged = self._judge(steps)
        items = {name: [judged.marked(item) for item in held] for name, held in items.items()}
        self.items = {label: judged.marked(item) for label, item in self.items.items()}
        everything = set(self.items) | self.missing
        warnings = [line for step in steps for line in step.result.warnings]
        end = run_ids.now()  # one for all: stores that hold the same items get the same manifest
        for name, target in self._stores.items():
            if not items[name]:
                continue
            manifest = Manifest(
                host=self._config.general.hostname,
                run_id=self._run_id,
                begin=run_ids.stamp(self._begin),
                end=end,
                mode=self._mode.name,
                status=worst(s.result.status for s in steps if _concerns(s, name)).value,
                items=tuple(items[name]),
                missing=tuple(sorted(everything - {item.label for item in items[name]})),
                warnings=tuple(warnings),
                config=self._config.digest,
                program=f"nc-backup-py {project.version()}",
                **dataclasses.asdict(identity.writer(self._config)),
                sequence=self._numbered.number,
                previous_run=self._numbered.run_id,
                previous=self._numbered.digests,
                accepted_rollback=self._consent.rollback,
            )
            try:
                problem = self._within(
                    name, functools.partial(_published, target, manifest, self._key)
                )
            except Exception as error:  # noqa: BLE001  (see section_runner.failed)
                _without_manifest(steps, name, crash.reportable(error))
                continue
            self.manifests[name] = manifest
            if problem:
                text = f"the manifest is stored, although the store reported: {problem}"
                _worsen(steps, name, text, Status.INCOMPLETE)
            self._remember(steps, target, manifest)
        for target in self._stores.values():
            for finding in target.warnings:
                _worsen(steps, target.section, finding.text, Status.INCOMPLETE, finding.hint)
        _excuse(steps, {entry.name for entry in self._config.sections if not entry.required})

    def _remember(self, steps: list[SectionResult], target: Admitted, manifest: Manifest) -> None:
        """Keep the number that a store has reached. The run is stored, even if that fails."""
        try:
            signer = "" if self._key is None else sshsig.fingerprint(self._key.public)
            newest = Reached(manifest.sequence, signer)
            self._memory.reach(target.identity, manifest.host, manifest.config_id, newest)
        except OSError as error:
            problem, hint = in_words(error)
            text = f"the number of this run could not be remembered: {problem}"
            _worsen(steps, target.section, text, Status.INCOMPLETE, hint)


def _extend(
    manifests: list[tuple[str, Manifest | None]], target: Admitted, recorded: Set[str]
) -> None:
    manifests.extend(target.history.unread(recorded))


def _published(target: Admitted, manifest: Manifest, key: WriterKey | None) -> str:
    with store.explaining(target.store):
        return markers.publish_manifest(target.catalog, manifest, key)


def _without_manifest(steps: list[SectionResult], name: str, error: BackupError | OSError) -> None:
    """Fail the section of a store that has no manifest: the run does not exist there."""
    if any(step.name == name and step.result.status.stored for step in steps):
        problem, hint = in_words(error)
        _worsen(steps, name, f"the manifest could not be stored: {problem}", Status.FAILED, hint)


def _worsen(
    steps: list[SectionResult], name: str, text: str, status: Status, hint: str = ""
) -> None:
    """Add what is known only after a section has ended to its result."""
    logger.log(40 if status is Status.FAILED else 30, "%s: %s", name, text)
    for number, step in enumerate(steps):
        if step.name == name:
            result = step.result
            now = worst((result.status, status))
            if status is Status.FAILED:
                result = dataclasses.replace(result, message=text, removable=(), hint=hint)
            else:
                lines = (*result.warnings, text)
                result = dataclasses.replace(result, warnings=lines, hint=result.hint or hint)
            result = dataclasses.replace(result, status=now)
            steps[number] = dataclasses.replace(step, result=result)


def _notice(steps: list[SectionResult], name: str, text: str) -> None:
    """Add to a result what every report tells first, and what is no fault of the run."""
    logger.warning("%s: %s", name, text)
    for number, step in enumerate(steps):
        if step.name == name:
            result = dataclasses.replace(step.result, notices=(*step.result.notices, text))
            steps[number] = dataclasses.replace(step, result=result)


def _excuse(steps: list[SectionResult], optional: Collection[str]) -> None:
    """Count an optional store that failed as incomplete where another store holds all of it."""
    stores = [number for number, step in enumerate(steps) if step.kind == "store"]
    holders = [number for number in stores if steps[number].result.status.stored]
    for number in stores if holders else ():
        step = steps[number]
        if step.name in optional and step.result.status is Status.FAILED:
            message = f"not required, and failed: {step.result.message}"
            excused = dataclasses.replace(step.result, status=Status.INCOMPLETE, message=message)
            steps[number] = dataclasses.replace(step, result=excused)


def _concerns(step: SectionResult, store: str) -> bool:
    """Return whether a section tells what a store holds: no check, no other store."""
    return step.kind != "check" and (step.kind != "store" or step.name == store)


def _limits(entry: Section, context: Context) -> Limits:
    stall = context.config.general.stall_timeout
    return Limits(entry.name, entry.timeout, stall, context.deadline)
