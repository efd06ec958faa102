"""The findings of `backup.py -t`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(str, Enum):
    """The severity of a finding; its value is the prefix of its line."""

    OK = "ok"
    WARN = "WARN"  # a run works, but the operator should know
    BAD = "BAD"  # a run fails


@dataclass(frozen=True)
class Finding:
    """One line of `backup.py -t`. The `test()` of a module returns these, or texts for OK."""

    text: str
    level: Level = Level.OK
    hint: str = ""


def warning(text: str, hint: str = "") -> Finding:
    """Return a finding of level WARN."""
    return Finding(text, Level.WARN, hint)


def bad(text: str, hint: str = "") -> Finding:
    """Return a finding of level BAD; the module can return more findings beside it."""
    return Finding(text, Level.BAD, hint)
