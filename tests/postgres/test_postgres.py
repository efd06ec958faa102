"""PostgreSQL backed up and restored by whole runs: a real server, every object and row compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Postgres, documented, program
from tests.system import System

pytestmark = pytest.mark.needs("initdb", "postgres", "pg_dump")
ODD = ["two words'\"", "-x|$(id)", "line\nbreak", "ümläut a=b", "back\\s"]
OBJECTS = """\
CREATE EXTENSION IF NOT EXISTS pgcrypto;
CREATE SCHEMA s;
CREATE TABLE s.t (id BIGSERIAL PRIMARY KEY, v TEXT, b BYTEA);
INSERT INTO s.t (v, b) SELECT 'row ' || g, decode(md5(g::text), 'hex')
  FROM generate_series(1, 3000) g;
CREATE INDEX ON s.t (v);
CREATE VIEW s.v AS SELECT count(*) AS n FROM s.t;
CREATE FUNCTION s.f(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1';
CREATE TABLE cache (k TEXT); INSERT INTO cache VALUES ('a'), ('b');
CREATE TABLE secret (k INT); INSERT INTO secret VALUES (42);
SELECT lo_from_bytea(4242, '\\x0102');
GRANT SELECT ON s.t TO ro;
"""
STATE = """\
SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM s.t t;
SELECT * FROM s.v; SELECT s.f(1); SELECT encode(lo_get(4242), 'hex');
SELECT extname FROM pg_extension ORDER BY 1;
SELECT relname, relkind, relacl FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
  WHERE nspname IN ('s', 'public') ORDER BY 1, 2;
SELECT last_value FROM s.t_id_seq;
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """One for all tests of this file; each makes its own databases."""
    started = Postgres()
    started.sql("CREATE ROLE ro NOLOGIN; CREATE ROLE app LOGIN PASSWORD 'app'; GRANT ro TO app")
    yield started
    started.stop()


@pytest.fixture
def system(tmp_path: Path, server: Postgres) -> Iterator[System]:
    yield System(tmp_path)
    for name in databases(server) - {"postgres"}:
        server.sql(f"DROP DATABASE {quoted(name)}")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def databases(server: Postgres) -> set[str]:
    rows = server.sql(
        "SELECT encode(convert_to(datname, 'UTF8'), 'hex') FROM pg_database WHERE NOT datistemplate"
    )
    return {bytes.fromhex(row).decode() for row in rows.split()}


def shop(server: Postgres, name: str = "shop") -> str:
    server.sql(f"CREATE DATABASE {quoted(name)} OWNER app")
    server.sql(OBJECTS, name)
    return state(server, name)


def state(server: Postgres, name: str) -> str:
    """Every object and row."""
    return server.sql(STATE, name)


def configure(system: System, server: Postgres, stream: str = "True", **more: Any) -> None:
    sections = system.full_sections()
    del sections["FILESET"]
    section = {"ACTION": "load", "FROM": "postgres", "FILENAME": "postgres"}
    login = {"HOST": "127.0.0.1", "PORT": str(server.port), "USER": "postgres"}
    parameters = {**login, "PASSFILE": str(server.pgpass), **more}
    postgres = {**section, "CLASS": "PostgresBackup", "PARAMETERS": parameters}
    system.configure({"POSTGRES": postgres, **sections}, STREAM=stream, PARALLEL="2")


def to(server: Postgres, *more: str) -> tuple[str, ...]:
    """The words of a restore into a server."""
    login = ("--to-user", "postgres", "--to-credentials", str(server.pgpass))
    return ("--to-host", "127.0.0.1", "--to-port", str(server.port), *login, *more)


@pytest.mark.parametrize("stream", ["True", "False"])
def test_back_up_drop_restore_compare(system: System, server: Postgres, stream: str) -> None:
    before = shop(server)
    server.sql("CREATE ROLE eve LOGIN PASSWORD 'x' IN ROLE ro")
    configure(system, server, stream)
    result = system.result()
    assert result["exit_code"] == 0, result
    items = {item["name"]: item for item in system.manifest()["items"]}
    port = server.port
    assert set(items) == {f"roles@{port}", f"{port}/postgres", f"{port}/shop"}
    assert items[f"{port}/shop"]["facts"]["owner"] == "app"
    server.sql("DROP DATABASE shop")
    server.sql("DROP ROLE eve")
    text = system.restore("--restore", "latest", "--item", "shop", *to(server))
    assert "database shop: 3 tables, 3003 rows" in text
    assert state(server, "shop") == before
    owner = server.sql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'shop'")
    assert owner == "app\n"
    system.restore("--restore", "latest", "--item", f"roles@{port}", *to(server))
    assert server.sql("SELECT pg_has_role('eve', 'ro', 'member')") == "t\n"
    server.sql("DROP ROLE eve")
    assert server.password not in system.log.read_text()


def test_the_whole_run_over_what_is_there(system: System, server: Postgres) -> None:
    before = shop(server)
    configure(system, server)
    assert system.result()["exit_code"] == 0
    server.sql("DELETE FROM s.t", "shop")
    text = system.restore("--restore", "latest", *to(server), code=1)
    assert "database shop is not empty" in text
    assert server.sql("SELECT count(*) FROM s.t", "shop") == "0\n"
    system.restore("--restore", "latest", *to(server, "--overwrite"))
    assert state(server, "shop") == before
    assert databases(server) == {"postgres", "shop"}


def test_under_another_name_and_into_a_file(system: System, server: Postgres) -> None:
    before = shop(server)
    configure(system, server)
    assert system.result()["exit_code"] == 0
    arguments = ("--restore", "latest", "--item", "shop")
    system.restore(*arguments, *to(server, "--to-database", "new 'name"))
    assert state(server, "new 'name") == before
    out = system.restored("--item", "shop") / f"POSTGRES/{server.port}/shop.pgdump"
    listed = server.call(program("pg_restore"), "--list", stdin_of(out, server))
    assert b"TABLE DATA s t" in listed


def stdin_of(path: Path, server: Postgres) -> str:
    """A copy that the server's user may read."""
    copy = server.folder / "copy.pgdump"
    copy.write_bytes(path.read_bytes())
    copy.chmod(0o644)
    return str(copy)


def test_databases_with_every_odd_name(system: System, server: Postgres) -> None:
    for name in ODD:
        server.sql(f"CREATE DATABASE {quoted(name)}")
        server.sql("CREATE TABLE t (i INT); INSERT INTO t VALUES (1), (2)", name)
    configure(system, server)
    result = system.result()
    assert result["exit_code"] == 0, result
    for name in ODD:
        server.sql(f"DROP DATABASE {quoted(name)}")
    system.restore("--restore", "latest", *to(server, "--overwrite"))
    for name in ODD:
        assert server.sql("SELECT count(*) FROM t", name) == "2\n", name


def test_what_is_left_out(system: System, server: Postgres) -> None:
    shop(server)
    for name in ("not this", "test_1"):
        server.sql(f'CREATE DATABASE "{name}"')
    configure(
        system, server,
        EXCLUDE_DB=["not this", "test*"], EXCLUDE_TABLE="sec*", EXCLUDE_TABLE_DATA="public.cache",
    )  # fmt: skip
    assert system.result()["exit_code"] == 0
    assert not {"not this", "test_1"} & {
        item["name"].partition("/")[2] for item in system.manifest()["items"]
    }
    system.restore("--restore", "latest", "--item", "shop", *to(server, "--to-database", "new"))
    assert server.sql("SELECT to_regclass('secret') IS NULL", "new") == "t\n"
    assert server.sql("SELECT count(*) FROM cache", "new") == "0\n"


def test_what_belongs_to_the_database_itself(system: System, server: Postgres) -> None:
    server.sql('CREATE DATABASE "my Shop"')
    server.sql(
        """ALTER DATABASE "my Shop" SET work_mem = '64MB';
        ALTER ROLE app IN DATABASE "my Shop" SET search_path = s, public;
        REVOKE CONNECT ON DATABASE "my Shop" FROM PUBLIC;
        GRANT CONNECT ON DATABASE "my Shop" TO app;
        COMMENT ON DATABASE "my Shop" IS 'one
        DATABASE two'; CREATE TABLE t (i INT)"""
    )
    query = (
        "SELECT (SELECT array_agg(one::text ORDER BY one::text) FROM unnest(datacl) one), "
        "shobj_description(oid, 'pg_database'), (SELECT array_agg(setconfig::text "
        "ORDER BY setconfig::text) FROM pg_db_role_setting WHERE setdatabase = oid) "
        "FROM pg_database WHERE datname = '{}'"
    )
    before = server.sql(query.format("my Shop"))
    assert "work_mem=64MB" in before
    configure(system, server)
    assert system.result()["exit_code"] == 0
    server.sql('DROP DATABASE "my Shop"; DROP TABLE t')
    arguments = ("--restore", "latest", "--item", "my Shop", *to(server))
    system.restore(*arguments)
    assert server.sql(query.format("my Shop")) == before
    system.restore(*arguments, "--to-database", "copy")
    assert server.sql(query.format("copy")) == before
    server.sql('DROP DATABASE "my Shop"; DROP DATABASE copy; DROP ROLE app')
    assert 'role "app" does not exist' in system.restore(*arguments, code=3)
    server.sql("CREATE ROLE app LOGIN PASSWORD 'app'; GRANT ro TO app")


def test_a_database_that_ends_what_takes_long(system: System, server: Postgres) -> None:
    server.sql("CREATE DATABASE slow")
    server.sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 2000000) g", "slow")
    server.sql("ALTER DATABASE slow SET statement_timeout = '30ms'")
    with pytest.raises(AssertionError, match="statement timeout"):
        server.sql("SELECT count(*) FROM t", "slow")
    configure(system, server)
    assert system.result()["exit_code"] == 0
    server.sql("DROP DATABASE slow")
    server.sql("ALTER ROLE postgres SET default_transaction_read_only = on")
    text = system.restore("--restore", "latest", "--item", "slow", *to(server))
    server.sql(
        "SET default_transaction_read_only = off; "
        "ALTER ROLE postgres RESET default_transaction_read_only"
    )
    assert "database slow: 1 table, 2000000 rows" in text
    assert "statement_timeout=30ms" in server.sql("SELECT setconfig FROM pg_db_role_setting")


