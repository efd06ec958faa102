"""Verify an item up to a level, and dry runs: what a restore would write."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from restore import archive_checks, database_restore, destination, unpack
from restore.archive_errors import UnsafeArchiveError
from tools.base import foreign
from tools.base.errors import ConfigError, ManifestError
from tools.base.result import Result, Status
from tools.catalog import readback
from tools.catalog.selection import Selection
from tools.date_str_utils import count
from tools.flow import codecs, stream
from tools.flow.form import InverseStages
from tools.flow.item_record import StoredItem as Item
from tools.modules import registry
from tools.modules.contracts import Server
from tools.reporting import terminal

_MAX_NAME = 255  # bytes of one name (NAME_MAX of Linux)


def check_item(run: readback.StoredRun, item: Item) -> None:
    """Raise ManifestError for an item that must not be restored, or that no folder can hold."""
    readback.check(run, item)
    path = destination.item_path(item)
    if any(len(os.fsencode(name)) > _MAX_NAME for name in path.parts) or not path.parts:
        raise ManifestError(f"{item.label[:100]}: not usable as a file name", readback.OTHER_COPY)
    registry.kind(item.kind).facts.of(item)


def verify_item(
    run: readback.StoredRun,
    item: Item,
    level: str,
    inverse: InverseStages,
    advance: Callable[[int], None],
    *,
    allow_special: bool = False,
) -> Result:
    """Verify one item: its presence, the SHA-256 of its parts, or all of it.

    allow_special: as in Restoring. Raises BackupError or OSError.
    """
    check_item(run, item)
    readback.require_parts(run, [item])
    parts = count(len(item.parts), "part")
    if level == "presence":
        return Result(Status.OK, f"{parts} present", bytes=item.stored)
    if level == "sha256":
        stream.drained(readback.read_parts(run, item, advance))
        verb = "matches its" if len(item.parts) == 1 else "match their"
        return Result(Status.OK, f"{parts} {verb} SHA-256", bytes=item.stored)
    warnings: tuple[str, ...] = ()
    chunks = readback.read_item(run, item, inverse, advance)
    with readback.naming_filters(item, UnsafeArchiveError), stream.closed(chunks):
        if registry.kind(item.kind).archive:
            special = run.signed or allow_special
            warnings = unpack.verify(chunks, item.ending, special=special).warnings()
        else:
            stream.drained(chunks)
    checked = item.sha256 is not None or codecs.has_checksum(item.stages)
    message = "can be restored" if checked else "readable, but the run has no checksum of it"
    message = f"{message}, but not all of it" if warnings else message
    status = Status.INCOMPLETE if warnings else Status.OK
    return Result(status, message, bytes=item.size or 0, warnings=warnings)


def dry_run(
    selection: Selection,
    target: Path | Server,
    patterns: Sequence[str],
    inverse: InverseStages,
    *,
    allow_special: bool = False,
) -> int:
    """Print what would be written, and write nothing; filesets are read to their end.

    Return the exit code: 1 where an item must not be restored. Raises ConfigError where the
    patterns match nothing, as the restore would.
    """
    matches = archive_checks.Patterns(patterns) if patterns else None
    code = 0
    for item in selection.items:
        run = selection.run(item)
        try:
            check_item(run, item)
        except ManifestError as error:  # costs only this item, as in a restore
            terminal.say(foreign.line(f"error: {error}"), error=True)
            terminal.say(f"hint: {error.hint}", error=True)
            code = 1
            continue
        _print_item(run, item, target)
        if registry.kind(item.kind).archive:
            chunks = readback.read_item(run, item, inverse, lambda _size: None)
            special = run.signed or allow_special
            for line in unpack.list_entries(chunks, item.ending, matches, special=special):
                terminal.say(f"  {line}")
    unmatched = matches.unmatched if matches else ()
    if unmatched and len(unmatched) == len(set(patterns)):
        raise no_match(selection, patterns)
    for pattern in unmatched:
        terminal.say(f"warning: {unpack.UNMATCHED} {pattern}", error=True)
    return code


def _print_item(run: readback.StoredRun, item: Item, target: Path | Server) -> None:
    label = (
        database_restore.target_label(item, target)
        if isinstance(target, Server)
        else target / destination.item_path(item)
    )
    size = "unknown size" if item.size is None else f"{item.size} bytes"
    text = f"{label}: {item.kind} {item.label} of run {run.run_id}, {size}"
    terminal.say(foreign.line(text))


def no_match(selection: Selection, patterns: Sequence[str]) -> ConfigError:
    """Return the error of a restore where no file matches any of the patterns."""
    return ConfigError(
        f"{selection.label()}: no file matches {' '.join(patterns)}",
        "Use --dry-run without --path to list the files.",
    )
