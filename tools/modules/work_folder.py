"""The files between the sections of a staged run, and the record of each item that lies in them.

A record is a JSON file in a private folder: where the files lie, and the item as a manifest would
describe it, with the size and the SHA-256 of each file. It is synced before the files get their
names, so that a file that is short after a power cut is known for what it is. A record whose name
ends with `.done` belongs to files that are being removed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tools import date_str_utils, filesystem_handling
from tools.base.errors import DamagedError
from tools.base.log import logger
from tools.flow import item_record, stream
from tools.flow.item_record import EARLIER, Part, StoredItem
from tools.modules import registry

VARIABLE = "NC_BACKUP_ITEMS"  # the folder of the records; not set where a module runs by hand
NAME = "items"  # of that folder in the private folder of the runs
_DONE = ".done"
_PART = re.compile(r"(?P<stem>.+\.(?:age|crypt))\.(?P<number>\d{3,})")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class WorkItem:
    """An item in the work folder.

    folder: where its parts lie, in files of their names
    run_id: the run that made it
    boot:   the boot of the machine in which that was; "" where it is not known
    record: the file that says so
    """

    folder: Path
    item: StoredItem
    run_id: str
    boot: str
    record: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files, in order."""
        return tuple(self.folder / part.name for part in self.item.parts)


def run_id() -> str:
    """Return the id of the run, or one of our own where a module is started by hand."""
    return os.environ.get("NC_BACKUP_RUN_ID") or date_str_utils.run_id()


