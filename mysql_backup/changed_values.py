"""Values that a server altered while a dump was loaded, from the warnings that its client shows."""

from __future__ import annotations

import re
import secrets
from collections import Counter

from mysql_backup import mysql_server
from tools.date_str_utils import count

# Rows of the client's output that say which table comes next; nothing else prints rows.
_MARK = f"nc-backup-table-{secrets.token_hex(8)}"
_WARNING = re.compile(r"(?:Warning|Error) \(Code (\d+)\): (.*)")
_ROW = re.compile(r" at row \d+$")
# What alters nothing: rows that are too wide for innodb_strict_mode (139), values of generated
# columns, which the server makes itself (1906), syntax that a later MySQL will not know.
_HARMLESS = frozenset(("139", "1287", "1681", "1906", "3719", "3720", "3778"))
_SCHEDULER = "Event scheduler is switched off"
_SHOWN = 10  # kinds of warnings that are named


def marker(table: str) -> bytes:
    """Return the statement that tells of which table the next warnings are."""
    return f"\nSELECT '{_MARK}', HEX({mysql_server.hex_literal(table)})".encode()


class ChangedValues:
    """Reads the output of a client that was told to show warnings."""

    def __init__(self) -> None:
        self._left = b""
        self._table = ""
        self._found: Counter[tuple[str, str]] = Counter()

    def take(self, chunk: bytes) -> None:
        """Read a part of the output."""
        *lines, self._left = (self._left + chunk).split(b"\n")
        for line in lines:
            self._line(line.decode("utf-8", "backslashreplace"))

    def _line(self, line: str) -> None:
        mark, _, table = line.partition("\t")
        if mark == _MARK:
            self._table = bytes.fromhex(table).decode("utf-8", "backslashreplace")
        elif (match := _WARNING.match(line)) and match[1] not in _HARMLESS:
            if match[2].startswith(_SCHEDULER):
                return
            self._found[self._table, _ROW.sub("", match[2])] += 1

    def warnings(self) -> tuple[str, ...]:
        """Return a warning for each table and kind, with how often it came at least."""
        lines = [
            f"{f'table {table}' if table else 'the dump'}: the server changed values: "
            f"{text} ({count(number, 'warning')})"
            for (table, text), number in self._found.items()
        ]
        more = len(lines) - _SHOWN
        return (*lines[:_SHOWN], *([f"{more} more kinds of warnings"] if more > 0 else []))
