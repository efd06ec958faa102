"""One item looked at, as far as a level goes, and a dry run: what a restore would do."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from restore import fileset, members, reading, selection, server, target
from tools.base.errors import ConfigError
from tools.base.result import Result, Status
from tools.catalog.manifest import ManifestError
from tools.date_str_utils import count
from tools.flow import stream
from tools.flow.item_record import StoredItem as Item
from tools.modules import registry
from tools.reporting import terminal

_COMPONENT = 255  # bytes of one name (NAME_MAX of Linux)


def refuse_unusable(item: Item) -> None:
    """Raises ManifestError for an item that could not be restored into any folder."""
    place = target.place_of(item)
    if any(len(os.fsencode(word)) > _COMPONENT for word in place.parts) or not place.parts:
        raise ManifestError(
            f"{item.called[:100]}: no file can have its name",
            "It was altered: use another copy of the run.",
        )
    if item.kind not in registry.KINDS:
        raise ManifestError(
            f"{item.called}: its manifest says that it is of the unknown kind {item.kind!r}",
            "It was altered, or a later version made it: use another copy, or that version.",
        )


def verified(
    run: reading.Run,
    item: Item,
    level: str,
    undo: reading.Undo,
    advance: Callable[[int], None],
) -> Result:
    """Verify one item. Raises BackupError or OSError."""
    refuse_unusable(item)
    reading.refuse_absent(run, [item])
    parts = count(len(item.parts), "part")
    verb = "is" if len(item.parts) == 1 else "are"
    if level == "presence":
        return Result(Status.OK, f"{parts} {verb} there", bytes=item.stored)
    if level == "sha256":
        stream.drained(reading.counted(reading.sealed(run, item), advance))
        return Result(Status.OK, f"{parts} {verb} what was stored", bytes=item.stored)
    warnings: tuple[str, ...] = ()
    with stream.closed(reading.plain(run, item, undo, advance)) as chunks:
        if registry.kind(item.kind).archive:
            warnings = fileset.verify(chunks, item.ending).warnings()
        else:
            stream.drained(chunks)
    told = "can be restored" if item.sha256 else "can be read; its source's digest is not known"
    told = f"{told}, but not all of it" if warnings else told
    status = Status.INCOMPLETE if warnings else Status.OK
    return Result(status, told, bytes=item.size or 0, warnings=warnings)


def check_destination(given: argparse.Namespace, size: int) -> None:
    """Raises ConfigError where nothing can be restored into it; warns where it may be too small."""
    target.refuse(given.destination, overwrite=given.overwrite)
    if not given.path and (warning := target.tight(given.destination, size)):
        terminal.say(f"warning: {warning}", error=True)


def dry(given: argparse.Namespace, chosen: selection.Selection, undo: reading.Undo) -> None:
    """Print what would be written, and write nothing; the data is read to its end all the same.

    Raises ConfigError where nothing matches, as the restore would.
    """
    below = given.destination or Path("DESTINATION")
    wanted = members.Patterns(given.path) if given.path else None
    for item in chosen.items:
        refuse_unusable(item)
        run = chosen.run(item)
        goal = server.goal(item, given) or below / target.place_of(item)
        size = "unknown size" if item.size is None else f"{item.size} bytes"
        terminal.say(f"{goal}: {item.kind} {item.called} of run {run.manifest.run_id}, {size}")
        if registry.kind(item.kind).archive:
            chunks = reading.plain(run, item, undo, lambda _size: None)
            for line in fileset.listed(chunks, item.ending, wanted):
                terminal.say(f"  {line}")
    unmatched = wanted.unmatched if wanted else ()
    if unmatched and len(unmatched) == len(set(given.path)):
        raise no_match(chosen, given.path)
    for pattern in unmatched:
        terminal.say(f"warning: nothing matches --path {pattern}", error=True)


def no_match(chosen: selection.Selection, patterns: list[str]) -> ConfigError:
    """The error of a restore that none of the patterns gives anything for."""
    return ConfigError(
        f"nothing in {chosen.named()} matches {' '.join(patterns)}",
        "--dry-run without --path lists what there is; a pattern counts from /, and ** crosses "
        "folders.",
    )
