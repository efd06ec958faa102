"""A dump on its way into a server: what is set beside it, held back or changed, by statements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from mysql_backup import changed_values, deferred_views, definers, name_references, statements
from tools.modules import server_settings

# What a server holds it must take back: dates that other settings refuse, rows that a constraint
# did not look at, tables that were made without innodb_strict_mode. Names in the comments'
# numbers: the first version of MariaDB that knows the variable.
_LENIENT = (
    b"SET SESSION sql_mode = CONCAT(@@sql_mode, ',ALLOW_INVALID_DATES')",
    b"/*M!100201 SET SESSION check_constraint_checks = 0 */",
    b"/*M!100000 SET SESSION innodb_strict_mode = 0 */",
)
_TIMESTAMPS = "explicit_defaults_for_timestamp"
_KEPT = [b"@", b"OLD_SQL_MODE", b"=", b"@", b"@"]


@dataclass
class DumpReader:
    """Reads a dump of the database `old` for one of the name `new`.

    own: objects belong to whoever loads them, and not to their definers
    """

    old: str
    new: str
    facts: Mapping[str, str]
    owned_by_restorer: bool = False
    views: deferred_views.Views = field(default_factory=deferred_views.Views)
    head: bytes = b""  # the settings that the dump begins with
    _begun: bool = False

    def read(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Return all of a dump but its views."""
        reader = statements.Reader()
        table = ""
        for statement in reader.read(chunks):
            name = _table(statement, table)
            if name != table:
                table = name
                yield changed_values.marker(name) + reader.delimiter + b"\n"
            if statement.is_data:
                yield statement.whole
            elif not self.views.take(statement) and not _is_table_lock(statement):
                self._head(statement)
                yield self._text(statement) + statement.delimiter
                if sets_sql_mode(statement):
                    yield b"".join(b"\n" + one + reader.delimiter for one in self._settings())

    def _head(self, statement: statements.Statement) -> None:
        """Keep the settings that a dump begins with: its views are made under them, too."""
        self._begun = self._begun or statement.words[:1] != (b"SET",)
        if not self._begun:
            self.head += statement.text[statement.start :] + b";\n"

    def _text(self, statement: statements.Statement) -> bytes:
        """A statement as this database needs it."""
        if self.old != self.new and statement.words[:2] == (b"CREATE", b"TABLE"):
            return bytes(name_references.rename_references(statement, self.old, self.new))
        return (
            bytes(definers.strip_definers(statement)) if self.owned_by_restorer else statement.text
        )

    def _settings(self) -> Iterator[bytes]:
        yield from _LENIENT
        value = self.facts.get(server_settings.VARIABLE + _TIMESTAMPS, "")
        if value in ("0", "1"):
            yield f"/*M!100804 SET SESSION {_TIMESTAMPS} = {value} */".encode()


def _is_table_lock(statement: statements.Statement) -> bool:
    """Whether it locks a table: a default that names a sequence needs another one meanwhile."""
    return statement.words[:2] in ((b"LOCK", b"TABLES"), (b"UNLOCK", b"TABLES"))


def sets_sql_mode(statement: statements.Statement) -> bool:
    """Whether it is the one that keeps the server's sql_mode, and sets that of the dump."""
    tokens = [token.text.upper() for token in statement.tokens]
    return statement.words[:1] == (b"SET",) and tokens[2:7] == _KEPT


def _table(statement: statements.Statement, before: str) -> str:
    """The table that a statement makes or fills, or that of the one before; "" for no table."""
    is_table = statement.words[:2] == (b"CREATE", b"TABLE")
    if statement.command or not statement.first or not (is_table or statement.is_data):
        return "" if statement.words[:1] == (b"CREATE",) else before
    names = (token for token in statement.tokens if token.kind is statements.Kind.NAME)
    return next((one.name.decode("utf-8", "surrogateescape") for one in names), "")
