#!/usr/bin/env python3
"""Store what the sections before made, under the folder of this host."""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from storage import store_actions
from storage.keys import Address, StorageKeys
from tools import date_str_utils
from tools.base import crash, masking
from tools.base.errors import ConfigError, StoreError, TakenError
from tools.base.finding import Finding, Level
from tools.base.log import logger
from tools.base.result import Result, Status
from tools.flow import rate_limit, stalls, store
from tools.flow.item_record import StoredItem
from tools.flow.retries import Retries, SelfRetrying
from tools.flow.retrying_store import Retrying, retries_itself
from tools.modules import executable, targets, work_folder
from tools.modules.options import Paths
from tools.modules.work_store import WorkFolder


@dataclass(frozen=True)
class Options(StorageKeys):
    """The keys of a section; with a known DESTINATION those of its store (`variants`)."""

    def __post_init__(self) -> None:
        if self.destination not in destinations():
            available = f"Available: DESTINATION {', '.join(destinations())}."
            raise ConfigError(f"DESTINATION: {self.destination}: unknown type of store", available)
        super().__post_init__()

    @classmethod
    def variants(cls) -> tuple[str, Mapping[str, type[StorageKeys]]]:
        """Return the key that chooses the store, and the keys of each store by its value."""
        stores = {name: module.Options for name, module in destinations().items()}
        return "DESTINATION", stores


O = TypeVar("O", bound=StorageKeys)  # noqa: E741  (the Options of a store)


class Destination(Protocol[O]):
    """A file that knows one type of store. The section's keys are its `Options`."""

    Options: type[O]

    def open_store(self, __options: O) -> store.Store:
        """Return the store. Raises BackupError or OSError where it cannot be reached."""

    def test(self, __options: O) -> Sequence[str | Finding]:
        """Return what was found about the store for `backup.py -t`, changing nothing.

        Raises BackupError where it cannot be written to.
        """

    def describe(self, __options: O) -> str:
        """Return where the objects of this host lie, for messages."""

    def keys_of(self, __address: Address) -> Mapping[str, str]:
        """Return the keys of a store by its address. Raises ConfigError where parts are missing."""


def destinations() -> Mapping[str, Destination[Any]]:
    """Return every type of store by its DESTINATION: a new one adds its file and its row."""
    from storage import (
        command_store,
        local_store,
        oss_store,
        rclone_store,
        s3_store,
        ssh_store,
    )

    return {
        "command": command_store,
        "custom_command": command_store,
        "local": local_store,
        "oss": oss_store,
        "rclone": rclone_store,
        "s3": s3_store,
        "ssh": ssh_store,
    }


def work(options: StorageKeys) -> Result:
    """Do what ACTION says."""
    if options.action == "check":
        return _checked(options)
    if options.action in store_actions.ACTIONS:
        return store_actions.ACTIONS[options.action](options, open_store(options))
    return _upload(options)


def _checked(options: StorageKeys) -> Result:
    """Return what the test of the store found. Raises StoreError for the first fault."""
    findings = [Finding(one) if isinstance(one, str) else one for one in test(options)]
    for one in findings:
        if one.level is Level.BAD:
            raise StoreError(one.text, one.hint)
    good = "; ".join(one.text for one in findings if one.level is Level.OK)
    return Result(
        Status.OK, good, warnings=tuple(w.text for w in findings if w.level is Level.WARN)
    )


def _upload(options: StorageKeys) -> Result:
    """Store every complete set of parts; one that fails does not hide or stop the others."""
    files = _files(options)
    if not files:
        folders = ", ".join(map(str, _targets(options)))
        raise StoreError(
            f"no files to store in {folders}",
            "Set TARGETS to the folder that the earlier sections wrote to.",
        )
    target = stalls.watched(options.stall_timeout, lambda: _store_of(options))
    folder = WorkFolder()
    recorded, others = folder.sets(files)
    complete, errors = work_folder.complete_sets(others)
    items: list[StoredItem] = []
    sources: list[Path] = []
    lost = len(errors)
    hints: dict[str, None] = {}
    for parts in (*recorded, *complete):
        try:
            items.append(_store(parts, target, folder, options))
            sources += parts
        except Exception as error:  # noqa: BLE001  (see crash.reportable)
            text, hint = store.explained(crash.reportable(error), target)
            lost += 1
            hints.setdefault(hint)
            if text not in errors:
                errors.append(text)
    result = _result(
        options, items, sources, store.note(target) + store.same_disk_note(target, sources)
    )
    if errors:
        message = f"{errors[0]} ({lost} not stored; {result.message})"
        hint = "\n".join(filter(None, hints))
        return dataclasses.replace(
            result, status=Status.FAILED, message=message, hint=hint, warnings=tuple(errors[1:])
        )
    return dataclasses.replace(result, removable=_removable(options, sources))


