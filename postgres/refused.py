"""What a server rejected of a dump: rows end the restore, every other object is left out and named.

`pg_restore --verbose` names the entry of the dump ("from TOC entry"), the error and the command, a
line each (pg_backup_archiver.c, warn_or_exit_horribly). Those lines are in English; the server's
error need not be, so nothing here depends on its words unless a comment says so.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tools.base.errors import StoreError

UNSUPPORTED = "unsupported version"  # of the archive: this pg_restore is too old for it
_ERROR = "pg_restore: error: "
_COMMAND = "Command was: "
_PHASE = re.compile(r"pg_restore: while [A-Z ]+")
_ENTRY = re.compile(r"pg_restore: from TOC entry (\d+); \d+ \d+ (.*)")
# An error that the server reports has its severity in front; all else is the connection's.
_QUERY = re.compile(r"could not execute query: (?P<severity>[^:]+):\s+(?P<why>.*)")
_ACCESS_METHOD = re.compile(r"could not set default_table_access_method: [^:]+:\s+(?P<why>.*)")
_FATAL = ("FATAL", "PANIC")
# Commands that rows, large objects, sequence values and the text of all of them need.
_DATA = re.compile(
    r"COPY |CREATE (?:UNLOGGED )?TABLE |SELECT pg_catalog\.(?:setval|lo_)|"
    r"SET (?:client_encoding|standard_conforming_strings) "
)
# A server that can take no more (its own words): the next objects would be lost as well.
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


class RowsError(StoreError):
    """Rows were rejected: a table may take them without its CHECK constraints."""


@dataclass(frozen=True)
class LeftOut:
    """One command that failed, and what the server said.

    entry: the number of its entry in the dump ("" before the first)
    about: kind, name and owner of that entry ("FK CONSTRAINT orders orders_c_fkey app")
    """

    entry: str
    about: str
    why: str
    command: str


class Refused:
    """What pg_restore reports while it goes on after errors."""

    def __init__(self) -> None:
        self.left_out: list[LeftOut] = []
        self._fatal = ""
        self._rows = False  # whether what is fatal is a COPY
        self._why = ""  # of the error whose command follows
        self._entry = ("", "")
        self._open = False  # whether the last line was the first of a command
        self._ignored = 0

    def take(self, line: str) -> None:
        """The next line of its standard error."""
        if self._open and line.startswith("    ADD CONSTRAINT "):
            last = self.left_out.pop()
            command = f"{last.command} {_shown(line.strip())}"
            self.left_out.append(LeftOut(last.entry, last.about, last.why, command))
        self._open = False
        if found := _ENTRY.match(line):
            self._entry = (found[1], found[2])
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
        found = _QUERY.match(error)
        if found and found["severity"] not in _FATAL and not _EXHAUSTED.search(error):
            self._why = found["why"]
        elif method := _ACCESS_METHOD.match(error):
            self.left_out.append(
                LeftOut("", "", method["why"], "tables have the default access method")
            )
        elif not self._fatal:
            self._fatal = error
            self._rows = error.startswith("COPY failed for table")

    def _command(self, text: str) -> None:
        command = _shown(text)
        if _DATA.match(command):
            self._fatal = self._fatal or f"{self._why}: {command}"
        self.left_out.append(LeftOut(*self._entry, self._why, command))
        self._why = ""
        self._open = command.startswith("ALTER TABLE ")

    def watched(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The dump on its way in. Raises StoreError soon after a part of it is lost."""
        for chunk in chunks:
            self.judge()
            yield chunk

    def judge(self) -> None:
        """Raises StoreError where what was rejected cannot be left out; RowsError for rows."""
        if self._fatal:
            kind = RowsError if self._rows else StoreError
            raise kind("pg_restore: part of the dump was not restored", f"{self._fatal}\n{_HINT}")

    def went_on(self, code: int) -> bool:
        """Whether pg_restore came to its end, and each of its errors is known."""
        known = len(self.left_out)
        return code == 0 or bool(self._fatal) or (code == 1 and known == self._ignored > 0)

    def warnings(self) -> tuple[str, ...]:
        """Each object that was left out; of owners and grants one line for each reason."""
        shared: dict[str, list[str]] = collections.defaultdict(list)
        lines: dict[str, None] = {}
        for one in self.left_out:
            if _SHARED.match(one.command):
                shared[one.why].append(one.command)
            else:
                lines[f"{one.why}: {one.command}"] = None
        grouped = (
            f"{why}: {commands[0]}" + (f" and {len(commands) - 1} more" if commands[1:] else "")
            for why, commands in shared.items()
        )
        return (*grouped, *lines)

    def hint(self) -> str:
        """What to do where something was left out; "" where roles would not have helped."""
        return _HINT if any(_NEEDS_ROLE.match(one.command) for one in self.left_out) else ""


def _shown(command: str) -> str:
    """The beginning of a command, without its texts: one may be a password."""
    return command.partition("'")[0][:_SHOWN]
