"""Lines of sudoers that let the user of the backup run tar with a wildcard: the way to root.

The documented system had `ncbackup ALL = NOPASSWD: NCBACKUP` with the alias
`/bin/tar czf [A-z_/ ]*`.
Source of the format: sudoers(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tools.base import foreign
from tools.setup import sudoers
from tools.setup.installation import USER, Installation

_PLACES = ("/etc/sudoers", "/etc/sudoers.d")
_LONGEST = 1 << 20  # bytes of a file of sudoers that are looked at
_ALIAS = re.compile(r"\s*Cmnd_Alias\s+([A-Z][A-Z0-9_]*)\s*=")
_OURS = re.compile(rf"\s*(?:%?{USER}\s|Defaults\s*:\s*%?{USER}\b)")


@dataclass(frozen=True)
class Rule:
    """A logical line of sudoers: with a backslash at its end it goes on in the next one.

    first, last: its lines, from 1
    """

    path: Path
    first: int
    last: int
    text: str

    @property
    def is_powerful(self) -> bool:
        """Return whether a wildcard or ALL is among its commands."""
        _before, _equals, commands = self.text.partition("=")
        return bool(re.search(r"(?<!\\)[*?\[]|\bALL\b", commands.partition(":")[2] or commands))

    def __str__(self) -> str:
        return f"{self.path}:{self.first}: {foreign.line(' '.join(self.text.split()))}"


def rules(installation: Installation) -> list[Rule]:
    """Return the rules for the user of the backup that setup.py has not written.

    These are its own rules and settings, and the aliases that nothing but they name.
    """
    every = _every(installation)
    of_backup = [rule for rule in every if _OURS.match(rule.text)]
    others = "\n".join(rule.text for rule in every if rule not in of_backup)
    aliases = [
        rule
        for rule in every
        if (match := _ALIAS.match(rule.text))
        and any(re.search(rf"\b{match[1]}\b", one.text) for one in of_backup)
        and len(re.findall(rf"\b{match[1]}\b", others)) == 1
    ]
    return [rule for rule in every if rule in of_backup or rule in aliases]


def mentions(installation: Installation) -> list[Rule]:
    """Return the other rules that name the user of the backup: among others, or in an alias."""
    of_backup = rules(installation)
    named = (rule for rule in _every(installation) if re.search(rf"\b{USER}\b", rule.text))
    return [rule for rule in named if rule not in of_backup]


def _every(installation: Installation) -> list[Rule]:
    return [rule for path in _files(installation) for rule in _read(path)]


def _files(installation: Installation) -> list[Path]:
    paths: list[Path] = []
    for name in _PLACES:
        path = installation.at(name)
        try:
            paths += sorted(path.iterdir()) if path.is_dir() else [path]
        except OSError:  # not for this user
            continue
    rules_file = installation.at(sudoers.FILE)
    return [file for file in paths if file.is_file() and file != rules_file]


def _read(path: Path) -> list[Rule]:
    try:
        lines = foreign.lines(foreign.decoded(foreign.beginning(path, _LONGEST)))
    except OSError:
        return []
    rules: list[Rule] = []
    first, text = 1, ""
    for number, line in enumerate(lines, 1):
        text += line
        if line.endswith("\\"):
            text = f"{text[:-1]} "
            continue
        if text.strip() and not text.lstrip().startswith("#"):
            rules.append(Rule(path, first, number, text))
        first, text = number + 1, ""
    return rules


def without(path: Path, removed: list[Rule]) -> None:
    """Remove rules of a file, if visudo accepts the rest. Raises BackupError."""
    numbers = {number for rule in removed for number in range(rule.first, rule.last + 1)}
    lines = path.read_bytes().split(b"\n")
    rest = b"\n".join(line for number, line in enumerate(lines, 1) if number not in numbers)
    sudoers.replace(path, rest)
