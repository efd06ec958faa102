"""Check a dump before anything of it is sent to a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mysql_backup import dump_statements, row_literals, statements
from tools.base.errors import StoreError


def checked(chunks: Iterable[bytes], old: str, new: str) -> Iterator[statements.Statement]:
    """Yield the statements of a dump of the database `old` for a restore as `new`.

    Raises StoreError for one that no dump program writes for one database.
    """
    rows = row_literals.RowCheck()
    complete = True
    for statement in statements.Reader().read(chunks):
        if statement.is_data:
            rows.add(statement, last=bool(statement.delimiter))
            complete = bool(statement.delimiter)
        else:
            dump_statements.check(statement, old, new)
        yield statement
    if not complete:
        raise StoreError("the dump ends within a statement", "Restore an earlier run.")
