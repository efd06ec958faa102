"""Restore roles and tablespaces that a server does not have."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator

from postgres import database_properties, pg_server
from tools.base import foreign
from tools.base.errors import StoreError
from tools.base.result import Result, Status
from tools.flow import stream

# Errors for a tablespace whose folder is missing or has another owner.
_NO_FOLDER = re.compile(r'ERROR:\s+(?:directory "|could not .* directory "|tablespace ")')
_HEADER = re.compile(r"-- (?:Roles|Role .*|User Config.*|Tablespaces|PostgreSQL .* complete)\n")


def restore(
    target: pg_server.PostgresConnection, again: Callable[[], Iterator[bytes]], *, tablespaces: bool
) -> Result:
    """Create missing roles, and tablespaces if `tablespaces`; existing roles are unchanged.

    Their memberships are added. A tablespace whose folder is missing is a warning. Raises
    StoreError for any other error, after all statements were run.
    """
    with stream.closed(again()) as chunks:
        script = b"".join(chunks).decode("utf-8", "surrogateescape")
    existing = pg_server.role_names(target)
    statements = "".join(
        _select_statements(foreign.lines_with_ends(script), existing, tablespaces=tablespaces)
    )
    check = database_properties.reset_unloadable("setdatabase = 0")
    messages = target.script([statements.encode("utf-8", "surrogateescape"), b"\n", check])
    errors = [line for line in messages if "ERROR:" in line and "already exists" not in line]
    warnings = tuple(line for line in errors if _NO_FOLDER.search(line))
    if len(warnings) < len(errors):
        first, *rest = [line for line in errors if line not in warnings]
        raise StoreError(f"roles: {first}", "\n".join(rest))
    warnings += database_properties.reset_settings(messages)
    number = target.number("SELECT count(*) FROM pg_roles WHERE rolname !~ '^pg_'")
    status = Status.INCOMPLETE if warnings else Status.OK
    return Result(status, f"{number} roles on the server", items=1, warnings=warnings)


def _select_statements(
    lines: Iterable[str], existing: Collection[str], *, tablespaces: bool
) -> Iterator[str]:
    """Yield the lines of pg_dumpall --globals-only that are to be run."""
    header = ""
    alterations = tuple(f"ALTER ROLE {name} WITH " for name in existing)
    creations = {f"CREATE ROLE {name};\n" for name in existing}
    for line in lines:
        if _HEADER.fullmatch(line):
            header = line
        if line in creations or line.startswith(alterations):
            continue  # the restore itself may have logged in with that password
        if tablespaces or "Tablespaces" not in header or line.startswith(("--", "\\")):
            yield line
