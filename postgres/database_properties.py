"""Properties of a database: owner, settings, privileges, comment; and whether it can be used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from postgres import pg_server, privileges, settings, statements
from postgres.server_facts import DatabaseProperties, ServerFacts
from postgres.statements import Failure, Statement
from tools.base.errors import BackupError, StoreError
from tools.flow.facts import PostgresFacts


def open_to_all(target: pg_server.PostgresConnection, name: str) -> None:
    """Give the database its default privileges, which it does not have while it is loaded."""
    target.sql(f"GRANT CONNECT, TEMPORARY ON DATABASE {pg_server.quote_identifier(name)} TO PUBLIC")
    with contextlib.suppress(BackupError):  # only a superuser may; the default ones are the same
        listed = "(SELECT string_agg(one::text, ',' ORDER BY one::text) FROM unnest({}) one)"
        default = listed.format("acldefault('d', datdba)")
        target.sql(
            f"UPDATE pg_database SET datacl = NULL WHERE {listed.format('datacl')} = {default} "
            f"AND datname = {pg_server.text_expression(name)}"
        )


def set_owner(
    target: pg_server.PostgresConnection, name: str, facts: PostgresFacts
) -> tuple[str, ...]:
    """Set the owner of the database; return a warning if that fails."""
    if not facts.owner:
        return ()
    statement = Statement("ALTER DATABASE %I OWNER TO %I", (name, facts.owner))
    return tuple(
        f"owner {facts.owner} not set: {one.reason}" for one in statements.run(target, [statement])
    )


def apply(
    target: pg_server.PostgresConnection, name: str, source: str, facts: ServerFacts
) -> tuple[str, ...]:
    """Restore settings, privileges and comment of the database; return a warning for each failure.

    source: its name in the backup.
    """
    properties = facts.database(source)
    warnings: list[str] = []
    if properties is None:
        warnings.append("settings and privileges of the database are not in the backup")
    else:
        failures = _set_privileges(target, name, properties)
        failures += statements.run(target, [*_properties(name, properties)])
        warnings += [one.line() for one in failures]
        warnings += add_settings(target, name, source, facts)
    return tuple(warnings)


def _properties(name: str, properties: DatabaseProperties) -> Iterator[Statement]:
    yield from statements.descriptions("DATABASE", name, properties.comment, properties.labels)
    if properties.connection_limit != -1:
        limit = f"{properties.connection_limit:d}"
        yield Statement(f"ALTER DATABASE %I CONNECTION LIMIT {limit}", (name,))
    if properties.template:
        yield Statement("ALTER DATABASE %I IS_TEMPLATE true", (name,))


def _set_privileges(
    target: pg_server.PostgresConnection, name: str, properties: DatabaseProperties
) -> list[Failure]:
    """Replace the default privileges by those of the backup."""
    if properties.acl is None:
        return []
    owner = pg_server.owner(target, name)
    revoked = [
        Statement("REVOKE ALL ON DATABASE %I FROM PUBLIC", (name,)),
        Statement("REVOKE ALL ON DATABASE %I FROM %I", (name, owner)),
    ]
    granted = [*privileges.grants("DATABASE", name, properties.acl, properties.owner)]
    failures = statements.run(target, revoked if owner == properties.owner else revoked[:1])
    return failures + statements.run_in_any_order(target, granted)


def add_settings(
    target: pg_server.PostgresConnection, name: str, source: str, facts: ServerFacts
) -> list[str]:
    """Add the settings of the database `source` to `name`; return a warning for each failure."""
    wanted = [one for one in facts.settings if one.database == source]
    if not wanted:
        return []
    powers = privileges.compared(target, facts)
    objections = {one: powers.setting_objection(one) for one in wanted}
    allowed = [settings.statement(one, name) for one in wanted if not objections[one]]
    warnings = [f"setting {one.name} not restored: {why}" for one, why in objections.items() if why]
    return warnings + [one.line() for one in statements.run(target, allowed)]


def make_connectable(target: pg_server.PostgresConnection, name: str) -> Iterator[str]:
    """Reset settings one by one until the database accepts connections; yield a line for each.

    Raises StoreError if it accepts none without any of them.
    """
    error = _connection_error(target, name)
    for role, setting in _settings(target, name) if error else ():
        template = "ROLE %I IN DATABASE %I" if role else "DATABASE %I"
        names = (role, name, setting) if role else (name, setting)
        statements.run(target, [Statement(f"ALTER {template} RESET %I", names)])
        yield f"setting {setting}{f' of role {role}' if role else ''} left out: {error}"
        if not (error := _connection_error(target, name)):
            return
    if error:
        raise StoreError(f"cannot connect to the restored database {name}", error)


def _connection_error(target: pg_server.PostgresConnection, name: str) -> str:
    """Return the error of a connection to the database; "" if it succeeds."""
    try:
        target.sql("SELECT 1", database=name)
    except BackupError as error:
        return error.hint or str(error)
    return ""


def _settings(target: pg_server.PostgresConnection, name: str) -> list[tuple[str, str]]:
    """Return the settings of a database for this role: role ("" for all), name."""
    rows = target.sql(
        f"SELECT {pg_server.hex_expression('coalesce(rolname, $$$$)')}, "
        f"{pg_server.hex_expression('split_part(setting, $$=$$, 1)')} FROM pg_db_role_setting s "
        "JOIN pg_database d ON d.oid = setdatabase LEFT JOIN pg_roles r ON r.oid = setrole, "
        "unnest(setconfig) AS setting "
        f"WHERE datname = {pg_server.text_expression(name)} "
        "AND (setrole = 0 OR rolname = current_user) "
        "ORDER BY setting NOT LIKE '%libraries%'",
        columns=2,
    )
    return [(pg_server.decode_hex(role), pg_server.decode_hex(setting)) for role, setting in rows]
