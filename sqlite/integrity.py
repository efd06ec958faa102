"""Check the integrity of the copy of a SQLite database."""

from __future__ import annotations

import contextlib
import re
import shlex
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from tools.base.errors import SourceError
from tools.flow import task

_LISTED = 100  # complaints that are requested
_INSTRUCTIONS = 100_000  # of SQLite, between two looks whether the check was stopped
_SHOWN = 3  # complaints in a message
_DEFINITIONS = 100  # definitions of an application that are replaced in one database
_MISSING = (  # messages of SQLite for definitions that only the application has
    re.compile(r"no such (?P<kind>collation) sequence: (?P<name>.+)"),
    re.compile(r"(?:no such|unknown) (?P<kind>function): (?P<name>[^()]+)"),
    re.compile(r"no such (?P<kind>module): (?P<name>.+)"),
)
# Complaints about rows, which a restore brings back unchanged; all others are about pages.
# src/pragma.c, PRAGMA integrity_check
_CONTENT = re.compile(
    r"(row \S+ missing from index |wrong # of entries in index |non-unique entry in index "
    r"|NULL value in |CHECK constraint failed in |NUMERIC value in |TEXT value in "
    r"|non-\S+ value in |row not in PRIMARY KEY order for |row \S+ values differ from index "
    r"|rowid not at end-of-record for row |unable to validate the inverted index )",
)


@dataclass(frozen=True)
class CheckResult:
    """The result of the check of a copy.

    complaints: rows that violate a constraint or are missing from an index
    undefined:  definitions of the application that were missing in the check
    tables:     number of tables; None if the schema cannot be read without the definitions
    """

    complaints: tuple[str, ...]
    undefined: tuple[str, ...]
    tables: int | None

    @property
    def shown(self) -> str:
        """Return the first complaints on one line, and the number of the others."""
        count = len(self.complaints)
        more = f" and {count - _SHOWN} more" if count > _SHOWN else ""
        return "; ".join(self.complaints[:_SHOWN]) + more


def check(copy: Path, path: Path) -> CheckResult:
    """Merge a copy into one file (its WAL, its journal) and check it.

    path: name of the database in messages. Raises SourceError if it is corrupt, and sqlite3.Error
    if SQLite cannot read it.
    """
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as database:
        database.execute("PRAGMA trusted_schema = OFF")
        database.set_progress_handler(_is_stopped, _INSTRUCTIONS)
        mode = database.execute("PRAGMA journal_mode").fetchone()[0]
        database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()  # rolls a journal back
        if mode == "wal":
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        lines, undefined = _complaints(database)
        broken = [line for line in lines if not _CONTENT.match(line)]
        if broken:
            raise _corrupt(path, "; ".join(broken[:_SHOWN]))
        # Without the definitions of the application only the pages can be checked.
        content = () if undefined else tuple(lines)
        return CheckResult(content, tuple(undefined), _tables(database))


def _is_stopped() -> bool:
    """Note that a check goes on, however long it takes; return True to end it."""
    task.current().touch()
    return bool(task.current().stopped)


def unreadable(path: Path, error: sqlite3.Error) -> SourceError:
    """Return the error for a copy that SQLite cannot read."""
    if "malformed" in str(error):
        return _corrupt(path, str(error))
    return SourceError(
        f"{path}: {error}", "Check that it is a SQLite database and is not encrypted."
    )


def _corrupt(path: Path, complaint: str) -> SourceError:
    return SourceError(
        f"{path}: database is corrupt: {complaint}",
        "Restore it from an older run, or rebuild it into a new file and keep the old one: "
        f'sqlite3 {shlex.quote(str(path))} ".recover" | sqlite3 NEW.db',
    )


def _complaints(database: sqlite3.Connection) -> tuple[list[str], list[str]]:
    """Return the output of PRAGMA integrity_check, and the definitions that were missing."""
    undefined: list[str] = []
    for _ in range(_DEFINITIONS):
        pragma = "quick_check" if undefined else "integrity_check"
        try:
            rows = [str(row[0]) for row in database.execute(f"PRAGMA {pragma}({_LISTED})")]
        except sqlite3.Error as error:
            missing = _define_missing(database, str(error))
            if missing is None or missing in undefined:
                raise
            undefined.append(missing)
            continue
        # One row may have several complaints about one table, separated by line breaks.
        lines = [line for row in rows for line in row.split("\n")]
        return [
            line for line in lines if line != "ok" and not line.startswith("*** in ")
        ], undefined
    raise sqlite3.OperationalError("too many definitions of the application are missing")


def _define_missing(database: sqlite3.Connection, message: str) -> str | None:
    """Define what an error reports as missing; return its name, or None for other errors."""
    match = next(filter(None, (kind.search(message) for kind in _MISSING)), None)
    if match is None:
        return None
    kind, name = match["kind"], match["name"].strip()
    if kind == "collation":
        database.create_collation(name, lambda a, b: (a > b) - (a < b))
    elif kind == "function":
        # Otherwise SQLite takes the schema for malformed. All functions are then built in or this.
        database.execute("PRAGMA trusted_schema = ON")
        database.create_function(name, -1, lambda *_: None, deterministic=True)
    else:
        return None
    return f"{kind} {name}"


def _tables(database: sqlite3.Connection) -> int | None:
    try:
        row = database.execute("SELECT COUNT(*) FROM sqlite_master WHERE type='table'").fetchone()
    except sqlite3.Error:
        return None
    return int(row[0])
