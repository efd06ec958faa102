"""Whether a restore will accept the definitions of a dump, found while the dump passes by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from mysql_backup import dump_statements, statements

_ROWS = re.compile(rb"(?:INSERT|REPLACE) ")
_BEFORE_ROWS = re.compile(rb";\n(?=(?:INSERT|REPLACE) )")
_LOOKED_AT = 8  # bytes that tell whether rows follow
_END_OF_ROWS = re.compile(rb";\n")  # dump programs escape line breaks in values
_ENDING = 2  # bytes of it
_LONGEST = 32 << 20  # bytes of a definition; a longer one is not checked
_MOST = 20  # objects that are named
_REMEDIES = {
    "a string or comment": "begin comments with -- and a space, and set character_set_client to "
    "utf8mb4 before you create it",
    "a comment in a comment": "remove the inner comment",
    "a zero byte": "write CHAR(0) instead of a zero byte",
    "(a zero byte?)": "write CHAR(0) instead of a zero byte",
    "only some servers execute": "remove the marks of the comment /*! or /*M!",
    "a backslash": "remove the backslash outside of strings",
    "dollar quotes": "use other strings",
}


class DefinitionCheck:
    """Reads the dump of a database with the rules of a restore, but for its rows.

    Rows are only searched for their end, which costs little: dump programs write literals.
    """

    def __init__(self, database: str) -> None:
        self._database = database
        self._reader = statements.Reader()
        self._unread = b""  # bytes that need more bytes
        self._in_rows = False
        self._is_off = False
        self._rejected: dict[str, str] = {}  # reason by object

    def read(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass the chunks on unchanged."""
        for chunk in chunks:
            if not self._is_off:
                self._add(chunk)
            yield chunk
        if not (self._is_off or self._in_rows):
            self._feed(self._unread)
            for statement in self._reader.end():
                self._check(statement)

    def warnings(self) -> tuple[str, ...]:
        """Return what a restore of this database will reject, and how to change it."""
        names = [name for name in self._rejected if name] or list(self._rejected)
        lines = [_line(name, self._rejected[name]) for name in names[:_MOST]]
        if len(names) > _MOST:
            lines.append(f"{len(names) - _MOST} more objects that a restore rejects")
        return tuple(lines)

    def _add(self, chunk: bytes) -> None:
        data, at = self._unread + chunk, 0
        while at < len(data):
            step = self._rows_end(data, at) if self._in_rows else self._rows_begin(data, at)
            if step is None:
                return
            at = step
        self._unread = b""

    def _rows_end(self, data: bytes, at: int) -> int | None:
        """Return where the rows of a statement end; None if more bytes are needed."""
        end = _end_of_rows(data, at)
        after = end + _ENDING
        if end < 0 or after + _LOOKED_AT > len(data):
            self._unread = data[end:] if end >= 0 else data[-1:]
            return None
        self._in_rows = bool(_ROWS.match(data, after))
        return after

    def _rows_begin(self, data: bytes, at: int) -> int | None:
        """Read up to the next rows and return where they begin; None if more bytes are needed."""
        match = _BEFORE_ROWS.search(data, at)
        end = match.end() if match else max(at, len(data) - _LOOKED_AT - _ENDING)
        self._feed(data[at:end])
        if match is None:
            self._unread = data[end:]
            return None
        is_between = not self._reader.pending.text.strip()
        self._in_rows = is_between and self._reader.delimiter == b";"
        return end

    def _feed(self, text: bytes) -> None:
        for statement in self._reader.add(text):
            self._check(statement)
        if len(self._reader.pending.text) > _LONGEST:  # maybe a string without an end
            self._check(self._reader.pending)
            self._is_off = True

    def _check(self, statement: statements.Statement) -> None:
        if statement.is_data or len(self._rejected) > _MOST * 50:
            return
        if reason := dump_statements.rejection(statement, self._database, self._database):
            self._rejected.setdefault(dump_statements.object_name(statement), reason)


def _end_of_rows(data: bytes, at: int) -> int:
    """Return where rows end, or -1. A single byte is found much faster than two."""
    newline = data.find(b"\n", at + 1)
    if newline < 0:
        return len(data) - 1 if data.endswith(b";") else -1
    if data[newline - 1 : newline] == b";":
        return newline - 1
    match = _END_OF_ROWS.search(data, newline)
    return match.start() if match else -1


def _line(name: str, reason: str) -> str:
    remedy = next((text for part, text in _REMEDIES.items() if part in reason), "")
    change = f"; {remedy}" if remedy else ""
    return f"{name or 'a statement'}: a restore of its database will be rejected: {reason}{change}"
