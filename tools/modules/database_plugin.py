"""What sources of databases do in a staged run: each item becomes a file of its own."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools import date_str_utils, filesystem_handling
from tools.base.errors import BackupError, SourceError
from tools.base.result import Made, Result, Status
from tools.flow import dump_stream, item_record, stream
from tools.flow.item import Item, Told, about
from tools.modules import options


def staged(
    items: Sequence[Item], folder: Path, named: Callable[[str], str], say: Callable[[str], None]
) -> Result:
    """Write each item into a file of its own; one that fails does not stop the others.

    named: the file's name for an item's name. What failed is put aside by the run.
    """
    filesystem_handling.make_folder(folder)
    progress = stream.Progress()
    files: list[str] = []
    warnings: list[str] = []
    errors: list[tuple[str, BackupError | OSError]] = []
    trail: list[Made] = []
    size = 0
    for item in items:
        target = folder / named(item.name)

        def attempt(item: Item = item, target: Path = target) -> None:
            with filesystem_handling.create(target, durable=False) as write:
                for chunk in progress(item.read()):
                    write(chunk)

        try:
            dump_stream.again(attempt, say)
        except (BackupError, OSError) as error:
            errors.append((item.name, error))
            continue
        ended = item.ended()
        for note in ended.notes:
            say(about(item.name, note))
        warnings += [about(item.name, line) for line in ended.warnings]
        errors += [(item.name, SourceError(line)) for line in ended.failures]
        files.append(str(target))
        size += target.stat().st_size
        trail.append(
            Made(
                (),
                (str(target),),
                item.kind,
                facts=ended.facts.to_json(),
                name=item.name,
                ending=item.called(b""),
                warnings=ended.warnings,
                notes=ended.notes,
            )
        )
    told = f"{date_str_utils.count(len(files), 'item')}, {date_str_utils.human_size(size)}"
    common = {"files": tuple(files), "items": len(files), "bytes": size}
    if errors:
        lines = [about(name, error) for name, error in errors]
        hint = getattr(errors[0][1], "hint", "")
        what = f"{lines[0]} ({len(lines)} failed; {told})" if files else lines[0]
        told_of = (*lines[1:], *warnings)
        return Result(Status.FAILED, what, hint, warnings=told_of, trail=tuple(trail), **common)  # type: ignore[arg-type]
    status = Status.INCOMPLETE if warnings else Status.OK
    return Result(status, told, warnings=tuple(warnings), trail=tuple(trail), **common)  # type: ignore[arg-type]


class Plugin:
    """A plugin class (MANUAL) that leaves its items in PREFIX_FOLDER, for a staged run.

    declared: its Options, with hostname, destination, prefix_folder and work_folder
    section:  what its section is usually called
    """

    declared: type[Any]
    section = ""

    def __init__(self, parameters: Mapping[str, Any], logger: logging.Logger) -> None:
        self._parameters = parameters
        self._logger = logger
        self._given: Any = None
        self._result: Result | None = None

    def items(self, given: Any, told: Told) -> Sequence[Item]:  # noqa: ANN401  (its Options)
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
        found = self.items(given, Told(dump_stream.run_id(), section))
        ending = {item.name: item.called(b"") for item in found}
        prefix = f"{dump_stream.run_id()}_{given.hostname}_{given.prefix_folder}"

        def named(item: str) -> str:
            return f"{prefix}_{item_record.quoted(item.replace('/', '_', 1))}{ending[item]}"

        top = given.destination or given.work_folder
        self._result = staged(found, top / given.prefix_folder, named, self._logger.info)

    def output(self) -> Result | None:
        """What came of it."""
        return self._result
