"""Whether statements that insert rows contain nothing but literals.

A function in them would run with the privileges of the restoring user.
"""

from __future__ import annotations

import functools
import re

from mysql_backup import readings
from mysql_backup.statements import Statement
from tools.base.errors import StoreError

_NAME = rb"(?:`(?:[^`]|``)*`|[\w$\x80-\xff]+)"
_HEAD = re.compile(
    rb"\s*(?:INSERT|REPLACE)\s+(?:DELAYED\s+)?(?:IGNORE\s+)?INTO\s+(" + _NAME + rb")\s*"
    rb"(?:\(\s*(?:" + _NAME + rb"\s*(?:,\s*" + _NAME + rb"\s*)*)?\)\s*)?VALUES\s*(?=\()",
    re.IGNORECASE,
)
_LONGEST = 1 << 20  # bytes of a head: 4,096 columns
_WORD = 400  # bytes: more than the longest number, also of a DOUBLE
_SEPARATORS = (b",", b"(", b")", b"'", b" ", b"\n")
_HEX = re.compile(rb"[0-9A-Fa-f]*")


@functools.cache
def _literals(backslash: bool) -> re.Pattern[bytes]:
    """Return a pattern for rows of literals; a string may have no end yet."""
    inside = rb"[^'\\]*(?:\\[^\0][^'\\]*)*" if backslash else rb"[^']*"
    keywords = (
        rb"NULL\b|(?<=0)x[0-9A-Fa-f]*|[-+](?=[0-9.])|[eE](?=[-+]?[0-9])|_binary\b|[xXbB](?=')"
    )
    between = rb"[\s(),0-9.]*"
    literal = rb"(?:'" + inside + rb"'|" + keywords + rb")" + between
    return re.compile(between + rb"(?:" + literal + rb")*", re.DOTALL)


@functools.cache
def _inside(backslash: bool) -> re.Pattern[bytes]:
    return re.compile(rb"[^'\\]*(?:\\[^\0][^'\\]*)*" if backslash else rb"[^']*", re.DOTALL)


class RowCheck:
    """Checks statements with rows, which come in pieces."""

    def __init__(self) -> None:
        self._state = _State()

    @property
    def held(self) -> int:
        """Return the number of bytes that wait for the next piece."""
        return len(self._state.left)

    def add(self, piece: Statement, *, last: bool) -> None:
        """Check the next piece; last: whether its statement ends. Raises StoreError."""
        if piece.first:
            self._state = _State()
        state = self._state
        state.add(piece.text, backslash=piece.mode.backslash, last=last)
        limit = 0 if last else _LONGEST if state.in_head else _WORD
        unfinished = last and (state.in_head or state.in_string)
        if len(state.left) > limit or unfinished or readings.has_pairs(piece.mode):
            raise StoreError(
                f"the dump inserts something other than literals{state.where}",
                "Nothing was sent to the server. Restore the item into a folder (--destination) "
                "and examine the statement.",
            )


class _State:
    """How far a statement was read, and within what."""

    def __init__(self) -> None:
        self.left = b""  # bytes that need more bytes
        self.where = ""  # the table, for messages: rows are not shown
        self.in_head = True
        self.in_string = False
        self._in_hex = False

    def add(self, text: bytes, *, backslash: bool, last: bool) -> None:
        """Read the next bytes."""
        data, at = self.left + text, 0
        if self.in_head:
            head = _HEAD.match(data)
            self.in_head = head is None
            at = head.end() if head else 0
            self.where = f" into {head[1].decode('utf-8', 'replace')!r}" if head else ""
        if not self.in_head:
            at = self._rows(data, at, backslash=backslash, last=last)
        self.left = data[at:]

    def _rows(self, data: bytes, at: int, *, backslash: bool, last: bool) -> int:
        """Return how far the rows are literals."""
        if self._in_hex:
            at = _end(_HEX, data, at)
            self._in_hex = at == len(data)
        while at < len(data):
            if self.in_string:
                at = _end(_inside(backslash), data, at)
                if data[at : at + 1] != b"'":
                    return at
                self.in_string = False
                at += 1
            else:
                begin = at
                at = _end(_literals(backslash), data, at)
                if data[at : at + 1] != b"'":
                    return at if last else self._before_word(data, begin, at)
                self.in_string = True
                at += 1
        return at

    def _before_word(self, data: bytes, begin: int, end: int) -> int:
        """Return the begin of the last word, which may go on; hexadecimal digits may be many."""
        if end < len(data):
            return end
        start = max(begin, 1 + max(data.rfind(one, begin, end) for one in _SEPARATORS))
        self._in_hex = data.startswith(b"0x", start)
        return end if self._in_hex else start


def _end(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    match = pattern.match(data, at)
    return match.end() if match else at
