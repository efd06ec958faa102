"""The staged run: each section leaves files in the work folder, and the next takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tools import filesystem_handling
from tools.base.errors import BackupError
from tools.base.log import logger
from tools.base.result import BUNDLE, Made, Result, Status, worst
from tools.base.run_result import SectionResult
from tools.catalog.history import Past
from tools.config.model import Config, Section
from tools.engine import section_runner
from tools.engine.section_runner import Context
from tools.flow import item_record
from tools.flow.item_record import EARLIER
from tools.flow.store import Store
from tools.modules import registry


class Staged:
    """What one staged run does with its sections, and what became of which file."""

    name = "staged"
    streamed = False
    size: int | None = None

    def __init__(
        self, config: Config, private: Path, contexts: Callable[[Section], Context]
    ) -> None:
        """private: the private folder of runs; what a failed source left goes below it."""
        self._config = config
        self._contexts = contexts
        self._refused: Mapping[str, Result] = {}  # stores that take no part, and why
        self._failed = private / "failed"
        self._origins: dict[str, tuple[str, Made | None]] = {}  # by path: section, what it said
        self._made: dict[str, Made] = {}  # by path: what it was made of
        self._stored: dict[str, list[Made]] = {}  # by store section

    def begin(
        self,
        stores: Mapping[str, Store],
        refused: Mapping[str, Result],
        past: Past,
    ) -> None:
        """See Mode."""
        self._refused = refused

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

    def rest(self) -> Iterator[tuple[Section, Result, float]]:
        """See Mode: every section has a time of its own."""
        return iter(())

    def missing(self) -> Sequence[str]:
        """See Mode."""
        return ()

    def uncompared(
        self, items: Iterable[item_record.StoredItem]
    ) -> Iterable[item_record.StoredItem]:
        """See Mode."""
        return items

    def may_store(self, kinds: frozenset[str]) -> bool:
        """See Mode: a user-defined module may be a store."""
        return bool(kinds & {"store", ""})

    def _execute(self, current: Section) -> Result:
        """Run one section; what a failed source leaves is never stored as if it were whole.

        Items that it says are whole (its trail) are: one bad database does not cost the others.
        """
        source = current.kind in ("", "source")
        before = self._work_files() if source else {}
        result = section_runner.execute(current, self._contexts(current))
        new = [p for p, seen in self._work_files().items() if before.get(p) != seen and source]
        whole = {path: made for made in result.trail for path in made.into}
        if result.status is Status.FAILED:
            self._put_aside(current.name, [path for path in new if str(path) not in whole])
            new = [path for path in new if str(path) in whole]
        self._origins.update({str(path): (current.name, None) for path in new})
        if current.kind == "source":
            found = {path: (current.name, made) for path, made in whole.items()}
            self._origins.update(found)
        if current.kind == "stage":
            self._made.update({path: made for made in result.trail for path in made.into})
        if current.kind == "store":
            self._stored[current.name] = list(result.trail)
        return result

    def _put_aside(self, name: str, new: Sequence[Path]) -> None:
        aside = self._failed / name
        for path in new:
            place = aside / path.relative_to(self._config.general.work_folder)
            filesystem_handling.make_folder(place.parent)
            path.rename(place)
            logger.warning("%s failed: %s is put aside until the next run", name, path)

    def _work_files(self) -> dict[Path, tuple[int, int, int]]:
        """The files in the work folder that could be stored, with inode, size and time."""
        general = self._config.general
        kept = [general.local_backup] if general.local_backup else []
        found = {}
        for top in general.work_folder.iterdir():
            if top.name.startswith(".") or top in kept:
                continue
            for path in filesystem_handling.files_below(top):
                status = path.stat()
                found[path] = (status.st_ino, status.st_size, status.st_mtime_ns)
        return found

    def left(self, name: str) -> list[str]:
        """The files that a section has left in the work folder."""
        return [path for path, (of, _said) in self._origins.items() if of == name]

    # --- what goes into the manifest

    def items(self, store: str) -> Sequence[item_record.StoredItem]:
        """See Mode: what its program has confirmed."""
        stored = {made.files[0]: made for made in self._stored.get(store, [])}
        sets: dict[str, list[str]] = {}
        for path in stored:
            made = self._made.get(path)
            sets.setdefault(made.into[0] if made is not None else _stem(path), []).append(path)
        return [
            self._item([stored[path] for path in sorted(paths, key=_number)])
            for paths in sets.values()
        ]

    def _item(self, stored: Sequence[Made]) -> item_record.StoredItem:
        """Follow a stored set back to its source; what is not known is read from its name."""
        parts = tuple(
            item_record.Part(made.into[0].rpartition("/")[2], made.size, made.sha256)
            for made in stored
        )
        path = stored[0].files[0]
        if path not in self._made and path not in self._origins:
            return _of_earlier(Path(path), parts)
        stages: list[str] = []
        size, sha256 = None, None
        while (made := self._made.get(path)) is not None:
            if made.stage == BUNDLE:
                return self._bundle(made, stages, parts)
            if made.stage not in ("", "none"):
                stages.insert(0, made.stage)
                size, sha256 = None, None  # those of what the stage took: not known yet
            if made.sha256:
                size, sha256 = made.size, made.sha256
            path = made.files[0]
        if not stages and len(parts) == 1:
            size, sha256 = parts[0].size, parts[0].sha256
        of, said = self._origins.get(path, (EARLIER, None))
        item = item_record.StoredItem(
            of, self._below(Path(path)), "file", "", tuple(stages), parts, size, sha256
        )
        if said is None:
            return item
        return dataclasses.replace(
            item,
            name=said.name,
            kind=said.stage,
            ending=said.ending,
            facts=said.facts,
            warnings=said.warnings,
            notes=said.notes,
        )

    def _bundle(
        self, made: Made, stages: Sequence[str], parts: tuple[item_record.Part, ...]
    ) -> item_record.StoredItem:
        """Several files that were compressed already, in one plain archive."""
        of = self._origins.get(made.files[0], (EARLIER, None))[0]
        name = f"{self._below(Path(made.files[0]).parent)}.tar"
        return item_record.StoredItem(
            of, name, "file", "", tuple(stages), parts, made.size, made.sha256 or None
        )

    def _below(self, path: Path) -> str:
        """A path as it lies below the work folder."""
        top = self._config.general.work_folder
        return str(path.relative_to(top)) if path.is_relative_to(top) else path.name

    # --- what may go

    def finish(self, steps: list[SectionResult]) -> None:
        """See Mode: the sources of the stores go when every store of the run has confirmed."""
        stores = [step for step in steps if step.kind == "store"]
        if not all(step.result.status.stored for step in stores):
            logger.warning("nothing is removed from the work folder: a store has not confirmed")
            return
        for number, step in enumerate(steps):
            if step.kind == "store" and step.result.removable:
                steps[number] = dataclasses.replace(step, result=_removed(step.result))


def _number(path: str) -> int:
    """The number of a part, 0 for what is none: parts are joined in this order."""
    ending = path.rpartition(".")[2]
    return int(ending) if ending.isdigit() else 0


def _stem(path: str) -> str:
    """What the names of all parts of a set have in common."""
    stem, _, ending = path.rpartition(".")
    return stem if ending.isdigit() and Path(stem).suffix in (".age", ".crypt") else path


def _of_earlier(path: Path, parts: tuple[item_record.Part, ...]) -> item_record.StoredItem:
    """What an earlier run left: its name says, from right to left, what was done to it."""
    name = Path(_stem(str(path))).name
    stages: list[str] = []
    while stage := registry.stage_of_ending(Path(name).suffix):
        stages.insert(0, stage.name)
        name = name.removesuffix(stage.ending)
    archive = name.endswith(".tar")
    kind = "fileset" if archive else "file"
    return item_record.StoredItem(
        EARLIER, name, kind, ".tar" if archive else "", tuple(stages), parts
    )


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
