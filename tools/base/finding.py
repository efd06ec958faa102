"""The findings of `backup.py -t` and `setup.py check`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from tools import date_str_utils
from tools.base.foreign import shortened


class Level(str, Enum):
    """The severity of a finding; its value is the prefix of its line."""

    OK = "ok"
    WARN = "WARN"  # a run works, but the operator should know
    BAD = "BAD"  # a run fails


@dataclass(frozen=True)
class Finding:
    """One line of `backup.py -t`. The `test()` of a module returns these, or texts for OK.

    hint: what to do, in words
    fix:  the command that does it: safe to run as it stands
    """

    text: str
    level: Level = Level.OK
    hint: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Line:
    """A finding with the section that it is about, and the others that have the same one.

    source: the user whose check reports it to root, and may have forged it; "" for this program
    """

    section: str
    text: str
    level: Level = Level.OK
    hint: str = ""
    fix: str = ""
    also: tuple[str, ...] = ()
    source: str = ""


_MAX_LINES = 100  # lines of one level
_LONGEST = 2_000  # characters of a command
_NAMES = 20  # sections of one line
_ORDER = (Level.BAD, Level.WARN, Level.OK)


def warning(text: str, hint: str = "", fix: str = "") -> Finding:
    """Return a finding of level WARN."""
    return Finding(text, Level.WARN, hint, fix)


def bad(text: str, hint: str = "", fix: str = "") -> Finding:
    """Return a finding of level BAD; the module can return more findings beside it."""
    return Finding(text, Level.BAD, hint, fix)


def sorted_lines(lines: Iterable[Line]) -> list[Line]:
    """Return errors first, then warnings; each level in the order of the config, and bounded."""
    lines = list(lines)
    ordered: list[Line] = []
    for level in _ORDER:
        of_level = [line for line in lines if line.level is level]
        ordered += map(_bounded, of_level[:_MAX_LINES])
        if more := len(of_level) - _MAX_LINES:
            ordered += [Line("GENERAL", f"{more} more lines of this kind", level)] * (more > 0)
    return ordered


def _bounded(line: Line) -> Line:
    fix = line.fix if len(line.fix) <= _LONGEST else ""  # the beginning of a command is another one
    return dataclasses.replace(line, text=shortened(line.text), hint=shortened(line.hint), fix=fix)


def merged(lines: Iterable[tuple[object, Line]]) -> list[Line]:
    """Return lines of which those with one key are one line, at the place of the first.

    lines: each with its key. What is good is not merged.
    """
    by_key: dict[object, Line] = {}
    for number, (key, line) in enumerate(lines):
        name = number if line.level is Level.OK else (line.level, key)
        first = by_key.setdefault(name, line)
        if line.section not in (first.section, *first.also):
            by_key[name] = dataclasses.replace(first, also=(*first.also, line.section))
    return list(by_key.values())


def rendered(line: Line) -> list[str]:
    """Return a finding as the lines of a text: what it is, and below it what to do."""
    names = [line.section, *line.also[:_NAMES]]
    if len(line.also) > _NAMES:
        names.append("...")
    source = f"[{line.source}] " if line.source else ""
    label = f"suggested by {line.source}: " if line.source else "fix:  "
    texts = [
        f"{line.level.value:5}{source}{', '.join(names)}: {line.text}",
        *([f"     hint: {line.hint}"] if line.hint else []),
        *([f"     {label}{line.fix}"] if line.fix else []),
    ]
    # no further line of one is taken for a finding of its own
    return [text.replace("\n", "\n           ") for text in texts]


def summary(lines: Sequence[Line]) -> str:
    """Return how many findings of each level there are."""
    errors, warnings, good = (sum(line.level is level for line in lines) for level in _ORDER)
    count = date_str_utils.count
    return f"{count(errors, 'error')}, {count(warnings, 'warning')}, {good} good"
