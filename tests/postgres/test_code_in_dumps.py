"""Code in a dump never runs with the privileges of a superuser while it is restored."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres.hostile_code import FUNCTIONS, GRAB, OBJECTS, ROWS, UNQUALIFIED
from tests.postgres.test_left_out import dumped
from tests.postgres.test_untrusted import client, loaded
from tests.servers import Postgres, program
from tools.base.result import Status

pytestmark = pytest.mark.needs("initdb", "postgres", "pg_dump")


@pytest.fixture(scope="module")
def started() -> Iterator[Postgres]:
    """One for all tests of this file."""
    postgres = Postgres()
    postgres.sql("CREATE ROLE lowly LOGIN")
    yield postgres
    postgres.stop()


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


# Each asks for an object of another owner while the role of the restore owns tables.
OTHERS = """CREATE TABLE orders (i int PRIMARY KEY); INSERT INTO orders VALUES (1);
GRANT REFERENCES ON orders TO lowly; CREATE DOMAIN email AS int CHECK (VALUE > 0);
CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw"""
PLANTS = """
CREATE FUNCTION attempt(statement text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
  IF session_user ~ '^nc_load' THEN EXECUTE statement; END IF; RETURN 1;
  EXCEPTION WHEN OTHERS THEN RETURN 1; END $$;
CREATE FUNCTION planted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM public.grab('planted'); RETURN NEW; END $$;
CREATE FUNCTION plant(trigger_name text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  RETURN public.attempt(format('CREATE TRIGGER %I BEFORE INSERT ON public.orders
    FOR EACH ROW EXECUTE FUNCTION public.planted()', trigger_name)); END $$;
CREATE TABLE "orders x" (i int); INSERT INTO "orders x" VALUES (1);
CREATE FUNCTION loop("orders x") RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  RETURN public.plant('label') > 0; END $$;
ALTER TABLE "orders x" ADD CONSTRAINT c CHECK (loop("orders x"));
CREATE TYPE word AS ENUM ('a');
CREATE FUNCTION number(word) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  RETURN public.plant('key'); END $$;
CREATE CAST (word AS int) WITH FUNCTION number(word) AS IMPLICIT;
CREATE TABLE casted (w word REFERENCES orders); INSERT INTO casted VALUES ('a');
CREATE FUNCTION constrain(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  RETURN public.attempt('ALTER DOMAIN public.email ADD CHECK (public.grab(''d'') IS NULL)');
  END $$;
CREATE TABLE t (i int); INSERT INTO t VALUES (1);
CREATE INDEX ON t (constrain(i)) WHERE '{2}'::email[] <> ARRAY[i]::email[];
CREATE FUNCTION serve(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  IF session_user ~ '^nc_load' AND has_server_privilege('far', 'USAGE') THEN
    RAISE EXCEPTION 'far'; END IF; RETURN 1; END $$;
CREATE TABLE g (i int, j int GENERATED ALWAYS AS (i + serve(1)) STORED);
"""


@pytest.mark.fault("code in a dump while its role owns tables", "it changes nothing of others")
def test_objects_of_others(server: Postgres) -> None:
    server.sql(OTHERS, "d")
    as_lowly(server, GRAB + PLANTS)
    result = loaded(server, "copy", client(server, "pg_dump", "-Fc", "d"))
    assert [line for line in result.warnings if "properties" not in line] == []
    assert dumped(server, "copy") == dumped(server, "d")
    server.sql("INSERT INTO orders VALUES (2); SELECT 1::email", "copy")
    assert unharmed(server)


# A first load that fails must not make the second one less safe. {0}: the number of an entry
SECOND = """
CREATE FUNCTION close() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
  IF session_user ~ '^nc_load' THEN EXECUTE format('ALTER ROLE %I PASSWORD ''x''', session_user);
    EXECUTE format('ALTER ROLE %I SET local_preload_libraries = missing', session_user); END IF;
  PERFORM public.grab('closed'); RETURN true; END $$;
CREATE TABLE closes (i int CHECK (close())); INSERT INTO closes VALUES (1);
CREATE FUNCTION named(x text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
  PERFORM public.grab('text'); RETURN true; END $$;
CREATE DOMAIN own.text AS pg_catalog.text CHECK (public.named(VALUE));
CREATE TABLE looped (i int); INSERT INTO looped VALUES (1);
CREATE FUNCTION loop(looped) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  IF session_user ~ '^nc_load' THEN
    RAISE EXCEPTION E'x\\npg_restore: from TOC entry {0}; 0 0 INDEX public x lowly'; END IF;
  PERFORM public.grab('looped'); RETURN true; END $$;
ALTER TABLE looped ADD CONSTRAINT c CHECK (loop(looped));
"""


@pytest.mark.fault("code in a dump whose first load fails", "the second one is as safe")
def test_second_load(server: Postgres, tmp_path: Path) -> None:
    """Settings of the role, types on search_path, and lines that look like those of pg_restore."""
    server.sql("CREATE SCHEMA own; GRANT ALL ON SCHEMA own TO lowly", "d")
    as_lowly(server, FUNCTIONS + UNQUALIFIED + SECOND)
    file = tmp_path / "dump"
    file.write_bytes(client(server, "pg_dump", "-Fc", "d"))
    listed = subprocess.run(
        [program("pg_restore"), "--list", str(file)], capture_output=True, text=True, check=True
    ).stdout
    (entry,) = re.findall("(?m)^([0-9]+); .* CHECK CONSTRAINT ", listed)
    function = SECOND.partition("CREATE FUNCTION loop")[2].partition("ALTER TABLE")[0]
    as_lowly(server, f"CREATE OR REPLACE FUNCTION loop{function.replace('{0}', entry)}")
    dump = client(server, "pg_dump", "-Fc", "d")
    result = loaded(server, "copy", dump, search_path="public, own, pg_catalog")
    lines = [line for line in result.warnings if "properties" not in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("x: ALTER TABLE public.looped ADD CONSTRAINT c")
    assert "may have run with the privileges" not in result.message
    assert unharmed(server)


ORPHANS = """
CREATE TABLE indexed (i int PRIMARY KEY); INSERT INTO indexed VALUES (1);
CREATE INDEX ON indexed (f_index(i)); CREATE INDEX ON indexed (i) WHERE f_predicate(i) > 0;
CREATE MATERIALIZED VIEW m AS SELECT f_view(i) AS i FROM indexed;
CREATE FUNCTION definer(i int) RETURNS int SECURITY DEFINER LANGUAGE plpgsql AS $$ BEGIN
  PERFORM public.grab('definer'); RETURN i; END $$;
CREATE TABLE defined (i int CHECK (definer(i) > 0)); INSERT INTO defined VALUES (1);
CREATE MATERIALIZED VIEW large AS SELECT CASE WHEN current_setting('is_superuser') = 'on'
  THEN lo_create(0) END AS i;
"""


@pytest.mark.fault(
    "a database is restored without its roles", "exit 3, its code has no power of the restore"
)
def test_owners_that_do_not_exist(server: Postgres) -> None:
    as_lowly(server, FUNCTIONS + ORPHANS)
    dump = client(server, "pg_dump", "-Fc", "d")
    counted = "SELECT count(*), count(indexrelid) FROM pg_class LEFT JOIN pg_index ON indrelid = 0"
    counted += " WHERE relkind IN ('r', 'p', 'v', 'm', 'i', 'I') AND relnamespace = 2200"
    before = server.sql(counted, "d")
    server.sql("DROP OWNED BY lowly CASCADE", "d")
    server.sql("DROP ROLE lowly")
    try:
        result = loaded(server, "copy", dump)
        assert any("definer(integer): SECURITY INVOKER" in line for line in result.warnings)
        assert server.sql("SELECT public.definer(1); SELECT count(*) FROM m, large", "copy")
        names = "SELECT string_agg(rolname, ' ') FROM pg_roles WHERE rolname !~ '^pg_'"
        server.sql("DROP ROLE definer")  # made by the line above
        assert server.sql(names) == "postgres\n"
        assert server.sql("SELECT count(*) FROM pg_largeobject_metadata", "copy") == "0\n"
        assert server.sql(counted, "copy") == before
    finally:
        server.sql("CREATE ROLE lowly LOGIN")


@pytest.fixture
def extension(started: Postgres) -> Iterator[str]:
    """The name of an extension whose table is configured for dumps."""
    query = "SELECT setting FROM pg_config WHERE name = 'SHAREDIR'"
    folder = Path(started.sql(query).strip()) / "extension"
    files = {
        "nc_test.control": "default_version = '1'\n",
        "nc_test--1.sql": "CREATE TABLE known (i int); "
        "SELECT pg_extension_config_dump('known', '');\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    yield "nc_test"
    for name in files:
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
    for query in (
        "SELECT x, ok FROM views ORDER BY x",
        "SET enable_seqscan = off; SELECT x FROM mail WHERE valid(x) ORDER BY x",
        "SET enable_seqscan = off; SELECT x FROM mail WHERE NOT valid(x)",
    ):
        assert server.sql(query, "copy") == server.sql(query, "d")
    roles = "SELECT count(*) FROM pg_roles WHERE rolname ~ '^nc_'"
    assert server.sql(roles) == "0\n"


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
