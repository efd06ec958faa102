"""Code in a dump never runs with the privileges of a superuser while it is restored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres.test_left_out import dumped
from tests.postgres.test_untrusted import client, loaded
from tests.servers import Postgres
from tools.base.result import Status

pytestmark = pytest.mark.needs("initdb", "postgres", "pg_dump")
# Each function is harmless in the source: there it runs as lowly.
GRAB = """
CREATE FUNCTION grab(f text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  EXECUTE format('CREATE ROLE %I', f); EXCEPTION WHEN OTHERS THEN NULL; END $$;
"""
FUNCTION = """
CREATE FUNCTION {0}(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  PERFORM public.grab('{0}'); RETURN i; END $$;
"""
ATOMIC = """CREATE FUNCTION f_atomic() RETURNS int LANGUAGE sql IMMUTABLE
  BEGIN ATOMIC SELECT public.f_check(1); END;"""
# While rows are loaded.
ROWS = """
CREATE TABLE checked (i int CHECK (f_check(i) > 0)); INSERT INTO checked VALUES (1);
CREATE TABLE generated (i int, j int GENERATED ALWAYS AS (f_generated(i)) STORED);
INSERT INTO generated VALUES (1);
CREATE DOMAIN positive AS int CHECK (f_domain(VALUE) > 0);
CREATE TABLE domains (i positive); INSERT INTO domains VALUES (1);
CREATE TABLE parted (i int) PARTITION BY LIST (f_part(i));
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1); INSERT INTO parted VALUES (1);
"""
# When a statement is planned: calls with constant arguments, and keys that are domains.
PLANNED = """
CREATE TABLE g_planned (i int, j int GENERATED ALWAYS AS (i + f_g_planned(1)) STORED);
INSERT INTO g_planned VALUES (1);
CREATE TABLE p_planned (i int) PARTITION BY LIST ((i + f_p_planned(1)));
CREATE TABLE p_planned_1 PARTITION OF p_planned FOR VALUES IN (2); INSERT INTO p_planned VALUES (1);
CREATE DOMAIN bound AS int CHECK (f_bound(VALUE) > 0);
CREATE TABLE bounds (i bound) PARTITION BY LIST (i);
CREATE TABLE bounds_1 PARTITION OF bounds FOR VALUES IN (1);
CREATE TABLE attached (i int) PARTITION BY LIST (i);
CREATE TABLE attached_1 (i int CHECK (i < f_attached(5) + f_atomic()));
ALTER TABLE attached ATTACH PARTITION attached_1 FOR VALUES IN (1);
"""
# Indexes and constraints on rows.
LATER = """
CREATE TABLE indexed (i int PRIMARY KEY); INSERT INTO indexed VALUES (1);
CREATE INDEX ON indexed (f_index(i)); CREATE INDEX ON indexed (i) WHERE f_predicate(i) > 0;
CREATE INDEX ON indexed ((i + f_i_planned(1)));
CREATE TABLE refers (i int REFERENCES indexed); INSERT INTO refers VALUES (1);
CREATE MATERIALIZED VIEW m AS SELECT f_view(1) AS i;
CREATE TYPE word AS ENUM ('a');
CREATE FUNCTION number(word) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT public.f_cast(1)';
CREATE CAST (word AS int) WITH FUNCTION number(word) AS IMPLICIT;
CREATE TABLE casted (w word REFERENCES indexed); INSERT INTO casted VALUES ('a');
CREATE TABLE looped (i int); INSERT INTO looped VALUES (1);
CREATE FUNCTION loop(looped) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  RETURN public.f_loop(1) > 0; END $$;
ALTER TABLE looped ADD CHECK (loop(looped));
CREATE STATISTICS st ON (f_statistics(i)), i FROM looped;
"""
# When a constant is parsed; no function of a user is needed for that.
PARSED = """
CREATE DOMAIN builtin AS int CHECK (
  CASE WHEN current_setting('is_superuser') = 'on' THEN lo_create(0) > 0 ELSE true END);
CREATE DOMAIN own AS int CHECK (f_parsed(VALUE) > 0);
CREATE TABLE parsed (i int, a builtin[] DEFAULT '{1}'::builtin[], CHECK (a <> '{7}'::builtin[]));
INSERT INTO parsed VALUES (1);
CREATE VIEW v AS SELECT '{1}'::builtin[] AS a, '{1}'::own[] AS b;
CREATE FUNCTION step(builtin, int) RETURNS builtin LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
CREATE AGGREGATE total(int) (sfunc = step, stype = builtin, initcond = '1');
CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER t BEFORE INSERT ON parsed FOR EACH ROW WHEN (NEW.a <> '{2}'::builtin[]
  AND ARRAY[NEW.i] <> '{2}'::own[]::int[]) EXECUTE FUNCTION changed();
CREATE POLICY p ON parsed USING (a <> '{3}'::builtin[] AND ARRAY[i] <> '{2}'::own[]::int[]);
ALTER TABLE parsed ENABLE ROW LEVEL SECURITY;
CREATE RULE r AS ON UPDATE TO parsed WHERE OLD.a = '{5}'::builtin[] DO INSTEAD NOTHING;
CREATE INDEX ON parsed (i) WHERE a <> '{4}'::builtin[] AND ARRAY[i] <> '{4}'::own[]::int[];
CREATE TABLE bounds_2 (i builtin) PARTITION BY LIST (i);
CREATE TABLE bounds_2_1 PARTITION OF bounds_2 FOR VALUES IN (1);
"""
NAMES = (
    *("check", "generated", "domain", "part", "g_planned", "p_planned", "bound", "attached"),
    *("index", "predicate", "i_planned", "view", "cast", "loop", "statistics", "parsed"),
)
FUNCTIONS = GRAB + "".join(FUNCTION.replace("{0}", f"f_{name}") for name in NAMES) + ATOMIC
OBJECTS = FUNCTIONS + ROWS + PLANNED + LATER + PARSED
UNQUALIFIED = """
CREATE TABLE kinds (k int); INSERT INTO kinds VALUES (1);
CREATE FUNCTION known(x int) RETURNS bool LANGUAGE plpgsql STABLE AS $$ BEGIN
  PERFORM public.grab('f_known'); RETURN EXISTS (SELECT FROM kinds WHERE k = x); END $$;
CREATE DOMAIN kind AS int CHECK (known(VALUE));
CREATE TABLE goods (k int CHECK (known(k)), d kind); INSERT INTO goods VALUES (1, 1);
"""


@pytest.fixture
def server() -> Iterator[Postgres]:
    started = Postgres()
    started.sql("CREATE ROLE lowly LOGIN; CREATE DATABASE d")
    started.sql("GRANT CREATE ON SCHEMA public TO lowly", "d")
    yield started
    started.stop()


def as_lowly(server: Postgres, sql: str) -> None:
    server.sql(f"SET SESSION AUTHORIZATION lowly; {sql}", "d")


def unharmed(server: Postgres) -> bool:
    """Whether there is no new role, no large object and no new superuser."""
    objects = "SELECT count(*) FROM pg_largeobject_metadata"
    names = "SELECT rolname, rolsuper FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1"
    assert server.sql(names) == "lowly|f\npostgres|t\n"
    return server.sql(objects, "copy") == "0\n"


@pytest.mark.fault(
    "code in a dump, of a login without rights", "it runs without the rights of the restore"
)
@pytest.mark.parametrize("objects", [OBJECTS, FUNCTIONS + ROWS + UNQUALIFIED])
def test_code_of_a_login_without_rights(server: Postgres, objects: str) -> None:
    """The second time rows are rejected at first: CHECK constraints are added after them."""
    as_lowly(server, objects)
    result = loaded(server, "copy", client(server, "pg_dump", "-Fc", "d"))
    assert [line for line in result.warnings if "properties" not in line] == []
    assert unharmed(server)
    assert dumped(server, "copy") == dumped(server, "d")


ESCAPES = """
CREATE TABLE plan (i int);
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM public.grab('deferred'); RETURN NEW; END $$;
CREATE FUNCTION attempt(statement text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  EXECUTE statement; EXCEPTION WHEN OTHERS THEN NULL; END $$;
CREATE FUNCTION escape(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  IF current_user <> 'lowly' THEN
    PERFORM public.attempt('RESET ROLE'), public.attempt('RESET SESSION AUTHORIZATION'),
      public.attempt('SET SESSION AUTHORIZATION postgres'), public.attempt('SET ROLE postgres'),
      public.attempt('ALTER ROLE lowly SUPERUSER'), public.attempt('SELECT helpers.admin()'),
      public.attempt('COPY public.plan FROM PROGRAM ''touch {0}; echo 1'''),
      public.attempt('DECLARE c CURSOR WITH HOLD FOR SELECT public.grab(''held'')'),
      public.attempt('CREATE TEMP TABLE x (i int)'),
      public.attempt('CREATE CONSTRAINT TRIGGER t AFTER INSERT ON pg_temp.x DEFERRABLE
        INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.late()'),
      public.attempt('INSERT INTO pg_temp.x VALUES (1)'),
      public.attempt('CREATE FUNCTION public.later() RETURNS void SECURITY DEFINER LANGUAGE sql
        AS ''ALTER ROLE lowly SUPERUSER'''),
      public.attempt('ALTER TABLE public.important ADD CHECK (public.escape(1) > 0)');
  END IF; RETURN i; END $$;
CREATE TABLE a (i int, j int GENERATED ALWAYS AS (escape(1) + i) STORED CHECK (escape(i) > 0));
INSERT INTO a VALUES (1);
CREATE INDEX ON a (escape(i));
"""


@pytest.mark.fault("code in a dump that leaves its role", "no privilege gained, nothing planted")
def test_escapes(server: Postgres, tmp_path: Path) -> None:
    server.sql(
        """CREATE TABLE important (i int); CREATE SCHEMA helpers; GRANT USAGE ON SCHEMA helpers
        TO PUBLIC; CREATE FUNCTION helpers.admin() RETURNS void SECURITY DEFINER LANGUAGE sql
        AS 'ALTER ROLE lowly SUPERUSER'; REVOKE EXECUTE ON FUNCTION helpers.admin() FROM PUBLIC;
        CREATE FUNCTION later() RETURNS void SECURITY DEFINER LANGUAGE sql AS 'SELECT'""",
        "d",
    )
    tmp_path.chmod(0o777)
    as_lowly(server, GRAB + ESCAPES.replace("{0}", str(tmp_path / "made")))
    server.sql(
        """CREATE FUNCTION fired() RETURNS event_trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM public.grab(''fired''); END'; ALTER FUNCTION fired() OWNER TO lowly;
        CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION fired();
        ALTER EVENT TRIGGER e ENABLE ALWAYS;
        COMMENT ON EVENT TRIGGER e IS 'x'""",
        "d",
    )
    server.sql("DROP ROLE IF EXISTS fired")
    result = loaded(server, "copy", client(server, "pg_dump", "-Fc", "d"))
    assert [line for line in result.warnings if "properties" not in line] == []
    assert unharmed(server)
    assert not (tmp_path / "made").exists()
    assert dumped(server, "copy") == dumped(server, "d")


def test_a_server_that_lets_no_other_role_in(server: Postgres) -> None:
    """It is restored as plain pg_restore does it, and the message names such a function."""
    as_lowly(server, GRAB)
    dump = client(server, "pg_dump", "-Fc", "d")
    (server.folder / "data" / "pg_hba.conf").write_text(
        "local all postgres trust\nhost all postgres 127.0.0.1/32 scram-sha-256\n"
    )
    server.sql("SELECT pg_reload_conf()")
    result = loaded(server, "copy", dump)
    assert (
        "run with the privileges of postgres: function public.grab(text) of lowly" in result.message
    )
    assert unharmed(server)
    assert dumped(server, "copy") == dumped(server, "d")
    assert result.status is Status.OK
