"""Tables that other sessions have locked: who holds the lock."""

from __future__ import annotations

import re

from postgres import pg_server
from tools.base.errors import BackupError, SourceError

_STATEMENT = re.compile(r"LOCK TABLE (?:ONLY )?(.+?)(?: IN ACCESS SHARE MODE|$)", re.M)
# Only this mode keeps a dump from reading.
_HOLDERS = f"""
    SELECT {pg_server.hex_expression("l.relation::regclass::text")}, l.pid,
      {pg_server.hex_expression("coalesce(a.usename::text, '?')")}
    FROM pg_locks l JOIN pg_class c ON c.oid = l.relation LEFT JOIN pg_stat_activity a USING (pid)
    WHERE l.granted AND l.mode = 'AccessExclusiveLock' AND l.pid <> pg_backend_pid()
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') ORDER BY 1"""


def lock_error(
    connection: pg_server.PostgresConnection, database: str, error: SourceError
) -> SourceError:
    """Return the error of a dump that waited too long for a lock, with the table and the holder."""
    patience = f"(waited {connection.lock_timeout or 0:g} s)"
    try:
        rows = connection.sql(_HOLDERS, database=database, columns=3)
    except BackupError:
        rows = []
    if not rows:
        match = _STATEMENT.search(error.hint)
        problem = f"table {match[1]} is locked" if match else "a table is locked"
        hint = "Find the session that holds the lock (pg_locks), or raise LOCK_TIMEOUT."
        return SourceError(
            f"{database}: {problem} by another session {patience}", f"{hint}\n{error.hint}"
        )
    names = ", ".join(dict.fromkeys(pg_server.decode_hex(row[0]) for row in rows))
    _table, pid, user = rows[0]
    return SourceError(
        f"{database}: {names}: locked by another session {patience}",
        f"Session {pid} of {pg_server.decode_hex(user)} holds the lock: end it "
        f"(SELECT pg_terminate_backend({pid})), or raise LOCK_TIMEOUT.",
    )
