"""What a dump of PostgreSQL leaves out by itself is named in each run, and found by -t."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postgres import settings
from tests.postgres.test_postgres import configure, databases, to
from tests.servers import Postgres, documented
from tests.system import System

pytestmark = pytest.mark.needs("initdb", "postgres", "pg_dump")

HIDDEN = """\
CREATE TABLE t (id int); CREATE EXTENSION postgres_fdw;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1');
CREATE USER MAPPING FOR postgres SERVER far OPTIONS (user 'remote', password 'geheim');
CREATE FOREIGN TABLE rates (r int) SERVER far;
"""


@pytest.fixture
def server() -> Iterator[Postgres]:
    started = Postgres()
    started.sql("CREATE DATABASE shop")
    yield started
    started.stop()


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def as_documented(system: System, server: Postgres, role: str = "") -> None:
    """A config whose role is the one of the page, or another."""
    server.sql(role or documented("postgres"))
    few = server.folder / "few"
    few.write_text(f"127.0.0.1:{server.port}:*:ncbackup:PASSWORD\n")
    few.chmod(0o600)
    configure(system, server, USER="ncbackup", PASSFILE=str(few))


def item(system: System, name: str) -> dict[str, Any]:
    """What the newest manifest has of an item."""
    path = max((system.store / "srv-test").glob("*.manifest.json"))
    items = json.loads(path.read_text())["items"]
    entry: dict[str, Any] = next(one for one in items if one["name"].endswith(name))
    return entry


def test_what_is_hidden_from_the_role(system: System, server: Postgres) -> None:
    """Issue 11 A6 [10]: user mappings and subscriptions that pg_dump leaves out are warnings."""
    server.sql(HIDDEN, "shop")
    server.sql("CREATE SUBSCRIPTION sub CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false)")
    as_documented(system, server)
    result = system.result()
    assert result["exit_code"] == 3
    assert item(system, "/shop")["warnings"] == [
        "options and passwords of user mappings not in the dump: postgres@far: "
        "permission denied for ncbackup"
    ]
    assert item(system, "/postgres")["warnings"] == [
        "subscriptions not in the dump: sub: ncbackup is not a superuser"
    ]
    assert item(system, "/shop")["notes"] == [
        "rows of foreign tables not in the dump: public.rates: they are on other servers"
    ]
    tested = system.run("-t")
    assert tested.returncode == 0
    assert "subscriptions not in the dump: sub" in tested.stderr
    configure(system, server)
    assert system.result()["exit_code"] == 0  # a superuser sees them all
    server.sql("ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub")


def test_templates_are_items(system: System, server: Postgres) -> None:
    """Issue 11 A6 [11]: a template of the user's own, and a template1 that holds something."""
    server.sql("CREATE DATABASE golden IS_TEMPLATE true")
    server.sql("CREATE TABLE t (id int); INSERT INTO t VALUES (1)", "golden")
    server.sql("CREATE EXTENSION pgcrypto", "template1")
    configure(system, server)
    assert system.result()["exit_code"] == 0
    server.sql("ALTER DATABASE golden IS_TEMPLATE false")
    server.sql("DROP DATABASE golden")
    server.sql("DROP EXTENSION pgcrypto", "template1")
    system.restore("--restore", "latest", *to(server, "--overwrite"))
    query = "SELECT datname FROM pg_database WHERE datistemplate ORDER BY 1"
    assert server.sql(query) == "golden\ntemplate0\ntemplate1\n"
    assert server.sql("TABLE t", "golden") == "1\n"
    assert server.sql("SELECT extname FROM pg_extension", "template1") == "plpgsql\npgcrypto\n"
    system.restore("--restore", "latest", *to(server, "--overwrite"))  # over a template
    assert databases(server) == {"postgres", "shop"}


def test_databases_that_are_closed(system: System, server: Postgres) -> None:
    """Issue 11 A6: a database that takes no connections is a warning, unless it is excluded."""
    server.sql("CREATE DATABASE closed ALLOW_CONNECTIONS false")
    configure(system, server)
    assert system.result()["exit_code"] == 3
    (warning,) = item(system, f"roles@{server.port}")["warnings"]
    assert "database closed: not in the backup: it allows no connections" in warning
    assert "pg_hba.conf" in item(system, f"roles@{server.port}")["notes"][0]
    assert "database closed: not in the backup" in system.run("-t").stderr
    configure(system, server, EXCLUDE_DB="clos*")
    assert system.result()["exit_code"] == 0


