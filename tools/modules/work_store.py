"""Both ends of a flow in a staged run: items that wait in the work folder, a store of files."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tools import filesystem_handling
from tools.base.errors import DamagedError
from tools.flow import pipeline, stream
from tools.flow.form import Layout, numbered
from tools.flow.item import Item, Stage
from tools.flow.item_record import EARLIER, Part, StoredItem
from tools.flow.pipeline import FlowResult, ItemContext
from tools.flow.progress import Progress
from tools.flow.store import Receiver, StoredObject
from tools.modules import work_folder
from tools.modules.work_folder import WorkItem

_TEMPORARY = re.compile(re.escape(filesystem_handling.PART) + r"pid-(\d+)$")
_ENDINGS = ("manifest.json", "RECOVERY.txt", "UNFINISHED", "PINNED")  # of a run's own files
_NOTE = re.compile(r"\.cleaned-[0-9]+\.json$")  # a note of clean-up in a store


def one_file(name: str) -> Layout:
    """Lay out an item as one file of this name."""
    return lambda _stem, _size: [(name, sys.maxsize)]


def parts_of(name: str) -> Layout:
    """Lay out an item as NAME.000, NAME.001 and so on."""
    return lambda _stem, size: numbered(name, size)


def as_they_lie(prefix: str, files: Sequence[Path]) -> Layout:
    """Lay out an item in files of the same names and sizes. prefix: of all names.

    A name that ends like one of the store's own files gets an ending: it is no manifest.
    """
    sizes = [*(file.stat().st_size for file in files[:-1]), sys.maxsize]
    return lambda _stem, _size: [
        (f"{prefix}{file.name}{'.file' * is_record(file.name)}", size)
        for file, size in zip(files, sizes, strict=True)
    ]


def is_record(name: str) -> bool:
    """Return whether a file of a store would be called like one of a run itself."""
    return name.endswith(_ENDINGS) or bool(_NOTE.search(name))


class WorkStore:
    """A folder that takes items as files; unsynced, for each can be made again from its source.

    Each file is hidden until `publish`. What killed processes left hidden is removed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = filesystem_handling.make_folder(folder)
        self._unpublished: dict[str, Path] = {}
        for path in folder.iterdir():
            match = _TEMPORARY.search(path.name) if path.name.startswith(".") else None
            if match and (match[1] == str(os.getpid()) or not Path("/proc", match[1]).exists()):
                path.unlink(missing_ok=True)

    def __str__(self) -> str:
        return str(self.folder)

    def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
        """See Store: a new file of mode 0600."""
        path = self.folder / name
        hidden = path.with_name(f".{name}{filesystem_handling.PART}pid-{os.getpid()}")
        content = stream.content(chunks)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with filesystem_handling.naming(path), os.fdopen(os.open(hidden, flags, 0o600), "wb") as f:
            self._unpublished[name] = hidden
            for chunk in content:
                f.write(chunk)
        return StoredObject(name, content.size, content.sha256)

    def publish(self, names: Sequence[str]) -> None:
        """See Store; where it fails, none of the names is left."""
        named: list[Path] = []
        try:
            for name in names:
                path = self.folder / name
                filesystem_handling.publish(self._unpublished[name], path)
                named.append(path)
                self.discard([name])
        except BaseException:
            for path in named:
                path.unlink(missing_ok=True)
            raise

    def discard(self, names: Sequence[str]) -> None:
        """See Store."""
        for name in names:
            if name in self._unpublished:
                self._unpublished.pop(name).unlink(missing_ok=True)