@pytest.mark.parametrize(
    ("encoding", "raw"), [("LATIN1", "fc"), ("SQL_ASCII", "fc"), ("UTF8", "c3bc")]
)
def test_other_encodings(system: System, server: Postgres, encoding: str, raw: str) -> None:
    how = f"TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    server.sql(f"CREATE DATABASE old {how}")
    server.sql(
        "DO $$ BEGIN EXECUTE format('CREATE TABLE %I AS SELECT 1 AS n', "
        f"convert_from('\\x{raw}', '{encoding}')); END $$",
        "old",
    )
    if encoding == "UTF8":  # the name is not in SJIS
        server.sql("ALTER DATABASE old SET client_encoding = 'SJIS'")
    configure(system, server)
    assert system.result()["exit_code"] == 0
    server.sql("DROP DATABASE old")
    text = system.restore("--restore", "latest", "--item", "old", *to(server))
    server.sql("ALTER DATABASE old RESET client_encoding")
    assert "database old: 1 table, 1 row" in text
    query = "SELECT encode(textsend(tablename::text), 'hex') FROM pg_tables "
    assert server.sql(f"{query} WHERE schemaname = 'public'", "old") == f"{raw}\n"


@pytest.mark.fault("a PostgreSQL server that is down", "exit 1 with the client's words")
def test_a_server_that_is_down(system: System, server: Postgres) -> None:
    configure(system, server, PORT="1")
    result = system.result()
    assert result["exit_code"] == 1
    assert "Connection refused" in json.dumps(result)
    assert system.stored() == []


