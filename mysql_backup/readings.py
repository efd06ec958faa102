"""Whether a client and a server read a statement in the same way.

The client ends a statement at a delimiter outside of strings and comments. If the server sees a
string or comment elsewhere, the body of a routine could end early, and what its author wrote after
that would run with the privileges of the restoring user. Sources: client/mysql.cc (add_line),
sql/sql_lex.cc (lex_one_token, consume_comment), both of MariaDB and MySQL.
"""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mysql_backup import statements

_NARROW = rb"--(?=\s|\Z)"  # what begins a comment for clients
_BROAD = rb"--(?![!-~])"  # and for servers: control characters too, some of them above 127
# Text in which the readings may differ; anything else needs only one reading.
_SUSPICIOUS = re.compile(rb'"|--[^!-~\s]')
_EXECUTED = 50600  # comments of older versions are executed by each supported server
_VERSION = re.compile(rb"/\*!(?:(\d{5})(?!\d)|(?!\d))")
_NESTED = re.compile(rb"(?<!^)/\*[!+]", re.DOTALL)  # clients miss the end of a comment around it
_QUOTES = (b"'", b'"', b"`")
_NONE = statements.NO_PAIR


@dataclass(frozen=True)
class _Lexer:
    """The rules of one reader."""

    backslash: bool
    ansi: bool
    pair: bytes = _NONE
    comment: bytes = _NARROW

    def spans(self, text: bytes) -> list[tuple[int, int]]:
        """Return start and end of each string, quoted name and comment."""
        matches = _pattern(self).finditer(text)
        return [match.span() for match in matches if match.lastgroup == "opaque"]

    def others(self, text: bytes) -> list[tuple[str, int]]:
        """Return marks of executed comments, backslashes and dollar quotes outside of these."""
        matches = _pattern(self).finditer(text)
        return [(str(one.lastgroup), one.start()) for one in matches if one.lastgroup in _MARKS]


_MARKS = ("open", "close", "backslash", "dollar")


@functools.cache
def _pattern(lexer: _Lexer) -> re.Pattern[bytes]:
    single = _string(b"'", lexer.pair, escapes=lexer.backslash)
    double = _string(b'"', lexer.pair, escapes=lexer.backslash and not lexer.ansi)
    name = _string(b"`", lexer.pair, escapes=False)
    long = statements.SKIPPED + rb"|/\*(?!M?!|\+).*?(?:\*/|\Z)"
    line = rb"(?:#|" + lexer.comment + rb")[^\n]*"
    parts = (
        rb"(?P<opaque>" + b"|".join((single, double, name, long, line)) + b")",
        rb"(?P<open>/\*(?:M?!|\+))|(?P<close>\*/)",
        rb"(?P<backslash>\\(?!N))",
        rb"(?P<dollar>(?<![\w$\x80-\xff])\$\w*\$)",
        lexer.pair,
        rb"[^'\"`#*/\\$\x80-\xff-]+",
        rb".",
    )
    return re.compile(b"|".join(parts), re.DOTALL)


def _string(quote: bytes, pair: bytes, *, escapes: bool) -> bytes:
    """Return a pattern for a string; one without an end goes to the end of the text."""
    more = rb"+" if pair is _NONE else rb""
    plain = rb"[^" + quote + (rb"\\]" if escapes else rb"]") + more
    escape = rb"|\\(?:.|\Z)" if escapes else rb""
    return quote + rb"(?:" + pair + rb"|" + plain + escape + rb")*(?:" + quote + rb"|\Z)"


def has_pairs(mode: statements.Mode) -> bool:
    """Return whether a second byte of a character may be a backslash."""
    return mode.pair is not _NONE


def difference(statement: statements.Statement, *, same_charset: bool = False) -> str:
    """Return what a client and a server may read in different ways, or "".

    same_charset: whether the client knows character_set_client
    """
    text, mode = statement.text, statement.mode
    pair = mode.pair if same_charset else _NONE
    client = _Lexer(mode.backslash, mode.ansi, pair)
    spans = client.spans(text)
    if b"\0" in text and _is_cut(text, spans):
        return "a zero byte"
    if any(
        text[start : start + 2] == b"/*" and _NESTED.search(text[start:end]) for start, end in spans
    ):
        return "a comment in a comment"
    if _SUSPICIOUS.search(text) or mode.pair is not _NONE:
        server = _Lexer(mode.backslash, mode.ansi, mode.pair, _BROAD)
        old_client = _Lexer(mode.backslash, ansi=False, pair=pair)  # without ANSI_QUOTES
        if any(one.spans(text) != spans for one in (server, old_client)):
            return "a string or comment"
    return _marks(text, spans, client.others(text))


def _is_cut(text: bytes, spans: Sequence[tuple[int, int]]) -> bool:
    """Return whether clients drop the rest of a line: after a zero byte outside of plain strings.

    In a string they do if a backslash stands before it.
    """
    strings = b"".join(
        text[start:end] for start, end in spans if text[start : start + 1] in _QUOTES
    )
    return b"\\\0" in text or strings.count(b"\0") < text.count(b"\0")


def unwrapped(text: bytes, mode: statements.Mode, *, same_charset: bool = False) -> bytes:
    """Return a statement without the marks of comments that each supported server executes.

    A client that finds a comment in such a comment misses its end.
    """
    lexer = _Lexer(mode.backslash, mode.ansi, mode.pair if same_charset else _NONE)
    parts, at, executed = [], 0, False
    for kind, start in lexer.others(text):
        version = _VERSION.match(text, start) if _is_executed(text, start) else None
        end = version.end() if version else start + 2
        if kind == "open":
            executed = version is not None
        if kind in ("open", "close") and executed:
            parts.append(text[at:start])
            at = end
            executed = kind == "open"
    return b" ".join((*parts, text[at:]))


def comments(statement: statements.Statement) -> list[bytes]:
    """Return the comments within a statement."""
    text = statement.text[statement.start :]
    spans = _Lexer(statement.mode.backslash, statement.mode.ansi).spans(text)
    return [text[start:end] for start, end in spans if text[start : start + 1] not in _QUOTES]


def _marks(text: bytes, spans: Sequence[tuple[int, int]], marks: Sequence[tuple[str, int]]) -> str:
    """Return the first mark that may mean something else to another server, or ""."""
    for kind, start in marks:
        if kind == "backslash":
            return "a backslash"
        if kind == "open" and not _same_end(text, spans, start, b"*/"):
            return "a comment that only some servers execute"
        tag = text[start : text.index(b"$", start + 1) + 1] if kind == "dollar" else b""
        if tag and tag in text[start + len(tag) :] and not _same_end(text, spans, start, tag):
            return "a string in dollar quotes"
    return ""


def _same_end(text: bytes, spans: Sequence[tuple[int, int]], start: int, end: bytes) -> bool:
    """Return whether it ends at the same place if its content is opaque."""
    if end == b"*/" and _is_executed(text, start):
        return True
    at = text.find(end, start + len(end))
    nested = end == b"*/" and b"/*" in text[start + 2 : at]
    index = bisect.bisect(spans, (at, len(text))) - 1
    inside = index >= 0 and spans[index][0] <= at < spans[index][1]
    return at >= 0 and not nested and not inside


def _is_executed(text: bytes, start: int) -> bool:
    match = _VERSION.match(text, start)
    return match is not None and int(match[1] or 0) < _EXECUTED