class WorkFolder:
    """What one module sees of the items that wait; without records, files are all there is."""

    def __init__(self, records: Path | None = None) -> None:
        """Read the records of a folder; by default the one that the runner names."""
        self._records = records or work_folder.records()
        self._items = work_folder.items_by_file(self._records)
        self._section = os.environ.get("NC_BACKUP_SECTION", "")
        self._progress = Progress()

    def entry(self, file: Path) -> WorkItem | None:
        """Return the recorded item that a file belongs to."""
        return self._items.get(file.resolve())

    def sets(self, files: Iterable[Path]) -> tuple[list[Sequence[Path]], list[Path]]:
        """Return the files of each recorded item, and the files that no record names."""
        entries: dict[Path, Sequence[Path]] = {}
        others = []
        for file in files:
            entry = self.entry(file)
            if entry is None:
                others.append(file)
            else:
                entries[entry.record] = entry.files
        return list(entries.values()), others

    def of_earlier_run(self, files: Sequence[Path]) -> bool:
        """Return whether an earlier run made this item; never where a module runs by hand."""
        return self._records is not None and self._run_of(files) != work_folder.run_id()

    def prefix(self, files: Sequence[Path]) -> str:
        """Return what makes the names of an item unique in a store; "" where they are already.

        It has the id of this run and of the run that made the item, each once.
        """
        if self._records is None:
            return ""
        runs = dict.fromkeys((work_folder.run_id(), self._run_of(files)))
        return "".join(f"{run}." for run in runs if run and not files[0].name.startswith(f"{run}."))

    def _run_of(self, files: Sequence[Path]) -> str:
        """Return the run that made an item: for unrecorded files "", an earlier one."""
        entry = self.entry(files[0])
        return "" if entry is None else entry.run_id

    def _origin(self, files: Sequence[Path]) -> StoredItem:
        entry = self.entry(files[0])
        return work_folder.of_name(files[0]) if entry is None else entry.item

    def item(self, files: Sequence[Path]) -> Item:
        """Return the item that these files hold, to be read from them as from its source.

        Reading raises DamagedError at the end of a file that is not as it was recorded.
        """
        entry, origin = self.entry(files[0]), self._origin(files)
        parts = (None,) * len(files) if entry is None else entry.item.parts

        def read() -> Iterator[bytes]:
            try:
                for file, part in zip(files, parts, strict=True):
                    yield from stream.read(file) if part is None else _verified(file, part)
            except (DamagedError, OSError):
                self._doubt(files)
                raise

        return Item(origin.name, origin.kind, lambda _head: "", read, origin=origin)

    def _doubt(self, files: Sequence[Path]) -> None:
        """Let the next run read an item again, and move it aside."""
        entry = self.entry(files[0])
        if entry is not None and self._records is not None:
            work_folder.record(self._records, entry.folder, entry.item, entry.run_id, doubtful=True)

    def collect(self, item: Item, store: WorkStore, name: str) -> FlowResult:
        """Let an item of a source flow into one file, which gets its name when it is recorded."""
        return self._flow(item, store, one_file(name), (), work_folder.run_id(), ())

    def pass_on(
        self,
        files: Sequence[Path],
        store: WorkStore,
        layout: Layout,
        stage: Stage,
        instead_of: Sequence[Path] = (),
    ) -> Sequence[Path]:
        """Let an item that waits flow through a stage into new files; return these.

        instead_of: an older set of the same names, removed before the new one gets them.
        """
        run = self._run_of(files)
        stored = self._flow(self.item(files), store, layout, (stage,), run, instead_of).item
        return [store.folder / part.name for part in stored.parts]

    def hand_over(self, files: Sequence[Path], store: Receiver, prefix: str) -> StoredItem:
        """Let an item that waits flow into a store as it lies. prefix: of the names there.

        The item of an earlier run has the section EARLIER and the name of its file.
        """
        item = self.item(files)
        if item.origin is not None and self.of_earlier_run(files):
            name = work_folder.before_stages(files[0], item.origin.stages)
            origin = dataclasses.replace(item.origin, section=EARLIER, name=name)
            item = dataclasses.replace(item, origin=origin)
        where = ItemContext("", self._progress.count, layout=as_they_lie(prefix, files))
        return pipeline.store_item_in(item, self._section, (), store, where).item

    def _flow(
        self,
        item: Item,
        store: WorkStore,
        layout: Layout,
        stages: Sequence[Stage],
        run: str,
        instead_of: Sequence[Path],
    ) -> FlowResult:
        def record(stored: StoredItem) -> None:
            for path in instead_of:
                path.unlink()
            if self._records is not None:
                work_folder.record(self._records, store.folder, stored, run)

        where = ItemContext("", self._progress.count, layout=layout, before_publish=record)
        return pipeline.store_item_in(item, self._section, stages, store, where)

    def take(self, file: Path, target: Path, item: StoredItem | None = None) -> None:
        """Record a finished file under another name, then give it this name.

        item: of this run; None for one that waits. Raises OSError on another file system.
        """
        if self._records is not None:
            tally = stream.Tally()
            stream.drained(tally(self.item([file]).read()))
            after = pipeline.after_stages(item or self._origin([file]), (), tally)
            parts = (Part(target.name, tally.size, tally.sha256),)
            run = work_folder.run_id() if item else self._run_of([file])
            work_folder.record(
                self._records, target.parent, dataclasses.replace(after, parts=parts), run
            )
        filesystem_handling.publish(file, target)

    def adopt(
        self, outputs: Sequence[Path], files: Sequence[Path], stages: Sequence[Stage]
    ) -> None:
        """Record what a killed run has made of an item and not recorded. files: the item's."""
        if self._records is None or self.entry(outputs[0]) is not None:
            return
        plain = stream.Tally()
        stream.drained(plain(self.item(files).read()))
        after = pipeline.after_stages(self._origin(files), stages, plain)
        work_folder.adopt(self._records, outputs, after, self._run_of(files))

    def remove(self, files: Iterable[Path]) -> None:
        """Remove files with their records. Raises OSError."""
        for file in files:
            entry = self.entry(file)
            if entry is None:
                file.unlink(missing_ok=True)
            elif file.resolve() == entry.files[0]:
                work_folder.remove(entry)


def _verified(file: Path, part: Part) -> Iterator[bytes]:
    tally = stream.Tally()
    yield from tally(stream.read(file))
    if (tally.size, tally.sha256) != (part.size, part.sha256):
        raise DamagedError(
            f"{file} holds other bytes than were written",
            "Do not trust this disk. The next run moves the file aside, and is then incomplete.",
        )


if TYPE_CHECKING:
    _: type[Receiver] = WorkStore
