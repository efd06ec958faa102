"""Restore tablespaces that a server does not have."""

from __future__ import annotations

from collections.abc import Iterable

from postgres import catalogs, pg_server, privileges, statements
from postgres.server_facts import Tablespace
from postgres.statements import Failure, Statement
from tools.base.errors import BackupError


def restore(target: pg_server.PostgresConnection, tablespaces: Iterable[Tablespace]) -> list[str]:
    """Create missing tablespaces; return a warning for each failure. Existing ones stay as is."""
    existing = catalogs.tablespace_names(target) if tablespaces else set()
    warnings = []
    for one in tablespaces:
        if one.name in existing:
            continue
        if problem := _create(target, one):
            warnings.append(problem)
            continue
        described = [*statements.descriptions("TABLESPACE", one.name, one.comment, one.labels)]
        failures = statements.run(target, [*_options(one), *described])
        failures += _set_privileges(target, one)
        warnings += [failure.line() for failure in failures]
    return warnings


def _create(target: pg_server.PostgresConnection, one: Tablespace) -> str:
    """Create a tablespace, which no block can do; return the reason if the server rejects it."""
    statement = Statement(
        "CREATE TABLESPACE %I OWNER %I LOCATION %L", (one.name, one.owner, one.location)
    )
    try:
        pg_server.execute(target, statement.template, statement.arguments)
    except BackupError as error:
        return f"tablespace {statements.shown_name(one.name)}: {error.hint or error}"
    return ""


def _options(one: Tablespace) -> list[Statement]:
    pairs = [option.split("=", 1) for option in one.options]
    return [
        Statement("ALTER TABLESPACE %I SET (%I = %L)", (one.name, *pair))
        for pair in pairs
        if len(pair) == 2  # noqa: PLR2004  (NAME=VALUE)
    ]


def _set_privileges(target: pg_server.PostgresConnection, one: Tablespace) -> list[Failure]:
    """Replace the default privileges by those of the backup."""
    if one.acl is None:
        return []
    revoked = [Statement("REVOKE ALL ON TABLESPACE %I FROM PUBLIC", (one.name,))]
    revoked.append(Statement("REVOKE ALL ON TABLESPACE %I FROM %I", (one.name, one.owner)))
    granted = [*privileges.grants("TABLESPACE", one.name, one.acl, one.owner)]
    failures = statements.run(target, revoked)
    return failures + statements.run_in_any_order(target, granted)
