"""Functions that depend on search_path, and CHECK constraints that call such functions.

A dump is loaded with an empty search_path, so a function that uses a table name without a schema
fails in a CHECK constraint, an index, a generated column or a materialized view, although it works
in the source. Therefore functions get the search_path of the source as a setting while a dump is
loaded. A function may also read a table whose rows come later, so CHECK constraints are dropped,
and added again when all rows are loaded.

The server does all of it (DO blocks over its catalogs); no SQL text is edited.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from postgres import pg_server

DEFAULT = '"$user", public'  # the default of search_path
# Otherwise event triggers of the dump would fire for these statements.
DISABLE_EVENT_TRIGGERS = (
    "DO $$ BEGIN PERFORM pg_catalog.set_config('session_replication_role', 'replica', false); "
    "EXCEPTION WHEN insufficient_privilege THEN NULL; END $$"
)
_NO_PATH = "SET search_path = ''"
# {0}: a schema that is dropped at the end. 16384 is FirstNormalObjectId (access/transam.h): lower
# numbers are system objects.
_SAVE_FUNCTIONS = """
CREATE TABLE {0}.functions AS SELECT p.oid AS id, pg_catalog.pg_get_userbyid(proowner) AS owner
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = prolang
  WHERE p.oid >= 16384 AND prokind = 'f' AND lanname NOT IN ('internal', 'c')
  AND NOT EXISTS (SELECT FROM unnest(proconfig) c WHERE c LIKE 'search\\_path=%')
"""
# Every name, also of a type, is qualified, because this runs with the search_path of the source.
_SET = """
DO $$ DECLARE one record; wanted text := pg_catalog.current_setting('nc_backup.path'); BEGIN
  FOR one IN SELECT id, owner FROM {0}.functions LOOP
    PERFORM pg_catalog.set_config('search_path',
      pg_catalog.replace(wanted, '"$user"',
        pg_catalog.quote_ident(one.owner::pg_catalog.text)), false);
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
# Of inherited constraints only the local ones; all constraints of domains.
_SAVE_CHECKS = """
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
_DROP_CHECKS = """
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
_ADD_CHECKS = """
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
# Without evaluating anything. A constraint that cannot even be added is in "failed".
_ADD_NOT_VALID = """
DO $$ DECLARE one record; BEGIN
  CREATE TABLE {0}.failed (line text);
  FOR one IN SELECT * FROM {0}.checks ORDER BY conrelid DESC LOOP
    BEGIN
      EXECUTE format('ALTER %s %s ADD CONSTRAINT %I %s NOT VALID',
        one.kind, one.holder, one.name, one.definition);
      IF one.comment IS NOT NULL THEN
        EXECUTE format('COMMENT ON CONSTRAINT %I ON %s%s IS %L', one.name,
          CASE WHEN one.kind = 'DOMAIN' THEN 'DOMAIN ' ELSE '' END, one.holder, one.comment);
      END IF;
    EXCEPTION WHEN OTHERS THEN
      INSERT INTO {0}.failed VALUES (format('%s: constraint %I of %s', SQLERRM, one.name,
        one.holder));
      DELETE FROM {0}.checks c WHERE c.id = one.id;
    END;
  END LOOP;
END $$
"""


class LenientDatabase:
    """A database that is being loaded, whose functions have the search_path of the source."""

    def __init__(self, target: pg_server.PostgresConnection, database: str, schema: str) -> None:
        self._target = target
        self._database = database
        self._schema = schema

    def sql(self, *statements: str) -> list[list[str]]:
        """Run statements of this file in the schema of this object."""
        formatted = [statement.replace("{0}", self._schema) for statement in statements]
        return self._target.sql(
            DISABLE_EVENT_TRIGGERS, _NO_PATH, *formatted, database=self._database
        )

    def drop_checks(self) -> None:
        """Drop the CHECK constraints, and save their definitions."""
        self.sql(_SAVE_CHECKS, _DROP_CHECKS)

    def add_checks(self) -> tuple[str, ...]:
        """Add them again, as NOT VALID if rows violate one; return a line for each of these."""
        line = pg_server.hex_expression("line")
        rows = self.sql(_ADD_CHECKS, f"SELECT {line} FROM {self._schema}.failed")
        return tuple(pg_server.decode_hex(row[0]) for row in rows)

    def add_checks_unvalidated(self) -> tuple[list[Check], tuple[str, ...]]:
        """Add them again as NOT VALID; return them, and a line for each that cannot be added."""
        columns = ("kind", "holder", "quote_ident(name)")
        text = ", ".join(map(pg_server.hex_expression, columns))
        line = pg_server.hex_expression("line")
        self.sql(_ADD_NOT_VALID)
        rows = self.sql(f"SELECT {text} FROM {self._schema}.checks ORDER BY conrelid DESC")
        failed = self.sql(f"SELECT {line} FROM {self._schema}.failed")
        checks = [Check(*map(pg_server.decode_hex, row)) for row in rows]
        return checks, tuple(pg_server.decode_hex(row[0]) for row in failed)


@dataclass(frozen=True)
class Check:
    """A CHECK constraint. kind: TABLE or DOMAIN; holder, name: as they are in SQL"""

    kind: str
    holder: str
    name: str


@contextlib.contextmanager
def lenient_functions(
    target: pg_server.PostgresConnection, database: str, path: str
) -> Iterator[LenientDatabase]:
    """Set this search_path for functions until the end of the block ("$user": their owner)."""
    schema = f"nc_backup_{uuid.uuid4().hex[:12]}"
    database_functions = LenientDatabase(target, database, schema)
    expression = pg_server.text_expression(path)
    set_path = f"DO $$ BEGIN PERFORM set_config('nc_backup.path', {expression}, false); END $$"
    database_functions.sql("CREATE SCHEMA {0}", _SAVE_FUNCTIONS, set_path, _SET)
    yield database_functions
    database_functions.sql(_RESET, "DROP SCHEMA {0} CASCADE")
