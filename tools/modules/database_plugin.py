"""What sources of databases do in a staged run: each item becomes a file of its own."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools import date_str_utils, filesystem_handling
from tools.base.errors import BackupError, SourceError
from tools.base.result import Result, Status
from tools.flow import dump_stream, item_record, stream
from tools.flow.item import Item, ItemReport, SourceContext, about
from tools.flow.item_record import StoredItem
from tools.modules import options, work_folder
from tools.modules.options import Declaration
from tools.modules.work_folder import WorkFolder


def staged(
    items: Sequence[Item], folder: Path, named: Callable[[str], str], say: Callable[[str], None]
) -> Result:
    """Write each item into a file of its own; one that fails does not stop the others.

    named: the file's name for an item's name. What failed is put aside by the run.
    """
    filesystem_handling.make_folder(folder)
    writer = _Writer()
    files: list[Path] = []
    warnings: list[str] = []
    errors: list[tuple[str, BackupError | OSError]] = []
    for item in items:
        target = folder / named(item.name)
        try:
            ended = dump_stream.again(functools.partial(writer.write, item, target), say)
        except (BackupError, OSError) as error:
            errors.append((item.name, error))
            continue
        for note in ended.notes:
            say(about(item.name, note))
        warnings += [about(item.name, line) for line in ended.warnings]
        errors += [(item.name, SourceError(line)) for line in ended.failures]
        files.append(target)
    return _result(files, warnings, errors)


class _Writer:
    """Writes items into files of the work folder."""

    def __init__(self) -> None:
        self._folder = WorkFolder()
        self._progress = stream.Progress()
        self._section = os.environ.get("NC_BACKUP_SECTION", "")

    def write(self, item: Item, target: Path) -> ItemReport:
        """Write one item into a file; return what its source says of it."""
        ended = ItemReport()

        def describe() -> StoredItem:
            nonlocal ended
            ended = item.report()
            return described(item, self._section, item.suffix_for(b""), ended)

        self._folder.write(target, self._progress(item.read()), describe, work_folder.run_id())
        return ended


def described(item: Item, section: str, ending: str, ended: ItemReport) -> StoredItem:
    """Return what a source has given as a record describes it, without its files."""
    return StoredItem(
        section,
        item.name,
        item.kind,
        ending,
        (),
        (),
        facts=ended.facts.to_json(),
        warnings=ended.warnings,
        notes=ended.notes,
        base=ended.base,
    )


def _result(
    files: Sequence[Path],
    warnings: Sequence[str],
    errors: Sequence[tuple[str, BackupError | OSError]],
) -> Result:
    size = sum(file.stat().st_size for file in files)
    summary = f"{date_str_utils.count(len(files), 'item')}, {date_str_utils.human_size(size)}"
    status = Status.INCOMPLETE if warnings else Status.OK
    hint = ""
    if errors:
        lines = [about(name, error) for name, error in errors]
        summary = f"{lines[0]} ({len(lines)} failed; {summary})" if files else lines[0]
        status, hint = Status.FAILED, getattr(errors[0][1], "hint", "")
        warnings = (*lines[1:], *warnings)
    return Result(
        status,
        summary,
        hint,
        files=tuple(map(str, files)),
        items=len(files),
        bytes=size,
        warnings=tuple(warnings),
    )


class Plugin:
    """A plugin class (MANUAL) that leaves its items in PREFIX_FOLDER, for a staged run.

    declared: its Options, with hostname, destination, prefix_folder and work_folder
    section:  what its section is usually called
    """

    declared: type[Declaration]
    section = ""

    def __init__(self, parameters: Mapping[str, Any], logger: logging.Logger) -> None:
        self._parameters = parameters
        self._logger = logger
        self._given: Any = None
        self._result: Result | None = None

    def items(self, given: Any, context: SourceContext) -> Sequence[Item]:  # noqa: ANN401  (its Options)
        """What a streamed run would get."""
        raise NotImplementedError

    def config_plugin(self) -> None:
        """Read the parameters."""
        texts = {key: options.to_text(value) for key, value in self._parameters.items()}
        self._given = options.fill(self.declared, texts)

    def works_execution(self) -> None:
        """Dump."""
        given = self._given
        section = os.environ.get("NC_BACKUP_SECTION", self.section)
        found = self.items(given, SourceContext(dump_stream.run_id(), section))
        ending = {item.name: item.suffix_for(b"") for item in found}
        prefix = f"{dump_stream.run_id()}_{given.hostname}_{given.prefix_folder}"

        def named(item: str) -> str:
            return f"{prefix}_{item_record.quoted(item.replace('/', '_', 1))}{ending[item]}"

        top = given.destination or given.work_folder
        self._result = staged(found, top / given.prefix_folder, named, self._logger.info)

    def output(self) -> Result | None:
        """What came of it."""
        return self._result
