"""The files between the sections of a staged run, and the record of each item that lies in them.

A record is a JSON file in a private folder: where the files lie, and the item as a manifest would
describe it, with the size and the SHA-256 of each file. It is synced before the files get their
names, so that a file that is short after a power cut is known for what it is. A record whose name
ends with `.done` belongs to files that are being removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tools import date_str_utils, filesystem_handling
from tools.base import foreign_json
from tools.base.errors import BackupError
from tools.base.log import logger
from tools.flow import item_record, stream
from tools.flow.item_record import EARLIER, Part, StoredItem
from tools.modules import registry

VARIABLE = "NC_BACKUP_ITEMS"  # the folder of the records; not set where a module runs by hand
NAME = "items"  # of that folder in the private folder of the runs
_MAX_BYTES = 64 << 20  # of a record
_RECORD = ".json"
_DONE = ".done"
_REFUSED = ".refused"
_DOUBTFUL = "doubtful"  # instead of a boot
_PART = re.compile(r"(?P<stem>.+\.(?:age|crypt))\.(?P<number>[0-9]{3,})", re.DOTALL)
_LONGEST = 180  # bytes of a name, which gets endings and a temporary name
_BOOT = Path("/proc/sys/kernel/random/boot_id")


State = tuple[int, int, int]  # inode, size, time of the last change


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
        """Return its files, in order."""
        return tuple(self.folder / part.name for part in self.item.parts)


def run_id() -> str:
    """Return the id of the run, or one of our own where a module is started by hand."""
    return os.environ.get("NC_BACKUP_RUN_ID") or date_str_utils.run_id()


def records() -> Path | None:
    """Return the folder of the records; None where a module is started by hand."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def items_by_file(folder: Path | None) -> dict[Path, WorkItem]:
    """Return the items that are recorded, by each of their files.

    Raises OSError or BackupError where a record says nothing: its files would pass for those of
    an earlier run.
    """
    if folder is None or not folder.is_dir():
        return {}
    items = [_read(path) for path in _named(folder, _RECORD)]
    return {file.resolve(): entry for entry in items for file in entry.files}


def _named(folder: Path, ending: str) -> list[Path]:
    """Return the files with this ending; none if the folder does not exist. Raises OSError.

    Path.glob would find nothing where the folder cannot be read.
    """
    try:
        return [path for path in sorted(folder.iterdir()) if path.name.endswith(ending)]
    except FileNotFoundError:
        return []


def _read(path: Path) -> WorkItem:
    """Return what a record says. Raises OSError, or BackupError where it says nothing."""
    content = _content(path)
    try:
        value: Any = foreign_json.load(content, _MAX_BYTES)
        texts = (item_record.text_of(value, key) for key in ("folder", "run_id", "boot"))
        folder, run, boot = texts
        return WorkItem(Path(folder), item_record.item_of(value["item"]), run, boot, path)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BackupError(f"{path}: not a record of an item: {error}") from None


def _content(path: Path) -> bytes:
    with filesystem_handling.naming(path):
        return path.read_bytes()


def record(
    folder: Path, files: Path, item: StoredItem, run: str, *, doubtful: bool = False
) -> None:
    """Write the record of an item, synced.

    files: the folder of its parts. doubtful: whether the next run must read them again.
    """
    filesystem_handling.make_folder(folder)
    location = files.resolve()
    path = folder / f"{item_record.quoted(str(location / item.parts[0].name))}{_RECORD}"
    header = {"folder": str(location), "run_id": run, "boot": _DOUBTFUL if doubtful else _boot()}
    text = json.dumps({**header, "item": dataclasses.asdict(item)}, sort_keys=True)
    write_synced(path, text)


def write_synced(path: Path, text: str) -> None:
    """Write a file that a power cut leaves as it was or as it is to be."""
    with filesystem_handling.staged(path) as temporary:
        with filesystem_handling.create(temporary) as write:
            write(text.encode())
        temporary.replace(path)
    filesystem_handling.sync_folder(path.parent)


