"""Objects of a dump whose owner does not exist on the target: they belong to the restoring role.

Their author must not get the privileges of that role.
"""

from __future__ import annotations

from collections.abc import Collection

from postgres import pg_server
from postgres.holders import one_line
from postgres.search_path import DISABLE_EVENT_TRIGGERS

# As the list of a dump names them: format_type writes a type as pg_dump does. 16384 is
# FirstNormalObjectId.
_DEFINERS = f"""SELECT {pg_server.hex_expression("label")}, {pg_server.hex_expression("name")}
  FROM (SELECT nspname || ' ' || proname || '(' || coalesce((SELECT string_agg(
      format_type(argument, NULL), ', ' ORDER BY number)
      FROM unnest(proargtypes) WITH ORDINALITY AS a(argument, number)), '') || ')' AS label,
    p.oid::regprocedure::text AS name
    FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
    WHERE prosecdef AND p.oid >= 16384 AND pg_get_userbyid(proowner) = current_user
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass
      AND d.objid = p.oid AND d.deptype = 'e')) AS f"""
_KINDS = ("FUNCTION", "PROCEDURE")


def make_invokers(
    target: pg_server.PostgresConnection, database: str, labels: Collection[str], restorer: str
) -> tuple[str, ...]:
    """Let their SECURITY DEFINER functions run as the callers; return a line for each.

    labels: of the entries of the dump
    """
    rows = target.sql("SET search_path = ''", _DEFINERS, database=database, columns=2)
    lines = []
    for label, name in (map(pg_server.decode_hex, row) for row in rows):
        dump_label = f"{one_line(label)} {one_line(restorer)}"
        if not any(f"{kind} {dump_label}" in labels for kind in _KINDS):
            change = f"ALTER ROUTINE {name} SECURITY INVOKER"
            target.sql(DISABLE_EVENT_TRIGGERS, change, database=database)
            lines.append(
                f"function {name}: SECURITY INVOKER, because its owner does not exist on the server"
            )
    return tuple(lines)
