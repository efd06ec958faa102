"""Restores of databases that cannot come back whole: rows always, and every other object named."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres.test_postgres import configure, databases, to
from tests.servers import Postgres, program
from tests.system import System

pytestmark = pytest.mark.needs("initdb", "postgres", "pg_dump")
ITEM = ("--restore", "latest", "--item", "shop")
VIOLATED = """\
CREATE TABLE customer (id int PRIMARY KEY);
CREATE TABLE "Order's" (id int PRIMARY KEY, c int CONSTRAINT "buys ""it" REFERENCES customer
  ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED);
COMMENT ON CONSTRAINT "buys ""it" ON "Order's" IS 'who''s';
CREATE TABLE part (id int, day date, c int REFERENCES customer) PARTITION BY RANGE (day);
CREATE TABLE part1 PARTITION OF part FOR VALUES FROM ('2020-01-01') TO ('2030-01-01');
INSERT INTO customer VALUES (1); INSERT INTO "Order's" VALUES (1, 1);
SET session_replication_role = replica;
INSERT INTO "Order's" VALUES (2, 99); INSERT INTO part VALUES (1, '2025-05-05', 98);
"""
UNQUALIFIED = """\
CREATE SCHEMA s; CREATE TABLE s.kind (k text PRIMARY KEY); INSERT INTO s.kind VALUES ('a');
ALTER DATABASE shop SET search_path = s, public; SET search_path = s, public;
CREATE FUNCTION known(x text) RETURNS bool LANGUAGE sql STABLE
  AS 'SELECT EXISTS (SELECT 1 FROM kind WHERE k = x)';
CREATE FUNCTION twice(x text) RETURNS text LANGUAGE plpgsql IMMUTABLE
  AS 'BEGIN RETURN (SELECT max(k) FROM kind) || x; END';
CREATE DOMAIN kinds AS text CONSTRAINT among CHECK (known(VALUE));
CREATE TABLE goods (id int, k text CONSTRAINT knows CHECK (known(k)), d kinds);
COMMENT ON CONSTRAINT knows ON goods IS 'why'; COMMENT ON CONSTRAINT among ON DOMAIN kinds IS 'too';
CREATE TABLE child (more int) INHERITS (goods);
INSERT INTO goods VALUES (1, 'a', 'a'); INSERT INTO child VALUES (2, 'a', 'a', 3);
CREATE INDEX i ON goods (twice(k));
CREATE MATERIALIZED VIEW m AS SELECT twice(k) AS t FROM goods;
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    started = Postgres()
    yield started
    started.stop()


@pytest.fixture
def system(tmp_path: Path, server: Postgres) -> Iterator[System]:
    server.sql("CREATE DATABASE shop")
    yield System(tmp_path)
    for name in databases(server) - {"postgres"}:
        server.sql(f'DROP DATABASE "{name}"')


def backed_up(system: System, server: Postgres, statements: str, code: int = 0) -> None:
    """A run with this in the database shop, which is dropped then."""
    server.sql(statements, "shop")
    configure(system, server)
    result = system.result()
    assert result["exit_code"] == code, result


def dumped(server: Postgres, name: str = "shop") -> str:
    """The whole schema and all rows as pg_dump has them."""
    where = ("-h", str(server.folder), "-p", str(server.port), "-U", "postgres", name)
    text = server.call(program("pg_dump"), *where).decode()
    return "\n".join(line for line in text.split("\n") if "restrict " not in line)


