r"""The one language of path patterns: FILESET_EXCLUDE and restore.py --path.

A pattern with a leading / begins at /, any other matches at any depth. `*` and `?` stay within one
name, `**` crosses folders (`**/` also stands for none), [abc], [a-z], [!abc] and [[:digit:]] are
sets, and a backslash makes the next character literal. What is below a match matches too.
Names are bytes: `?` and sets match one byte.
"""

from __future__ import annotations

import itertools
import os
import re
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from tools.base.errors import ConfigError

_MOST = 4  # `**` in one pattern
_LONGEST = 8192  # characters of one; Linux takes paths of 4,095 bytes
_MAX_QUOTED = 60  # characters of one that is longer
_SYNTAX = (
    "Known are *, ?, **, and sets such as [abc], [a-z], [!abc]. A backslash makes the next "
    "character literal."
)
_LIST = 'Write names with spaces or quotes as a JSON list, for example ["My Docs", "*.log"].'
_ALTERNATIVES = (
    "Write a pattern for each alternative: in conf.json a JSON list, --path several times. "
    "A backslash makes a brace literal."
)
_BRACES = re.compile(r"(?<!\\)\{[^{}/]*(?:,|\.\.)[^{}/]*\}")
_CLASSES = {
    b"alpha": string.ascii_letters,
    b"digit": string.digits,
    b"alnum": string.ascii_letters + string.digits,
    b"upper": string.ascii_uppercase,
    b"lower": string.ascii_lowercase,
    b"space": string.whitespace,
    b"blank": " \t",
    b"punct": string.punctuation,
    b"xdigit": string.hexdigits,
    b"graph": string.ascii_letters + string.digits + string.punctuation,
    b"print": string.ascii_letters + string.digits + string.punctuation + " ",
    b"cntrl": "".join(map(chr, (*range(1, 32), 127))),
}


class Kind(Enum):
    """The parts of a pattern."""

    LITERAL = "one byte"
    SLASH = "/"
    ANY = "?"
    SET = "[]"
    STAR = "*"
    CROSS = "**"
    FOLDERS = "**/"


class Token(NamedTuple):
    """A part of a pattern. members: of LITERAL its byte, of SET its bytes (negated: the others)."""

    kind: Kind
    members: bytes = b""
    negated: bool = False


SLASH, ANY, STAR = Token(Kind.SLASH), Token(Kind.ANY), Token(Kind.STAR)
CROSS, FOLDERS = Token(Kind.CROSS), Token(Kind.FOLDERS)


@dataclass(frozen=True)
class PathPattern:
    """A compiled pattern. text: as written; anchored: whether it begins at /."""

    text: str
    anchored: bool
    tokens: tuple[Token, ...]
    regex: re.Pattern[bytes]

    def matches(self, name: bytes) -> bool:
        """Return whether a name (without a leading /) matches, or a folder that it is in."""
        return self.regex.fullmatch(name) is not None


class _InvalidError(Exception):
    """Why a pattern is invalid, and a hint."""

    def __init__(self, problem: str, hint: str = _SYNTAX) -> None:
        super().__init__(problem)
        self.hint = hint


def compile_pattern(text: str, key: str) -> PathPattern:
    """Compile a pattern of a key or option. Raises ConfigError that names both."""
    if len(text) > _LONGEST:
        problem = f"invalid pattern: longer than {_LONGEST} characters"
        raise ConfigError(
            f"{key}: {text[:_MAX_QUOTED] + '...'!r}: {problem}", "Write several patterns."
        )
    try:
        return _compiled(text)
    except _InvalidError as error:
        raise ConfigError(f"{key}: {text!r}: invalid pattern: {error}", error.hint) from None


def _compiled(text: str) -> PathPattern:
    clean = os.path.normpath(text) if text else ""
    if clean.strip("/") in ("", "."):
        raise _InvalidError(
            "it names no file", "Use a path or a name pattern, for example `*.log`."
        )
    if clean.split("/")[0] == "..":
        raise _InvalidError("it leads out of the file system (..)", "Write the path from /.")
    if _BRACES.search(clean):
        raise _InvalidError("braces are not alternatives here", _ALTERNATIVES)
    if "\0" in clean:
        raise _InvalidError("it contains a NUL character")
    try:
        raw = os.fsencode(clean.lstrip("/"))
    except UnicodeEncodeError:
        raise _InvalidError("it contains a character that no name has") from None
    tokens = tuple(_tokens(raw))
    if sum(token in (CROSS, FOLDERS) for token in tokens) > _MOST:
        raise _InvalidError(f"more than {_MOST} `**`", "Write several patterns.")
    anchored = clean.startswith("/")
    return PathPattern(text, anchored, tokens, _regex(tokens, anchored=anchored))


def _tokens(raw: bytes) -> Iterator[Token]:
    """Yield the parts of a pattern. Raises _InvalidError."""
    at = 0
    in_front = SLASH
    while at < len(raw):
        token, at = _token(raw, at, starts_name=in_front in (SLASH, FOLDERS))
        if not (token == in_front == FOLDERS):
            yield token
        in_front = token


