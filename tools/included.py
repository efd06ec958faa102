"""conf.json with all that it includes, merged; each key remembers the place that it comes from."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools import jsontext, permissions
from tools.errors import ConfigError


@dataclass(frozen=True)
class Entry:
    """A value with the place that it comes from: its file, line and folder."""

    value: Any
    where: str
    folder: Path


Keys = dict[str, Entry]
_MOST_FILES = 100


@dataclass(frozen=True)
class Files:
    """Reads files, each of them only if nobody else could have changed it.

    insecure: read it all the same.
    """

    insecure: bool = False
    opened: list[Path] = field(default_factory=list)

    def merged(self, path: Path, above: tuple[Path, ...] = ()) -> dict[str, Entry]:
        """The sections of a file over those of the files that it includes."""
        real = Path(os.path.realpath(path))  # Path.resolve raises on a link to itself
        if real in above:
            chain = " -> ".join(map(str, (*above, real)))
            raise ConfigError(f"{path}: INCLUDE goes round in a circle", f"{chain}.")
        if len(self.opened) >= _MOST_FILES:
            raise ConfigError(f"{path}: INCLUDE leads to more than {_MOST_FILES} files")
        self.opened.append(real)
        table = jsontext.parse(self.read(path), str(path))
        found: dict[str, Entry] = {}
        include = table.values.get("INCLUDE", [])
        files = include.split() if isinstance(include, str) else include
        if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
            raise ConfigError(f"{path}:{table.lines['INCLUDE']}: INCLUDE: must be a list of files")
        for name in files:
            for section, entry in self.merged(real.parent / name, (*above, real)).items():
                _merge(found, section, entry)
        for key, value in table.values.items():
            where = f"{path}:{table.lines[key]}"
            if key in ("INCLUDE", "$schema"):
                continue
            if not isinstance(value, jsontext.Table):
                raise ConfigError(
                    f"{where}: {key}: a section must be an object", 'Like {"ACTION": ...}.'
                )
            _merge(found, key, Entry(_entries(value, path, real.parent), where, real.parent))
        return found

    def own(self, path: Path) -> dict[str, Entry]:
        """The sections of the file itself, without what it includes."""
        table = jsontext.parse(self.read(path), str(path))
        folder = Path(os.path.realpath(path)).parent
        return {
            key: Entry(_entries(value, path, folder), f"{path}:{table.lines[key]}", folder)
            for key, value in table.values.items()
            if isinstance(value, jsontext.Table)
        }

    def read(self, path: Path) -> bytes:
        """The bytes of a file, checked and read through one descriptor."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            hint = "Name the config with -c." if isinstance(error, FileNotFoundError) else ""
            raise ConfigError(
                f"{path}: {(error.strerror or 'cannot be read').lower()}", hint
            ) from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"{path}: is not a regular file", "-c names the file conf.json.")
            self._secure_opened(path, descriptor)
            with os.fdopen(os.dup(descriptor), "rb") as opened:
                return opened.read(jsontext.MOST_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
        finally:
            os.close(descriptor)

    def secure(self, path: Path) -> None:
        """Refuse what somebody else could change: it would run as this user."""
        if self.insecure:
            return
        # the folder that the name stands in, too: it may be a link that is turned round
        found = permissions.of_code(path) or permissions.of_code(path.absolute().parent)
        if found is not None:
            raise ConfigError(
                f"{path}: {found}", f"{found.fix} (or --insecure-permissions, if you must)."
            )

    def _secure_opened(self, path: Path, descriptor: int) -> None:
        """The same for an open file, which must be the one that has been looked at."""
        real = os.path.realpath(path)
        self.secure(path)
        if not self.insecure and not os.path.samestat(os.fstat(descriptor), Path(real).stat()):
            raise ConfigError(f"{path}: was replaced while it was read", "Start again.")


def _entries(table: jsontext.Table, path: Path, folder: Path) -> Keys:
    """The keys of a section with their places; PARAMETERS likewise."""
    found: Keys = {}
    for key, value in table.values.items():
        nested = key == "PARAMETERS" and isinstance(value, jsontext.Table)
        held = _entries(value, path, folder) if nested else value
        found[key] = Entry(
            held if nested else jsontext.plain(value), f"{path}:{table.lines[key]}", folder
        )
    return found


def _merge(into: dict[str, Entry], name: str, entry: Entry) -> None:
    """Lay a section over one of the same name: key by key, PARAMETERS likewise."""
    if name in into and isinstance(into[name].value, dict) and isinstance(entry.value, dict):
        for key, given in entry.value.items():
            _merge(into[name].value, key, given)
    else:
        into[name] = entry
