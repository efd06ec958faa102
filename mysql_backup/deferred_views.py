"""The views of a dump: created after all tables, each after the views that it refers to."""

from __future__ import annotations

import bisect
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from mysql_backup import definers, readings, statements
from tools.base.errors import StoreError

_VERSION = re.compile(rb"/\*M?!50001$")  # comment of mysqldump for statements about views
_ERROR = re.compile(r"ERROR (?P<number>\d+) .*?at line (?P<line>\d+)")
_CLIENT = range(2000, 3000)  # errors of the client, for example a lost connection


@dataclass
class Counter:
    """The number of views that this process created, in all databases."""

    number: int = 0


created = Counter()


@dataclass(frozen=True)
class View:
    """A view, and the session settings for its creation.

    names: all names in its definition; some may be those of other views
    """

    name: str
    settings: bytes
    statement: statements.Statement
    names: frozenset[str]

    def text(self, *, owned_by_restorer: bool) -> bytes:
        """Return its statements; owned_by_restorer: without its definer."""
        text = self.statement.text
        if owned_by_restorer:
            text = definers.without_privileges(self.statement)
        return self.settings + readings.unwrapped(text, self.statement.mode).lstrip() + b";\n"


class Views:
    """Takes the views out of a dump's statements."""

    def __init__(self) -> None:
        self.by_name: dict[str, View] = {}
        self._settings: list[bytes] = []

    def take(self, statement: statements.Statement) -> bool:
        """Return whether a statement belongs to a view; then it is kept here.

        A placeholder table is skipped, because views on it would keep its properties. DROP is not
        kept: it removes an old view.
        """
        if statement.is_data or statement.command or not _belongs_to_view(statement):
            return False
        match statement.keywords[:2]:
            case (b"SET", b"CHARACTER_SET_CLIENT" | b"CHARACTER_SET_RESULTS"):
                self._set(statement)
            case (b"SET", b"COLLATION_CONNECTION"):
                self._set(statement)
            case (b"CREATE", b"VIEW" | b"TABLE"):
                pass
            case (b"CREATE", _):
                self._keep(statement)
            case (b"SET", _):
                pass
            case _:
                return False
        return True

    def _set(self, statement: statements.Statement) -> None:
        """Keep a setting, but not one that restores a session variable."""
        if all(token.text != b"@" for token in statement.tokens):
            self._settings.append(statement.text[statement.start :] + b";\n")

    def _keep(self, statement: statements.Statement) -> None:
        tokens = iter(statement.tokens)
        for token in tokens:
            if token.word == b"VIEW":
                break
        name = next(tokens).name.decode("utf-8", "surrogateescape")
        names = {token.name.decode("utf-8", "surrogateescape") for token in tokens if token.name}
        self.by_name[name] = View(name, b"".join(self._settings), statement, frozenset(names))
        self._settings = []


def _belongs_to_view(statement: statements.Statement) -> bool:
    first = statement.tokens[:1]
    return bool(first and _VERSION.match(first[0].text))


def in_dependency_order(views: Mapping[str, View], requested: Collection[str]) -> list[View]:
    """Return the requested views, each after those that its definition may refer to."""
    done: dict[str, View] = {}
    for name in requested:
        stack = [(name, iter(sorted(views[name].names)))]
        seen = {name}
        while stack:
            top, names = stack[-1]
            below = next((one for one in names if one in requested and one not in seen), None)
            if below is None:
                done.setdefault(top, views[top])
                stack.pop()
            elif below not in done:
                seen.add(below)
                stack.append((below, iter(sorted(views[below].names))))
    return list(done.values())


class Script:
    """The statements that create views, and the mapping of errors to views."""

    def __init__(self, head: bytes, views: Iterable[View], *, owned_by_restorer: bool) -> None:
        self._lines: list[int] = []
        self._names: list[str] = []
        self._parts = [head]
        line = 1 + head.count(b"\n")
        for view in views:
            text = view.text(owned_by_restorer=owned_by_restorer)
            self._lines.append(line)
            self._names.append(view.name)
            self._parts.append(text)
            line += text.count(b"\n")

    def chunks(self) -> Iterator[bytes]:
        """Yield the input of the client."""
        yield b"".join(self._parts)

    def failed_views(self, stderr_lines: Iterable[str]) -> dict[str, str]:
        """Return the views that could not be created, with their errors.

        Raises StoreError for an error of the client itself, for example a lost connection.
        """
        errors: dict[str, str] = {}
        for error in (line for line in stderr_lines if line.startswith("ERROR")):
            match = _ERROR.match(error)
            if match is None or int(match["number"]) in _CLIENT:
                raise StoreError("views could not be created", error)
            last = bisect.bisect(self._lines, int(match["line"])) - 1
            if last < 0:
                raise StoreError("views could not be created", error)
            errors.setdefault(self._names[last], error)
        return errors
