"""Functions that find their tables by search_path, and CHECK constraints that call such functions.

A dump is loaded with an empty search_path, so a function that names a table without its schema
fails in a CHECK constraint, an index, a generated column or a materialized view, though it works
in the source. Here such functions get the search_path of the source as a setting of their own
while a dump is loaded. A function may also read a table whose rows come later: CHECK constraints
are therefore taken off, and put back when all rows are there.

All of it is done by the server (DO blocks over its catalogs): no SQL text is edited.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

from postgres import cluster

USUAL = '"$user", public'  # the default of search_path
# Event triggers of the dump would fire for what is done here. Only a superuser can have them.
_QUIET = (
    "DO $$ BEGIN PERFORM pg_catalog.set_config('session_replication_role', 'replica', false); "
    "EXCEPTION WHEN insufficient_privilege THEN NULL; END $$"
)
_NO_PATH = "SET search_path = ''"
# {0}: a schema that is dropped at the end. 16384 is FirstNormalObjectId (access/transam.h): what
# is below are the server's own objects.
_MEMORY = """
CREATE TABLE {0}.functions AS SELECT p.oid AS id, pg_catalog.pg_get_userbyid(proowner) AS owner
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = prolang
  WHERE p.oid >= 16384 AND prokind = 'f' AND lanname NOT IN ('internal', 'c')
  AND NOT EXISTS (SELECT FROM unnest(proconfig) c WHERE c LIKE 'search\\_path=%')
"""
# Every name is qualified: what follows runs with the search_path of the source.
_SET = """
DO $$ DECLARE one record; wanted text := pg_catalog.current_setting('nc_backup.path'); BEGIN
  FOR one IN SELECT id, owner FROM {0}.functions LOOP
    PERFORM pg_catalog.set_config('search_path',
      pg_catalog.replace(wanted, '"$user"', pg_catalog.quote_ident(one.owner::text)), false);
    BEGIN
      EXECUTE pg_catalog.format('ALTER FUNCTION %s SET search_path FROM CURRENT',
        one.id::pg_catalog.regprocedure);
    EXCEPTION WHEN insufficient_privilege THEN
      DELETE FROM {0}.functions f WHERE f.id OPERATOR(pg_catalog.=) one.id;
    END;
  END LOOP;
END $$
"""
_RESET = """
DO $$ DECLARE one record; BEGIN
  FOR one IN SELECT id FROM {0}.functions JOIN pg_catalog.pg_proc p ON p.oid = id LOOP
    EXECUTE format('ALTER FUNCTION %s RESET search_path', one.id::regprocedure);
  END LOOP;
END $$
"""
# Of a tree of tables only what is defined at a table itself; of domains all.
_CHECKS = """
CREATE TABLE {0}.checks AS SELECT
  c.oid AS id, conname::text AS name, conrelid, contypid,
  CASE WHEN conrelid <> 0 THEN conrelid::regclass::text
    ELSE contypid::regtype::text END AS holder,
  CASE WHEN conrelid <> 0 THEN 'TABLE' ELSE 'DOMAIN' END AS kind,
  pg_catalog.pg_get_constraintdef(c.oid) AS definition,
  pg_catalog.obj_description(c.oid, 'pg_constraint') AS comment
  FROM pg_catalog.pg_constraint c LEFT JOIN pg_catalog.pg_class r ON r.oid = conrelid
  WHERE contype = 'c' AND c.oid >= 16384 AND convalidated AND conislocal
  AND (contypid <> 0 OR relkind IN ('r', 'p'))
"""
_WITHOUT = """
DO $$ DECLARE one record; more boolean := true; BEGIN
  WHILE more LOOP  -- those of children are dropped with their parent's, unless they are local too
    more := false;
    FOR one IN SELECT w.* FROM {0}.checks w JOIN pg_catalog.pg_constraint c ON c.oid = w.id
        WHERE coninhcount = 0 LOOP
      EXECUTE format('ALTER %s %s DROP CONSTRAINT %I', one.kind, one.holder, one.name);
      more := true;
      EXIT;
    END LOOP;
  END LOOP;
END $$
"""
_BACK = """
DO $$ DECLARE one record; statement text; reason text; BEGIN
  CREATE TABLE {0}.failed (line text);
  FOR one IN SELECT * FROM {0}.checks ORDER BY conrelid DESC LOOP
    statement := format('ALTER %s %s ADD CONSTRAINT %I %s',
      one.kind, one.holder, one.name, one.definition);
    BEGIN
      EXECUTE statement;
    EXCEPTION WHEN OTHERS THEN
      reason := SQLERRM;
      BEGIN
        EXECUTE statement || ' NOT VALID';
        INSERT INTO {0}.failed VALUES (format('%s: constraint %I of %s is now NOT VALID',
          reason, one.name, one.holder));
      EXCEPTION WHEN OTHERS THEN
        INSERT INTO {0}.failed VALUES (format('%s: constraint %I of %s', SQLERRM, one.name,
          one.holder));
        CONTINUE;
      END;
    END;
    IF one.comment IS NOT NULL THEN
      EXECUTE format('COMMENT ON CONSTRAINT %I ON %s%s IS %L', one.name,
        CASE WHEN one.kind = 'DOMAIN' THEN 'DOMAIN ' ELSE '' END, one.holder, one.comment);
    END IF;
  END LOOP;
END $$
"""


class Lenient:
    """A database being loaded, whose functions have a search_path, and which may lack CHECKs."""

    def __init__(self, target: cluster.Cluster, database: str, schema: str) -> None:
        self._target = target
        self._database = database
        self._schema = schema

    def sql(self, *statements: str) -> list[list[str]]:
        """Statements of this file, with the name of the schema put in."""
        whole = [statement.replace("{0}", self._schema) for statement in statements]
        return self._target.sql(_QUIET, _NO_PATH, *whole, database=self._database)

    def without_checks(self) -> None:
        """Take the CHECK constraints off, and remember them."""
        self.sql(_CHECKS, _WITHOUT)

    def with_checks(self) -> tuple[str, ...]:
        """Put them back, NOT VALID where rows violate one, and return a line for each such."""
        line = cluster.hexed("line")
        rows = self.sql(_BACK, f"SELECT {line} FROM {self._schema}.failed")
        return tuple(cluster.text(row[0]) for row in rows)


@contextlib.contextmanager
def lenient(target: cluster.Cluster, database: str, path: str) -> Iterator[Lenient]:
    """Functions have this search_path until the end of the block ("$user" is their owner)."""
    schema = f"nc_backup_{uuid.uuid4().hex[:12]}"
    made = Lenient(target, database, schema)
    told = (
        f"DO $$ BEGIN PERFORM set_config('nc_backup.path', {cluster.literal(path)}, false); END $$"
    )
    made.sql("CREATE SCHEMA {0}", _MEMORY, told, _SET)
    yield made
    made.sql(_RESET, "DROP SCHEMA {0} CASCADE")
