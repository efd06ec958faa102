"""Code of a dump that does nothing, for statements that a superuser runs.

The server evaluates IMMUTABLE functions with constant arguments when it plans an expression: in
CREATE TABLE with generated columns or partition keys, ATTACH PARTITION, or a foreign key. It
evaluates CHECK constraints of domains as soon as it parses a constant, in any statement:
'{1}'::domain[]. All this would run with the privileges of the restore. Meanwhile each function
raises an error, and the CHECK constraint of each domain is true; also of those that are created.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

from postgres import pg_server, search_path

MESSAGE = "nc-backup-py: a function of the dump would run with the privileges of the restore"
ALL, NONE, DEFINERS = "true", "false", "p.prosecdef"
# {0}: a schema that is dropped at the end. Code of extensions comes from the target's own files;
# only a superuser of the source could create functions in C. 16384 is FirstNormalObjectId.
_FUNCTIONS = """JOIN pg_language l ON l.oid = p.prolang WHERE p.oid >= 16384
    AND p.prokind IN ('f', 'p', 'w') AND l.lanname NOT IN ('internal', 'c')
    AND {1} AND p.pronamespace <> '{0}'::regnamespace AND NOT EXISTS (SELECT FROM pg_depend d
      WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')"""
_REPLACE = f"""
  INSERT INTO {{0}}.functions SELECT p.oid, p.prosrc, p.prolang FROM pg_proc p {_FUNCTIONS}
    ON CONFLICT DO NOTHING;
  UPDATE pg_proc p SET prosrc = 'BEGIN RAISE EXCEPTION ''{MESSAGE}''; END',
    prolang = (SELECT oid FROM pg_language WHERE lanname = 'plpgsql')
    FROM {{0}}.functions s WHERE s.id = p.oid AND NOT s.replaced;
  UPDATE {{0}}.functions SET replaced = true WHERE NOT replaced;
  INSERT INTO {{0}}.checks SELECT c.oid, c.conbin FROM pg_constraint c
    WHERE contype = 'c' AND contypid >= 16384 AND contypid <> '{{0}}.always'::regtype
    ON CONFLICT DO NOTHING;
  UPDATE pg_constraint c SET conbin = (SELECT conbin FROM pg_constraint
      WHERE contypid = '{{0}}.always'::regtype)
    FROM {{0}}.checks s WHERE s.id = c.oid AND NOT s.replaced;
  UPDATE {{0}}.checks SET replaced = true WHERE NOT replaced;"""
_INSTALL = (
    "CREATE SCHEMA {0}",
    "CREATE DOMAIN {0}.always AS integer CHECK (true)",
    "CREATE TABLE {0}.functions (id oid PRIMARY KEY, source text, language oid, "
    "replaced boolean DEFAULT false)",
    "CREATE TABLE {0}.checks (id oid PRIMARY KEY, expression pg_node_tree, "
    "replaced boolean DEFAULT false)",
    f"DO $stub$ BEGIN {_REPLACE} END $stub$",
    """CREATE FUNCTION {0}.replace_new() RETURNS event_trigger LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $stub$ BEGIN """
    + _REPLACE
    + """ END $stub$""",
    "CREATE EVENT TRIGGER {0} ON ddl_command_end WHEN TAG IN ('CREATE FUNCTION', "
    "'CREATE PROCEDURE', 'CREATE DOMAIN', 'ALTER DOMAIN') EXECUTE PROCEDURE {0}.replace_new()",
)
_REMOVE = (
    "DROP EVENT TRIGGER {0}",
    "UPDATE pg_proc p SET prosrc = s.source, prolang = s.language FROM {0}.functions s "
    "WHERE s.id = p.oid",
    "UPDATE pg_constraint c SET conbin = s.expression FROM {0}.checks s WHERE s.id = c.oid",
    "DROP SCHEMA {0} CASCADE",
)


@contextlib.contextmanager
def replaced(
    target: pg_server.PostgresConnection, database: str, functions: str = ALL
) -> Iterator[None]:
    """Replace code until the end of the block; on an exception for good.

    functions: which of them, an SQL expression on pg_proc p. Raises SourceError.
    """
    schema = f"nc_backup_{uuid.uuid4().hex[:12]}"

    def run(statements: tuple[str, ...]) -> None:
        formatted = [one.replace("{1}", functions).replace("{0}", schema) for one in statements]
        target.sql(search_path.DISABLE_EVENT_TRIGGERS, *formatted, database=database)

    run(_INSTALL)
    yield
    run(_REMOVE)
