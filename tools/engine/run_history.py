"""The figures of the runs of this machine, in a SQLite database of the state folder.

It is a cache: the anomaly guard fills it again from the manifests in the stores. So it may be
lost at any time, and no trouble with it changes a run. A rollback journal, no WAL: that needs
shared memory, which network file systems do not have, and more files.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.base import foreign, run_ids
from tools.base.errors import BackupError
from tools.flow.anomaly import Figures

if TYPE_CHECKING:
    import sqlite3

NAME = "history.sqlite3"
ASIDE = "history.sqlite3.damaged"
_BESIDE = ("-journal", "-wal", "-shm")  # files of SQLite beside a database
_APPLICATION = 0x6E636270  # "ncbp": tells the database from others (PRAGMA application_id)
_VERSION = 1
_BUSY = 1.0  # seconds to wait for another process
_MOST_RUNS = 1000  # runs that are kept, and as many that cannot be used
_MOST_DETAILED = 100  # newest of them whose items and sections are kept
_UNUSABLE = "unusable"  # status of a run whose manifest cannot be used
_TABLES = (
    """CREATE TABLE runs (host TEXT, run_id TEXT, config_id TEXT, status TEXT, seconds REAL,
 size INTEGER, stored INTEGER, items INTEGER, unusual TEXT,
 PRIMARY KEY (host, run_id)) WITHOUT ROWID""",
    """CREATE TABLE figures (host TEXT, section TEXT, name TEXT, run_id TEXT, config_id TEXT,
 kind TEXT, status TEXT, size INTEGER, stored INTEGER, count INTEGER, seconds REAL, stages TEXT,
 suspicious TEXT, PRIMARY KEY (host, section, name, run_id)) WITHOUT ROWID""",
)
_GOOD = """SELECT run_id, size, stored, count, seconds, stages FROM figures
 WHERE host = ? AND section = ? AND name = ? AND run_id >= ? AND run_id < ?
 AND (suspicious = '' OR run_id = ?)
 AND status IN ('', 'ok', 'incomplete', 'unclean', 'unreported')"""
_NEWEST = """SELECT section, name, max(run_id) FROM figures WHERE host = ?
 AND status IN ('', 'ok', 'incomplete', 'unclean', 'unreported') GROUP BY section, name"""
_LAST = "ORDER BY run_id DESC LIMIT ?"
_MAX_INTEGER = (1 << 63) - 1  # of SQLite


class HistoryError(BackupError):
    """The database cannot be used. `damaged`: it never can"""

    def __init__(self, message: str, *, damaged: bool = False) -> None:
        super().__init__(message)
        self.damaged = damaged


@dataclass(frozen=True)
class RunEntry:
    """The figures of one run: bytes, seconds (None: not known), lines on what was unusual."""

    host: str
    run_id: str
    config_id: str
    status: str
    seconds: float | None = None
    size: int | None = None
    stored: int | None = None
    items: int = 0
    unusual: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """The figures of one item, or of one section.

    name:   of the item; None: these are the figures of the section
    kind:   of the item, or role of the section
    status: of the section; "" of an item
    suspicious: whether it does not count as good
    """

    section: str
    name: str | None
    kind: str
    figures: Figures
    status: str = ""
    suspicious: bool = False


def unusable(host: str, run_id: str) -> RunEntry:
    """Return what is recorded of a run whose manifest cannot be used: not to read it again."""
    return RunEntry(host, run_id, "", _UNUSABLE)


class RunHistory:
    """An open database. All methods raise HistoryError."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def close(self) -> None:
        """Close it."""
        with _explained():
            self._connection.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Make all queries of the block one transaction: else each one locks the file anew."""
        with _explained():
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            with _explained():
                if self._connection.in_transaction:  # SQLite may have ended it itself
                    self._connection.execute("ROLLBACK")

    def recorded_run_ids(self, host: str) -> set[str]:
        """Return the ids of the runs that are recorded."""
        return {text for (text,) in self._rows("SELECT run_id FROM runs WHERE host = ?", host)}

    def runs(self, most: int, host: str | None = None) -> list[RunEntry]:
        """Return the newest runs, newest first; of all hosts where none is given."""
        rows = self._rows(
            "SELECT * FROM runs WHERE status != ? AND (host = ? OR ? IS NULL) "
            "ORDER BY run_id DESC LIMIT ?",
            *(_UNUSABLE, host, host, most),
        )
        return [_run(row) for row in rows]

    def good(  # noqa: PLR0913  (which copies of which item)
        self,
        host: str,
        section: str,
        name: str | None,
        config_id: str,
        *,
        since: str,
        until: str,
        most: int,
    ) -> list[Figures]:
        """Return the figures of the last good copies of an item, or of a section, oldest first.

        since: the first run that counts, which is good whatever it was called; until: the run
        before which they were made. Where this config made none, those of other configs count.
        """
        parameters = (host, _written(section), _written(_name(name)), since, until, since)
        rows = self._rows(f"{_GOOD} AND config_id IN (?, '') {_LAST}", *parameters, config_id, most)
        rows = rows or self._rows(f"{_GOOD} {_LAST}", *parameters, most)
        return [_figures(row) for row in reversed(rows)]

    def newest(self, host: str) -> dict[str, str]:
        """Return the newest run with a copy of each item, and of each section, by label.

        Runs that failed have none: from such a run on, nothing earlier would be compared.
        """
        rows = self._rows(_NEWEST, host)
        run_by_label: dict[str, str] = {}
        for section, name, run_id in rows:
            label = _text(section) + (_text(name) if name != "/" else "")
            run_by_label[label] = max(_text(run_id), run_by_label.get(label, ""))
        return run_by_label

    def add(self, runs: Sequence[tuple[RunEntry, Sequence[Entry]]]) -> None:
        """Record runs in one transaction; the oldest ones go where there are too many."""
        with _explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for run, entries in runs:
                    self._insert(run, entries)
                    self._trim(run.host)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite may have ended it itself
                    self._connection.execute("ROLLBACK")
                raise

    def _insert(self, run: RunEntry, entries: Sequence[Entry]) -> None:
        row = (run.host, run.run_id, run.config_id, run.status, run.seconds, run.size)
        texts = "\n".join(line.replace("\n", " ") for line in run.unusual)
        self._connection.execute(
            "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            tuple(map(_written, (*row, run.stored, run.items, texts))),
        )
        self._connection.executemany(
            "INSERT OR REPLACE INTO figures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (_row(run, one) for one in entries),
        )

    def _trim(self, host: str) -> None:
        """Remove the oldest runs. Those that cannot be used do not push out others."""
        for same in ("=", "!="):
            self._connection.execute(
                f"DELETE FROM runs WHERE host = ? AND status {same} ? AND run_id < "  # noqa: S608  (constants)
                f"(SELECT run_id FROM runs WHERE host = ? AND status {same} ? "
                "ORDER BY run_id DESC LIMIT 1 OFFSET ?)",
                (host, _UNUSABLE, host, _UNUSABLE, _MOST_RUNS - 1),
            )
        self._connection.execute(
            "DELETE FROM figures WHERE host = ? AND run_id < (SELECT run_id FROM runs "
            "WHERE host = ? AND status != ? ORDER BY run_id DESC LIMIT 1 OFFSET ?)",
            (host, host, _UNUSABLE, _MOST_DETAILED - 1),
        )

    def _rows(self, query: str, *values: object) -> list[Any]:
        with _explained():
            return self._connection.execute(query, values).fetchall()


def opened(folder: Path | None) -> RunHistory:
    """Open the database of a state folder, made where it is missing. Raises HistoryError."""
    if folder is None:
        return in_memory()
    path = folder / NAME
    with _explained():
        _create(path)
        return RunHistory(_connected(path, "rw"))


def read_only(folder: Path) -> RunHistory:
    """Open the database to look at it. Raises HistoryError, and FileNotFoundError without one."""
    path = folder / NAME
    if not stat.S_ISDIR(folder.lstat().st_mode):  # a link that somebody planted, seen by root
        raise HistoryError(f"{folder}: is not a folder")
    _require_file(path)
    with _explained():
        return RunHistory(_connected(path, "ro"))


def in_memory() -> RunHistory:
    """Return an empty one that is forgotten after the run."""
    with _explained():
        return RunHistory(_prepared(_module().connect(":memory:", isolation_level=None)))


def move_aside(folder: Path) -> None:
    """Move a database that cannot be used aside, the last one only. Raises OSError."""
    for ending in ("", *_BESIDE):
        with contextlib.suppress(FileNotFoundError):
            (folder / f"{NAME}{ending}").replace(folder / f"{ASIDE}{ending}")


def _module() -> Any:  # noqa: ANN401  (sqlite3, which Python may have been built without)
    try:
        import sqlite3
    except ImportError as error:
        raise HistoryError(f"this Python has no SQLite ({error})") from None
    return sqlite3


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Make errors of SQLite and of the system a HistoryError."""
    errors = _module()
    try:
        yield
    except errors.OperationalError as error:  # locked, read-only, disk full
        raise HistoryError(f"{NAME}: {error}") from None
    except errors.Error as error:
        raise HistoryError(f"{NAME}: {error}", damaged=True) from None
    except OSError as error:
        raise HistoryError(f"{NAME}: {(error.strerror or str(error)).lower()}") from None