def records() -> Path | None:
    """Return the folder of the records; None where a module is started by hand."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def known(folder: Path | None) -> dict[Path, WorkItem]:
    """Return the items that are recorded, by each of their files."""
    if folder is None or not folder.is_dir():
        return {}
    items = (_read(path) for path in sorted(folder.glob("*.json")))
    return {file.resolve(): entry for entry in items if entry is not None for file in entry.files}


def _read(path: Path) -> WorkItem | None:
    """Return what a record says; None, with a warning, where it says nothing."""
    try:
        given: Any = json.loads(path.read_bytes())
        texts = (item_record.text_of(given, key) for key in ("folder", "run_id", "boot"))
        folder, run, boot = texts
        return WorkItem(Path(folder), item_record.item_of(given["item"]), run, boot, path)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        logger.warning("%s is no record of an item: %s", path, error)
        return None


def record(folder: Path, files: Path, item: StoredItem, run: str) -> None:
    """Write the record of an item, synced. files: the folder of its parts."""
    filesystem_handling.make_folder(folder)
    place = files.resolve()
    path = folder / f"{item_record.quoted(str(place / item.parts[0].name))}.json"
    header = {"folder": str(place), "run_id": run, "boot": _boot()}
    text = json.dumps({**header, "item": dataclasses.asdict(item)}, sort_keys=True)
    with filesystem_handling.staged(path) as temporary:
        with filesystem_handling.create(temporary) as write:
            write(text.encode())
        temporary.replace(path)
    filesystem_handling.sync_folder(folder)


def _boot() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def adopt(folder: Path, files: Sequence[Path], item: StoredItem, run: str) -> None:
    """Record an item whose files are there already. folder: of the records."""
    tallies = [(file.name, measured(file)) for file in files]
    parts = tuple(Part(name, tally.size, tally.sha256) for name, tally in tallies)
    if not item.stages and len(parts) == 1:
        item = dataclasses.replace(item, size=parts[0].size, sha256=parts[0].sha256)
    record(folder, files[0].parent, dataclasses.replace(item, parts=parts), run)


def measured(path: Path) -> stream.Tally:
    """Return size and SHA-256 of a file."""
    tally = stream.Tally()
    stream.drained(tally(stream.read(path)))
    return tally


def remove(entry: WorkItem) -> None:
    """Remove an item with its record. What a kill leaves of it, `settle` removes."""
    done = entry.record.with_name(entry.record.name + _DONE)
    entry.record.replace(done)
    _finish(entry, done)


def _finish(entry: WorkItem, done: Path) -> None:
    for file in entry.files:
        file.unlink(missing_ok=True)
    done.unlink(missing_ok=True)


def forget(entry: WorkItem) -> None:
    """Remove the record alone."""
    entry.record.unlink(missing_ok=True)


def settle(folder: Path) -> list[tuple[WorkItem, str]]:
    """Finish what a killed run began to remove; return the items that are not whole, and why.

    Nothing else may be at work in the work folder. Files are read again only when the machine
    was restarted since they were written.
    """
    for path in sorted(folder.glob(f"*{_DONE}")):
        entry = _read(path)
        if entry is not None:
            _finish(entry, path)
    damaged: list[tuple[WorkItem, str]] = []
    for entry in {id(found): found for found in known(folder).values()}.values():
        if not any(file.exists() for file in entry.files):
            forget(entry)  # killed before the first name, or removed by somebody
        elif why := problem(entry, read=entry.boot != _boot()):
            damaged.append((entry, why))
        elif entry.boot != _boot():
            record(folder, entry.folder, entry.item, entry.run_id)
    return damaged


def problem(entry: WorkItem, *, read: bool) -> str:
    """Return why an item is not whole; "" where it is. read: compare its bytes as well."""
    for file, part in zip(entry.files, entry.item.parts, strict=True):
        if not file.is_file():
            return f"{file} is missing"
        size = file.stat().st_size
        if size != part.size:
            return f"{file} has {size} bytes instead of {part.size}"
        if read and measured(file).sha256 != part.sha256:
            return f"{file} holds other bytes than were written"
    return ""


def of_name(path: Path) -> StoredItem:
    """Return what the name of an unrecorded file says: from right to left, what was done to it."""
    name = _stem(path)
    stages: list[str] = []
    while stage := registry.stage_of_ending(Path(name).suffix):
        stages.insert(0, stage.name)
        name = name.removesuffix(stage.ending)
    archive = name.endswith(".tar")
    kind = "fileset" if archive else "file"
    return StoredItem(EARLIER, name, kind, ".tar" if archive else "", tuple(stages), ())


def _stem(path: Path) -> str:
    """What the names of all parts of a set have in common; the name of any other file."""
    part = _PART.fullmatch(path.name)
    return part["stem"] if part else path.name


def complete_sets(files: Iterable[Path]) -> tuple[list[list[Path]], list[str]]:
    """Return the sets of parts in numeric order, and an error for each incomplete one.

    A file that is no part is a set of its own.
    """
    whole: list[list[Path]] = []
    sets: dict[str, dict[int, Path]] = {}
    for file in files:
        part = _PART.fullmatch(file.name)
        if part and part["number"] == f"{int(part['number']):03}":
            sets.setdefault(part["stem"], {})[int(part["number"])] = file
        else:
            whole.append([file])
    errors = []
    for stem, parts in sets.items():
        gap = next((n for n in range(max(parts)) if n not in parts), None)
        if gap is None:
            whole.append([parts[number] for number in sorted(parts)])
        else:
            errors.append(
                f"{stem}.{gap:03} is missing; the other parts of this backup were not stored"
            )
    return whole, errors


def applied(item: StoredItem, stage: str, plain: stream.Tally) -> StoredItem:
    """Return the item after one more stage ("" for none). plain: what went into the stage."""
    if not item.stages and item.sha256 is None:
        item = dataclasses.replace(item, size=plain.size, sha256=plain.sha256)
    stages = item.stages if stage in ("", "none") else (*item.stages, stage)
    return dataclasses.replace(item, stages=stages, parts=())


class Content(Protocol):
    """What was read of a file."""

    @property
    def size(self) -> int:
        """Its bytes."""

    @property
    def sha256(self) -> str:
        """Their SHA-256 in hexadecimal."""


class Named(Content, Protocol):
    """The same under a name in a store."""

    @property
    def name(self) -> str:
        """The name."""


class WorkFolder:
    """What one module sees of the items; without records, files are all there is."""

    def __init__(self, folder: Path | None = None) -> None:
        """folder: of the records; default: the one that the runner names."""
        self._records = folder or records()
        self._known = known(self._records)
        self._read: dict[Path, stream.Tally] = {}

    def entry(self, file: Path) -> WorkItem | None:
        """Return the recorded item that a file belongs to."""
        return self._known.get(file.resolve())

    def item(self, file: Path) -> StoredItem:
        """Return the item that a file holds."""
        entry = self.entry(file)
        return of_name(file) if entry is None else entry.item

    def run_of(self, file: Path) -> str:
        """Return the run that made an item: for an unrecorded file "", an earlier one."""
        entry = self.entry(file)
        return "" if entry is None else entry.run_id

    def of_earlier_run(self, file: Path) -> bool:
        """Whether an earlier run made this item; never where a module is started by hand."""
        return self._records is not None and self.run_of(file) != run_id()

    def sets(self, files: Sequence[Path]) -> tuple[list[list[Path]], list[str]]:
        """Return the files of each item in order, and an error for each incomplete one."""
        entries = {entry.record: entry for file in files if (entry := self.entry(file))}
        sets, errors = complete_sets(file for file in files if self.entry(file) is None)
        return [*(list(entry.files) for entry in entries.values()), *sets], errors

    def check(self, files: Sequence[Path], found: Sequence[Content]) -> None:
        """Raise DamagedError where what was read of an item is not what its record says."""
        entry = self.entry(files[0])
        parts = entry.item.parts if entry is not None else ()
        for file, part, content in zip(files, parts, found, strict=False):
            if (content.size, content.sha256) != (part.size, part.sha256):
                raise DamagedError(
                    f"{file} holds other bytes than were written",
                    "Do not trust this disk. The next run puts the file aside.",
                )

    def stored(self, files: Sequence[Path], found: Sequence[Named]) -> StoredItem:
        """Return an item as a store holds it. found: the names in the store."""
        item = self.item(files[0])
        parts = tuple(Part(c.name.rpartition("/")[2], c.size, c.sha256) for c in found)
        if self.of_earlier_run(files[0]):
            item = dataclasses.replace(item, section=EARLIER, name=of_name(files[0]).name)
        item = dataclasses.replace(item, parts=parts)
        if not item.stages and item.sha256 is None and len(parts) == 1:
            item = dataclasses.replace(item, size=parts[0].size, sha256=parts[0].sha256)
        return item

    def read(self, file: Path) -> Iterator[bytes]:
        """The chunks of a file. Raises DamagedError at their end where they are not as recorded."""
        tally = self._read[file] = stream.Tally()
        yield from tally(stream.read(file)) if self._records is not None else stream.read(file)
        self.check([file], [tally])

    def measured(self, file: Path) -> stream.Tally:
        """Return size and SHA-256 of a file that `read` has read to its end."""
        return self._read[file]

    def record(self, folder: Path, item: StoredItem, run: str) -> None:
        """Write the record of an item whose files get their names next, or have them."""
        if self._records is not None:
            record(self._records, folder, item, run)

    def adopt(self, files: Sequence[Path], item: StoredItem, run: str) -> None:
        """Record files that are there already and are not recorded yet."""
        if self._records is not None and self.entry(files[0]) is None:
            adopt(self._records, files, item, run)

    def write(
        self, path: Path, chunks: Iterable[bytes], describe: Callable[[], StoredItem], run: str
    ) -> None:
        """Write an item into one file, which gets its name when it is recorded.

        describe: asked once, after the end of the chunks; its parts do not matter.
        """
        tally = stream.Tally()

        def recorded(_temporary: Path) -> None:
            self._record_file(path, describe(), tally, run)

        counted = tally(chunks) if self._records is not None else chunks
        with filesystem_handling.create(path, durable=False, check=recorded) as write:
            for chunk in counted:
                write(chunk)

    def place(
        self, temporary: Path, path: Path, describe: Callable[[], StoredItem], run: str
    ) -> None:
        """Give a finished file its name when it is recorded, as `write` does."""
        item = describe()
        tally = stream.Tally() if self._records is None else measured(temporary)
        self._record_file(path, item, tally, run)
        filesystem_handling.publish(temporary, path)

    def _record_file(self, path: Path, item: StoredItem, tally: stream.Tally, run: str) -> None:
        part = Part(path.name, tally.size, tally.sha256)
        self.record(path.parent, dataclasses.replace(applied(item, "", tally), parts=(part,)), run)

    def remove(self, files: Iterable[Path]) -> None:
        """Remove files with their records. Raises OSError."""
        for file in files:
            entry = self.entry(file)
            if entry is None:
                file.unlink(missing_ok=True)
            elif file.resolve() == entry.files[0]:
                remove(entry)
