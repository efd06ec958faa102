"""The statements of an item with accounts; nothing else is sent to a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mysql_backup import dump_statements, readings, statements
from tools.base.errors import StoreError

# What mariadb-dump --system=users and accounts.py write. SHOW GRANTS of MySQL has REVOKE as well.
_BEGINNINGS = (
    (b"CREATE", b"USER"),
    (b"CREATE", b"ROLE"),
    (b"CREATE", b"SERVER"),
    (b"CREATE", b"FUNCTION"),
    (b"CREATE", b"AGGREGATE"),
    (b"GRANT",),
    (b"REVOKE",),
    (b"SET", b"ROLE"),
    (b"SET", b"DEFAULT", b"ROLE"),
    (b"INSTALL",),
    (b"DROP", b"ROLE", b"MARIADB_DUMP_IMPORT_ROLE"),
    (b"SELECT", b"COALESCE"),
    (b"EXECUTE", b"IMMEDIATE", b"CONCAT"),
)


def checked(chunks: Iterable[bytes]) -> Iterator[statements.Statement]:
    """Yield the statements. Raises StoreError for one that no dump of accounts contains."""
    for statement in statements.Reader().read(chunks):
        if not (statement.command or _is_allowed(statement)) or readings.difference(statement):
            name = b" ".join(statement.keywords[:2]).decode("utf-8", "replace")
            raise StoreError(
                f"users and grants: a statement ({name}) is rejected: no dump of accounts has it",
                "Nothing was sent to the server. Restore the item into a folder (--destination) "
                "and examine its statements.",
            )
        yield statement


def _is_allowed(statement: statements.Statement) -> bool:
    listed = dump_statements.tokens(statement)
    keywords = [token.word for token in listed]
    if any(token.text == b";" for token in listed):
        return False
    if keywords[:2] == [b"ALTER", b"USER"]:
        roles = [at for at, word in enumerate(keywords) if word == b"DEFAULT"]
        return roles in ([3], [5]) and keywords[roles[0] + 1] == b"ROLE"
    begins = any(tuple(keywords[: len(one)]) == one for one in _BEGINNINGS)
    return not keywords or begins or dump_statements.sets_variables(listed)
