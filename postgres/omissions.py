"""Objects that are missing from a dump without being excluded, or that make a dump fail.

pg_dump leaves out some objects without an error if its role cannot see them, and some always.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from postgres import login_errors, pg_server
from tools.base import finding
from tools.base.finding import Finding
from tools.date_str_utils import count
from tools.flow import dump_stream

CLOSED = "not in the backup: it allows no connections (datallowconn)"
_INVALID = "not in the backup: it is invalid (DROP DATABASE was interrupted)"
_SHOWN = 5  # names in one line
_SUPER = "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
_USER_OBJECTS = (
    "relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_' "
    "OR nspname = 'information_schema')"
)
# Each is a query for names.
_MISSING_DATA = {
    # as pg_user_mappings hides options (system_views.sql)
    "options and passwords of user mappings not in the dump: {names}: "
    "permission denied for {user}": f"""
        SELECT usename || '@' || m.srvname AS name FROM pg_user_mappings m
        JOIN pg_foreign_server s ON s.oid = m.srvid
        WHERE umoptions IS NULL AND NOT {_SUPER}
        AND NOT (umuser <> 0 AND usename = current_user AND (pg_has_role(srvowner, 'USAGE')
          OR has_server_privilege(srvid, 'USAGE')))
        AND NOT (umuser = 0 AND pg_has_role(srvowner, 'USAGE'))""",
    "subscriptions not in the dump: {names}: {user} is not a superuser": f"""
        SELECT subname AS name FROM pg_subscription JOIN pg_database d ON d.oid = subdbid
        WHERE datname = current_database() AND NOT {_SUPER}""",
    "rows of unlogged tables not in the dump: {names}: a standby does not have them": f"""
        SELECT oid::regclass AS name FROM pg_class WHERE pg_is_in_recovery()
        AND relpersistence = 'u' AND relkind = 'r' AND {_USER_OBJECTS}""",
}
_NOTES = {
    "rows of foreign tables not in the dump: {names}: they are on other servers": f"""
        SELECT oid::regclass AS name FROM pg_class WHERE relkind = 'f' AND {_USER_OBJECTS}""",
    "rows of tables not in the dump: {names}: not configured by their extensions": """
        SELECT c.oid::regclass AS name FROM pg_class c JOIN pg_depend d ON d.objid = c.oid
        AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
        JOIN pg_extension e ON e.oid = d.refobjid WHERE c.relkind = 'r'
        AND NOT c.oid = ANY (coalesce(extconfig, '{}')) AND pg_relation_size(c.oid) > 0""",
    "prepared transactions not in the dump: {names}": """
        SELECT gid AS name FROM pg_prepared_xacts WHERE database = current_database()""",
}
HIDDEN_ROWS = f"""
    SELECT oid::regclass AS name FROM pg_class
    WHERE relkind IN ('r', 'p') AND {_USER_OBJECTS} AND row_security_active(oid)"""
_UNREADABLE = f"""
    SELECT c.oid::regclass AS name FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'S') AND {_USER_OBJECTS}
    AND NOT (has_schema_privilege(n.oid, 'USAGE')
    AND CASE relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
      ELSE has_table_privilege(c.oid, 'SELECT') END)"""
_LARGE_OBJECTS = f"""
    SELECT oid AS name FROM pg_largeobject_metadata WHERE NOT {_SUPER}
    AND NOT pg_has_role(lomowner, 'USAGE') AND current_setting('lo_compat_privileges') = 'off'
    AND NOT EXISTS (SELECT FROM aclexplode(lomacl) WHERE privilege_type = 'SELECT'
      AND (grantee = 0 OR pg_has_role(grantee, 'USAGE')))"""
_CONFIGURATION = (
    "postgresql.conf, ALTER SYSTEM, pg_hba.conf and pg_ident.conf are not part of a dump: back "
    "them up with a FILESET section"
)


@dataclass(frozen=True)
class Omissions:
    """What is missing from a dump: warnings for data, notes for what is never part of a dump."""

    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def of_database(server: pg_server.PostgresConnection, database: str) -> Omissions:
    """Return what pg_dump leaves out of a dump of this database. Raises SourceError."""
    user = current_role(server)
    return Omissions(
        _lines(server, database, _MISSING_DATA, user), _lines(server, database, _NOTES, user)
    )


def _lines(
    server: pg_server.PostgresConnection, database: str, queries: Mapping[str, str], user: str
) -> tuple[str, ...]:
    """Return a line for each query that returns names."""
    numbered = " UNION ALL ".join(
        f"SELECT {number} AS query, {pg_server.hex_expression('name')} FROM ({query}) AS q"
        for number, query in enumerate(queries.values())
    )
    rows = server.sql(f"{numbered} ORDER BY 1, 2", database=database, columns=2)
    names_by_line = [
        (line, [pg_server.decode_hex(name) for number, name in rows if number == str(position)])
        for position, line in enumerate(queries)
    ]
    return tuple(
        line.format(names=first_names(names), user=user) for line, names in names_by_line if names
    )


def first_names(names: list[str]) -> str:
    """Return the first names on one line, and the number of the others."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def query_names(server: pg_server.PostgresConnection, query: str, database: str) -> list[str]:
    """Return the names that a query returns."""
    rows = server.sql(
        f"SELECT {pg_server.hex_expression('name')} FROM ({query}) AS q ORDER BY 1",
        database=database,
        columns=1,
    )
    return [pg_server.decode_hex(row[0]) for row in rows]


