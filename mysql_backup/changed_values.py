"""Values that a server changed while a dump was loaded, from the warnings of its client."""

from __future__ import annotations

import re
import secrets
from collections import Counter

from mysql_backup import mysql_server
from tools.date_str_utils import count

# Rows of the client's output that announce the next table; nothing else prints rows.
_MARK = f"nc-backup-table-{secrets.token_hex(8)}"
_WARNING = re.compile(r"(?:Warning|Error) \(Code (\d+)\): (.*)")
_ROW = re.compile(r" at row \d+$")
# Warnings without a changed value: rows too wide for innodb_strict_mode (139), values of generated
# columns, which the server computes (1906), deprecated syntax.
_HARMLESS = frozenset(("139", "1287", "1681", "1906", "3719", "3720", "3778"))
_OPTION_IGNORED = "1618"  # WARN_OPTION_IGNORED: DATA DIRECTORY
_SCHEDULER = "Event scheduler is switched off"
_SHOWN = 10  # kinds of warnings that are named


def marker(table: str) -> bytes:
    """Return the statement that announces the table of the next warnings."""
    return f"\nSELECT '{_MARK}', HEX({mysql_server.hex_literal(table)})".encode()


class ChangedValues:
    """Parses the output of a client with --show-warnings."""

    def __init__(self, *, directories: bool = True) -> None:
        """directories: see DumpReader; an ignored DATA DIRECTORY is a warning only if True."""
        self._harmless = _HARMLESS if directories else _HARMLESS | {_OPTION_IGNORED}
        self._left = b""
        self._table = ""
        self._counts: Counter[tuple[str, str]] = Counter()

    def take(self, chunk: bytes) -> None:
        """Parse a part of the output."""
        *lines, self._left = (self._left + chunk).split(b"\n")
        for line in lines:
            self._line(line.decode("utf-8", "backslashreplace"))

    def _line(self, line: str) -> None:
        mark, _, table = line.partition("\t")
        if mark == _MARK:
            self._table = bytes.fromhex(table).decode("utf-8", "backslashreplace")
        elif (match := _WARNING.match(line)) and match[1] not in self._harmless:
            if match[2].startswith(_SCHEDULER):
                return
            self._counts[self._table, _ROW.sub("", match[2])] += 1

    def warnings(self) -> tuple[str, ...]:
        """Return a warning for each table and kind, with its minimum number."""
        lines = [
            f"{f'table {table}' if table else 'the dump'}: the server changed values: "
            f"{text} ({count(number, 'warning')})"
            for (table, text), number in self._counts.items()
        ]
        more = len(lines) - _SHOWN
        return (*lines[:_SHOWN], *([f"{more} more kinds of warnings"] if more > 0 else []))