@pytest.mark.fault("the wrong password of PostgreSQL", "exit 1, the password never shown")
def test_a_wrong_password(system: System, server: Postgres) -> None:
    wrong = server.folder / "wrong"
    wrong.write_text(f"127.0.0.1:{server.port}:*:postgres:not the password\n")
    wrong.chmod(0o600)
    configure(system, server, PASSFILE=str(wrong))
    result = system.result()
    assert result["exit_code"] == 1
    assert "password authentication failed" in json.dumps(result)
    assert "not the password" not in json.dumps(result) + system.log.read_text()


@pytest.mark.fault("a role that may not read large objects", "exit 1, though the dump looks whole")
def test_a_missing_privilege(system: System, server: Postgres) -> None:
    shop(server)
    server.sql(documented("postgres"))
    few = server.folder / "few"
    few.write_text(f"127.0.0.1:{server.port}:*:ncbackup:PASSWORD\n")
    few.chmod(0o600)
    configure(system, server, USER="ncbackup", PASSFILE=str(few))
    result = system.result()
    assert result["exit_code"] == 1
    assert "permission denied" in json.dumps(result)
    assert not [name for name in system.stored() if "shop" in name]
    server.sql("SELECT lo_unlink(4242)", "shop")
    assert system.result()["exit_code"] == 0  # the documented role is enough for all else
    server.sql("DROP ROLE ncbackup")