@pytest.mark.fault("a foreign key that rows violate", "exit 3, all rows, the key NOT VALID, named")
def test_foreign_keys_that_rows_violate(system: System, server: Postgres) -> None:
    """Issue 11 B [07]: all rows are there, the key is NOT VALID, named, exit 3."""
    backed_up(system, server, VIOLATED)
    before = dumped(server)
    text = system.restore(*ITEM, *to(server, "--overwrite"), code=3)
    assert """foreign key buys "it of public."Order's" is now NOT VALID""" in text
    assert "part_c_fkey" in text  # PostgreSQL 15 has none of that kind on partitioned tables
    valid = "DEFERRABLE INITIALLY DEFERRED"
    lines = [line for line in before.split("\n") if "part_c_fkey" not in line]
    after = [line for line in dumped(server).split("\n") if "part_c_fkey" not in line]
    changed = [line for line in after if line not in lines]
    assert next(line.strip() for line in changed if valid in line).endswith(f"{valid} NOT VALID;")
    assert 'COMMENT ON CONSTRAINT "buys ""it" ON public."Order\'s" IS \'who\'\'s\';' in after
    assert server.sql('SELECT count(*) FROM "Order\'s"', "shop") == "2\n"
    assert databases(server) == {"postgres", "shop"}


@pytest.mark.parametrize("owner", ["", "ALTER FUNCTION s.known OWNER TO clerk;"])
def test_functions_that_name_tables_without_schema(
    system: System, server: Postgres, owner: str
) -> None:
    """Issue 11 B [08]: CHECKs, domains, indexes and views that call them come back equal."""
    if owner:
        server.sql("CREATE ROLE clerk")
    backed_up(system, server, UNQUALIFIED + owner)
    before = dumped(server)
    server.sql("DROP DATABASE shop")
    text = system.restore(*ITEM, *to(server))
    assert ", 2 rows" not in text
    assert dumped(server) == before
    assert server.sql("TABLE m; SELECT count(*) FROM s.goods", "shop") == "aa\naa\n2\n"
    if owner:
        server.sql("DROP DATABASE shop; DROP ROLE clerk")


@pytest.mark.fault("rows that a CHECK rejects now", "exit 3, all rows, the constraint NOT VALID")
def test_rows_that_violate_checks(system: System, server: Postgres) -> None:
    """Issue 11 B, kin of [07]: a CHECK whose function was changed, of a table and of a domain."""
    backed_up(
        system,
        server,
        """CREATE FUNCTION small(i int) RETURNS bool LANGUAGE sql AS 'SELECT i < 100';
        CREATE DOMAIN few AS int CHECK (small(VALUE));
        CREATE TABLE t (i int CONSTRAINT c CHECK (small(i)), f few); CREATE TABLE u (i int);
        INSERT INTO t VALUES (50, 50), (1, 1); INSERT INTO u VALUES (7);
        CREATE OR REPLACE FUNCTION small(i int) RETURNS bool LANGUAGE sql AS 'SELECT i < 10';""",
    )
    server.sql("DROP DATABASE shop")
    text = system.restore(*ITEM, *to(server), code=3)
    assert "constraint c of public.t is now NOT VALID" in text
    assert "constraint few_check of public.few" in text
    assert server.sql("SELECT i, f FROM t ORDER BY i; TABLE u", "shop") == "1|1\n50|50\n7\n"
    query = "SELECT convalidated FROM pg_constraint WHERE conname IN ('c', 'few_check')"
    assert server.sql(query, "shop") == "f\nf\n"
    assert server.sql("SELECT count(*) FROM pg_namespace WHERE nspname ~ '^nc_'", "shop") == "0\n"


@pytest.mark.fault("objects that the server rejects", "exit 3, each is named; every row is there")
def test_every_kind_after_the_rows(system: System, server: Postgres) -> None:
    """Issue 11 B [09]: each object that fails after the rows is left out and named."""
    port = server.port
    backed_up(
        system,
        server,
        f"""CREATE TABLE t (id int, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b');
        CREATE EXTENSION postgres_fdw;
        CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw
          OPTIONS (host '127.0.0.1', port '{port}', dbname 'far');
        CREATE USER MAPPING FOR postgres SERVER far
          OPTIONS (user 'postgres', password '{server.password.replace(chr(92), chr(92) * 2)}');
        CREATE FOREIGN TABLE rates (r int) SERVER far OPTIONS (table_name 'rates');
        CREATE DATABASE far;
        """,
    )
    server.sql("CREATE TABLE rates (r int)", "far")
    server.sql(
        """CREATE MATERIALIZED VIEW m AS SELECT * FROM rates WITH NO DATA;
        UPDATE pg_class SET relispopulated = true WHERE relname = 'm';
        CREATE FUNCTION f(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
        CREATE INDEX bad ON t (f(id));
        CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE plpgsql IMMUTABLE
          AS 'BEGIN RAISE ''no''; END';""",
        "shop",
    )
    assert system.result()["exit_code"] == 0
    server.sql("DROP DATABASE far")
    server.sql("DROP DATABASE shop")
    text = system.restore("--restore", "latest", "--item", f"{port}/shop", *to(server), code=3)
    assert "REFRESH MATERIALIZED VIEW public.m" in text
    assert "no: CREATE INDEX bad ON public.t" in text
    assert server.sql("SELECT count(*) FROM t", "shop") == "2\n"