def current_role(server: pg_server.PostgresConnection) -> str:
    """Return the role of the session, quoted."""
    return pg_server.decode_hex(
        server.row(f"SELECT {pg_server.hex_expression('quote_ident(current_user)')}")[0]
    )


def of_server(server: pg_server.PostgresConnection, excluded: Sequence[str]) -> Omissions:
    """Return what is missing from dumps of a server. excluded: databases that are left out."""
    closed = server.sql(
        f"SELECT {pg_server.hex_expression('datname')}, datconnlimit FROM pg_database "
        "WHERE (NOT datallowconn OR datconnlimit = -2) AND datname <> 'template0' ORDER BY 1",
        columns=2,
    )
    warnings = [
        f"database {name}: {_INVALID if limit == '-2' else CLOSED}"
        for name, limit in ((pg_server.decode_hex(name), limit) for name, limit in closed)
        if not dump_stream.is_named(name, excluded)
    ]
    if not reads_passwords(server):
        warnings.append(
            "passwords of roles not in the backup: permission denied for "
            f"{current_role(server)} on pg_authid"
        )
    return Omissions(tuple(warnings), (_CONFIGURATION,))


def reads_passwords(server: pg_server.PostgresConnection) -> bool:
    """Return whether pg_dumpall can read the passwords of roles."""
    return server.row("SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT')") == ["t"]


def row_security(server: pg_server.PostgresConnection, database: str) -> tuple[str, str]:
    """Return what row-level security hides from the role, and a hint; "" if nothing."""
    tables = query_names(server, HIDDEN_ROWS, database)
    if not tables:
        return "", ""
    user = current_role(server)
    return (
        f"row-level security hides rows of {first_names(tables)} from {user}",
        f"Run as a superuser: ALTER ROLE {user} BYPASSRLS;",
    )


def server_findings(
    server: pg_server.PostgresConnection, excluded: Sequence[str], label: str
) -> Iterator[Finding]:
    """Yield the findings on what is missing from dumps of a server."""
    for line in of_server(server, excluded).warnings:
        yield finding.warning(f"{label}: {line}")


def database_findings(
    server: pg_server.PostgresConnection, database: str, label: str, *, all_tables: bool
) -> list[Finding]:
    """Return what a dump of this database would leave out, or fail on.

    all_tables: no table is excluded
    """
    level = finding.bad if all_tables else finding.warning
    where = f"{label}, database {database}"
    findings = [
        finding.warning(f"{where}: {line}") for line in of_database(server, database).warnings
    ]
    problem, hint = row_security(server, database)
    if problem:
        findings.append(level(f"{where}: {problem}", hint))
    user = current_role(server)
    if tables := query_names(server, _UNREADABLE, database):
        text = f"{where}: permission denied for {user} on {first_names(tables)}"
        hint = f"Run as a superuser: GRANT pg_read_all_data TO {user};"
        role = user[1:-1].replace('""', '"') if user.startswith('"') else user
        fix = login_errors.by_superuser(server.host, server.port, login_errors.granting(role))
        findings.append(level(text, hint, fix))
    if objects := query_names(server, _LARGE_OBJECTS, database):
        problem = count(len(objects), "large object")
        hint = "Set USER to a superuser, or run GRANT SELECT ON LARGE OBJECT for each of them."
        findings.append(finding.bad(f"{where}: permission denied for {user} on {problem}", hint))
    return findings
