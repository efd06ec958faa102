"""Back up SQLite databases: a copy of each as of one moment, checked by SQLite. A plugin."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import contextlib
import glob
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from sqlite import snapshot, soundness
from tools import os_works
from tools.base import finding
from tools.base.errors import ConfigError, SourceError
from tools.base.finding import Finding
from tools.flow import dump_stream, stream
from tools.flow.item import Ended, Item, Told
from tools.modules import database_plugin, executable
from tools.modules.options import Duration, Words, option

KIND = "sqlite"
_BESIDE = ("-wal", "-shm", "-journal")  # files that belong to a database


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    databases: Words = option("absolute paths of database files; `*` and `?` allowed in names")
    lock_timeout: Duration = option(
        "how long to wait for a program that has locked a database (90, 30s, 5m)",
        default=Duration(60.0),
        least=0,
    )
    hostname: str = option("name of this server (part of file names in staged runs)", default="")
    destination: Path | None = option(
        "staged runs: folder in which PREFIX_FOLDER is created; default WORK_FOLDER", default=None
    )
    prefix_folder: str = option("staged runs: folder for the copies", default="sqlite")
    work_folder: Path = option(
        "folder for temporary files; holds one copy at a time", default=Path("/opt/backup")
    )
    allow_root: bool = option("allow the run as root (for containers)", default=False)

    def __post_init__(self) -> None:
        """Reject what is not an absolute path."""
        if not self.databases:
            raise ConfigError(
                "DATABASES: empty value", "Name the database files, for example /srv/app/app.db."
            )
        for name in self.databases:
            if not name.startswith("/"):
                raise ConfigError(
                    f"DATABASES: {name}: not an absolute path", "Begin the path with /."
                )


def files(options: Options) -> list[Path]:
    """Return the databases that DATABASES names, each once; also those that do not exist.

    What belongs to a database of the list (-wal, -shm, -journal) goes with it.
    """
    paths: list[str] = []
    for name in options.databases:
        exists = Path(name).exists() or Path(name).is_symlink()
        paths += [name] if exists else sorted(glob.glob(name)) or [name]  # noqa: PTH207  (a whole path as pattern)
    chosen = set(paths)
    return [Path(path) for path in dict.fromkeys(paths) if not _belongs(path, chosen)]


def _belongs(path: str, chosen: set[str]) -> bool:
    return any(path.endswith(end) and path.removesuffix(end) in chosen for end in _BESIDE)


def items(options: Options, told: Told) -> tuple[Item, ...]:
    """Return each database as an item, by its path."""
    del told
    os_works.refuse_root(options.allow_root)
    return tuple(
        Item(str(path).lstrip("/"), KIND, lambda _head: "", one.read, one.ended)
        for path in files(options)
        for one in (_Database(path, options),)
    )


class _Database:
    """One database."""

    def __init__(self, path: Path, options: Options) -> None:
        self._path = path
        self._options = options
        self._ended = Ended()

    def read(self) -> Iterator[bytes]:
        """Give a copy of one moment, checked by SQLite before its first byte goes on."""
        with dump_stream.scratch(self._options.work_folder) as folder:
            copy = folder / "copy"
            try:
                locked = _copied(self._path, copy, self._options.lock_timeout)
                checked = soundness.check(copy, self._path)
            except sqlite3.Error as error:
                raise soundness.unreadable(self._path, error) from None
            self._ended = _judged(checked, locked=locked, empty=copy.stat().st_size == 0)
            yield from stream.read(copy)

    def ended(self) -> Ended:
        """Return what is worth knowing of the copy."""
        return self._ended


def _copied(path: Path, copy: Path, patience: float) -> bool:
    """Copy a database; whether its locks were granted."""
    with _named(path):
        return snapshot.copy(path, copy, patience)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the database in every error of what reads it."""
    try:
        yield
    except FileNotFoundError:
        hint = "Mount its file system, or remove the file from DATABASES."
        raise SourceError(f"DATABASES: {path}: no such file", hint) from None
    except OSError as error:
        if error.filename is None:  # of the copy: no space left
            raise
        hint = "Let the user of the backup read the database, and -wal and -shm beside it."
        raise SourceError(f"{error.filename}: {str(error.strerror).lower()}", hint) from None
    except SourceError as error:
        if str(path) in str(error):
            raise
        raise SourceError(f"{path}: {error}", error.hint) from None


def _judged(checked: soundness.Checked, *, locked: bool, empty: bool) -> Ended:
    """What the check of a copy means for its item."""
    facts = {"sqlite": sqlite3.sqlite_version}
    if checked.tables is not None:
        facts["tables"] = str(checked.tables)
    notes = []
    if empty:
        notes.append("an empty file (0 bytes): a database without tables")
    if checked.undefined:
        names = ", ".join(checked.undefined)
        notes.append(f"stored completely, checked in part: only its application defines {names}")
    if not locked:
        notes.append("the file system does not support locks: copied while nothing changed")
    found = checked.shown
    warnings = (f"stored unchanged, but the integrity check reports: {found}",) if found else ()
    return Ended(warnings, tuple(notes), facts)


def test(options: Options) -> tuple[Finding, ...]:
    """Return whether each database can be read, and which are locked now."""
    os_works.refuse_root(options.allow_root)
    return tuple(_tested(path) for path in files(options))


def _tested(path: Path) -> Finding:
    """What there is to say of one database; nothing is opened by SQLite, nothing is written."""
    try:
        with _named(path):
            return Finding(f"{path}: {snapshot.check(path)}")
    except SourceError as error:
        level = finding.warning if "is locked" in str(error) else finding.bad
        return level(str(error), error.hint)


class SQLiteBackup(database_plugin.Plugin):
    """The plugin class: leaves a copy of each database in PREFIX_FOLDER."""

    declared = Options
    section = "SQLITE"

    def items(self, given: Options, told: Told) -> tuple[Item, ...]:
        """See dump.Plugin."""
        return items(given, told)


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.describe(Options, argv)
