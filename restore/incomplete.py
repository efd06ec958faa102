"""What was never in a run: said again whenever the run is verified or restored."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from collections.abc import Callable, Sequence

from restore import members
from tools.base.result import Result, Status, worst
from tools.base.run_result import SectionResult
from tools.catalog.manifest import Manifest
from tools.date_str_utils import count
from tools.flow.item_record import StoredItem as Item

_FIRST = 5  # lines of an item that are shown


def told(item: Item, result: Result, run_id: str, patterns: Sequence[str]) -> Result:
    """The result of an item that was verified or restored, with what its backup lacks.

    patterns: of --path: only what they mean counts
    """
    wanted = members.Patterns(patterns) if patterns else None
    lacks = [line for line in item.warnings if wanted is None or _about(line, wanted)]
    if not lacks or not result.status.stored:
        return result
    lines = [f"reported by the backup: {line}" for line in lacks[:_FIRST]]
    if len(lacks) > _FIRST:
        lines.append(f"and {len(lacks) - _FIRST} more of {len(lacks)}: --show {run_id} lists all")
    return dataclasses.replace(
        result,
        status=worst((result.status, Status.INCOMPLETE)),
        message=f"{result.message}; the backup is incomplete: {count(len(lacks), 'warning')}",
        warnings=(*result.warnings, *lines),
    )


def _about(line: str, wanted: Callable[[bytes], bool]) -> bool:
    """Whether a warning is about a file that is meant; one that names none always is."""
    name = line.partition(": ")[0]
    return not name.startswith("/") or wanted(os.fsencode(name.strip("/")))


def missing(made: Manifest, section: str, names: Sequence[str]) -> list[SectionResult]:
    """A step for each item of a run, as far as it is meant, that this store does not hold."""
    steps = []
    for called in made.missing:
        its_section, _, name = called.partition("/")
        meant = [one in (name, called) or fnmatch.fnmatchcase(name, one) for one in names]
        if section in ("", its_section) and (not names or any(meant)):
            what = f"run {made.run_id} does not hold it in this store"
            hint = f"--show {made.run_id} lists what it holds; another store may hold it."
            steps.append(SectionResult(called, "item", Result(Status.INCOMPLETE, what, hint)))
    return steps