def test_settings_of_all_roles(system: System, server: Postgres) -> None:
    """Issue 11 A6: ALTER ROLE ALL is in no dump of pg_dumpall, and comes back all the same."""
    server.sql("ALTER ROLE ALL SET work_mem = '8MB'")
    server.sql('ALTER ROLE ALL SET search_path = "odd, one", public')
    server.sql("ALTER ROLE ALL SET my.text = 'it''s \\ one'")
    query = "SELECT setconfig FROM pg_db_role_setting WHERE setrole = 0 AND setdatabase = 0"
    before = server.sql(query)
    configure(system, server)
    assert system.result()["exit_code"] == 0
    server.sql("ALTER ROLE ALL RESET ALL")
    roles = f"roles@{server.port}"
    system.restore("--restore", "latest", "--item", roles, *to(server))
    assert sorted(server.sql(query)) == sorted(before)
    assert item(system, roles)["warnings"] == []


@pytest.mark.parametrize(
    ("value", "entries"),
    [
        ("", []),
        ('""', [""]),
        ('"$user", public', ["$user", "public"]),
        ('"a, b", "c""d",e', ["a, b", 'c"d', "e"]),
    ],
)
def test_lists_of_settings(value: str, entries: list[str]) -> None:
    assert settings.list_entries(value) == entries


@pytest.mark.fault("row-level security hides rows from the role", "exit 1, and -t: ... BYPASSRLS")
def test_row_level_security(system: System, server: Postgres) -> None:
    """Issue 11 B [25] and A11: the line to give, in -r and beforehand in -t."""
    server.sql("CREATE TABLE t (id int); ALTER TABLE t ENABLE ROW LEVEL SECURITY", "shop")
    as_documented(system, server)
    result = system.result()
    assert result["exit_code"] == 1
    assert "ALTER ROLE ncbackup BYPASSRLS;" in json.dumps(result)
    tested = system.run("-t")
    assert tested.returncode == 1
    text = tested.stdout + tested.stderr
    assert "row-level security hides rows of public.t from ncbackup" in text
    server.sql("ALTER ROLE ncbackup BYPASSRLS")
    assert system.run("-t").returncode == 0
    assert system.result()["exit_code"] == 0


@pytest.mark.fault("a role that may not read passwords", "exit 3, the roles without them, named")
def test_a_role_that_may_little(system: System, server: Postgres) -> None:
    """Issue 11 A6 and A11: passwords that cannot be read; tables and large objects, in -t."""
    server.sql("CREATE TABLE t (id int); SELECT lo_from_bytea(4711, 'abc')", "shop")
    as_documented(system, server, "CREATE ROLE ncbackup LOGIN PASSWORD 'PASSWORD'")
    assert system.result()["exit_code"] == 1
    tested = system.run("-t")
    text = tested.stdout + tested.stderr
    assert "permission denied for ncbackup on public.t" in text
    assert "GRANT pg_read_all_data TO ncbackup;" in text
    assert "permission denied for ncbackup on 1 large object" in text
    server.sql("DROP TABLE t; SELECT lo_unlink(4711)", "shop")
    result = system.result()
    assert result["exit_code"] == 3
    (warning,) = item(system, f"roles@{server.port}")["warnings"]
    assert warning.startswith("passwords of roles not in the backup")


def test_without_a_database_called_postgres(system: System, server: Postgres) -> None:
    """Issue 11 B: another database is asked then, at backup and at restore."""
    server.sql("CREATE TABLE t (id int); INSERT INTO t VALUES (1)", "shop")
    server.sql("DROP DATABASE postgres", "shop")
    configure(system, server)
    assert system.result()["exit_code"] == 0
    system.restore("--restore", "latest", *to(server, "--overwrite"))
    assert server.sql("TABLE t", "shop") == "1\n"
    server.sql("CREATE DATABASE postgres", "shop")


@pytest.mark.fault("a psql that prints additional lines", "exit 1, the line named, no traceback")
def test_a_psql_that_prints_more(system: System, server: Postgres) -> None:
    """TRIALS W11: what psql prints is checked before it is used."""
    odd = system.folder / "psql"
    odd.write_text('#!/bin/bash\necho "Pager usage is off."\nexec /usr/bin/psql "$@"\n')
    odd.chmod(0o755)
    configure(system, server, PSQL=str(odd))
    result = system.result()
    assert result["exit_code"] == 1
    assert "unexpected output" in json.dumps(result)
    assert "crashed" not in json.dumps(result)
