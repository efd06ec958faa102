"""What sources of databases do in a staged run: each item becomes a file of its own."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from tools.base import crash
from tools.base.errors import BackupError
from tools.base.result import Result
from tools.flow import dump_stream, item_record, item_results
from tools.flow.item import Item, SourceContext, about
from tools.flow.item_record import StoredItem
from tools.modules import options
from tools.modules.options import Declaration
from tools.modules.work_store import WorkFolder, WorkStore


def staged(
    items: Sequence[Item], folder: Path, named: Callable[[str], str], say: Callable[[str], None]
) -> Result:
    """Let each item flow into a file of its own; one that fails does not stop the others.

    named: the file's name for an item's name. What failed is moved aside by the run.
    """
    work, store = WorkFolder(), WorkStore(folder)
    stored: list[StoredItem] = []
    errors: list[tuple[str, BackupError | OSError]] = []
    for item in items:
        flow = functools.partial(work.collect, item, store, named(item.name))
        try:
            done = dump_stream.again(item.name, flow, say)
        except Exception as error:  # noqa: BLE001  (see crash.reportable)
            errors.append((item.name, crash.reportable(error)))
            continue
        for note in done.report.notes:
            say(about(item.name, note))
        errors += [(item.name, error) for error in done.failures]
        stored.append(done.item)
    files = tuple(str(folder / part.name) for item in stored for part in item.parts)
    return dataclasses.replace(item_results.of_items(stored, errors, stored=False), files=files)


class Declared(Declaration, Protocol):
    """The keys that a plugin reads itself."""

    @property
    def hostname(self) -> str: ...

    @property
    def destination(self) -> Path | None: ...

    @property
    def prefix_folder(self) -> str: ...

    @property
    def work_folder(self) -> Path: ...


D = TypeVar("D", bound=Declared)


class Plugin(Generic[D]):
    """A plugin class (MANUAL) that leaves its items in PREFIX_FOLDER, for a staged run.

    declared: its Options
    section:  what its section is usually called
    """

    declared: type[D]
    section = ""

    def __init__(self, parameters: Mapping[str, Any], logger: logging.Logger) -> None:
        self._parameters = parameters
        self._logger = logger
        self._options: D | None = None
        self._result: Result | None = None

    def items(self, options: D, context: SourceContext) -> Sequence[Item]:
        """Return what a streamed run would get."""
        raise NotImplementedError

    def config_plugin(self) -> None:
        """Read the parameters."""
        texts = {key: options.to_text(value) for key, value in self._parameters.items()}
        self._options = options.fill(self.declared, texts)

    def works_execution(self) -> None:
        """Dump."""
        filled = self._options
        if filled is None:
            raise RuntimeError("config_plugin was not called")
        section = os.environ.get("NC_BACKUP_SECTION", self.section)
        items = self.items(filled, SourceContext(dump_stream.run_id(), section))
        ending = {item.name: item.suffix_for(b"") for item in items}
        prefix = f"{dump_stream.run_id()}_{filled.hostname}_{filled.prefix_folder}"

        def named(item: str) -> str:
            return f"{prefix}_{item_record.quoted(item.replace('/', '_', 1))}{ending[item]}"

        top = filled.destination or filled.work_folder
        self._result = staged(items, top / filled.prefix_folder, named, self._logger.info)

    def output(self) -> Result | None:
        """Return the result; None before the dump."""
        return self._result
