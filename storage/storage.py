#!/usr/bin/env python3
"""Store what the sections before made, under the folder of this host."""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from storage.keys import StorageKeys
from tools import date_str_utils
from tools.base.errors import BackupError, ConfigError, StoreError, TakenError
from tools.base.log import logger
from tools.base.result import Result, Status
from tools.flow import store, stream
from tools.flow.item_record import StoredItem
from tools.flow.retries import Retries
from tools.flow.retrying_store import Retrying
from tools.modules import executable, targets, work_folder
from tools.modules.options import Paths
from tools.modules.work_folder import WorkFolder


@dataclass(frozen=True)
class Options(StorageKeys):
    """The keys of a section; with a known DESTINATION those of its store (`variants`)."""

    def __post_init__(self) -> None:
        if self.destination not in destinations():
            available = f"Available: DESTINATION {', '.join(destinations())}."
            raise ConfigError(f"DESTINATION: {self.destination}: not implemented yet", available)
        super().__post_init__()

    @classmethod
    def variants(cls) -> tuple[str, Mapping[str, type[StorageKeys]]]:
        """Return the key that chooses the store, and the keys of each store by its value."""
        stores = {name: found.Options for name, found in destinations().items()}
        return "DESTINATION", stores


O = TypeVar("O", bound=StorageKeys)  # noqa: E741  (the Options of a store)


class Destination(Protocol[O]):
    """A file that knows one type of store. The section's keys are its `Options`."""

    Options: type[O]

    def open_store(self, __options: O) -> store.Store:
        """Return the store. Raises BackupError or OSError where it cannot be reached."""

    def test(self, __options: O) -> Sequence[str]:
        """Return what was found about the store for `backup.py -t`, changing nothing.

        Raises BackupError where it cannot be written to.
        """

    def describe(self, __options: O) -> str:
        """Return where the objects of this host lie, for messages."""


def destinations() -> Mapping[str, Destination[Any]]:
    """Return every type of store by its DESTINATION: a new one adds its file and its row."""
    from storage import local_store

    return {
        "local": local_store,
    }


def work(options: StorageKeys) -> Result:
    """Store every complete set of parts; one that fails does not hide or stop the others."""
    files = _files(options)
    if not files:
        folders = ", ".join(map(str, _targets(options)))
        raise StoreError(
            f"no files to store in {folders}",
            "Set TARGETS to the folder that the earlier sections wrote to.",
        )
    target = _retrying(options, Retries(options.retry_wait, _log_line))
    folder = WorkFolder()
    sets, errors = folder.sets(files)
    items: list[StoredItem] = []
    stored: dict[Path, store.StoredObject] = {}
    lost = len(errors)
    hints: dict[str, None] = {}
    progress = stream.Progress()
    for parts in sets:
        try:
            done = _store(parts, target, folder, f"{options.hostname}/", progress)
            items.append(folder.stored(parts, list(done.values())))
            stored.update(done)
        except (BackupError, OSError) as error:
            text, hint = store.explained(error, target)
            lost += 1
            hints.setdefault(hint)
            if text not in errors:
                errors.append(text)
    result = _result(options, target, stored, errors, lost)
    records = tuple(dataclasses.asdict(item) for item in items)
    return dataclasses.replace(result, hint="\n".join(filter(None, hints)), stored=records)


def _store(
    parts: Sequence[Path],
    target: store.Store,
    folder: WorkFolder,
    prefix: str,
    progress: stream.Progress,
) -> dict[Path, store.StoredObject]:
    """Store one set of parts, or nothing of it.

    Two machines of one name may once have made two runs of one id: what an earlier run left gets
    the id of this run in front where its names are taken. Raises TakenError for any other set.
    """
    names = {part: f"{prefix}{part.name}" for part in parts}
    try:
        with store.atomic_publish(target, list(names.values())):
            done = {part: target.put(names[part], _content(part, progress)) for part in parts}
            folder.check(parts, list(done.values()))
            return done
    except TakenError:
        again = f"{prefix}{work_folder.run_id()}."
        if not folder.of_earlier_run(parts[0]) or prefix.endswith("."):
            raise
        return _store(parts, target, folder, again, progress)


def _content(part: Path, progress: stream.Progress) -> stream.Rereadable:
    """Return the bytes of a part, read and hashed in a thread of their own for each attempt."""

    def open_part() -> stream.Content:
        tally = stream.Tally()
        return stream.Content(stream.ahead(tally(progress(stream.read(part)))), tally)

    return stream.Rereadable(open_part)


def _result(
    options: StorageKeys,
    target: store.Store,
    stored: Mapping[Path, store.StoredObject],
    errors: list[str],
    lost: int,
) -> Result:
    size = sum(entry.size for entry in stored.values())
    location = destinations()[options.destination].describe(options)
    files = date_str_utils.count(len(stored), "file")
    summary = f"{files}, {date_str_utils.human_size(size)}, in {location}"
    summary += store.beside(target, stored)
    if errors:
        return Result(
            Status.FAILED,
            f"{errors[0]} ({lost} not stored; {summary})",
            warnings=tuple(errors[1:]),
        )
    removable = tuple(map(str, stored)) if options.remove_targets else ()
    if not os.environ.get("NC_BACKUP_RUN_ID"):  # alone: no other store has to confirm
        for name in removable:
            Path(name).unlink()
        removable = ()
    return Result(
        Status.OK,
        summary,
        files=tuple(f"{location}/{path.name}" for path in stored),
        items=len(stored),
        bytes=size,
        removable=removable,
    )


def _targets(options: StorageKeys) -> Paths:
    return options.targets or (options.work_folder / "encrypted",)


def _files(options: StorageKeys) -> list[Path]:
    """Return every file to store. Raises StoreError where two have one name."""
    found: dict[str, Path] = {}
    for file in (entry.path for entry in targets.files(_targets(options), StoreError)):
        if file.name in found:
            raise StoreError(
                f"two files would both be stored as {file.name}", "Rename one of them."
            )
        found[file.name] = file
    return list(found.values())


def _retrying(options: StorageKeys, policy: Retries) -> store.Store:
    """Return the store of a section, which repeats what fails for a moment."""
    return Retrying(destinations()[options.destination].open_store(options), policy)


def open_store(options: StorageKeys) -> store.Store:
    """Return the store of a section. Raises BackupError or OSError where it cannot be reached."""
    return _retrying(options, Retries(options.retry_wait, lambda line: logger.warning("%s", line)))


def _log_line(line: str) -> None:
    """Write a warning at once: the runner reads it while this program waits."""
    sys.stderr.write(f"warning: {line}\n")
    sys.stderr.flush()


def test(options: StorageKeys) -> tuple[str, ...]:
    """Return what was found about the store, changing nothing in it."""
    return tuple(destinations()[options.destination].test(options))


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.run(Options, work, argv)
