"""The anomaly guard of one run: its figures against those of the last good runs.

What it finds never stops a run: a suspicious item is stored, named, and marked in the manifest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime

from tools.base import crash, foreign, project, run_ids
from tools.base.log import logger
from tools.base.result import Status
from tools.base.run_result import RunResult, SectionResult
from tools.catalog import figures, identity
from tools.catalog.figures import Acceptance
from tools.catalog.manifest import Manifest
from tools.catalog.memory import Memory
from tools.config.model import Config
from tools.engine import run_history
from tools.engine.run_history import Entry, HistoryError, RunEntry, RunHistory
from tools.flow import anomaly
from tools.flow.anomaly import Counted, Figures, Thresholds, Verdict
from tools.flow.item_record import StoredItem

Unread = Callable[[Set[str]], Iterable[tuple[str, Manifest | None]]]
_ITEMS = Counted("items", 3)
_WORKING = ("source", "stage", "store")  # roles of sections whose duration is compared
_ATTEMPTS = 3  # the database, a new one where it is damaged, one in memory


@dataclass(frozen=True)
class Line:
    """One thing that is unusual about an item, or a section.

    label: of the item, or name of the section; text: for the result of the section
    """

    section: str
    label: str
    text: str
    suspicious: bool


@dataclass(frozen=True)
class Judged:
    """What is unusual about a run: by label of its items, and by name of its sections."""

    items: Mapping[str, Verdict] = field(default_factory=dict)
    sections: Mapping[str, Verdict] = field(default_factory=dict)

    def lines(self) -> Iterator[Line]:
        """Yield all that is unusual."""
        for label, verdict in (*self.items.items(), *self.sections.items()):
            section = label.partition("/")[0]
            name = "" if label == section else f"{label}: "
            for text in verdict.suspicious:
                line = f"{name}stored, but suspicious: {text}"
                yield Line(section, label, line, suspicious=True)
            for text in verdict.unusual:
                yield Line(section, label, f"{name}unusual: {text}", suspicious=False)

    def marked(self, item: StoredItem) -> StoredItem:
        """Return an item with the verdict on it."""
        verdict = self.items.get(item.label, Verdict())
        if (verdict.suspicious, verdict.grave) == (item.suspicious, item.grave):
            return item
        return dataclasses.replace(item, suspicious=verdict.suspicious, grave=verdict.grave)


class AnomalyGuard:
    """The guard of one run, and what it records of the run."""

    def __init__(self, config: Config, memory: Memory, run_id: str, *, tolerant: bool) -> None:
        """Compare the items of a run. tolerant: suspicious ones are accepted (--accept-shrink)"""
        self._config = config
        self._host = config.general.hostname
        self._config_id = identity.config_id(config.path)
        self._memory = memory
        self._run_id = run_id
        self._tolerant = tolerant
        self._open: Callable[[], RunHistory] = functools.partial(run_history.opened, memory.state)
        self._history: RunHistory | None = None
        self._judged = Judged()

    def hint(self, label: str) -> str:
        """Return what to do about a suspicious item."""
        command = [str(project.ROOT / "backup.py"), "-c", str(self._config.path), "--accept", label]
        return (
            "Check that the source is mounted, complete and not encrypted by somebody else. Its "
            f"older copies are kept. If the change is intended: python3 {shlex.join(command)}"
        )

    def judge(
        self,
        unread: Unread,
        items: Sequence[StoredItem],
        missing: Set[str],
        steps: Sequence[SectionResult],
    ) -> Judged:
        """Return what is unusual about this run.

        unread: gives the runs of the stores that are not among these ids
        """
        try:
            self._judge(unread, items, missing, steps)
        except Exception as error:  # noqa: BLE001  (what is stored gets its manifest)
            text = f"not compared with earlier runs: {crash.reportable(error)}"
            self._judged = Judged(sections={one.name: Verdict((text,)) for one in steps[:1]})
        return self._judged

    def _judge(
        self,
        unread: Unread,
        items: Sequence[StoredItem],
        missing: Set[str],
        steps: Sequence[SectionResult],
    ) -> None:
        for _attempt in range(_ATTEMPTS):
            try:
                self._history = self._history or self._open()
                self._learn(self._history, unread)
                with self._history.reading():
                    self._judged = self._compared(self._history, items, missing, steps)
                break
            except HistoryError as error:
                self._replace(error)
        if self._tolerant:
            self._judged = self._tolerated()

    def record(self, result: RunResult, items: Sequence[StoredItem]) -> None:
        """Record the figures of the run; a database that takes none is no fault of the run."""
        run = RunEntry(
            self._host,
            result.run_id,
            self._config_id,
            result.status.value,
            result.seconds,
            sum(item.size or 0 for item in items),
            sum(item.stored for item in items),
            len(items),
            tuple(foreign.line(f"{one.section}: {one.text}") for one in self._judged.lines()),
        )
        try:
            history = self._history or self._open()
            history.add([(run, list(self._recorded(result, items)))])
            history.close()
        except HistoryError as error:
            if self._open is not run_history.in_memory:
                logger.warning("%s: this run is not recorded", error)
        except Exception as error:  # noqa: BLE001  (the run is stored, and its result stands)
            logger.warning("history: this run is not recorded: %s", crash.reportable(error))

    def _replace(self, error: HistoryError) -> None:
        """Use a new database where this one is damaged, one in memory where it cannot be used."""
        if self._open is run_history.in_memory:  # no SQLite at all, which was said
            return
        if self._history is not None:
            with contextlib.suppress(HistoryError):
                self._history.close()
            self._history = None
        try:
            if error.damaged and self._memory.state is not None:
                run_history.move_aside(self._memory.state)
                logger.warning("%s: moved aside, and made again from the stores", error)
                return
        except OSError as problem:
            logger.warning("%s", problem)
        logger.warning("%s: this run is not recorded", error)
        self._open = run_history.in_memory

    # --- earlier runs

    def _learn(self, history: RunHistory, unread: Unread) -> None:
        """Record the runs of the stores that the database lacks."""
        manifests: dict[str, Manifest] = {}
        bad: dict[str, tuple[RunEntry, list[Entry]]] = {}
        for run_id, manifest in unread(history.recorded_run_ids(self._host)):
            if manifest is None:
                bad[run_id] = run_history.unusable(self._host, run_id), []
            elif run_id not in manifests or manifests[run_id].missing:
                manifests[run_id] = manifest
        if manifests or bad:
            runs = learned(manifests, self._accepted(), self._config.thresholds)
            history.add([*bad.values(), *runs])

    def _accepted(self) -> dict[str, Sequence[str]]:
        """Return by label the runs from which on an item is right, oldest first."""
        accepted, tolerated = self._memory.accepted(self._host), self._memory.tolerated(self._host)
        return {
            label: sorted({*accepted.get(label, ()), *tolerated.get(label, ())})
            for label in (*accepted, *tolerated)
        }

    # --- this run

    def _compared(
        self,
        history: RunHistory,
        items: Sequence[StoredItem],
        missing: Set[str],
        steps: Sequence[SectionResult],
    ) -> Judged:
        accepted = self._accepted()
        thresholds_of = functools.cache(self._config.thresholds)
        moment = run_ids.time_of(self._run_id)

        def good(label: str, section: str, name: str | None) -> list[Figures]:
            return history.good(
                self._host,
                section,
                name,
                self._config_id,
                since=max(accepted.get(label, ()), default=""),
                until=self._run_id,
                most=self._config.general.anomaly_runs,
            )

        of_items = {
            item.label: figures.judge(
                item,
                figures.of_item(item, moment),
                good(item.label, item.section, item.name),
                thresholds_of(item.section),
            )
            for item in items
        }
        of_sections = {}
        explained = {one.section for one in items if of_items[one.label].unusual}
        lacking = {label.partition("/")[0] for label in missing}
        for step in steps:
            thresholds = thresholds_of(step.name)
            works = step.kind in _WORKING and step.result.status.stored
            if thresholds is not None and works and step.name not in lacking:
                now = _of_section(step, items, moment)
                if step.name in explained:
                    now = dataclasses.replace(now, seconds=None)
                past = good(step.name, step.name, None)
                of_sections[step.name] = anomaly.judge(now, past, thresholds, _ITEMS)
        return Judged(of_items, of_sections)

    def _tolerated(self) -> Judged:
        """Return the verdicts without what is suspicious, and remember that it was accepted."""
        labels = {line.label for line in self._judged.lines() if line.suspicious}
        try:
            self._memory.tolerate(self._host, dict.fromkeys(labels, self._run_id))
        except OSError as error:
            logger.warning("--accept-shrink is not remembered for later runs: %s", error)
        return Judged(*(
            {name: Verdict(unusual=one.unusual) for name, one in verdicts.items()}
            for verdicts in (self._judged.items, self._judged.sections)
        ))  # fmt: skip

    def _recorded(self, result: RunResult, items: Sequence[StoredItem]) -> Iterator[Entry]:
        """Yield the figures of the items and sections of this run."""
        moment = run_ids.time_of(result.run_id)
        for item in items:
            now, bad = figures.of_item(item, moment), bool(item.suspicious)
            yield Entry(item.section, item.name, item.kind, now, suspicious=bad)
        for step in result.sections:
            bad = bool(self._judged.sections.get(step.name, Verdict()).suspicious)
            now = _of_section(step, items, moment)
            status = step.result.status.value
            yield Entry(step.name, None, step.kind, now, status, suspicious=bad)


def learned(
    runs: Mapping[str, Manifest],
    accepted: Mapping[str, Sequence[str]],
    thresholds: Callable[[str], Thresholds | None],
) -> Iterator[tuple[RunEntry, list[Entry]]]:
    """Yield what is recorded of runs, by their id, that this machine did not record itself.

    accepted: by label: the runs from which on an item is right
    """
    acceptance = Acceptance(accepted)
    good: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    for run_id, run in sorted(runs.items()):
        entries = []
        for item in filter(figures.is_plausible, run.items):
            now = figures.of_item(item, run_ids.time_of(run_id))
            past = good[run.config_id, item.label]
            if acceptance.begins(item.label, run_id):
                past.clear()
            verdict = figures.judge(item, now, past, thresholds(item.section))
            bad = acceptance.refuses(item) or bool(verdict.suspicious)
            if not bad:
                past.append(now)
            entries.append(Entry(item.section, item.name, item.kind, now, suspicious=bad))
        yield _of_manifest(run, entries), [*entries, *_sections_of(run)]


def _of_section(step: SectionResult, items: Iterable[StoredItem], moment: datetime) -> Figures:
    """Return the figures of a section; the number of its items if it is a source."""
    count = sum(item.section == step.name for item in items) if step.kind == "source" else None
    return Figures(moment, stored=step.result.bytes, count=count, seconds=step.seconds)


def _of_manifest(run: Manifest, entries: Sequence[Entry]) -> RunEntry:
    seconds = None
    if run.begin and run.end:
        took = run_ids.time_of_stamp(run.end) - run_ids.time_of_stamp(run.begin)
        seconds = max(0.0, took.total_seconds())
    bad = tuple(
        foreign.line(f"{item.label}: {text}") for item in run.items for text in item.suspicious
    )
    return RunEntry(
        run.host, run.run_id, run.config_id, run.status, seconds, run.plain_size, run.size,
        len(entries), bad,
    )  # fmt: skip


def _sections_of(run: Manifest) -> Iterator[Entry]:
    """Yield the number of items of each section of an earlier run that lacks none of it."""
    lacking = {label.partition("/")[0] for label in run.missing}
    counts = Counter(item.section for item in run.items)
    moment = run_ids.time_of(run.run_id)
    for name in counts.keys() - lacking:
        yield Entry(name, None, "source", Figures(moment, count=counts[name]), Status.OK.value)
