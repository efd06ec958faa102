"""The staged run: each section leaves files in the work folder, and the next takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tools import filesystem_handling
from tools.base.errors import BackupError, in_words
from tools.base.log import logger
from tools.base.result import Result, Status, of_error, worst
from tools.base.run_result import SectionResult
from tools.catalog.history import Past
from tools.config.model import Config, Section
from tools.engine import section_runner
from tools.engine.section_runner import Context
from tools.engine.work_files import WorkFiles
from tools.flow import item_record
from tools.flow.item_record import StoredItem
from tools.flow.store import Store
from tools.modules import work_folder
from tools.modules.work_folder import WorkItem
from tools.modules.work_store import WorkFolder

_ENCRYPTED = (b"age-encryption.org/", b"-----BEGIN AGE", b"Salted__")  # how such files begin


class Staged:
    """What one staged run does with its sections, and what became of which file."""

    name = "staged"
    streamed = False
    size: int | None = None

    def __init__(
        self, config: Config, private: Path, contexts: Callable[[Section], Context]
    ) -> None:
        """Prepare a run. private: folder of runs; what a failed source left goes below it"""
        self._config = config
        self._contexts = contexts
        self._refused: Mapping[str, Result] = {}  # stores that take no part, and why
        self._failed = private / "failed"
        self._records = private / work_folder.NAME
        self._files = WorkFiles(config, private / "section-began.json")
        self._stored: dict[str, Sequence[StoredItem]] = {}  # by store section
        self._damaged: list[str] = []  # why items of earlier runs are moved aside

    def begin(
        self,
        stores: Mapping[str, Store],
        refused: Mapping[str, Result],
        past: Past,
    ) -> None:
        """See Mode. What an earlier run left is stored only where it is whole."""
        self._refused = refused
        self._doubt_unreadable()
        for entry, why in work_folder.settle(self._records):
            self._put_aside(f"run {entry.run_id}", why, entry.files)
            work_folder.forget(entry)
            self._damaged.append(f"{why}: it was moved aside, and is not stored")
        self._doubt_interrupted()
        self._put_aside("refused", "not stored", sorted(work_folder.refused(self._records)))
        self._files.forget()

    def _doubt_unreadable(self) -> None:
        """Move aside what a record describes that says nothing: it could be cut short."""
        for path, why in work_folder.unreadable(self._records).items():
            self._doubt("unreadable", why, work_folder.described(path, self._files.all()))
        for path in work_folder.unreadable(self._records):
            filesystem_handling.remove(path)

    def _doubt_interrupted(self) -> None:
        """Move aside what a killed section has written; all, where nothing says what it wrote."""
        known = work_folder.items_by_file(self._records)
        try:
            leftovers = [path for path in self._files.interrupted() if path.resolve() not in known]
        except BackupError as error:
            unknown = [path for path in self._files.all() if path.resolve() not in known]
            self._doubt("interrupted", str(error), unknown)
        else:
            self._put_aside("interrupted", "the section that wrote it was killed", leftovers)

    def _doubt(self, name: str, why: str, files: Sequence[Path]) -> None:
        """Move files aside that may not be whole; the result of the first store says so."""
        logger.warning("%s", why)
        self._put_aside(name, why, files)
        self._damaged += [f"{path} may be cut short: {why}: it was moved aside" for path in files]

    def batches(self, chosen: Sequence[Section]) -> Iterator[list[tuple[int, Section]]]:
        """See Mode: one section after the other."""
        yield from ([(number, current)] for number, current in enumerate(chosen, 1))

    def expected(self, batch: Sequence[Section]) -> int | None:
        """See Mode."""
        return None

    def run(
        self,
        batch: Sequence[Section],
        advance: Callable[[int], None] | None,
    ) -> dict[str, Result]:
        """See Mode."""
        return {
            current.name: self._refused.get(current.name) or self._execute(current)
            for current in batch
        }

    def untimed_results(self) -> Iterator[tuple[Section, Result, float]]:
        """See Mode: every section has a time of its own."""
        return iter(())

    def missing(self) -> Sequence[str]:
        """See Mode."""
        return ()

    def may_store(self, kinds: frozenset[str]) -> bool:
        """See Mode: a user-defined module may be a store."""
        return bool(kinds & {"store", ""})

    def items(self, store: str) -> Sequence[StoredItem]:
        """See Mode: what its program has confirmed."""
        return self._stored.get(store, ())

    def _execute(self, current: Section) -> Result:
        """Run one section and take over what it has written, or has stored."""
        context = self._contexts(current)
        if current.kind in ("", "source"):
            return self._collected(current, context)
        result = section_runner.execute(current, context)
        if current.kind == "store":
            self._stored[current.name] = _items(result)
            result, self._damaged = _without(result, self._damaged), []
        return result

    def _collected(self, current: Section, context: Context) -> Result:
        """Run a section that may be a source.

        What a failed one leaves is never stored as if it were whole, but for the items that it
        has recorded: one bad database does not cost the others.
        """
        result, new = self._files.written_by(lambda: section_runner.execute(current, context))
        recorded: set[Path] = set()
        others = list(new)
        try:
            known = work_folder.items_by_file(self._records)
            recorded = {path for path in new if _is_of(known.get(path.resolve()), current, context)}
            others = [path for path in new if path not in recorded]
            for path in others:
                if path.resolve() in known:  # another section's, and this one has changed it
                    work_folder.forget(known[path.resolve()])
            if result.status is not Status.FAILED:
                self._adopt(current.name, others, context.run_id)
        except (BackupError, OSError) as error:
            result = dataclasses.replace(of_error(error), status=Status.FAILED)
        if result.status is Status.FAILED:
            self._put_aside(current.name, f"{current.name} failed", others)
            result = dataclasses.replace(result, files=tuple(map(str, recorded)))
        self._files.forget()
        return result

    def _adopt(self, section: str, files: Sequence[Path], run_id: str) -> None:
        """Record the files of a section that does not record them itself."""
        for parts in _items_of(files):
            item = StoredItem(section, self._files.relative_path(parts[0]), "file", "", (), ())
            work_folder.adopt(self._records, parts, item, run_id)

    def _put_aside(self, name: str, why: str, files: Iterable[Path]) -> None:
        """Move files to where no section looks; what cannot be moved is refused for ever."""
        for path in files:
            if path.exists():
                try:
                    _hide(path, self._failed / name / self._files.relative_path(path))
                except OSError as error:
                    work_folder.refuse(self._records, path)
                    logger.error("%s: %s is not stored, and stays: %s", why, path, error)
                else:
                    logger.warning("%s: %s is moved aside until the next run", why, path)

    # --- what may go

    def finish(self, steps: list[SectionResult]) -> None:
        """See Mode: the sources of the stores go when every store of the run has confirmed."""
        stores = [step for step in steps if step.kind == "store"]
        if not all(step.result.status.stored for step in stores):
            logger.warning("nothing is removed from the work folder: a store has not confirmed")
            return
        for number, step in enumerate(steps):
            if step.kind == "store" and step.result.removable:
                steps[number] = dataclasses.replace(
                    step, result=_removed(step.result, self._records)
                )


def _hide(path: Path, target: Path) -> None:
    """Move a file to a place, or give it a hidden name where that is impossible."""
    try:
        filesystem_handling.make_folder(target.parent)
        path.rename(target)
    except OSError:  # another file system, a full one, no permission
        path.rename(filesystem_handling.temporary(path))


def _items_of(files: Sequence[Path]) -> list[list[Path]]:
    """Return the files of each item: a set of encrypted parts is one, any other file too."""
    sets = work_folder.complete_sets(files)[0]
    encrypted = [parts for parts in sets if len(parts) > 1 and _is_encrypted(parts[0])]
    joined = {path for parts in encrypted for path in parts}
    return [*encrypted, *([path] for path in files if path not in joined)]


def _is_encrypted(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(32).startswith(_ENCRYPTED)


def _is_of(entry: WorkItem | None, section: Section, context: Context) -> bool:
    """Return whether a section has recorded an item itself, in this run."""
    return entry is not None and (entry.item.section, entry.run_id) == (
        section.name,
        context.run_id,
    )


def _items(result: Result) -> Sequence[StoredItem]:
    """Return the items that a store has confirmed."""
    try:
        return [item_record.item_of(record) for record in result.stored]
    except (KeyError, TypeError, ValueError) as error:
        raise BackupError(f"the result of a store is not understood: {error}") from None


def _without(result: Result, damaged: Sequence[str]) -> Result:
    """Return the result of the first store, which does not hold what was moved aside."""
    if not damaged:
        return result
    status = worst((result.status, Status.INCOMPLETE))
    return dataclasses.replace(result, status=status, warnings=(*result.warnings, *damaged))


def _removed(result: Result, records: Path) -> Result:
    """Remove what a store named; the result says so where that fails."""
    try:
        WorkFolder(records).remove(map(Path, result.removable))
    except (OSError, BackupError) as error:
        text = f"stored, but its source could not be removed: {in_words(error)[0]}"
        return dataclasses.replace(
            result, status=worst((result.status, Status.UNCLEAN)), message=text
        )
    return result