def _create(path: Path) -> None:
    """Make an empty private file where there is none; SQLite gives its journal the same mode."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.close(os.open(path, flags, 0o600))
    except FileExistsError:
        _require_file(path)


def _require_file(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise HistoryError(f"{path.name}: is not a regular file", damaged=True)


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    connection = _module().connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_BUSY, isolation_level=None
    )
    try:
        return _prepared(connection)
    except BaseException:
        connection.close()
        raise


def _prepared(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Return the connection of a database of this version. Raises HistoryError for another one."""
    connection.text_factory = foreign.decoded  # bytes that are not UTF-8 are no passing trouble
    for pragma in ("trusted_schema = OFF", "journal_mode = TRUNCATE", "synchronous = NORMAL"):
        connection.execute(f"PRAGMA {pragma}")
    tables = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master")}
    ids = [
        connection.execute(f"PRAGMA {one}").fetchone()[0]
        for one in ("application_id", "user_version")
    ]
    if not tables and ids == [0, 0]:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute("COMMIT")
    elif ids[0] == _APPLICATION and ids[1] > _VERSION:
        raise HistoryError(f"{NAME}: made by a later version of this program", damaged=True)
    elif ids != [_APPLICATION, _VERSION] or tables != set(_TABLES):
        raise HistoryError(f"{NAME}: is not a database of this program", damaged=True)
    return connection