def _token(raw: bytes, at: int, *, starts_name: bool) -> tuple[Token, int]:
    """Return the token at an offset, and the offset after it."""
    byte = raw[at : at + 1]
    if byte == b"\\":
        return _escaped(raw, at)
    if byte == b"[":
        return _set(raw, at + 1)
    if byte == b"*":
        end = at + len(raw[at:]) - len(raw[at:].lstrip(b"*"))
        if end == at + 1:
            return STAR, end
        folders = starts_name and raw[end : end + 1] == b"/"
        return (FOLDERS, end + 1) if folders else (CROSS, end)
    return {b"?": ANY, b"/": SLASH}.get(byte, Token(Kind.LITERAL, byte)), at + 1


def _escaped(raw: bytes, at: int) -> tuple[Token, int]:
    byte = raw[at + 1 : at + 2]
    if not byte:
        raise _InvalidError("nothing follows the backslash", _LIST)
    return (SLASH if byte == b"/" else Token(Kind.LITERAL, byte)), at + 2


def _set(raw: bytes, at: int) -> tuple[Token, int]:
    """Return the set whose [ is in front of an offset. Raises _InvalidError."""
    negated = raw[at : at + 1] in (b"!", b"^")
    at += negated
    first = at
    members: set[int] = set()
    while raw[at : at + 1] != b"]" or at == first:
        added, at = _set_entry(raw, at)
        members.update(added)
    members.discard(ord("/"))
    if not members:
        raise _InvalidError("the set has no characters")
    return Token(Kind.SET, bytes(sorted(members)), negated), at + 1


def _set_entry(raw: bytes, at: int) -> tuple[Sequence[int], int]:
    """Return the bytes of one entry of a set (`a`, `a-z`, `[:digit:]`), and the offset after it."""
    if raw[at : at + 2] in (b"[:", b"[.", b"[="):
        match = re.compile(rb"\[:([a-z]*):\]").match(raw, at)
        if match is None or match[1] not in _CLASSES:
            raise _InvalidError("unknown character class")
        return _CLASSES[match[1]].encode(), match.end()
    low, at = _set_byte(raw, at)
    if raw[at : at + 1] != b"-" or raw[at + 1 : at + 2] in (b"", b"]"):
        return (low,), at
    high, at = _set_byte(raw, at + 1)
    if high < low:
        raise _InvalidError("a range of the set is reversed")
    return range(low, high + 1), at


def _set_byte(raw: bytes, at: int) -> tuple[int, int]:
    at += raw[at : at + 1] == b"\\"
    if at >= len(raw):
        raise _InvalidError("the set has no end (])")
    if raw[at] == ord("/"):
        raise _InvalidError("a set cannot contain a slash")
    if not 0 < raw[at] < 128:  # noqa: PLR2004  (ASCII)
        raise _InvalidError("a set can only contain ASCII characters")
    return raw[at], at + 1


def _regex(tokens: Sequence[Token], *, anchored: bool) -> re.Pattern[bytes]:
    """Return the expression of a pattern.

    The text between two `**` is matched where it comes first, once and for all: the second `**`
    takes whatever is left. So is the text between two `*` that no slash parts. Otherwise each
    would be tried with every length of the others.
    """
    free = [] if anchored or tokens[0] == FOLDERS else [FOLDERS]
    numbers = itertools.count()
    expression = _first(_groups([*free, *tokens], _CROSSING), numbers, _names)
    return re.compile(expression + rb"(?:/.*)?", re.DOTALL)


def _names(tokens: Sequence[Token], numbers: Iterator[int]) -> bytes:
    """Return the expression of tokens without `**`."""
    return _first(_groups(tokens, (STAR,)), numbers, lambda some, _: b"".join(map(_as_regex, some)))


def _groups(tokens: Sequence[Token], wild: Sequence[Token]) -> list[list[Token]]:
    """Return the tokens before the first wild one, and from each wild one to the next."""
    groups: list[list[Token]] = [[]]
    for token in tokens:
        if token in wild:
            groups.append([])
        groups[-1].append(token)
    return groups


def _first(
    groups: Sequence[Sequence[Token]],
    numbers: Iterator[int],
    inner: Callable[[Sequence[Token], Iterator[int]], bytes],
) -> bytes:
    """Return the expression of groups: each but the last matches where it does so first.

    A lookahead with a group and its repetition is the atomic group of Python 3.11.
    """
    begin, *wild = groups
    regex = inner(begin, numbers)
    for number, group in enumerate(wild, 1):
        one = _LAZY[group[0]] + inner(group[1:], numbers)
        if number < len(wild):
            name = b"g%d" % next(numbers)
            one = b"(?=(?P<" + name + b">" + one + b"))(?P=" + name + b")"
        regex += one
    return regex


_CROSSING = (CROSS, FOLDERS)
_LAZY = {STAR: rb"[^/]*?", CROSS: rb".*?", FOLDERS: rb"(?:.*?/)??"}


_REGEXES = {
    Kind.SLASH: b"/",
    Kind.ANY: rb"[^/]",
}


def _as_regex(token: Token) -> bytes:
    if token.kind is Kind.SET:
        members = re.escape(token.members)
        return b"[^/" + members + b"]" if token.negated else b"[" + members + b"]"
    return _REGEXES.get(token.kind) or re.escape(token.members)