def _boot() -> str:
    try:
        return _BOOT.read_text(encoding="ascii", errors="replace").strip()
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
    was restarted since they were written, or when other bytes were read of them.
    Raises as `items_by_file`.
    """
    for path in _named(folder, _DONE):
        with _warning():
            _finish(_read(path), path)
    damaged: list[tuple[WorkItem, str]] = []
    for entry in {id(one): one for one in items_by_file(folder).values()}.values():
        if not any(file.exists() for file in entry.files):
            forget(entry)  # killed before the first name, or removed by somebody
        elif why := problem(entry, read=entry.boot != _boot()):
            damaged.append((entry, why))
        elif entry.boot != _boot():
            with _warning():
                record(folder, entry.folder, entry.item, entry.run_id)
    return damaged


@contextlib.contextmanager
def _warning() -> Iterator[None]:
    """Log what fails in the block, which a later run can do as well."""
    try:
        yield
    except (OSError, BackupError) as error:
        logger.warning("%s", error)


def unreadable(folder: Path) -> dict[Path, str]:
    """Return the records that say nothing, and why. Raises OSError for the folder."""
    problems = {}
    for ending, read in ((_RECORD, _read), (_REFUSED, _refusal)):
        for path in _named(folder, ending):
            try:
                read(path)
            except (OSError, BackupError) as error:
                problems[path] = str(error)
    return problems


def described(record_file: Path, files: Iterable[Path]) -> list[Path]:
    """Return the files that a record describes, by its own name alone.

    It names the first file of an item; the names of the others have their beginning in common.
    files: where to look, besides the folder that the name gives where it was not too long for it.
    """
    stem = record_file.name.removesuffix(_RECORD).removesuffix(_REFUSED)
    beside = Path(unquote(stem)).parent
    places = {file: file.parent.resolve() for file in files}
    with contextlib.suppress(OSError, ValueError):
        places.update((file, beside) for file in beside.iterdir() if file.is_file())
    sets = {
        (folder, _stem(file))
        for file, folder in places.items()
        if item_record.quoted(str(folder / file.name)) == stem
    }
    paths = {folder / file.name for file, folder in places.items() if (folder, _stem(file)) in sets}
    return sorted(paths)


def refuse(folder: Path, path: Path) -> None:
    """Record that a file must never be stored, as long as it stays as it is. Raises OSError."""
    state = _state(path.stat())
    filesystem_handling.make_folder(folder)
    name = folder / f"{item_record.quoted(str(path))}{_REFUSED}"
    write_synced(name, json.dumps([str(path), state]))


def refused(folder: Path | None) -> set[Path]:
    """Return the files that must not be stored. Raises OSError or BackupError."""
    paths = set()
    for record_file in _named(folder, _REFUSED) if folder is not None else []:
        path, state = _refusal(record_file)
        if state == state_of(path):
            paths.add(path)
        else:
            record_file.unlink(missing_ok=True)
    return paths


def _refusal(path: Path) -> tuple[Path, tuple[int, ...]]:
    """Return what `refuse` has written. Raises OSError, or BackupError where it is not that."""
    try:
        file, state = foreign_json.load(_content(path))
        return Path(file), tuple(state)
    except (ValueError, TypeError, RecursionError) as error:
        raise BackupError(f"{path} names no file that must not be stored: {error}") from None


def state_of(path: Path) -> State | None:
    """Return what changes when a file is written; None where it is gone or cannot be seen."""
    try:
        return _state(path.stat())
    except OSError:
        return None


def _state(status: os.stat_result) -> State:
    return status.st_ino, status.st_size, status.st_mtime_ns


def problem(entry: WorkItem, *, read: bool) -> str:
    """Return why an item is not whole; "" where it is. read: compare its bytes as well."""
    for file, part in zip(entry.files, entry.item.parts, strict=True):
        if not file.is_file():
            return f"{file} is missing"
        size = file.stat().st_size
        if size != part.size:
            return f"{file} has {size} bytes instead of {part.size}"
        if read and (why := _unlike(file, part)):
            return why
    return ""


def _unlike(file: Path, part: Part) -> str:
    try:
        same = measured(file).sha256 == part.sha256
    except OSError as error:
        return f"{file} cannot be read: {(error.strerror or '').lower()}"
    return "" if same else f"{file} holds other bytes than were written"


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


def before_stages(path: Path, stages: Sequence[str]) -> str:
    """Return the name that a file had before these stages."""
    name = _stem(path) if stages else path.name
    for stage in reversed(stages):
        applied = registry.STAGES.get(stage)
        name = name.removesuffix(applied.ending) if applied else name
    return name


def name_of(files: Sequence[Path]) -> str:
    """Return the name of a file, or what the names of all files of an item have in common."""
    return bounded(files[0].name if len(files) == 1 else _stem(files[0]))


def bounded(name: str) -> str:
    """Return a name that leaves room for endings: a longer one without its middle, digested."""
    encoded = os.fsencode(name)
    if len(encoded) <= _LONGEST:
        return name
    begin, end = encoded[: _LONGEST - 40], encoded[-20:]
    digest = hashlib.sha256(encoded).hexdigest()[:12]
    return f"{begin.decode(errors='ignore')}~{digest}~{end.decode(errors='ignore')}"


def _stem(path: Path) -> str:
    """Return what the names of all parts of a set have in common; the name of any other file."""
    part = _PART.fullmatch(path.name)
    return part["stem"] if part else path.name


def complete_sets(files: Iterable[Path]) -> tuple[list[list[Path]], list[str]]:
    """Return the sets of parts in numeric order, and an error for each incomplete one.

    A file that is no part is a set of its own.
    """
    complete: list[list[Path]] = []
    sets: dict[str, dict[int, Path]] = {}
    for file in files:
        part = _PART.fullmatch(file.name)
        if part and part["number"] == f"{int(part['number']):03}":
            sets.setdefault(part["stem"], {})[int(part["number"])] = file
        else:
            complete.append([file])
    errors = []
    for stem, parts in sets.items():
        gap = next((n for n in range(max(parts)) if n not in parts), None)
        if gap is None:
            complete.append([parts[number] for number in sorted(parts)])
        else:
            errors.append(
                f"{stem}.{gap:03} is missing; the other parts of this backup were not stored"
            )
    return complete, errors
