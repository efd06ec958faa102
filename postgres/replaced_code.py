"""Code of a dump that does nothing, for statements that a superuser runs.

The server evaluates IMMUTABLE functions with constant arguments when it plans an expression: in
CREATE TABLE with generated columns or partition keys, ATTACH PARTITION, or a foreign key. It
evaluates CHECK constraints of domains as soon as it parses a constant, in any statement:
'{1}'::domain[]. All this would run with the privileges of the restore. Meanwhile each function
raises an error, and the CHECK constraint of each domain is true; also of those that are created.

When the index of a partition is attached, the server evaluates constants in the expressions of both
indexes. It does not if the functions are VOLATILE.

While indexes are built, functions are needed, and a function may depend on the CHECK constraint of
a domain. Then those constraints raise an error instead. No function can catch it with WHEN OTHERS.
"""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Iterator

from postgres import pg_server, search_path

MESSAGE = "nc-backup-py: a function of the dump would run with the privileges of the restore"
ALL, NONE, DEFINERS = "true", "false", "p.prosecdef"
# What the CHECK constraints of domains are; KEEP: as they were.
TRUE, RAISE, KEEP = "true", "{0}.blocked()", ""
_RAISE = f"BEGIN RAISE EXCEPTION ''{MESSAGE}''; END"
_NEVER_CAUGHT = f"BEGIN RAISE assert_failure USING MESSAGE = ''{MESSAGE}''; END"
# {0}: a schema that is dropped at the end. Code of extensions comes from the target's own files;
# only a superuser of the source could create functions in C. 16384 is FirstNormalObjectId.
_FUNCTIONS = """JOIN pg_language l ON l.oid = p.prolang WHERE p.oid >= 16384
    AND p.prokind IN ('f', 'p', 'w') AND l.lanname NOT IN ('internal', 'c')
    AND {1} {2} AND p.pronamespace <> '{0}'::regnamespace AND NOT EXISTS (SELECT FROM pg_depend d
      WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')"""
_REPLACE = f"""
  INSERT INTO {{0}}.functions SELECT p.oid, p.prosrc, p.prolang, p.provolatile
    FROM pg_proc p {_FUNCTIONS} ON CONFLICT DO NOTHING;
  UPDATE pg_proc p SET prosrc = '{_RAISE}',
    prolang = (SELECT oid FROM pg_language WHERE lanname = 'plpgsql'), provolatile = {{6}}
    FROM {{0}}.functions s WHERE s.id = p.oid AND NOT s.replaced;
  UPDATE {{0}}.functions SET replaced = true WHERE NOT replaced;
  INSERT INTO {{0}}.checks SELECT c.oid, c.conbin FROM pg_constraint c
    WHERE contype = 'c' AND contypid >= 16384 AND {{5}}
    AND contypid <> '{{0}}.instead'::regtype {{3}}
    ON CONFLICT DO NOTHING;
  UPDATE pg_constraint c SET conbin = (SELECT conbin FROM pg_constraint
      WHERE contypid = '{{0}}.instead'::regtype)
    FROM {{0}}.checks s WHERE s.id = c.oid AND NOT s.replaced;
  UPDATE {{0}}.checks SET replaced = true WHERE NOT replaced;"""
_EXISTING = _REPLACE.replace("{2}", "").replace("{3}", "")
_CREATED = "IN (SELECT objid FROM pg_event_trigger_ddl_commands())"
_NEW = _REPLACE.replace("{2}", f"AND p.oid {_CREATED}").replace("{3}", f"AND contypid {_CREATED}")
_INSTALL = (
    "CREATE SCHEMA {0}",
    f"CREATE FUNCTION {{0}}.blocked() RETURNS boolean LANGUAGE plpgsql AS '{_NEVER_CAUGHT}'",
    "CREATE DOMAIN {0}.instead AS integer CHECK ({4})",
    "CREATE TABLE {0}.functions (id oid PRIMARY KEY, source text, language oid, "
    """volatile "char", replaced boolean DEFAULT false)""",
    "CREATE TABLE {0}.checks (id oid PRIMARY KEY, expression pg_node_tree, "
    "replaced boolean DEFAULT false)",
    f"DO $stub$ BEGIN {_EXISTING} END $stub$",
    """CREATE FUNCTION {0}.replace_new() RETURNS event_trigger LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $stub$ BEGIN """
    + _NEW
    + """ END $stub$""",
    "CREATE EVENT TRIGGER {0} ON ddl_command_end WHEN TAG IN ('CREATE FUNCTION', "
    "'CREATE PROCEDURE', 'CREATE DOMAIN', 'ALTER DOMAIN') EXECUTE PROCEDURE {0}.replace_new()",
    "ALTER EVENT TRIGGER {0} ENABLE ALWAYS",  # also with session_replication_role = replica
)
_REMOVE = (
    "DROP EVENT TRIGGER {0}",
    "UPDATE pg_proc p SET prosrc = s.source, prolang = s.language, provolatile = s.volatile "
    "FROM {0}.functions s WHERE s.id = p.oid",
    "UPDATE pg_constraint c SET conbin = s.expression FROM {0}.checks s WHERE s.id = c.oid",
    "DROP SCHEMA {0} CASCADE",
)


@contextlib.contextmanager
def replaced(
    target: pg_server.PostgresConnection,
    database: str,
    functions: str = ALL,
    checks: str = TRUE,
    *,
    volatile: bool = False,
) -> Iterator[None]:
    """Replace code until the end of the block; on an exception for good.

    functions: which of them, an SQL expression on pg_proc p. checks: what the CHECK constraints of
    domains are, an SQL expression. volatile: whether functions are VOLATILE meanwhile. Raises
    SourceError.
    """
    schema = f"nc_backup_{uuid.uuid4().hex[:12]}"

    def run(statements: tuple[str, ...]) -> None:
        values = {
            "{1}": functions,
            "{4}": checks or "true",
            "{5}": str(bool(checks)),
            "{6}": "'v'" if volatile else "p.provolatile",
            "{0}": schema,
        }
        formatted = [
            functools.reduce(lambda text, field: text.replace(field, values[field]), values, one)
            for one in statements
        ]
        target.sql(search_path.DISABLE_EVENT_TRIGGERS, *formatted, database=database)

    run(_INSTALL)
    yield
    run(_REMOVE)
