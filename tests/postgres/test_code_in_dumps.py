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


@pytest.fixture(scope="module")
def started() -> Iterator[Postgres]:
    """One for all tests of this file."""
    made = Postgres()
    made.sql("CREATE ROLE lowly LOGIN")
    yield made
    made.stop()


@pytest.fixture
def server(started: Postgres) -> Iterator[Postgres]:
    """With a database in which lowly may create objects."""
    started.sql("CREATE DATABASE d")
    started.sql("GRANT CREATE ON SCHEMA public TO lowly", "d")
    yield started
    started.sql("DROP DATABASE IF EXISTS copy; DROP DATABASE d")


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


@pytest.fixture
def extension(started: Postgres) -> Iterator[str]:
    """The name of an extension whose table is configured for dumps."""
    found = "SELECT setting FROM pg_config WHERE name = 'SHAREDIR'"
    folder = Path(started.sql(found).strip()) / "extension"
    made = {
        "nc_test.control": "default_version = '1'\n",
        "nc_test--1.sql": "CREATE TABLE known (i int); "
        "SELECT pg_extension_config_dump('known', '');\n",
    }
    for name, text in made.items():
        (folder / name).write_text(text)
    yield "nc_test"
    for name in made:
        (folder / name).unlink()


@pytest.mark.needs("root")
@pytest.mark.fault(
    "code in a dump that looks for powerful functions", "it may execute none of them"
)
def test_powerful_functions_stay_private(server: Postgres, extension: str) -> None:
    """SECURITY DEFINER, of an extension, in C; and a table whose name begins as one of theirs."""
    server.sql(
        f"""CREATE EXTENSION {extension}; INSERT INTO known VALUES (7); CREATE EXTENSION dblink;
        CREATE FUNCTION calls() RETURNS bool LANGUAGE c AS '$libdir/lo', 'lo_manage';
        REVOKE ALL ON FUNCTION calls() FROM PUBLIC""",
        "d",
    )
    as_lowly(
        server,
        """CREATE TABLE found (f text);
        CREATE FUNCTION search(i int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
          IF session_user ~ '^nc_load' THEN INSERT INTO public.found SELECT p.oid::regprocedure
            FROM pg_proc p WHERE has_function_privilege(oid, 'EXECUTE') AND oid >= 16384
            AND proname IN ('dblink_connect_u', 'calls'); END IF;
          RETURN session_user <> 'postgres' OR current_user = session_user AND false; END $$;
        CREATE TABLE "known 2" (i int CHECK (search(i))); INSERT INTO "known 2" VALUES (1);""",
    )
    result = loaded(server, "copy", client(server, "pg_dump", "-Fc", "d"))
    assert [line for line in result.warnings if "properties" not in line] == []
    assert server.sql("TABLE found; TABLE known", "copy") == "7\n"
    assert dumped(server, "copy") == dumped(server, "d")


# What needs functions that have been replaced, or that the role may not execute, of honest owners.
HONEST = """
CREATE DOMAIN email AS text CHECK (VALUE ~ '@');
CREATE FUNCTION valid(x text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  PERFORM x::public.email; RETURN true; EXCEPTION WHEN OTHERS THEN RETURN false; END $$;
CREATE TABLE mail (x text); INSERT INTO mail VALUES ('a@b'), ('no');
CREATE UNIQUE INDEX valid_index ON mail (valid(x));
CREATE INDEX part_index ON mail (x) WHERE valid(x);
CREATE MATERIALIZED VIEW views AS SELECT x, valid(x) AS ok FROM mail;
CREATE FUNCTION lowercase(x text) RETURNS text LANGUAGE sql AS 'SELECT lower(x)';
CREATE TABLE inlined (a text, b text GENERATED ALWAYS AS (lowercase(a)) STORED);
INSERT INTO inlined VALUES ('A');
CREATE TABLE list (a text) PARTITION BY LIST (lowercase(a));
CREATE TABLE list_1 PARTITION OF list FOR VALUES IN ('a'); INSERT INTO list VALUES ('A');
CREATE FUNCTION one() RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 1; END';
CREATE TABLE parent (a int, g int GENERATED ALWAYS AS (a + one()) STORED);
CREATE TABLE child (b int, h int GENERATED ALWAYS AS (b + one()) STORED) INHERITS (parent);
INSERT INTO child (a, b) VALUES (1, 2);
CREATE FUNCTION known(i int) RETURNS bool LANGUAGE sql IMMUTABLE SECURITY DEFINER AS 'SELECT i > 0';
REVOKE ALL ON FUNCTION known(int) FROM PUBLIC;
CREATE TABLE private (i int CHECK (known(i)), j bool GENERATED ALWAYS AS (known(i)) STORED);
INSERT INTO private VALUES (1);
CREATE FUNCTION positive(i int) RETURNS bool LANGUAGE plpgsql IMMUTABLE
  AS 'BEGIN RETURN i > 0; END';
CREATE TABLE "a b" (id serial); CREATE TABLE a (i int);
ALTER TABLE "a b" ADD CONSTRAINT x CHECK (positive(id)) NOT VALID;
ALTER TABLE a ADD CONSTRAINT "b x" CHECK (positive(i)) NOT VALID;
REVOKE ALL ON SEQUENCE "a b_id_seq" FROM lowly; GRANT SELECT ON SEQUENCE "a b_id_seq" TO lowly;
CREATE TABLE "a long table's name, with ATTACH PARTITION in it, and more characters" (i int)
  PARTITION BY LIST (i);
CREATE TABLE "a ' partition" (i int CHECK (i < 5 * one()));
ALTER TABLE "a long table's name, with ATTACH PARTITION in it, and more characters"
  ATTACH PARTITION "a ' partition" FOR VALUES IN (1);
"""
FOREIGN = """
CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
GRANT USAGE ON FOREIGN SERVER far TO lowly;
CREATE FOREIGN TABLE computed (a int, b int GENERATED ALWAYS AS (a + one()) STORED)
  SERVER far;
CREATE TABLE mixed (a int, CHECK (a < 9 * one())) PARTITION BY LIST (a);
CREATE FOREIGN TABLE mixed_1 PARTITION OF mixed FOR VALUES IN (1) SERVER far;
"""


def test_honest_code(server: Postgres) -> None:
    """Everything comes back equal, also what indexes and materialized views computed."""
    as_lowly(server, HONEST)
    server.sql(FOREIGN, "d")
    result = loaded(server, "copy", client(server, "pg_dump", "-Fc", "d"))
    assert [line for line in result.warnings if "properties" not in line] == []
    assert dumped(server, "copy") == dumped(server, "d")
    for asked in (
        "SELECT x, ok FROM views ORDER BY x",
        "SET enable_seqscan = off; SELECT x FROM mail WHERE valid(x) ORDER BY x",
        "SET enable_seqscan = off; SELECT x FROM mail WHERE NOT valid(x)",
    ):
        assert server.sql(asked, "copy") == server.sql(asked, "d")
    left = "SELECT count(*) FROM pg_roles WHERE rolname ~ '^nc_'"
    assert server.sql(left) == "0\n"


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
