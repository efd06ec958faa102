"""Locks that other sessions hold: the dump programs would wait for them without a limit.

They have no option for it: mysqldump and mariadb-dump take no statement of ours at the beginning
of their session, and mariadb-backup sets lock_wait_timeout to a year itself. So the server is
asked what the program waits for when nothing has come from it for a while.
"""

from __future__ import annotations

import dataclasses
import re

from mysql_backup import mysql_server
from tools.base.errors import BackupError, SourceError

_NAME = r"`(?:[^`]|``)+`"
_READ_TABLE = re.compile(rf"\b(?:FROM|TABLE)\s+(?:{_NAME}\.)?`((?:[^`]|``)+)`", re.IGNORECASE)
_WAITING = (
    "SELECT HEX(STATE), HEX(IFNULL(INFO, '')) FROM information_schema.PROCESSLIST "
    "WHERE USER = LEFT(USER(), CHAR_LENGTH(USER()) - LOCATE('@', REVERSE(USER()))) "
    "AND ID <> CONNECTION_ID() AND COMMAND = 'Query' "
    "AND (STATE LIKE 'Waiting for %% lock' OR STATE = 'Waiting for table flush') AND TIME >= %d"
)
_TABLES = (
    "SELECT HEX(table_schema), HEX(table_name) FROM information_schema.tables "
    "WHERE table_type <> 'VIEW' AND table_schema "
)
_READ = "SELECT 1 FROM %s LIMIT 0;"
_LINE = re.compile(r"ERROR 1205 .* at line (\d+)")
_SHOWN = 200  # characters of the statement that waits
_AT_ONCE = 500  # tables that one statement list tries
_OFTEN = 10  # times that the server is asked within another LOCK_TIMEOUT


class LockWatch:
    """Ends the wait of a dump program for a lock: the `idle` of process.output."""

    def __init__(
        self, source: mysql_server.MySQLConnection, patience: float, database: str = ""
    ) -> None:
        """Watch for locks.

        patience: seconds (LOCK_TIMEOUT). database: the one that is dumped, "" for any
        """
        self._source = source
        self._patience = patience
        self._database = database
        self._silent = 0.0
        self._next = patience

    def __call__(self, silent: float) -> None:
        """Note `silent` seconds without output. Raises SourceError if it waits for a lock."""
        if silent < self._silent:
            self._next = self._patience
        self._silent = silent
        if silent < self._next:
            return
        self._next = silent + max(1.0, self._patience / _OFTEN)
        for state, statement in self._waiting():
            table = self._locked_table(statement)
            problem = f"table {table} is locked by another session" if table else state
            raise SourceError(
                f"{problem} (waited {self._patience:g} s)",
                "Find the session that holds the lock (SHOW FULL PROCESSLIST) and end it, or raise "
                f"LOCK_TIMEOUT.\n{state}: {statement[:_SHOWN]}",
            )

    def _waiting(self) -> list[list[str]]:
        """Return state and statement of our own sessions that have waited for that long."""
        sql = _WAITING % int(self._patience)
        if self._database:
            sql += f" AND (DB IS NULL OR DB = {mysql_server.hex_literal(self._database)})"
        try:
            return self._source.names(sql)
        except BackupError:  # too many connections, for example: STALL_TIMEOUT is left
            return []

    def _locked_table(self, statement: str) -> str:
        """Return the table that a statement waits for; "" if nothing is known."""
        if matches := list(_READ_TABLE.finditer(statement)):
            return str(matches[-1][1]).replace("``", "`")
        system = ", ".join(map(mysql_server.hex_literal, mysql_server.SYSTEM))
        chosen = f"NOT IN ({system})"
        if self._database:
            chosen = f"= {mysql_server.hex_literal(self._database)}"
        try:
            return self._first_locked(self._source.names(_TABLES + chosen))
        except BackupError:
            return ""

    def _first_locked(self, tables: list[list[str]]) -> str:
        """Try to read tables, given as database and name; return the first that is locked."""
        impatient = dataclasses.replace(self._source, lock_timeout=1.0)
        for start in range(0, len(tables), _AT_ONCE):
            tried = tables[start : start + _AT_ONCE]
            names = [".".join(map(mysql_server.quote_identifier, table)) for table in tried]
            try:
                impatient.query("\n".join(_READ % name for name in names))
            except BackupError as error:
                if not (match := _LINE.search(str(error))):
                    raise
                database, name = tried[int(match[1]) - 1]
                return name if self._database else f"{database}.{name}"
        return ""
