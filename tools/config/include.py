"""conf.json merged with the files that it includes; each key keeps its file and line."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools import os_works
from tools.base import fixes, permissions
from tools.base.errors import ConfigError
from tools.config import json_parser


@dataclass(frozen=True)
class Entry:
    """A value, and the file, line and folder that it comes from."""

    value: Any
    where: str
    folder: Path


Keys = dict[str, Entry]
_EXAMPLES = {"": '"ACTION": "execute", ...', "NOTIFY": '"mail": {"TYPE": "email", ...}'}
_MOST_FILES = 100
_VARIABLE = re.compile(r"\$(?:\{|[A-Za-z_])")


@dataclass(frozen=True)
class Files:
    """Reads files, each of them only if no other user could have changed it.

    insecure: read it anyway. comments: keep the keys that begin with `__`.
    repeats: the keys that occur twice in their section, with the file and line of the last one
    """

    insecure: bool = False
    comments: bool = False
    read_files: list[Path] = field(default_factory=list)
    repeats: list[tuple[str, json_parser.Repeat]] = field(default_factory=list)

    def merged(
        self, path: Path, above: tuple[Path, ...] = (), included: str = ""
    ) -> dict[str, Entry]:
        """Return the sections of a file, merged over those of the files that it includes.

        included: file and line of the INCLUDE that names it; "" for the config itself
        """
        real = Path(os.path.realpath(path))  # Path.resolve raises on a link to itself
        if real in above:
            chain = " -> ".join(map(str, (*above, real)))
            raise ConfigError(f"{path}: circular INCLUDE", f"Remove one INCLUDE of {chain}.")
        if len(self.read_files) >= _MOST_FILES:
            raise ConfigError(f"{path}: INCLUDE: more than {_MOST_FILES} files")
        self.read_files.append(real)
        table = self._table(path, included)
        sections: dict[str, Entry] = {}
        include = table.values.get("INCLUDE", [])
        files = include.split() if isinstance(include, str) else include
        if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
            raise ConfigError(
                f"{path}:{table.lines['INCLUDE']}: INCLUDE: must be a list of files",
                'For example: "INCLUDE": ["parts/general.json"].',
            )
        for name in files:
            by = f"{path}:{table.lines['INCLUDE']}"
            unexpanded(name, real.parent / name, f"{by}: INCLUDE")
            for section, entry in self.merged(real.parent / name, (*above, real), by).items():
                _merge(sections, section, entry)
        for key, value in table.values.items():
            where = f"{path}:{table.lines[key]}"
            if key in ("INCLUDE", "$schema"):
                continue
            if key.startswith("__"):
                sections.setdefault(key, Entry(json_parser.plain(value), where, real.parent))
                continue
            if not isinstance(value, json_parser.Table):
                raise ConfigError(
                    f"{where}: {key}: a section must be an object",
                    f'For example: "{key}": {{{_EXAMPLES.get(key, _EXAMPLES[""])}}}',
                )
            _merge(
                sections, key, Entry(_section(key, value, path, real.parent), where, real.parent)
            )
        return sections

    def unmerged(self, path: Path) -> dict[str, Entry]:
        """Return the sections of the file itself, without what it includes."""
        table = json_parser.parse(self.read(path), str(path))
        folder = Path(os.path.realpath(path)).parent
        return {
            key: Entry(_section(key, value, path, folder), f"{path}:{table.lines[key]}", folder)
            for key, value in table.values.items()
            if isinstance(value, json_parser.Table)
        }

    def _table(self, path: Path, included: str) -> json_parser.Table:
        table = json_parser.parse(self.read(path, included), str(path), comments=self.comments)
        self.repeats.extend((f"{path}:{repeat.line}", repeat) for repeat in table.repeats)
        return table

    def read(self, path: Path, included: str = "") -> bytes:
        """Return the bytes of a file, checked and read through one descriptor."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            problem = f"{path}: {(error.strerror or 'cannot be read').lower()}"
            fix = fixes.let_read(path) if isinstance(error, PermissionError) else ""
            raise ConfigError(problem, _unread(error, included), fix) from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"{path}: not a regular file", _irregular(path, included))
            self._secure_opened(path, descriptor)
            with os.fdopen(os.dup(descriptor), "rb") as opened:
                return opened.read(json_parser.MOST_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
        finally:
            os.close(descriptor)

    def secure(self, path: Path) -> None:
        """Reject a file that another user could change: it would run as this user."""
        if self.insecure:
            return
        # the folder of the name as well: the name may be a link that is replaced
        weakness = permissions.of_code(path) or permissions.of_code(path.absolute().parent)
        if weakness is not None:
            raise ConfigError(
                f"{path}: {weakness}",
                weakness.hint_or_accept,
                weakness.fix,
            )

    def _secure_opened(self, path: Path, descriptor: int) -> None:
        """Check an open file in the same way; it must be the one that was checked."""
        real = os.path.realpath(path)
        self.secure(path)
        if not self.insecure and not os.path.samestat(os.fstat(descriptor), Path(real).stat()):
            raise ConfigError(
                f"{path}: file was replaced while it was read", "Run the command again."
            )


def _unread(error: OSError, included: str) -> str:
    """Return the hint for a file that cannot be opened."""
    if included:
        return f"Correct INCLUDE in {included}, or the file."
    if isinstance(error, FileNotFoundError):
        return "Use -c CONFIG with the path of your config."
    if isinstance(error, PermissionError):
        return (
            f"Let the user {os_works.user()} read the file and enter the folders above it. "
            "Check owner, group and mode with namei -l."
        )
    return ""


def _irregular(path: Path, included: str) -> str:
    """Return the hint for a path that is a folder or a device."""
    if included:
        return f"Correct INCLUDE in {included}."
    if (path / "conf.json").is_file():
        return f"Use -c {path / 'conf.json'}."
    return "Use -c with the path of the file conf.json."


def unexpanded(word: str, path: Path, location: str) -> None:
    """Reject `~` and `$NAME` in a path that does not exist as it is written."""
    mark = "~" if word.startswith("~") else "$" if _VARIABLE.search(word) else ""
    if mark and not os.path.lexists(path):
        raise ConfigError(
            f"{location}: {word}: {mark} is not expanded in a config", "Write the whole path."
        )


def _section(name: str, table: json_parser.Table, path: Path, folder: Path) -> Keys:
    """Return the keys of a section with file and line; those of PARAMETERS as well.

    NOTIFY holds objects alone: the keys of each.
    """
    every = name == "NOTIFY" and "ACTION" not in table.values
    return _entries(table, path, folder, None if every else "PARAMETERS")


def _entries(table: json_parser.Table, path: Path, folder: Path, deep: str | None) -> Keys:
    """Return the entries of a table.

    deep: the key whose value has keys with lines as well; None for all of them
    """
    keys: Keys = {}
    for key, value in table.values.items():
        nested = deep in (None, key) and isinstance(value, json_parser.Table)
        held = _entries(value, path, folder, "") if nested else value
        keys[key] = Entry(
            held if nested else json_parser.plain(value), f"{path}:{table.lines[key]}", folder
        )
    return keys


def _merge(into: dict[str, Entry], name: str, entry: Entry) -> None:
    """Merge a section over one of the same name, key by key; PARAMETERS likewise."""
    if name in into and _has_keys(into[name]) and _has_keys(entry):
        for key, value in entry.value.items():
            _merge(into[name].value, key, value)
    else:
        into[name] = entry


def _has_keys(entry: Entry) -> bool:
    """Return whether a value has keys with lines: not an object that is one value (TEMPLATE)."""
    held = entry.value
    return isinstance(held, dict) and all(isinstance(one, Entry) for one in held.values())
