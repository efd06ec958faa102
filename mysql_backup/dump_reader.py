"""Change the statements of a dump for its restore: add settings, defer views, replace names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mysql_backup import (
    changed_values,
    deferred_views,
    definers,
    dump_statements,
    loading,
    name_references,
    readings,
    statements,
)
from tools.flow.facts import MysqlFacts

# A server must accept its own data again: dates that other settings reject, rows that were not
# checked by a constraint, tables that need innodb_strict_mode=OFF. The numbers in the comments
# are the first version of MariaDB with the variable.
_LENIENT = (
    b"SET SESSION sql_mode = CONCAT(@@sql_mode, ',ALLOW_INVALID_DATES')",
    b"/*M!100201 SET SESSION check_constraint_checks = 0 */",
    b"/*M!100000 SET SESSION innodb_strict_mode = 0 */",
)
_TIMESTAMPS = "explicit_defaults_for_timestamp"
_KEPT = [b"@", b"OLD_SQL_MODE", b"=", b"@", b"@"]


@dataclass
class DumpReader:
    """Reads a dump of the database `old` for a restore as `new`.

    owned_by_restorer: objects get no definers, so the restoring user is their definer
    directories: whether tables get their DATA DIRECTORY and INDEX DIRECTORY
    """

    old: str
    new: str
    facts: MysqlFacts
    owned_by_restorer: bool = False
    directories: bool = True
    views: deferred_views.Views = field(default_factory=deferred_views.Views)
    head: bytes = b""  # the settings that the dump begins with
    _begun: bool = False

    def read(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the dump without its views, with a delimiter that its author cannot know."""
        reader = statements.Reader()
        delimiter = loading.random_delimiter()
        yield b"DELIMITER " + delimiter + b"\n"
        table = ""
        for statement in reader.read(chunks):
            name = _table(statement, table)
            if name != table:
                table = name
                yield changed_values.marker(name) + delimiter + b"\n"
            if statement.is_data:
                yield statement.text + (delimiter + b"\n" if statement.delimiter else b"")
            elif self._is_sent(statement):
                self._head(statement)
                text = self._text(statement)[statement.start :]  # without comments before it
                yield readings.unwrapped(text, statement.mode) + b"\n" + delimiter + b"\n"
                if self.owned_by_restorer and (text := definers.invoker_statement(statement)):
                    yield text + b"\n" + delimiter + b"\n"
                if sets_sql_mode(statement):
                    yield b"".join(one + delimiter + b"\n" for one in self._settings())

    def _is_sent(self, statement: statements.Statement) -> bool:
        """Return whether a statement is loaded now: views are kept for later."""
        if self.views.take(statement) or statement.command or not statement.tokens:
            return False
        return not (_is_table_lock(statement) or dump_statements.is_skipped(statement))

    def _head(self, statement: statements.Statement) -> None:
        """Keep the settings at the beginning of a dump; its views need them too."""
        self._begun = self._begun or statement.keywords[:1] != (b"SET",)
        if not self._begun:
            self.head += statement.text[statement.start :] + b";\n"

    def _text(self, statement: statements.Statement) -> bytes:
        """Return a statement as the new database needs it."""
        if self.old != self.new and statement.keywords[:2] == (b"CREATE", b"TABLE"):
            return bytes(name_references.rename_references(statement, self.old, self.new))
        if self.old != self.new and statement.keywords[:2] == (b"ALTER", b"DATABASE"):
            return bytes(name_references.rename_database(statement, self.new))
        return definers.without_privileges(statement) if self.owned_by_restorer else statement.text

    def _settings(self) -> Iterator[bytes]:
        yield from _LENIENT
        if not self.directories:
            yield b"SET SESSION sql_mode = CONCAT(@@sql_mode, ',NO_DIR_IN_CREATE')"
        value = self.facts.variables.get(_TIMESTAMPS, "")
        if value in ("0", "1"):
            yield f"/*M!100804 SET SESSION {_TIMESTAMPS} = {value} */".encode()


def _is_table_lock(statement: statements.Statement) -> bool:
    """Return whether it locks a table: defaults may need a sequence that is not locked."""
    return statement.keywords[:2] in ((b"LOCK", b"TABLES"), (b"UNLOCK", b"TABLES"))


def sets_sql_mode(statement: statements.Statement) -> bool:
    """Return whether it saves the sql_mode of the server and sets that of the dump."""
    tokens = [token.text.upper() for token in statement.tokens]
    return statement.keywords[:1] == (b"SET",) and tokens[2:7] == _KEPT


def _table(statement: statements.Statement, before: str) -> str:
    """Return the table that a statement creates or fills, else the previous one; "" for none."""
    is_table = statement.keywords[:2] == (b"CREATE", b"TABLE")
    if statement.command or not statement.first or not (is_table or statement.is_data):
        return "" if statement.keywords[:1] == (b"CREATE",) else before
    names = (token for token in statement.tokens if token.kind is statements.Kind.NAME)
    return next((one.name.decode("utf-8", "surrogateescape") for one in names), "")
