"""Read SQL dumps as the client does: one statement at a time, with strings and comments.

The rules are those of the clients of MariaDB and MySQL in batch mode (client/mysql.cc, add_line):
a delimiter counts outside of strings, quoted names and comments, also within the comments that
the server executes; DELIMITER counts at the start of a line, between two statements.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

_DATA = frozenset((b"INSERT", b"REPLACE"))
_QUOTES = (b"'", b'"', b"`")
_DIGITS = re.compile(rb"[0-9]{1,20}")
_BLANK = re.compile(rb"\s*")
_DELIMITER = re.compile(rb"delimiter[ \t]+(\S+)[^\n]*(?:\n|\Z)", re.IGNORECASE)
_COMMAND = b"delimiter"
_SQL_MODE = b"SQL_MODE"
_CHARSET = b"CHARACTER_SET_CLIENT"
_AHEAD = 4  # bytes that tell what begins: "/*M!"
SKIPPED = rb"/\*M?!9{5,6}.*?\*/"  # a version that no server has: a mark for clients
_COMMENT = re.compile(rb"(?P<long>/\*(?!M?!|\+))|(?P<line>#|--(?=\s|\Z))")
_CLIENT_CHARSET = re.compile(rb"/\*!\\C (\w+) \*/")  # of mysqlbinlog, a command of the client
# Character sets with a backslash or backtick as the second byte of a character: first byte, second.
_PAIRS = {
    b"big5": rb"[\xa1-\xf9][\x40-\x7e\xa1-\xfe]",
    b"cp932": rb"[\x81-\x9f\xe0-\xfc][\x40-\x7e\x80-\xfc]",
    b"sjis": rb"[\x81-\x9f\xe0-\xfc][\x40-\x7e\x80-\xfc]",
    b"gbk": rb"[\x81-\xfe][\x40-\x7e\x80-\xfe]",
    b"gb18030": rb"[\x81-\xfe][\x40-\x7e\x80-\xfe]",
}
NO_PAIR = b"(?!)"
_MODE_BITS = {b"ANSI_QUOTES": 1 << 2, b"NO_BACKSLASH_ESCAPES": 1 << 20}  # sql_mode as a number
_BEGINNING = 8  # tokens of rows that are looked at


class Kind(Enum):
    """The kind of a token."""

    OPEN = "open"  # of a comment that the server executes
    CLOSE = "close"
    NAME = "name"  # in backticks
    STRING = "string"
    WORD = "word"
    MARK = "mark"  # any other character


@dataclass(frozen=True)
class Token:
    """A token of a statement, without white space and comments between tokens."""

    kind: Kind
    text: bytes
    start: int
    end: int

    @property
    def word(self) -> bytes:
        """Return the text of a bare word in upper case; b"" for other tokens."""
        return self.text.upper() if self.kind is Kind.WORD else b""

    @property
    def name(self) -> bytes:
        """Return the name without its quotes; b"" for tokens that cannot be names."""
        if self.kind is Kind.NAME:
            return self.text[1:-1].replace(b"``", b"`")
        return self.text if self.kind is Kind.WORD else b""


@dataclass(frozen=True)
class Mode:
    """The settings that decide where a string ends.

    charset: character_set_client in lower case
    """

    backslash: bool = True  # no NO_BACKSLASH_ESCAPES
    ansi: bool = False  # ANSI_QUOTES: double quotes hold names
    charset: bytes = b"utf8mb4"

    @property
    def pair(self) -> bytes:
        """Return a pattern for characters whose second byte may be a backslash."""
        return _PAIRS.get(self.charset, NO_PAIR)

    def with_sql_mode(self, sql_mode: bytes) -> Mode:
        """Return the mode after a change of sql_mode."""
        names = sql_mode.upper().split(b",")
        if _DIGITS.fullmatch(sql_mode):
            names = [name for name, bit in _MODE_BITS.items() if int(sql_mode) & bit]
        backslash, ansi = b"NO_BACKSLASH_ESCAPES" not in names, b"ANSI_QUOTES" in names
        return Mode(backslash, ansi, self.charset)

    def with_strings_of(self, other: Mode) -> Mode:
        """Return the mode after sql_mode was set to that of another mode."""
        return Mode(other.backslash, other.ansi, self.charset)

    def with_charset(self, charset: bytes) -> Mode:
        """Return the mode after a change of character_set_client.

        mysqlbinlog sets a number, after a command of the client with its name.
        """
        if _DIGITS.fullmatch(charset):
            return self
        return Mode(self.backslash, self.ansi, charset.lower())

    def escapes(self, quote: bytes) -> bool:
        """Return whether a backslash escapes within this quote."""
        return self.backslash and quote != b"`" and not (self.ansi and quote == b'"')


@dataclass(frozen=True)
class Statement:
    """A statement, or a piece of one that inserts rows, which may have a gigabyte.

    text:      with what stands before it, and without its delimiter
    delimiter: b"" where another piece follows, and for the command DELIMITER
    first:     whether the statement begins here
    size:      bytes of the statement up to here
    """

    text: bytes
    delimiter: bytes
    first: bool
    size: int
    mode: Mode
    command: bool = False

    @property
    def whole(self) -> bytes:
        """Return the bytes that were read."""
        return self.text + self.delimiter

    @functools.cached_property
    def is_data(self) -> bool:
        """Return whether it inserts rows."""
        return not self.first or any(token.word in _DATA for token in self._beginning[:1])

    @functools.cached_property
    def start(self) -> int:
        """Return its offset after white space and comments; 0 if it is empty."""
        return self._beginning[0].start if self._beginning else 0

    @functools.cached_property
    def _beginning(self) -> tuple[Token, ...]:
        return tuple(itertools.islice(tokens(self.text, self.mode), _BEGINNING))

    @functools.cached_property
    def tokens(self) -> tuple[Token, ...]:
        """Return its tokens; only the first ones of a statement with rows."""
        return self._beginning if self.is_data else tuple(tokens(self.text, self.mode))

    @functools.cached_property
    def keywords(self) -> tuple[bytes, ...]:
        """Return the bare words at its beginning in upper case, b"" for other tokens.

        The marks of comments that the server executes are left out.
        """
        marks = (Kind.OPEN, Kind.CLOSE)
        return tuple(token.word for token in self.tokens if token.kind not in marks)[:_BEGINNING]


@functools.cache
def _token(mode: Mode) -> re.Pattern[bytes]:
    """Return a pattern for one token. A string without an end goes to the end of the text."""
    single = rb"'(?:[^'\\]|\\(?:.|\Z))*(?:'|\Z)" if mode.backslash else rb"'[^']*(?:'|\Z)"
    double = rb'"(?:[^"\\]|\\(?:.|\Z))*(?:"|\Z)' if mode.escapes(b'"') else rb'"[^"]*(?:"|\Z)'
    parts = {
        "space": rb"\s+|" + SKIPPED + rb"|/\*(?!M?!|\+).*?\*/|(?:#|--(?=\s|\Z))[^\n]*",
        Kind.OPEN.value: rb"/\*(?:M?!\d*|\+)",
        Kind.CLOSE.value: rb"\*/",
        Kind.NAME.value: rb"`(?:[^`]|``)*`",
        Kind.STRING.value: single + rb"|" + double,
        Kind.WORD.value: rb"[\w$\x80-\xff]+",
        Kind.MARK.value: rb".",
    }
    groups = (b"(?P<" + name.encode() + b">" + part + b")" for name, part in parts.items())
    return re.compile(b"|".join(groups), re.DOTALL)


def tokens(text: bytes, mode: Mode) -> Iterator[Token]:
    """Return the tokens of a statement."""
    for match in _token(mode).finditer(text):
        if match.lastgroup != "space":
            yield Token(Kind(match.lastgroup), match[0], match.start(), match.end())


@functools.cache
def _plain(delimiter: bytes, mode: Mode, pair: bytes) -> re.Pattern[bytes]:
    """Return a pattern for text without delimiter and comments; complete strings may have them."""
    ends = re.escape(b"'\"`#/-\\" + delimiter[:1])
    single = rb"[^'\\]*(?:\\.[^'\\]*)*" if mode.backslash else rb"[^']*"
    numbers = rb"|-(?=[0-9])" if delimiter[:1] != b"-" else b""
    if pair is not NO_PAIR:
        return re.compile(rb"(?:" + pair + rb"|" + _single(ends) + numbers + rb")*", re.DOTALL)
    return re.compile(rb"(?:[^" + ends + rb"]+|'" + single + rb"'" + numbers + rb")*", re.DOTALL)


@functools.cache
def _string(quote: bytes, escapes: bool, pair: bytes) -> re.Pattern[bytes]:
    """Return a pattern for the inside of a string."""
    end = rb"\\" if escapes else b""
    if pair is not NO_PAIR:
        escape = rb"|\\." if escapes else b""
        inside = rb"(?:" + pair + rb"|" + _single(quote + end) + escape + rb")*"
        return re.compile(inside, re.DOTALL)
    more = rb"(?:\\.[^" + quote + end + rb"]*)*" if escapes else b""
    return re.compile(rb"[^" + quote + end + rb"]*" + more, re.DOTALL)


def _single(ends: bytes) -> bytes:
    """Return a pattern for a byte; the last one of a block may be the first of a pair."""
    return rb"[^" + ends + rb"\x80-\xff]|[\x80-\xff](?!\Z)"


def _after(pattern: re.Pattern[bytes], block: bytes, at: int) -> int:
    """Return the end of what a pattern matches here: it may be nothing."""
    match = pattern.match(block, at)
    return match.end() if match else at


class Reader:
    """The statements of a dump, from chunks of any size."""

    def __init__(self, *, replay: bool = False) -> None:
        """Begin a dump, or a replay: the output of mysqlbinlog.

        Then character_set_client decides what a character is, and each statement is whole.
        """
        self.delimiter = b";"  # the one that counts now
        self._replay = replay
        self._mode = Mode()
        self._saved: dict[bytes, Mode] = {}  # by user variable
        self._within = b""  # the quote or comment mark of the current string or comment
        self._fresh = True  # only white space and comments of the statement were read
        self._command = False  # DELIMITER was read
        self._yielded = 0  # bytes of the statement that were yielded already
        self._block, self._at = b"", 0  # what was not yielded yet, and how far it was read

    @property
    def _pair(self) -> bytes:
        return self._mode.pair if self._replay else NO_PAIR

    def read(self, chunks: Iterable[bytes]) -> Iterator[Statement]:
        """Return each statement. What follows the last delimiter is one too."""
        for chunk in chunks:
            yield from self.add(chunk)
        yield from self.end()

    def add(self, chunk: bytes) -> Iterator[Statement]:
        """Return each statement that ends in the next chunk."""
        self._block, self._at = yield from self._read(self._block + chunk, self._at, last=False)

    def end(self) -> Iterator[Statement]:
        """Return what follows the last delimiter."""
        self._block, self._at = yield from self._read(self._block, self._at, last=True)
        if self._block:
            yield self._statement(self._block, b"")

    @property
    def pending(self) -> Statement:
        """Return the statement whose end was not read yet, as far as it was read."""
        return Statement(self._block, b"", not self._yielded, len(self._block), self._mode)

    def _read(
        self, block: bytes, at: int, *, last: bool
    ) -> Generator[Statement, None, tuple[bytes, int]]:
        """Return the statements that end in a block; then what is left, and how far it was read."""
        begin = 0
        while True:
            at, end = self._scanned(block, at, last=last)
            if not end:
                break
            yield self._statement(block[begin:at], block[at:end])
            begin = at = end
        if at > begin and not (self._fresh or last or self._replay):
            piece = Statement(
                block[begin:at], b"", not self._yielded, self._yielded + at, self._mode
            )
            if piece.is_data:
                yield dataclasses.replace(piece, size=self._yielded + at - begin)
                self._yielded += at - begin
                begin = at
        return block[begin:], at - begin

    def _statement(self, text: bytes, delimiter: bytes) -> Statement:
        """Return a statement, or the last piece of one."""
        size = self._yielded + len(text)
        statement = Statement(text, delimiter, not self._yielded, size, self._mode, self._command)
        if not statement.is_data and not self._command:
            self._remember(statement)
        self._fresh, self._command, self._yielded = True, False, 0
        return statement

    def _scanned(self, block: bytes, at: int, *, last: bool) -> tuple[int, int]:
        """Return how far a block was read, and the end of the delimiter there, or 0."""
        while at < len(block):
            if self._within:
                step = self._inside(block, at, last=last)
            elif self._fresh and (begun := self._begun(block, at, last=last)) is not None:
                if self._command:
                    return begun, begun
                return at, 0
            else:
                at = _after(_plain(self.delimiter, self._mode, self._pair), block, at)
                if block.startswith(self.delimiter, at):
                    return at, at + len(self.delimiter)
                step = self._special(block, at, last=last)
            if step is None:
                break
            at = step
        return at, 0

    def _begun(self, block: bytes, at: int, *, last: bool) -> int | None:
        """Return the end of a DELIMITER command, or `at`; None if a statement or comment begins."""
        begin = _after(_BLANK, block, at)
        head = block[begin : begin + len(_COMMAND)].lower()
        if not last and len(head) < len(_COMMAND):
            return at
        if head == _COMMAND:
            if not last and b"\n" not in block[begin:]:
                return at
            if match := _DELIMITER.match(block, begin):
                self.delimiter, self._command = match[1], True
                return match.end()
        self._fresh = bool(_COMMENT.match(block, begin)) or begin == len(block)
        return None

    def _special(self, block: bytes, at: int, *, last: bool) -> int | None:
        """Step over the begin of a string or comment; return None if more bytes are needed."""
        if at == len(block) or (len(block) - at < _AHEAD and not last):
            return None
        character = block[at : at + 1]
        if character in _QUOTES:
            self._within = character
        elif match := _COMMENT.match(block, at):
            self._within = b"\n" if match["line"] else b"*/"
            return match.end()
        return at + (2 if character == b"\\" else 1)

    def _inside(self, block: bytes, at: int, *, last: bool) -> int | None:
        """Step through a string or a comment; return None if more bytes are needed."""
        if self._within in _QUOTES:
            escapes = self._mode.escapes(self._within)
            end = _after(_string(self._within, escapes, self._pair), block, at)
        else:
            end = block.find(self._within, at)
            end = max(at, len(block) - 1) if end < 0 else end  # the end may be in two blocks
        if block.startswith(self._within, end):
            end += len(self._within)
            self._within = b""
            return end
        return len(block) if last else end if end > at else None

    def _remember(self, statement: Statement) -> None:
        """Track sql_mode and character_set_client (the dump saves them in user variables)."""
        marks = (Kind.OPEN, Kind.CLOSE)
        listed = [token for token in statement.tokens if token.kind not in marks]
        if command := _CLIENT_CHARSET.fullmatch(statement.text.strip()):
            self._mode = self._mode.with_charset(command[1])
        if statement.keywords[:1] != (b"SET",):
            return
        if len(listed) > 2 and listed[1].word in (b"NAMES", b"CHARACTER"):  # noqa: PLR2004
            name = listed[2 if listed[1].word == b"NAMES" else 3 :][:1]
            self._mode = self._mode.with_charset(b"".join(_value(one) for one in name))
        for at in (at for at, token in enumerate(listed) if token.text == b"=" and at):
            self._assign(listed[max(0, at - 3) : at], listed[at + 1 : at + 5])

    def _assign(self, left: Sequence[Token], right: Sequence[Token]) -> None:
        """Track an assignment: the tokens before and after its sign."""
        target = left[-1].word
        is_user = [token.text == b"@" for token in left[-3:-1]] in ([False, True], [True])
        depth = sum(token.text == b"@" for token in right[:2])
        values = right[depth:]
        if is_user and depth == 2:  # noqa: PLR2004  (@@)
            self._saved[target] = self._mode
        elif not is_user and values and target in (_SQL_MODE, _CHARSET):
            saved = self._saved.get(values[0].word, Mode()) if depth == 1 else None
            self._mode = _changed(self._mode, target, values[0], saved)


def _changed(mode: Mode, variable: bytes, value: Token, saved: Mode | None) -> Mode:
    """Return the mode after an assignment; saved: the mode in the user variable, if it is one."""
    if variable == _CHARSET:
        return mode.with_charset(saved.charset if saved else _value(value))
    if saved is not None:
        return mode.with_strings_of(saved)
    known = value.kind is Kind.STRING or bool(_DIGITS.fullmatch(value.text))
    return mode.with_sql_mode(_value(value)) if known else mode


def _value(token: Token) -> bytes:
    """Return a word, or the content of a string."""
    return token.text[1:-1] if token.kind is Kind.STRING else token.text
