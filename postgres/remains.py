"""What restores that were killed left on a server: temporary databases and roles.

Each has a setting nc_backup.process with the process that made it, so that the next restore knows
whether that process has ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from dataclasses import dataclass
from typing import Any

from postgres import pg_server
from tools.base import foreign_json
from tools.base.errors import BackupError
from tools.catalog import liveness

NEW, OLD, KEYS, ROLE = "nc_new", "nc_old", "nc_keys", "nc_load"
SETTING = "nc_backup.process"
_OURS = re.compile(f"(?:{NEW}|{OLD}|{KEYS}|{ROLE})_[0-9a-f]{{12}}")
_NAMED = f"~ '^{_OURS.pattern}$'"
_QUERY = f"""SELECT 'DATABASE' AS kind, datname AS name, setting FROM pg_database d
  LEFT JOIN pg_db_role_setting ON setdatabase = d.oid AND setrole = 0
  LEFT JOIN LATERAL unnest(setconfig) AS setting ON setting LIKE '{SETTING}=%'
  WHERE datname {_NAMED} OR setting IS NOT NULL
  UNION ALL SELECT 'ROLE', rolname, setting FROM pg_roles r
  LEFT JOIN pg_db_role_setting s ON setrole = r.oid AND setdatabase = 0
  LEFT JOIN LATERAL unnest(s.setconfig) AS setting ON setting LIKE '{SETTING}=%'
  WHERE rolname {_NAMED}"""


def _this_process() -> dict[str, Any]:
    """Return this process; every user of the server can read it, so not the machine itself."""
    process = liveness.this_process()
    machine = hashlib.sha256(f"{process['machine']} {process['node']}".encode()).hexdigest()
    return {**process, "machine": machine, "node": ""}


def mark() -> str:
    """Return this process as the value of the setting: hexadecimal digits."""
    return json.dumps({**_this_process(), "time": time.time()}).encode().hex()


def create_database(target: pg_server.PostgresConnection, name: str, clauses: str) -> None:
    """Create a database and mark it, in one session: psql goes on where its restore is killed."""
    quoted = pg_server.quote_identifier(name)
    try:
        target.sql(f"CREATE DATABASE {quoted} {clauses}", _marking(name))
    except BackupError:
        if not pg_server.exists(target, name):
            raise


def mark_database(target: pg_server.PostgresConnection, name: str) -> None:
    """Mark a database with this process, if the role of the restore may do it."""
    with contextlib.suppress(BackupError):
        target.sql(_marking(name))


def _marking(name: str) -> str:
    return f"ALTER DATABASE {pg_server.quote_identifier(name)} SET {SETTING} = '{mark()}'"


def unmark_database(target: pg_server.PostgresConnection, name: str) -> None:
    """Remove the mark of a database."""
    with contextlib.suppress(BackupError):
        target.sql(f"ALTER DATABASE {pg_server.quote_identifier(name)} RESET {SETTING}")


@dataclass(frozen=True)
class Remains:
    """What was found.

    dropped:  removed now
    others:   of another restore, or in use by it
    warnings: databases that are never dropped
    """

    dropped: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """Return the note that a restore appends to its result; "" if there were no remains."""
        dropped, others = ", ".join(self.dropped), ", ".join(self.others)
        note = f"; removed what a killed restore left: {dropped}" if dropped else ""
        return note + (f"; left by another restore, or in use by it: {others}" if others else "")

    def then(self, later: Remains) -> Remains:
        """Return what was found at first and later."""
        warnings = dict.fromkeys((*self.warnings, *later.warnings))
        return Remains((*self.dropped, *later.dropped), later.others, tuple(warnings))


def sweep(target: pg_server.PostgresConnection, name: str) -> Remains:
    """Drop what restores left that have ended; what may be in use is named in the note.

    A restore does that at its beginning and at its end: a client of a killed one may still have
    created something in between. name: of the database that is restored now
    """
    columns = ", ".join(map(pg_server.hex_expression, ("kind", "name", "coalesce(setting, '')")))
    rows = target.sql(f"SELECT {columns} FROM ({_QUERY}) AS q ORDER BY kind, name", columns=3)
    dropped, others, warnings = [], [], []
    for kind, leftover, setting in (map(pg_server.decode_hex, row) for row in rows):
        ended = _has_ended(setting.partition("=")[2])
        label = f"{kind.lower()} {leftover}"
        if ended is False or (kind, leftover) == ("DATABASE", name):
            continue
        if ended and (kind, leftover[: len(OLD)]) == ("DATABASE", OLD):
            warnings.append(
                f"{label}: a restore was killed, this is the database that it replaced: "
                "rename it back, or drop it"
            )
        elif ended and not _OURS.fullmatch(leftover):
            warnings.append(
                f"{label}: a restore was killed before it had its owner, settings and privileges: "
                "restore it again"
            )
        elif ended and _drop(target, kind, leftover):
            dropped.append(label)
        else:
            others.append(label)
    return Remains(tuple(dropped), tuple(others), tuple(warnings))


def _has_ended(value: str) -> bool | None:
    """Return whether the process of a mark has ended; None if that is not known."""
    try:
        marked = foreign_json.load(bytes.fromhex(value))
        age = time.time() - float(marked["time"])
        ended = liveness.ended(marked, _this_process(), age)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None  # the mark is missing, or not one of ours
    return True if ended is None and age >= liveness.FOREIGN_AGE else ended


def _drop(target: pg_server.PostgresConnection, kind: str, name: str) -> bool:
    """Drop a database with its sessions, or a role with its privileges; return whether it is gone.

    name: letters, digits and underscores only.
    """
    column = "datname" if kind == "DATABASE" else "usename"
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {column} = '{name}'"
    owned = [f"DROP OWNED BY {name}"] if kind == "ROLE" else []
    try:
        target.sql(end, *owned, f"DROP {kind} {name}")
    except BackupError:
        return False
    return True