def double(system: System, script: str, version: str = "pg_dump (PostgreSQL) 99.0") -> str:
    """A pg_dump that misbehaves."""
    real = program("pg_dump")
    path = system.folder / "pg_dump"
    path.write_text(
        f'#!/bin/bash\n[ "$1" = --version ] && echo "{version}" && exit\n'
        + script.replace("REAL", real)
        + "\n"
    )
    path.chmod(0o755)
    return str(path)


@pytest.mark.fault("a client that is older than the server", "exit 1, both versions named")
def test_an_old_client_is_refused(system: System, server: Postgres) -> None:
    configure(system, server, PSQLDUMP=double(system, "exit 0", "pg_dump (PostgreSQL) 9.6.1"))
    result = system.result()
    assert result["exit_code"] == 1
    assert "newer than pg_dump (PostgreSQL) 9.6.1" in result["sections"][0]["message"]


@pytest.mark.fault("a backend ended while it is dumped", "exit 1, nothing of it visible")
def test_a_dump_that_is_cut(system: System, server: Postgres) -> None:
    shop(server)
    configure(system, server, PSQLDUMP=double(system, 'REAL "$@" | head -c 5000; exit 1'))
    result = system.result()
    assert result["exit_code"] == 1
    assert not [name for name in system.stored() if "shop" in name]


@pytest.mark.fault("a custom-format dump that is cut, exit code 0", "exit 1, nothing visible")
@pytest.mark.parametrize("size", [0, 5, 20000, 100000])
def test_a_cut_dump_with_exit_code_0(system: System, server: Postgres, size: int) -> None:
    """Half of one still has a good list (pg_restore -l)."""
    shop(server)
    configure(system, server, PSQLDUMP=double(system, f'REAL "$@" | head -c {size}; exit 0'))
    result = system.result()
    assert result["exit_code"] == 1
    assert "incomplete dump" in json.dumps(result)
    assert not [name for name in system.stored() if "shop" in name]


@pytest.mark.fault("damage in a dump that goes into PostgreSQL", "the new database is gone again")
def test_damage_leaves_no_database(system: System, server: Postgres) -> None:
    shop(server)
    configure(system, server)
    assert system.result()["exit_code"] == 0
    (part,) = (system.store / "srv-test").glob("*shop*.000")
    raw = bytearray(part.read_bytes())
    raw[-1] ^= 1
    part.write_bytes(raw)
    arguments = ("--restore", "latest", "--item", "shop", *to(server, "--to-database", "new"))
    assert "differs from what was stored" in system.restore(*arguments, code=1)
    assert databases(server) == {"postgres", "shop"}


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"PORT": "x"}, "PORT: 'x' is not a list of ports"),
        ({"PASSFILE": "/does/not/exist"}, "PASSFILE: /does/not/exist: no such file"),
        ({"EXCLUDE_DBS": "x"}, "EXCLUDE_DB"),
    ],
)
def test_bad_input(system: System, server: Postgres, parameters: dict[str, str], says: str) -> None:
    configure(system, server, **parameters)
    done = system.run("-r")
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_it_tests_without_a_change(system: System, server: Postgres) -> None:
    configure(system, server)
    done = system.run("-t")
    assert done.returncode == 0, done.stderr
    assert f"port {server.port}: PostgreSQL" in done.stdout
