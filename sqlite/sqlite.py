"""Back up SQLite databases: a whole copy of each by the online backup of SQLite. A plugin."""

from __future__ import annotations

import contextlib
import glob
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools import dump, os_works, stream
from tools.errors import ConfigError, SourceError
from tools.item import Ended, Item, Told
from tools.options import Words, option

KIND = "sqlite"
_WAIT = 60.0  # seconds that a writer may keep us waiting


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    databases: Words = option("files, with their whole paths; * and ? in names")
    hostname: str = option("name of this server, in names of staged files", default="")
    destination: Path | None = option(
        "staged: PREFIX_FOLDER is made in it; default WORK_FOLDER", default=None
    )
    prefix_folder: str = option("staged: folder of the copies", default="sqlite")
    work_folder: Path = option("temporary work: a copy lies here", default=Path("/opt/backup"))
    allow_root: bool = option("run as root all the same", default=False)

    def __post_init__(self) -> None:
        """Refuse what has no whole path."""
        if not self.databases:
            raise ConfigError("DATABASES: names nothing", "For example /srv/app/app.db.")
        for name in self.databases:
            if not name.startswith("/"):
                raise ConfigError(f"DATABASES: {name} is no whole path", "Begin it with /.")


def files(given: Options) -> list[Path]:
    """The databases that are meant. Raises SourceError where a name means none."""
    found: list[Path] = []
    for name in given.databases:
        some = [name] if Path(name).exists() else sorted(glob.glob(name))  # noqa: PTH207  (a whole path as pattern)
        if not some:
            raise SourceError(f"DATABASES: {name} does not exist", "Is a disk not mounted?")
        found += [Path(one) for one in some if not one.endswith(("-wal", "-shm", "-journal"))]
    return list(dict.fromkeys(found))


def items(given: Options, told: Told) -> tuple[Item, ...]:
    """Each database as an item, by its path."""
    del told
    os_works.refuse_root(given.allow_root)
    return tuple(
        Item(str(path).lstrip("/"), KIND, lambda _head: "", one.read, one.ended)
        for path in files(given)
        for one in (_Database(path, given.work_folder),)
    )


class _Database:
    """One database."""

    def __init__(self, path: Path, work_folder: Path) -> None:
        self._path = path
        self._work_folder = work_folder
        self._facts: dict[str, str] = {}

    def read(self) -> Iterator[bytes]:
        """A copy of one moment, checked by SQLite itself before its first byte goes on."""
        with dump.scratch(self._work_folder) as folder:
            copy = folder / "copy"
            try:
                self._copy(copy)
            except sqlite3.Error as error:
                raise SourceError(
                    f"{self._path}: {error}", "Is it a SQLite database, and not encrypted?"
                ) from None
            yield from stream.read(copy)

    def _copy(self, copy: Path) -> None:
        copy.touch(0o600)
        with (
            contextlib.closing(_opened(self._path)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
            found = [row[0] for row in target.execute("PRAGMA integrity_check(3)")]
            if found != ["ok"]:
                raise SourceError(
                    f"{self._path} is damaged: {'; '.join(found)}", "Mend it (.recover) first."
                )
            ((tables,),) = target.execute("SELECT COUNT(*) FROM sqlite_master WHERE type='table'")
        self._facts = {"sqlite": sqlite3.sqlite_version, "tables": str(tables)}

    def ended(self) -> Ended:
        """What is worth knowing of the copy."""
        return Ended(facts=self._facts)


def _opened(path: Path) -> sqlite3.Connection:
    """For reading; a file that is not there is never made. Raises sqlite3.Error."""
    where = path.absolute().as_uri() + "?mode=ro"
    return sqlite3.connect(where, uri=True, timeout=_WAIT)


def test(given: Options) -> tuple[str, ...]:
    """Whether each database opens, and how many tables it has."""
    os_works.refuse_root(given.allow_root)
    said = []
    for path in files(given):
        try:
            with contextlib.closing(_opened(path)) as source:
                ((number,),) = source.execute("SELECT COUNT(*) FROM sqlite_master")
        except sqlite3.Error as error:
            raise SourceError(f"{path}: {error}", "Is it a SQLite database?") from None
        said.append(f"{path}: {number} objects")
    return tuple(said)


class SQLiteBackup(dump.Plugin):
    """The plugin class: leaves a copy of each database in PREFIX_FOLDER."""

    declared = Options
    section = "SQLITE"

    def items(self, given: Options, told: Told) -> tuple[Item, ...]:
        """See dump.Plugin."""
        return items(given, told)
