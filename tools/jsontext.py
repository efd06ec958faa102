"""Standard JSON (RFC 8259), read so that every key knows its line.

Keys that begin with `__` are comments: they may repeat, and are dropped. Every other key
that repeats is refused, and so is what no config needs: NaN, deep nesting, NUL.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

from tools.errors import ConfigError

MOST_BYTES = 1 << 20
_DEEPEST = 20
_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_HALF = re.compile(
    "[\ud800-\udc7f\udd00-\udfff]"
)  # \udc80-\udcff: bytes of names that are no UTF-8
_LONGEST_NUMBER = 300  # digits; Python refuses to read some thousands
_LITERALS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class Table:
    """A JSON object: its values by key, and the line of each key."""

    values: dict[str, Any]
    lines: dict[str, int]


class _Reader:
    """Reads one text; `name` begins every message."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name
        self.at = 0

    def line(self, position: int) -> int:
        return self.text.count("\n", 0, position) + 1

    def fail(self, what: str, position: int, hint: str = "") -> ConfigError:
        column = position - (self.text.rfind("\n", 0, position) + 1) + 1
        return ConfigError(f"{self.name}:{self.line(position)}: {what} (column {column})", hint)

    def next(self) -> str:
        """The next character that is no white space; "" at the end."""
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return self.text[self.at : self.at + 1]

    def value(self, depth: int) -> Any:  # noqa: ANN401  (any JSON value)
        if depth > _DEEPEST:
            raise self.fail(f"nested deeper than {_DEEPEST} levels", self.at)
        first = self.next()
        if first == "{":
            return self.table(depth)
        if first == "[":
            return self.list(depth)
        if first == '"':
            return self.string()
        return self.scalar()

    def string(self) -> str:
        begin = self.at
        try:
            text, self.at = scanstring(self.text, begin + 1, True)
        except json.JSONDecodeError as error:
            hint = "A text ends with a quote on its own line; a backslash is written twice."
            raise self.fail(error.msg.lower(), begin, hint) from None
        if "\0" in text:
            raise self.fail("a text holds a NUL character", begin)
        if _HALF.search(text):
            raise self.fail("a text holds half a character (a lone surrogate)", begin)
        return str(text)

    def scalar(self) -> Any:  # noqa: ANN401  (number, boolean or null)
        begin = self.at
        word = re.compile(r"[A-Za-z]+").match(self.text, begin)
        if word and word[0] in _LITERALS:
            self.at = word.end()
            return _LITERALS[word[0]]
        number = _NUMBER.match(self.text, begin)
        if number and number[0]:
            self.at = number.end()
            return self.number(number[0], begin, whole=not (number[1] or number[2]))
        if begin >= len(self.text):
            raise self.fail(
                "ends before it is complete", begin, "A bracket or a quote is not closed."
            )
        what = word[0] if word else self.text[begin]
        hint = "JSON knows no comma before a closing bracket, no comments and only double quotes."
        raise self.fail(f"a value is expected, not {what!r}", begin, hint)

    def number(self, text: str, begin: int, *, whole: bool) -> int | float:
        if len(text) > _LONGEST_NUMBER or not math.isfinite(float(text)):
            raise self.fail("a number is too large", begin)
        return int(text) if whole else float(text)

    def list(self, depth: int) -> list[Any]:
        found: list[Any] = []
        self.at += 1
        if self.next() == "]":
            self.at += 1
            return found
        while True:
            found.append(self.value(depth + 1))
            if self.separator("]"):
                return found

    def table(self, depth: int) -> Table:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        self.at += 1
        if self.next() == "}":
            self.at += 1
            return Table(values, lines)
        while True:
            begin = self.at if self.next() == '"' else -1
            if begin < 0:
                hint = "A key stands in double quotes; there is no comma after the last one."
                raise self.fail(f"a key is expected, not {self.next()!r}", self.at, hint)
            begin = self.at
            key = self.string()
            if self.next() != ":":
                raise self.fail(f"a colon is missing after the key {key!r}", self.at)
            self.at += 1
            value = self.value(depth + 1)
            if key in values:
                hint = f"It stands in line {lines[key]} already; only comments (__...) may repeat."
                raise self.fail(f"the key {key} repeats", begin, hint)
            if not key.startswith("__"):
                values[key], lines[key] = value, self.line(begin)
            if self.separator("}"):
                return Table(values, lines)

    def separator(self, closing: str) -> bool:
        """Step over a comma (False) or the closing bracket (True)."""
        found = self.next()
        if found == closing:
            self.at += 1
            return True
        if found != ",":
            raise self.fail(
                f"a comma or {closing} is missing", self.at, "Entries are separated by commas."
            )
        self.at += 1
        return False


def parse(raw: bytes, name: str) -> Table:
    """The object that the bytes hold. Raises ConfigError naming file, line and column."""
    if len(raw) > MOST_BYTES:
        raise ConfigError(f"{name}: larger than {MOST_BYTES} bytes", "This can be no config.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        hint = f"Byte {error.start} is 0x{raw[error.start]:02x}; save the file as UTF-8."
        raise ConfigError(f"{name}:{line}: not UTF-8", hint) from None
    reader = _Reader(text, name)
    found = reader.value(0)
    if reader.next():
        raise reader.fail("something follows after the end", reader.at)
    if not isinstance(found, Table):
        raise ConfigError(f"{name}:1: must be an object", 'It begins with { and holds "GENERAL".')
    return found


def plain(value: Any) -> Any:  # noqa: ANN401  (any JSON value)
    """The value as plain dictionaries and lists, without lines."""
    if isinstance(value, Table):
        return {key: plain(entry) for key, entry in value.values.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    return value