def _store(
    files: Sequence[Path], target: store.Store, folder: WorkFolder, options: StorageKeys
) -> StoredItem:
    """Let an item that waits flow into the store; again where that fails for a moment.

    Where its names are taken, by another file that was called like it, the id of this run stands
    in front. Raises TakenError where that does not help: another machine has made this run.
    """
    retries = Retries(options.retry_wait, _log_line)

    def attempt(prefix: str) -> StoredItem:
        def once() -> StoredItem:
            return folder.hand_over(files, target, f"{options.hostname}/{prefix}")

        return once() if retries_itself(target) else retries.call(files[0].name, once)

    try:
        return attempt("")
    except TakenError:
        prefix = folder.prefix(files)
        if not prefix:
            raise
        return attempt(prefix)


def _result(
    options: StorageKeys, items: Sequence[StoredItem], sources: Sequence[Path], note: str
) -> Result:
    size = sum(item.stored for item in items)
    location = destinations()[options.destination].describe(options)
    names = [part.name for item in items for part in item.parts]
    files = date_str_utils.count(len(sources), "file")
    return Result(
        Status.OK,
        f"{files}, {date_str_utils.human_size(size)}, in {location}{note}",
        files=tuple(f"{location}/{name}" for name in names),
        items=len(names),
        bytes=size,
        stored=tuple(map(dataclasses.asdict, items)),
    )


def _removable(options: StorageKeys, sources: Sequence[Path]) -> tuple[str, ...]:
    """Return what the run removes once all its stores have confirmed; alone, remove it."""
    if not options.remove_targets:
        return ()
    if os.environ.get("NC_BACKUP_RUN_ID"):
        return tuple(map(str, sources))
    for file in sources:
        file.unlink()
    return ()


def _targets(options: StorageKeys) -> Paths:
    return options.targets or (options.work_folder / "encrypted",)


def _files(options: StorageKeys) -> list[Path]:
    """Return every file to store. Raises StoreError where two have one name."""
    by_name: dict[str, Path] = {}
    for file in (entry.path for entry in targets.files(_targets(options), StoreError)):
        if file.name in by_name:
            raise StoreError(
                f"two files would both be stored as {file.name}", "Rename one of them."
            )
        by_name[file.name] = file
    return list(by_name.values())


def open_store(options: StorageKeys) -> store.Store:
    """Return the store of a section. Raises BackupError or OSError where it cannot be reached."""
    inner = _store_of(options)
    itself = store.ability(inner, SelfRetrying)  # type: ignore[type-abstract]
    return Retrying(inner, itself.retries if itself else Retries(options.retry_wait))


def _store_of(options: StorageKeys) -> store.Store:
    """Return the store, which shares the limits of its rates with all stores of this process."""
    destination_store: store.Store = destinations()[options.destination].open_store(options)
    return rate_limit.limited(destination_store, options.limit_upload, options.limit_download)


def keys_of(url: str, endpoint: str) -> dict[str, str]:
    """Return the keys of a section for a store that is named by its URL. Raises ConfigError.

    endpoint: URL of the server of a bucket; "" for the usual one
    """
    name, _, rest = url.partition("://")
    if name not in destinations():
        known = ", ".join(f"{one}://" for one in destinations())
        raise ConfigError(f"--store: {name}://: unknown type of store", f"Begin it with {known}.")
    keys = destinations()[name].keys_of(Address.parse(rest, endpoint))
    return {"HOSTNAME": "any", "DESTINATION": name, **keys}


def _log_line(line: str) -> None:
    """Write a warning at once: the runner reads it while this program waits."""
    sys.stderr.write(f"warning: {line}\n")
    sys.stderr.flush()


def test(options: StorageKeys) -> tuple[str | Finding, ...]:
    """Return what was found about the store, changing nothing in it."""
    return tuple(destinations()[options.destination].test(options))


class _Levelled(logging.Formatter):
    """A line as the runner reads it: the level in front."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {masking.text(super().format(record))}"


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Levelled())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    return executable.run(Options, work, argv)
