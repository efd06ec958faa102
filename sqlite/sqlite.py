"""Back up SQLite databases: a consistent copy of each, checked by SQLite. A plugin."""

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

from sqlite import integrity, snapshot
from tools import os_works
from tools.base import finding
from tools.base.errors import ConfigError, SourceError
from tools.base.finding import Finding
from tools.flow import dump_stream, stream
from tools.flow.facts import SqliteFacts
from tools.flow.item import Item, ItemReport, SourceContext
from tools.modules import database_plugin, executable
from tools.modules.options import Duration, Strings, option

KIND = "sqlite"
_COMPANIONS = ("-wal", "-shm", "-journal")  # files that belong to a database


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    databases: Strings = option("absolute paths of database files; `*` and `?` allowed in names")
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
        """Raise ConfigError for a path that is not absolute."""
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
    """Return the files that DATABASES selects, each once, including missing ones.

    Files of a selected database (-wal, -shm, -journal) are not listed.
    """
    paths: list[str] = []
    for name in options.databases:
        exists = Path(name).exists() or Path(name).is_symlink()
        paths += [name] if exists else sorted(glob.glob(name)) or [name]  # noqa: PTH207  (a whole path as pattern)
    chosen = set(paths)
    return [Path(path) for path in dict.fromkeys(paths) if not _is_companion(path, chosen)]


def _is_companion(path: str, chosen: set[str]) -> bool:
    return any(path.endswith(end) and path.removesuffix(end) in chosen for end in _COMPANIONS)


def items(options: Options, context: SourceContext) -> tuple[Item, ...]:
    """Return each database as an item, named after its path."""
    del context
    os_works.refuse_root(options.allow_root)
    return tuple(
        Item(str(path).lstrip("/"), KIND, lambda _head: "", database.read, database.ended)
        for path in files(options)
        for database in (_Database(path, options),)
    )


class _Database:
    """One database."""

    def __init__(self, path: Path, options: Options) -> None:
        self._path = path
        self._options = options
        self._ended = ItemReport()

    def read(self) -> Iterator[bytes]:
        """Yield a consistent copy, which was checked by SQLite before its first byte."""
        with dump_stream.scratch(self._options.work_folder) as folder:
            copy = folder / "copy"
            try:
                locked = _copy(self._path, copy, self._options.lock_timeout)
                result = integrity.check(copy, self._path)
            except sqlite3.Error as error:
                raise integrity.unreadable(self._path, error) from None
            self._ended = _report_of(result, locked=locked, empty=copy.stat().st_size == 0)
            yield from stream.read(copy)

    def ended(self) -> ItemReport:
        """Return warnings, notes and facts of the copy."""
        return self._ended


def _copy(path: Path, copy: Path, patience: float) -> bool:
    """Copy a database; return whether the locks were granted."""
    with _errors_name(path):
        return snapshot.copy(path, copy, patience)


@contextlib.contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    """Add the database to each error of the block."""
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


def _report_of(result: integrity.CheckResult, *, locked: bool, empty: bool) -> ItemReport:
    """Return warnings, notes and facts from the check of a copy."""
    facts = SqliteFacts(sqlite3.sqlite_version, result.tables)
    notes = []
    if empty:
        notes.append("an empty file (0 bytes): a database without tables")
    if result.undefined:
        names = ", ".join(result.undefined)
        notes.append(f"stored completely, checked in part: only its application defines {names}")
    if not locked:
        notes.append("the file system does not support locks: copied while nothing changed")
    complaints = result.shown
    warnings = (
        (f"stored unchanged, but the integrity check reports: {complaints}",) if complaints else ()
    )
    return ItemReport(warnings, tuple(notes), facts)


def test(options: Options) -> tuple[Finding, ...]:
    """Return the findings on each database: unreadable or locked."""
    os_works.refuse_root(options.allow_root)
    return tuple(_test_file(path) for path in files(options))


def _test_file(path: Path) -> Finding:
    """Return the finding on one database; SQLite does not open it, and nothing is written."""
    try:
        with _errors_name(path):
            return Finding(f"{path}: {snapshot.check(path)}")
    except SourceError as error:
        level = finding.warning if "is locked" in str(error) else finding.bad
        return level(str(error), error.hint)


class SQLiteBackup(database_plugin.Plugin[Options]):
    """The plugin class: writes a copy of each database to PREFIX_FOLDER."""

    declared = Options
    section = "SQLITE"

    def items(self, options: Options, context: SourceContext) -> tuple[Item, ...]:
        """See database_plugin.Plugin."""
        return items(options, context)


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.describe(Options, argv)
