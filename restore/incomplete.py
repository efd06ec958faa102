"""What a run never contained: reported again whenever the run is verified or restored."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from collections.abc import Callable, Sequence

from restore import archive_checks
from tools.base.result import Result, Status, worst
from tools.base.run_result import SectionResult
from tools.catalog.manifest import Manifest
from tools.date_str_utils import count
from tools.flow.item_record import StoredItem as Item

_MAX_SHOWN = 5  # warnings of an item that are shown


def with_backup_warnings(
    item: Item, result: Result, run_id: str, patterns: Sequence[str]
) -> Result:
    """Return the result of a verify or restore with the warnings of the backup added.

    patterns: those of --path; only warnings about files that match them count
    """
    matches = archive_checks.Patterns(patterns) if patterns else None
    warnings = [line for line in item.warnings if matches is None or _concerns(line, matches)]
    if not warnings or not result.status.stored:
        return result
    lines = [f"reported by the backup: {line}" for line in warnings[:_MAX_SHOWN]]
    if len(warnings) > _MAX_SHOWN:
        lines.append(
            f"and {len(warnings) - _MAX_SHOWN} more of {len(warnings)}: --show {run_id} lists all"
        )
    return dataclasses.replace(
        result,
        status=worst((result.status, Status.INCOMPLETE)),
        message=f"{result.message}; the backup is incomplete: {count(len(warnings), 'warning')}",
        warnings=(*result.warnings, *lines),
    )


def _concerns(line: str, matches: Callable[[bytes], bool]) -> bool:
    """Return whether a warning is about a selected file; one that names no file always is."""
    name = line.partition(": ")[0]
    return not name.startswith("/") or matches(os.fsencode(name.strip("/")))


def missing_items(manifest: Manifest, section: str, names: Sequence[str]) -> list[SectionResult]:
    """Return a step for each selected item of the run that this store does not hold."""
    steps = []
    for label in manifest.missing:
        its_section, _, name = label.partition("/")
        selected = [one in (name, label) or fnmatch.fnmatchcase(name, one) for one in names]
        if section in ("", its_section) and (not names or any(selected)):
            problem = f"run {manifest.run_id}: not in this store"
            hint = f"Use another store (--store). --show {manifest.run_id} lists the items here."
            steps.append(SectionResult(label, "item", Result(Status.INCOMPLETE, problem, hint)))
    return steps