def _written(value: object) -> object:
    """Return a value as SQLite takes it: text without lone surrogates, integers of 63 bits."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8", "replace")
    return min(value, _MAX_INTEGER) if isinstance(value, int) else value


def _row(run: RunEntry, entry: Entry) -> tuple[object, ...]:
    """Return the row of an item or a section."""
    now = entry.figures
    of_run = (run.host, entry.section, _name(entry.name), run.run_id, run.config_id)
    values = (now.size, now.stored, now.count, now.seconds, " ".join(now.stages))
    bad = "yes" if entry.suspicious else ""
    return tuple(map(_written, (*of_run, entry.kind, entry.status, *values, bad)))


def _name(name: str | None) -> str:
    """Return the name of an item as it is stored, after a slash; "" for a section."""
    return "" if name is None else f"/{name}"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise HistoryError(f"{NAME}: invalid value", damaged=True)
    return value


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or not abs(value) <= _MAX_INTEGER:
        raise HistoryError(f"{NAME}: invalid value", damaged=True)
    return value


def _number(value: object) -> int | None:
    if value is None or type(value) is int:  # of 63 bits: SQLite has no larger ones
        return value
    number = _seconds(value)
    return None if number is None else int(number)


def _run(row: Sequence[object]) -> RunEntry:
    host, run_id, config_id, status = map(_text, row[:4])
    size, stored = map(_number, row[5:7])
    unusual = tuple(filter(None, _text(row[8]).split("\n")))
    seconds, items = _seconds(row[4]), _number(row[7]) or 0
    return RunEntry(host, run_id, config_id, status, seconds, size, stored, items, unusual)


def _figures(row: Sequence[object]) -> Figures:
    try:
        moment = run_ids.time_of(_text(row[0]))
    except ValueError:
        raise HistoryError(f"{NAME}: invalid value", damaged=True) from None
    size, stored, count = map(_number, row[1:4])
    return Figures(moment, size, stored, count, _seconds(row[4]), tuple(_text(row[5]).split()))
