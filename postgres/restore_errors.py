"""Errors of pg_restore: rejected rows stop the restore, other objects are left out and named.

`pg_restore --verbose` prints the entry of the dump ("from TOC entry"), the error and the command,
one line each (pg_backup_archiver.c, warn_or_exit_horribly). These lines are in English. The error
of the server may not be, so only the patterns with a comment depend on its text.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from postgres import replaced_code
from tools.base.errors import StoreError

UNSUPPORTED = "unsupported version"  # of the archive: this pg_restore is too old for it
_ERROR = "pg_restore: error: "
_COMMAND = "Command was: "
_PHASE = re.compile(r"pg_restore: while [A-Z ]+")
_ENTRY = re.compile(r"pg_restore: from TOC entry (\d+); \d+ \d+ (.*)")
# An error of the server begins with its severity; other errors are about the connection.
_QUERY = re.compile(r"could not execute query: (?P<severity>[^:]+):\s+(?P<why>.*)")
_ACCESS_METHOD = re.compile(r"could not set default_table_access_method: [^:]+:\s+(?P<why>.*)")
_FATAL = ("FATAL", "PANIC")
# Commands that rows, large objects and sequence values depend on.
_DATA = re.compile(
    r"COPY |CREATE (?:UNLOGGED )?TABLE |SELECT pg_catalog\.(?:setval|lo_)|"
    r"SET (?:client_encoding|standard_conforming_strings) "
)
_TABLE = re.compile(r"CREATE (?:UNLOGGED )?TABLE ")
_CREATED = re.compile(r"CREATE (?:UNLOGGED |FOREIGN )?TABLE ")
# A server that is out of resources (its own text): the next objects would be lost as well.
_EXHAUSTED = re.compile(
    r"No space left on device|Disk quota exceeded|out of memory|could not (?:extend|write) file|"
    r"terminating connection|could not resize shared memory"
)
_SHARED = re.compile(r"GRANT |REVOKE |ALTER .* OWNER TO ")  # one line for each reason is enough
_NEEDS_ROLE = re.compile(rf"{_SHARED.pattern}|CREATE POLICY |ALTER DEFAULT PRIVILEGES ")
_SHOWN = 120  # characters of a command
_IGNORED = re.compile(r"errors ignored on restore: (\d+)")
_HINT = (
    "Restore the roles first (--item roles@PORT), or restore the dump to a file (--destination) "
    "and use pg_restore."
)


class TablesError(StoreError):
    """Tables were not created. entries: their numbers"""

    def __init__(self, entries: Collection[str], hint: str) -> None:
        super().__init__("pg_restore: part of the dump was not restored", hint)
        self.entries = entries


class BlockedError(TablesError):
    """Tables need functions of the dump to be created: another role must do it."""

    def __init__(self, entries: Collection[str]) -> None:
        super().__init__(entries, replaced_code.MESSAGE)


class RowsError(StoreError):
    """Rows were rejected: a table may take them without its CHECK constraints."""


@dataclass(frozen=True)
class LeftOut:
    """A command that failed, and the error of the server.

    entry:       number of its entry in the dump ("" before the first)
    entry_label: kind, name and owner of that entry ("FK CONSTRAINT orders orders_c_fkey app")
    """

    entry: str
    entry_label: str
    reason: str
    command: str


class RestoreErrors:
    """Parses the errors of pg_restore, which continues after them."""

    def __init__(self, selected: Collection[str] | None = None) -> None:
        """Collect errors of the selected entries; None for all.

        A name or message of the dump may look like lines of pg_restore, and name other entries.
        """
        self._selected = selected
        self.left_out: list[LeftOut] = []
        self.blocked: list[LeftOut] = []  # because functions are replaced
        self._fatal = ""
        self._tables: list[str] = []  # that were not created
        self._rows = False  # whether the fatal error is that of a COPY
        self._why = ""  # of the error whose command follows
        self._entry = ("", "")
        self._open = False  # whether the last line was the first of a command
        self._ignored = 0

    def take(self, line: str) -> None:
        """Parse the next line of its standard error."""
        if self._open and line.startswith("    ADD CONSTRAINT "):
            last = self.left_out.pop()
            command = f"{last.command} {_shorten_command(line.strip())}"
            self.left_out.append(LeftOut(last.entry, last.entry_label, last.reason, command))
        self._open = False
        if match := _ENTRY.match(line):
            known = self._selected is None or match[1] in self._selected
            self._entry = (match[1], match[2]) if known else ("", "")
        elif _PHASE.match(line):
            self._entry = ("", "")
        elif line.startswith(_ERROR):
            self._error(line.removeprefix(_ERROR))
        elif line.startswith(_COMMAND) and self._why:
            self._command(line.removeprefix(_COMMAND))
        elif ignored := _IGNORED.search(line):
            self._ignored = int(ignored[1])

    def _error(self, error: str) -> None:
        self._why = ""
        match = _QUERY.match(error)
        if match and match["severity"] not in _FATAL and not _EXHAUSTED.search(error):
            self._why = match["why"]
        elif method := _ACCESS_METHOD.match(error):
            self.left_out.append(
                LeftOut("", "", method["why"], "tables have the default access method")
            )
        elif not self._fatal:
            self._fatal = error
            self._rows = error.startswith("COPY failed for table")

    def _command(self, text: str) -> None:
        command = _shorten_command(text)
        if replaced_code.MESSAGE in self._why:
            self.blocked.append(LeftOut(*self._entry, self._why, command))
            self._why = ""
            return
        if _DATA.match(command):
            self._fatal = self._fatal or f"{self._why}: {command}"
            if _TABLE.match(command):
                self._tables.append(self._entry[0])
        self.left_out.append(LeftOut(*self._entry, self._why, command))
        self._why = ""
        self._open = command.startswith("ALTER TABLE ")

    def guard(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass the dump on. Raises StoreError soon after a part of it is lost."""
        for chunk in chunks:
            self.raise_on_data_loss()
            yield chunk

    def raise_on_data_loss(self) -> None:
        """Raise StoreError if the failed command cannot be left out, RowsError for rows."""
        if tables := [one.entry for one in self.blocked if _CREATED.match(one.command)]:
            raise BlockedError(tables)
        if self._tables:
            raise TablesError(self._tables, f"{self._fatal}\n{_HINT}")
        if self._fatal:
            kind = RowsError if self._rows else StoreError
            raise kind("pg_restore: part of the dump was not restored", f"{self._fatal}\n{_HINT}")

    def completed(self, code: int) -> bool:
        """Return whether pg_restore read the whole dump, and each of its errors was parsed."""
        known = len(self.left_out) + len(self.blocked)
        return code == 0 or bool(self._fatal) or (code == 1 and known == self._ignored > 0)

    def warnings(self) -> tuple[str, ...]:
        """Return a line for each object that was left out; owners and grants are grouped."""
        shared: dict[str, list[str]] = collections.defaultdict(list)
        lines: dict[str, None] = {}
        for one in self.left_out:
            if _SHARED.match(one.command):
                shared[one.reason].append(one.command)
            else:
                lines[f"{one.reason}: {one.command}"] = None
        grouped = (
            f"{reason}: {commands[0]}" + (f" and {len(commands) - 1} more" if commands[1:] else "")
            for reason, commands in shared.items()
        )
        return (*grouped, *lines)

    def hint(self) -> str:
        """Return the hint on roles, or "" if no role was missing."""
        return _HINT if any(_NEEDS_ROLE.match(one.command) for one in self.left_out) else ""


def _shorten_command(command: str) -> str:
    """Return the beginning of a command without string literals: one may be a password."""
    return command.partition("'")[0][:_SHOWN]
