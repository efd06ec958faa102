"""Standard JSON (RFC 8259), read so that every key knows its line.

Keys that begin with `__` are comments: they may repeat, and are dropped unless they are asked
for. Of other keys that repeat, the last value counts inside a section (as in the predecessor),
and the repetition is recorded; a section that repeats is rejected. So is what no config needs:
NaN, deep nesting, NUL.
"""

from __future__ import annotations

import bisect
import json
import math
import re
from dataclasses import dataclass, field
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

from tools.base.errors import ConfigError

MOST_BYTES = 1 << 20
_DEEPEST = 20
_LINE_END = re.compile(r"\n")
_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_HALF = re.compile(
    "[\ud800-\udc7f\udd00-\udfff]"
)  # \udc80-\udcff: bytes of names that are no UTF-8
_LONGEST_NUMBER = 300  # digits; Python refuses to read some thousands
_LITERALS = {"true": True, "false": False, "null": None}
_ALMOST_LITERALS = (*_LITERALS, "none", "nan", "infinity", "undefined", "nil")


_COMMENT_HINT = (
    "JSON has no comments: to disable an entry, rename its key so that it begins with __, "
    'as in "__KEY".'
)


@dataclass(frozen=True)
class Repeat:
    """A key that occurs again in its object: its path, both lines, and the value that is lost."""

    path: tuple[str, ...]
    first_line: int
    line: int
    value: Any


@dataclass(frozen=True)
class Table:
    """A JSON object: its values by key, and the line of each key.

    repeats: of the outermost object: the keys inside it, at any depth, that occur again
    """

    values: dict[str, Any]
    lines: dict[str, int]
    repeats: list[Repeat] = field(default_factory=list)


class _Reader:
    """Reads one text; `name` begins every message."""

    def __init__(self, text: str, name: str, *, comments: bool) -> None:
        self.text = text
        self._ends = [match.start() for match in _LINE_END.finditer(text)]
        self.name = name
        self.comments = comments
        self.at = 0
        self.path: list[str] = []  # the keys that lead to the value that is being read
        self.repeats: list[Repeat] = []

    def line(self, position: int) -> int:
        return bisect.bisect_left(self._ends, position) + 1

    def fail(self, problem: str, position: int, hint: str = "") -> ConfigError:
        column = position - (self.text.rfind("\n", 0, position) + 1) + 1
        return ConfigError(f"{self.name}:{self.line(position)}: {problem} (column {column})", hint)

    def next(self) -> str:
        """Return the next character that is no white space; "" at the end."""
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.text[self.at : self.at + 1]

    def value(self, depth: int) -> Any:  # noqa: ANN401  (any JSON value)
        if depth > _DEEPEST:
            raise self.fail(f"nested more than {_DEEPEST} levels deep", self.at)
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
            hint = r"Close the string with a double quote on the same line; write \ as \\."
            raise self.fail(error.msg.lower(), begin, hint) from None
        if "\0" in text:
            raise self.fail("string contains NUL", begin)
        if _HALF.search(text):
            raise self.fail("string contains a lone surrogate", begin)
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
            return self.number(number[0], begin, is_integer=not (number[1] or number[2]))
        if begin >= len(self.text):
            raise self.fail("unexpected end of file", begin, "Close the open bracket or quote.")
        actual = repr(word[0] if word else self.text[begin])
        if word and word[0].lower() not in _ALMOST_LITERALS:  # it may be a password
            actual = "a word without quotes"
        hint = "Use double quotes, and no comma before a closing bracket."
        raise self.unexpected(f"expected a value, found {actual}", hint)

    def unexpected(self, problem: str, hint: str) -> ConfigError:
        """Return the error for the text that follows; for a comment with a hint."""
        if re.match(r"#|//|/\*", self.text[self.at : self.at + 2]):
            hint = _COMMENT_HINT
        return self.fail(problem, self.at, hint)

    def number(self, text: str, begin: int, *, is_integer: bool) -> int | float:
        if len(text) > _LONGEST_NUMBER or not math.isfinite(float(text)):
            raise self.fail("number too large", begin)
        return int(text) if is_integer else float(text)

    def list(self, depth: int) -> list[Any]:
        items: list[Any] = []
        self.at += 1
        if self.next() == "]":
            self.at += 1
            return items
        while True:
            items.append(self.value(depth + 1))
            if self.separator("]"):
                return items

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
                hint = "Put the key in double quotes; remove the comma after the last entry."
                raise self.unexpected(f"expected a key, found {self.next()!r}", hint)
            begin = self.at
            key = self.string()
            if self.next() != ":":
                hint = f"Write a colon between the key {key} and its value."
                raise self.unexpected(f"expected ':' after the key {key!r}", hint)
            self.at += 1
            self.path.append(key)
            value = self.value(depth + 1)
            if key in values and not key.startswith("__"):
                self.repeat(values[key], lines[key], begin)
            self.path.pop()
            comment = key.startswith("__")
            if comment and self.comments:
                key = _unused(key, values)
            if not comment or self.comments:
                values[key], lines[key] = value, self.line(begin)
            if self.separator("}"):
                return Table(values, lines)

    def repeat(self, value: Any, first_line: int, begin: int) -> None:  # noqa: ANN401
        """Record a key that occurs again. Raises ConfigError where it names a section."""
        if any(key.startswith("__") for key in self.path):
            return  # inside an entry that is commented out
        if len(self.path) == 1:
            hint = (
                f"The first is in line {first_line}: rename or remove one. "
                "Only comments (__...) may repeat."
            )
            raise self.fail(f"duplicate key {self.path[0]}", begin, hint)
        self.repeats.append(Repeat(tuple(self.path), first_line, self.line(begin), plain(value)))

    def separator(self, closing: str) -> bool:
        """Skip a comma (return False) or the closing bracket (return True)."""
        character = self.next()
        if character == closing:
            self.at += 1
            return True
        if character != ",":
            hint = "Separate entries with commas."
            raise self.unexpected(f"expected ',' or '{closing}'", hint)
        self.at += 1
        return False


def _unused(key: str, values: dict[str, Any]) -> str:
    """Return the key, numbered where it is taken already."""
    if key not in values:
        return key
    return next(
        new for number in range(2, len(values) + 3) if (new := f"{key}_{number}") not in values
    )


def parse(raw: bytes, name: str, *, comments: bool = False) -> Table:
    """Return the object that the bytes hold.

    comments: keep the keys that begin with `__`; one that repeats gets a number.
    Raises ConfigError naming file, line and column.
    """
    if len(raw) > MOST_BYTES:
        raise ConfigError(
            f"{name}: larger than {MOST_BYTES} bytes", "Check that this is a conf.json."
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        hint = f"Save the file as UTF-8: byte {error.start} is 0x{raw[error.start]:02x}."
        raise ConfigError(f"{name}:{line}: invalid UTF-8", hint) from None
    reader = _Reader(text, name, comments=comments)
    table = reader.value(0)
    if reader.next():
        hint = "Remove what follows the last bracket."
        raise reader.fail("unexpected text after the end", reader.at, hint)
    if not isinstance(table, Table):
        hint = 'Begin the file with { and a "GENERAL" section.'
        raise ConfigError(f"{name}:1: must be a JSON object", hint)
    return Table(table.values, table.lines, reader.repeats)


def plain(value: Any) -> Any:  # noqa: ANN401  (any JSON value)
    """Return the value as plain dictionaries and lists, without lines."""
    if isinstance(value, Table):
        return {key: plain(entry) for key, entry in value.values.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    return value
