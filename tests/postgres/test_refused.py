"""What a server refuses of a dump: left out and said, unless rows would be lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from postgres import restore_errors
from tests.postgres.test_postgres import configure, to
from tests.servers import Postgres
from tests.system import System
from tools.base.errors import StoreError

SCHEMA = """\
CREATE TABLE t (id serial PRIMARY KEY, v text); INSERT INTO t (v) VALUES ('a'), ('b');
ALTER TABLE t OWNER TO clerk; GRANT SELECT ON t TO boss;
CREATE POLICY p ON t TO boss USING (true); CREATE INDEX i ON t (v);
CREATE FUNCTION total() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM public.t';
CREATE MATERIALIZED VIEW m AS SELECT total() AS n;
CREATE OR REPLACE FUNCTION total() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM t';
SELECT lo_from_bytea(4711, 'abc');
"""
ROWS = "SELECT id, v FROM t ORDER BY id; SELECT nextval('t_id_seq'); SELECT lo_get(4711)"


@pytest.fixture
def server() -> Iterator[Postgres]:
    started = Postgres()
    started.sql("CREATE ROLE clerk; CREATE ROLE boss; CREATE DATABASE app")
    started.sql(SCHEMA, "app")
    yield started
    started.stop()


@pytest.fixture
def other() -> Iterator[Postgres]:
    """A server without these roles."""
    started = Postgres()
    yield started
    started.stop()


def databases(server: Postgres) -> str:
    return server.sql("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1")


@pytest.mark.needs("initdb", "postgres", "pg_dump")
@pytest.mark.fault("roles that the server lacks", "exit 3, each is named; every row is there")
def test_without_the_roles(system: System, server: Postgres, other: Postgres) -> None:
    configure(system, server)
    assert system.result()["exit_code"] == 0
    text = system.restore("--restore", "latest", "--item", "app", *to(other), code=3)
    assert 'role "clerk" does not exist: ALTER TABLE public.t OWNER TO clerk; and 1 more' in text
    assert 'role "boss" does not exist: CREATE POLICY p ON public.t TO boss' in text
    assert 'relation "t" does not exist: REFRESH MATERIALIZED VIEW public.m;' in text
    assert "Restore the roles first (--item roles@PORT)" in text
    assert other.sql(ROWS, "app") == server.sql(ROWS, "app")
    assert other.sql("SELECT to_regclass('i')", "app") == "i\n"
    text = system.restore("--restore", "latest", *to(other, "--overwrite"), code=3)
    assert "clerk" not in text
    assert "REFRESH MATERIALIZED VIEW" in text


@pytest.mark.needs("initdb", "postgres", "pg_dump")
def test_by_a_role_that_may_little(system: System, server: Postgres, other: Postgres) -> None:
    """As on servers that somebody else keeps."""
    configure(system, server)
    assert system.result()["exit_code"] == 0
    other.sql("CREATE ROLE low LOGIN CREATEDB PASSWORD 'low'")
    other.pgpass.write_text(f"127.0.0.1:{other.port}:*:low:low\n")
    where = ("--to-host", "127.0.0.1", "--to-port", str(other.port), "--to-user", "low")
    arguments = ("--item", "app", *where, "--to-credentials", str(other.pgpass))
    text = system.restore("--restore", "latest", *arguments, code=3)
    assert "owner postgres not set" in text
    assert other.sql(ROWS, "app") == server.sql(ROWS, "app")
    assert databases(other) == "app\npostgres\n"


@pytest.mark.needs("initdb", "postgres", "pg_dump")
@pytest.mark.fault("rows that the server refuses", "exit 1, the table is named, nothing is left")
def test_no_row_is_lost(system: System, server: Postgres, other: Postgres) -> None:
    server.sql(
        """CREATE FUNCTION one(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE
        AS 'BEGIN RETURN 1; END';
        CREATE TABLE checked (i int, j int GENERATED ALWAYS AS (one(i)) STORED);
        INSERT INTO checked VALUES (1);
        CREATE OR REPLACE FUNCTION one(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE
        AS 'BEGIN RAISE ''no one''; END'""",
        "app",
    )
    configure(system, server)
    assert system.result()["exit_code"] == 0
    text = system.restore("--restore", "latest", *to(other, "--overwrite"), code=1)
    assert 'COPY failed for table "checked"' in text
    assert "restore the dump to a file (--destination)" in text
    assert databases(other) == "postgres\n"


ERROR = "pg_restore: error: could not execute query: ERROR:  "
FOREIGN = [
    "pg_restore: while PROCESSING TOC:",
    "pg_restore: from TOC entry 3209; 2606 16395 FK CONSTRAINT orders orders_c_fkey postgres",
    f"{ERROR}rows violate it",
    "DETAIL:  Key (c)=(99) is not present.",
    "Command was: ALTER TABLE ONLY public.orders",
    "    ADD CONSTRAINT orders_c_fkey FOREIGN KEY (c) REFERENCES public.customer(id);",
]


def took(*lines: str) -> Any:
    errors = restore_errors.RestoreErrors()
    for line in lines:
        errors.take(line)
    return errors


@pytest.mark.parametrize(
    "lines",
    [
        [f'{ERROR}relation "t" does not exist', "Command was: COPY public.t (i) FROM stdin;"],
        [f'{ERROR}type "public.geometry" does not exist', "Command was: CREATE TABLE public.t ("],
        [f'{ERROR}relation "s" does not exist', "Command was: SELECT pg_catalog.setval('s', 3);"],
        [f"{ERROR}permission denied", "Command was: SELECT pg_catalog.lo_create('4711');"],
        [f"{ERROR}could not extend file: No space left on device", "Command was: CREATE INDEX i"],
        ['pg_restore: error: COPY failed for table "t": ERROR:  type "x" does not exist'],
        ["pg_restore: error: no connection to the server"],
        ["pg_restore: error: could not execute query: no connection to the server"],
        [f"{ERROR[:-8]}FATAL:  terminating connection", "Command was: CREATE INDEX i"],
        [f"{ERROR}invalid value for it", "Command was: SET client_encoding = 'X';"],
    ],
)
def test_what_cannot_be_left_out(lines: list[str]) -> None:
    with pytest.raises(StoreError, match="pg_restore: part of the dump was not restored"):
        list(took(*lines).guard([b"more"]))


def test_what_can() -> None:
    one = [f'{ERROR}role "r" does not exist', "Command was: GRANT SELECT ON t TO r;", ""]
    two = [f'{ERROR}extension "x" is not available', "DETAIL:  D", "HINT:  H"]
    two += ["Command was: CREATE EXTENSION x;"]
    three = [f'{ERROR}role "s" does not exist']
    three += ["Command was: CREATE SUBSCRIPTION u CONNECTION 'host=h password=secret';"]
    errors = took(*one, *one, *two, *three)
    assert list(errors.guard([b"more"])) == [b"more"]
    assert errors.warnings() == (
        'role "r" does not exist: GRANT SELECT ON t TO r; and 1 more',
        'extension "x" is not available: CREATE EXTENSION x;',
        'role "s" does not exist: CREATE SUBSCRIPTION u CONNECTION ',
    )


def test_each_object_is_named() -> None:
    """Issue 11 B [07]: whatever the server says, in whatever language; no key of a row is shown."""
    errors = took(*FOREIGN, f"{ERROR[:-8]}FEHLER:  nein", "Command was: CREATE INDEX i ON t (v);")
    errors.raise_on_data_loss()
    assert next((one.entry, one.entry_label) for one in errors.left_out) == (
        "3209",
        "FK CONSTRAINT orders orders_c_fkey postgres",
    )
    one, two = errors.warnings()
    assert one.startswith("rows violate it: ALTER TABLE ONLY public.orders ADD CONSTRAINT orders_c")
    assert two == "nein: CREATE INDEX i ON t (v);"
    assert "99" not in one


@pytest.mark.parametrize(("ignored", "good"), [("4", False), ("1", True), ("", False)])
def test_its_own_count_must_be_ours(ignored: str, good: bool) -> None:
    one = [f'{ERROR}role "r" does not exist', "Command was: GRANT SELECT ON t TO r;"]
    last = f"pg_restore: warning: errors ignored on restore: {ignored}"
    assert took(*one, last).completed(1) is good
