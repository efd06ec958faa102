"""The two ways to run the sections of a config, behind one Protocol: streamed and staged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from tools.base.result import Result, Status
from tools.base.run_result import SectionResult
from tools.catalog.history import Past
from tools.config.model import Section
from tools.engine import section_runner
from tools.engine.section_runner import Context
from tools.engine.staged import Staged
from tools.engine.streamed import Streamed
from tools.engine.work_files import WorkFiles
from tools.flow.item_record import StoredItem
from tools.flow.store import Store

Advance = Callable[[int], None] | None
Batch = list[tuple[int, Section]]


class Mode(Protocol):
    """How the sections of one run do their work."""

    @property
    def name(self) -> str:
        """Return the name of the mode in manifests."""

    @property
    def streamed(self) -> bool:
        """Return whether items flow without files in between."""

    @property
    def size(self) -> int | None:
        """Return the bytes that the fullest store has taken so far; None where only files tell."""

    def begin(self, stores: Mapping[str, Store], refused: Mapping[str, Result], past: Past) -> None:
        """Take over the stores that are marked, by section, and why the others take no part."""

    def batches(self, chosen: Sequence[Section]) -> Iterator[Batch]:
        """Return the sections that have a time of their own, those at once that run together."""

    def expected(self, batch: Sequence[Section]) -> int | None:
        """Return the plaintext bytes that a batch had in the last good run; None if unknown."""

    def run(self, batch: Sequence[Section], advance: Advance) -> dict[str, Result]:
        """Run a batch; a result for each section. Raises Cancelled."""

    def untimed_results(self) -> Iterator[tuple[Section, Result, float]]:
        """Return results and seconds of the sections without a time of their own."""

    def items(self, store: str) -> Sequence[StoredItem]:
        """Return what a store section holds of this run."""

    def missing(self) -> Sequence[str]:
        """Return the items that no store has."""

    def may_store(self, kinds: frozenset[str]) -> bool:
        """Return whether sections of these kinds could have stored anything."""

    def finish(self, steps: list[SectionResult]) -> None:
        """Remove what may be removed once every store has its manifest."""


class StreamedMode:
    """Sources flow, in batches; stages and stores have no time of their own."""

    name = "streamed"
    streamed = True

    def __init__(
        self, chosen: Sequence[Section], contexts: Callable[[Section], Context], files: WorkFiles
    ) -> None:
        """Prepare a run. files: tells what modules that take no part in the stream leave"""
        self._chosen = chosen
        self._contexts = contexts
        self._files = files
        self._flows = Streamed(chosen, contexts)

    @property
    def size(self) -> int | None:
        """See Mode."""
        return self._flows.size

    def begin(self, stores: Mapping[str, Store], refused: Mapping[str, Result], past: Past) -> None:
        """See Mode."""
        self._flows.begin(stores, refused, past)

    def batches(self, chosen: Sequence[Section]) -> Iterator[Batch]:
        """See Mode: sources that do not wait for each other flow at once; with hooks, alone."""
        batch: Batch = []
        for number, current in enumerate(chosen, 1):
            if current.kind in ("stage", "store"):
                continue
            flows = current.kind == "source"
            alone = bool(current.hooks) or any(entry.hooks for _, entry in batch)
            together = not alone and not {entry.name for _, entry in batch} & set(current.needs)
            together = flows and together
            if batch and not together:
                yield batch
                batch = []
            batch.append((number, current))
            if not flows:
                yield batch
                batch = []
        if batch:
            yield batch

    def expected(self, batch: Sequence[Section]) -> int | None:
        """See Mode."""
        return self._flows.expected(batch)

    def run(self, batch: Sequence[Section], advance: Advance) -> dict[str, Result]:
        """See Mode; nothing that lies in files is stored."""
        if batch[0].kind == "source":
            return self._flows.run(batch, advance)
        current = batch[0]
        context = self._contexts(current)
        result, leftovers = self._files.written_by(lambda: section_runner.execute(current, context))
        if leftovers and result.status.stored:
            result = Result(
                Status.FAILED,
                f"{current.name} left {leftovers[0]}, which a streamed run does not store",
                'Let it write to its standard output, and give it "STREAM": "source".',
            )
        return {current.name: result}

    def untimed_results(self) -> Iterator[tuple[Section, Result, float]]:
        """See Mode."""
        for current in self._chosen:
            if current.kind in ("stage", "store"):
                yield current, self._flows.result_of(current), self._flows.seconds_of(current)

    def items(self, store: str) -> Sequence[StoredItem]:
        """See Mode."""
        return [done.item for done in self._flows.flowed if store in done.store_sections]

    def missing(self) -> Sequence[str]:
        """See Mode."""
        return self._flows.missing

    def may_store(self, kinds: frozenset[str]) -> bool:
        """See Mode."""
        return "store" in kinds

    def finish(self, steps: list[SectionResult]) -> None:
        """See Mode: nothing lies in files."""


if TYPE_CHECKING:
    _streamed: type[Mode] = StreamedMode
    _staged: type[Mode] = Staged
