"""What is not in a dump though nobody excluded it, and what would make one fail: the catalogs know.

pg_dump leaves some objects out without an error where its role may not see them, and some always.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from postgres import cluster
from tools.base import finding
from tools.base.finding import Finding
from tools.date_str_utils import count
from tools.flow import dump_stream

CLOSED = "not in the backup: it allows no connections (datallowconn)"
_INVALID = "not in the backup: it is invalid (DROP DATABASE was interrupted)"
_SHOWN = 5  # names in one line
_SUPER = "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
_OWN = (
    "relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_' "
    "OR nspname = 'information_schema')"
)
# Each is a query for names. {super}: whether the role is a superuser.
_LEFT_OUT = {
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
        AND relpersistence = 'u' AND relkind = 'r' AND {_OWN}""",
}
_NOTES = {
    "rows of foreign tables not in the dump: {names}: they are on other servers": f"""
        SELECT oid::regclass AS name FROM pg_class WHERE relkind = 'f' AND {_OWN}""",
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
    WHERE relkind IN ('r', 'p') AND {_OWN} AND row_security_active(oid)"""
_UNREADABLE = f"""
    SELECT c.oid::regclass AS name FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'S') AND {_OWN} AND NOT (has_schema_privilege(n.oid, 'USAGE')
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
    """What a dump does not hold: warnings for data, notes for what no dump ever holds."""

    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def of_database(server: cluster.Cluster, database: str) -> Omissions:
    """What a dump of this database leaves out by itself. Raises SourceError."""
    user = role(server)
    return Omissions(
        _lines(server, database, _LEFT_OUT, user), _lines(server, database, _NOTES, user)
    )


def _lines(
    server: cluster.Cluster, database: str, queries: Mapping[str, str], user: str
) -> tuple[str, ...]:
    """A line for each query that gives names."""
    numbered = " UNION ALL ".join(
        f"SELECT {number} AS query, {cluster.hexed('name')} FROM ({query}) AS q"
        for number, query in enumerate(queries.values())
    )
    rows = server.sql(f"{numbered} ORDER BY 1, 2", database=database, columns=2)
    found = [
        (line, [cluster.text(name) for number, name in rows if number == str(position)])
        for position, line in enumerate(queries)
    ]
    return tuple(line.format(names=shown(names), user=user) for line, names in found if names)


def shown(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def names(server: cluster.Cluster, query: str, database: str) -> list[str]:
    """What a query for names gives."""
    rows = server.sql(
        f"SELECT {cluster.hexed('name')} FROM ({query}) AS q ORDER BY 1",
        database=database,
        columns=1,
    )
    return [cluster.text(row[0]) for row in rows]


def role(server: cluster.Cluster) -> str:
    """The role that dumps, as SQL has it."""
    return cluster.text(server.row(f"SELECT {cluster.hexed('quote_ident(current_user)')}")[0])


def of_server(server: cluster.Cluster, excluded: Sequence[str]) -> Omissions:
    """What dumps of a whole server leave out. excluded: databases that the config leaves out."""
    closed = server.sql(
        f"SELECT {cluster.hexed('datname')}, datconnlimit FROM pg_database "
        "WHERE (NOT datallowconn OR datconnlimit = -2) AND datname <> 'template0' ORDER BY 1",
        columns=2,
    )
    warnings = [
        f"database {name}: {_INVALID if limit == '-2' else CLOSED}"
        for name, limit in ((cluster.text(name), limit) for name, limit in closed)
        if not dump_stream.is_named(name, excluded)
    ]
    if not reads_passwords(server):
        warnings.append(
            f"passwords of roles not in the backup: permission denied for {role(server)} on "
            "pg_authid"
        )
    return Omissions(tuple(warnings), (_CONFIGURATION,))


def reads_passwords(server: cluster.Cluster) -> bool:
    """Whether pg_dumpall can read the passwords of roles."""
    return server.row("SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT')") == ["t"]


def row_security(server: cluster.Cluster, database: str) -> tuple[str, str]:
    """What row-level security hides from the role, and the hint; "" where it hides nothing."""
    tables = names(server, HIDDEN_ROWS, database)
    if not tables:
        return "", ""
    user = role(server)
    return (
        f"row-level security hides rows of {shown(tables)} from {user}",
        f"Run as a superuser: ALTER ROLE {user} BYPASSRLS;",
    )


def tested_server(
    server: cluster.Cluster, excluded: Sequence[str], label: str
) -> Iterator[Finding]:
    """What dumps of the whole server would leave out."""
    for line in of_server(server, excluded).warnings:
        yield finding.warning(f"{label}: {line}")


def tested(server: cluster.Cluster, database: str, label: str, *, whole: bool) -> list[Finding]:
    """What a dump of this database would leave out, or fail on. whole: no table is excluded."""
    judge = finding.bad if whole else finding.warning
    where = f"{label}, database {database}"
    found = [finding.warning(f"{where}: {line}") for line in of_database(server, database).warnings]
    what, hint = row_security(server, database)
    if what:
        found.append(judge(f"{where}: {what}", hint))
    user = role(server)
    if tables := names(server, _UNREADABLE, database):
        text = f"{where}: permission denied for {user} on {shown(tables)}"
        found.append(judge(text, f"Run as a superuser: GRANT pg_read_all_data TO {user};"))
    if objects := names(server, _LARGE_OBJECTS, database):
        what = count(len(objects), "large object")
        hint = "Set USER to a superuser, or run GRANT SELECT ON LARGE OBJECT for each of them."
        found.append(finding.bad(f"{where}: permission denied for {user} on {what}", hint))
    return found