@pytest.fixture
def library() -> Iterator[str]:
    """The name of a library that the server can load."""
    folder = Path(program("postgres")).resolve().parents[1] / "lib"
    path = folder / "nc_test_audit.so"
    shutil.copy(folder / "auto_explain.so", path)
    yield "nc_test_audit"
    path.unlink(missing_ok=True)


@pytest.mark.needs("root")
@pytest.mark.fault("settings that prevent connections", "exit 3, left out and named")
def test_settings_that_prevent_connections(system: System, server: Postgres, library: str) -> None:
    """Issue 11 B [13 22]: the setting is left out and named, and the database can be used."""
    server.sql("CREATE ROLE clerk LOGIN")
    backed_up(
        system,
        server,
        f"""CREATE TABLE t (id int); INSERT INTO t VALUES (1);
        ALTER DATABASE shop SET session_preload_libraries = plpgsql, {library};
        ALTER DATABASE shop SET work_mem = '8MB';
        ALTER ROLE clerk SET session_preload_libraries = {library};
        ALTER ROLE clerk IN DATABASE shop SET session_preload_libraries = {library}""",
    )
    server.sql("DROP DATABASE shop; DROP ROLE clerk")
    folder = Path(program("postgres")).resolve().parents[1] / "lib"
    (folder / f"{library}.so").unlink()
    server.sql("CREATE DATABASE shop")
    server.sql("CREATE TABLE precious (i int)", "shop")
    text = system.restore("--restore", "latest", *to(server, "--overwrite"), code=3)
    assert text.count(f'could not access file "{library}"') == 2  # that of the role once
    assert "setting session_preload_libraries=plpgsql" in text
    assert "of role clerk" in text
    assert server.sql("TABLE t; SHOW work_mem", "shop") == "1\n8MB\n"
    assert server.sql("SELECT count(*) FROM pg_db_role_setting") == "1\n"
    server.sql("DROP ROLE clerk")


@pytest.mark.fault("an overwrite that fails at its end", "exit 1, the old database as it was")
def test_what_is_there_stays_until_the_new_one_opens(system: System, server: Postgres) -> None:
    """Issue 11 B [22]: the old database is dropped only after the new one can be used."""
    backed_up(system, server, "CREATE TABLE t (id int)")
    server.sql("ALTER TABLE t RENAME TO precious", "shop")
    server.sql("ALTER DATABASE shop CONNECTION LIMIT 7")  # not in the dump
    broken = system.folder / "psql"
    broken.write_text(
        '#!/bin/bash\n[[ "$*" == *"command=SELECT 1" ]] && [[ "$*" == *shop* ]] && '
        'echo "FATAL:  no" >&2 && exit 2\n'
        f'exec {program("psql")} "$@"\n'
    )
    broken.chmod(0o755)
    configure(system, server, PSQL=str(broken))
    text = system.restore(*ITEM, *to(server, "--overwrite"), code=1)
    assert "cannot connect to the restored database shop" in text
    assert server.sql("TABLE precious", "shop") == ""
    limit = "SELECT datconnlimit FROM pg_database WHERE datname = 'shop'"
    assert server.sql(limit) == "7\n"
    assert databases(server) == {"postgres", "shop"}
