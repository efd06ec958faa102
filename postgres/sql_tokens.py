"""Tokens of PostgreSQL's SQL, as the server reads it (scan.l) with standard_conforming_strings on.

It knows strings, escape and Unicode strings, dollar quotes, quoted identifiers, and both kinds of
comments, so text in any of them is never taken for a statement.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass


class SqlError(ValueError):
    """The text is not SQL, or holds a meta-command of psql."""


class Kind(enum.Enum):
    """What a token is. OTHER: a literal that the statements of a backup never have"""

    WORD = enum.auto()
    IDENTIFIER = enum.auto()
    STRING = enum.auto()
    NUMBER = enum.auto()
    SYMBOL = enum.auto()
    OTHER = enum.auto()


@dataclass(frozen=True)
class Token:
    """A token. value: words in lower case; identifiers and strings without their quotes"""

    kind: Kind
    value: str


_SPACE = re.compile(r"[ \t\n\r\f\v]+|--[^\n\r]*")
_COMMENT_EDGE = re.compile(r"/\*|\*/")
# pg_dump brackets its scripts with them since August 2025; they carry no text of a database.
_RESTRICT = re.compile(r"\\(?:un)?restrict [A-Za-z0-9]+(?:\n|$)")
_LETTER = "A-Za-z_\x80-\U0010ffff"
_PATTERNS = (
    (Kind.OTHER, re.compile(r"[uU]&'(?:[^']|'')*'|[uU]&\"(?:[^\"]|\"\")*\"")),
    (Kind.STRING, re.compile(r"[eE]'((?:[^'\\]|''|\\\\)*)'")),  # as pg_dumpall writes backslashes
    (Kind.OTHER, re.compile(r"[eE]'(?:[^'\\]|''|\\.)*'", re.S)),
    (Kind.OTHER, re.compile(r"[bBxXnN]'(?:[^']|'')*'")),
    (Kind.OTHER, re.compile(rf"\$((?:[{_LETTER}][{_LETTER}0-9]*)?)\$.*?\$\1\$", re.S)),
    (Kind.STRING, re.compile(r"'((?:[^']|'')*)'")),
    (Kind.IDENTIFIER, re.compile(r'"((?:[^"]|"")+)"')),
    (Kind.WORD, re.compile(rf"([{_LETTER}][{_LETTER}0-9$]*)")),
    (Kind.NUMBER, re.compile(r"([0-9]+)")),
    (Kind.SYMBOL, re.compile(r"([^\\'\"$])")),
)
_QUOTES = {Kind.STRING: "'", Kind.IDENTIFIER: '"'}
_CONNECT = re.compile(r"\\connect [^\n]*\n")  # pg_restore --create writes it; it is not executed


def statements(text: str, *, connects: bool = False) -> Iterator[list[Token]]:
    """Yield the tokens of each statement. Raises SqlError.

    connects: whether lines of psql's meta-command connect are left out
    """
    if "\0" in text:
        raise SqlError("NUL character")
    current: list[Token] = []
    position = _skip_space(text, 0)
    while position < len(text):
        if not current and (end := _skip_meta_command(text, position, connects=connects)):
            position = _skip_space(text, end)
            continue
        token, position = _token(text, position)
        position = _skip_space(text, position)
        if token.kind is not Kind.SYMBOL or token.value != ";":
            current.append(token)
        elif current:
            yield current
            current = []
    if current:
        raise SqlError(f"statement without an end: {beginning(current)}")


def _skip_meta_command(text: str, position: int, *, connects: bool) -> int:
    """Return the position behind a harmless meta-command of psql; 0 if there is none."""
    match = _RESTRICT.match(text, position)
    if connects:
        match = match or _CONNECT.match(text, position)
    return match.end() if match else 0


def beginning(tokens: list[Token]) -> str:
    """Return the first words of a statement, without names and values."""
    keywords: list[str] = []
    for token in tokens:
        if token.kind is not Kind.WORD or len(keywords) == 2:  # noqa: PLR2004  (words)
            break
        keywords.append(token.value.upper())
    return " ".join(keywords) or "(no statement)"


def _skip_space(text: str, position: int) -> int:
    """Return the position behind white space and comments."""
    while True:
        if space := _SPACE.match(text, position):
            position = space.end()
        elif text.startswith("/*", position):
            position = _skip_comment(text, position)
        else:
            return position


def _skip_comment(text: str, position: int) -> int:
    """Return the position behind a comment, which may contain others."""
    depth = 0
    while edge := _COMMENT_EDGE.search(text, position):
        depth += 1 if edge[0] == "/*" else -1
        position = edge.end()
        if not depth:
            return position
    raise SqlError("comment without an end")


def _token(text: str, position: int) -> tuple[Token, int]:
    """Return the token at a position, and the position behind it."""
    for kind, pattern in _PATTERNS:
        if match := pattern.match(text, position):
            return Token(kind, _content(kind, match)), match.end()
    if text[position] == "\\":
        raise SqlError("meta-command of psql")
    raise SqlError(f"quote without an end: {text[position : position + 20]!r}")


def _content(kind: Kind, match: re.Match[str]) -> str:
    if kind is Kind.OTHER:
        return match[0]
    if kind is Kind.WORD:
        return "".join(c.lower() if c.isascii() else c for c in match[1])
    quote = _QUOTES.get(kind, "")
    value = match[1].replace(quote * 2, quote) if quote else match[1]
    return value.replace("\\\\", "\\") if match[0][0] in "eE" and quote == "'" else value
