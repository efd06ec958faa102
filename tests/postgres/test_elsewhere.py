"""PostgreSQL on a server that lacks something, or has its own: tablespaces, locales, passwords."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres.test_postgres import configure, to
from tests.restore.test_drill import drill, section
from tests.servers import Postgres
from tests.system import System

pytestmark = pytest.mark.needs("initdb", "postgres", "pg_dump")

SCHEMA = """\
CREATE DATABASE app TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-u-kn' TABLESPACE fast;
"""
TABLES = """\
CREATE TABLE t AS SELECT g::text AS n FROM generate_series(1, 100) g;
CREATE TABLE slow (i int) TABLESPACE slow;
"""
ABOUT = """\
SELECT datlocprovider, coalesce(row_to_json(d)->>'daticulocale', row_to_json(d)->>'datlocale'),
  datcollate, (SELECT spcname FROM pg_tablespace t WHERE t.oid = dattablespace)
  FROM pg_database d WHERE datname = 'app'
"""


@pytest.fixture
def server() -> Iterator[Postgres]:
    """With two tablespaces and a database that uses them."""
    started = Postgres()
    for name in ("fast", "slow"):
        started.call("/bin/mkdir", str(started.folder / name))
        started.sql(f"CREATE TABLESPACE {name} LOCATION '{started.folder}/{name}'")
    started.sql(SCHEMA)
    started.sql("CREATE ROLE clerk; GRANT CREATE ON TABLESPACE slow TO clerk")
    started.sql(TABLES, "app")
    yield started
    started.stop()


@pytest.fixture
def other() -> Iterator[Postgres]:
    """Another server, whose superuser has another password."""
    started = Postgres()
    started.sql("ALTER ROLE postgres PASSWORD 'another'")
    started.pgpass.write_text(f"127.0.0.1:{started.port}:*:postgres:another\n")
    yield started
    started.stop()


@pytest.fixture
def system(tmp_path: Path, server: Postgres) -> System:
    system = System(tmp_path)
    configure(system, server)
    assert system.result()["exit_code"] == 0
    return system


def test_locale_and_tablespaces_come_back(system: System, server: Postgres) -> None:
    before = server.sql(ABOUT)
    assert before == "i|de-u-kn|C.UTF-8|fast\n"
    server.sql("DROP DATABASE app")
    server.sql("DROP TABLESPACE slow")
    server.sql("DROP OWNED BY clerk; DROP ROLE clerk")
    system.restore("--restore", "latest", *to(server, "--overwrite"))
    assert server.sql(ABOUT) == before
    query = "SELECT tablespace FROM pg_tables WHERE tablename = 'slow'"
    assert server.sql(query, "app") == "slow\n"
    assert server.sql("SELECT max(n) FROM t", "app") == "100\n"  # 99 without this locale
    assert server.sql("SELECT has_tablespace_privilege('clerk', 'slow', 'create')") == "t\n"


@pytest.mark.fault("a tablespace whose folder is missing", "exit 3, tables in the usual one")
def test_on_a_server_without_the_folders(system: System, server: Postgres, other: Postgres) -> None:
    server.end()
    for name in ("fast", "slow"):
        shutil.rmtree(server.folder / name)
    text = system.restore("--restore", "latest", *to(other), code=3)
    assert 'fast" does not exist' in text
    assert "tablespace fast does not exist: everything is in the default tablespace" in text
    assert other.sql("SELECT count(*) FROM t", "app") == "100\n"
    assert other.sql("SELECT 1 FROM pg_roles WHERE rolname = 'clerk'") == "1\n"
    arguments = ("--restore", "latest", *to(other, "--overwrite", "--no-tablespaces"))
    assert "tablespace" not in system.restore(*arguments)


def test_a_role_that_is_there_stays(system: System, other: Postgres) -> None:
    """The restore logs in with its password."""
    other.sql("CREATE ROLE clerk CREATEDB")
    system.restore("--restore", "latest", "--no-tablespaces", *to(other, "--overwrite"))
    assert other.sql("SELECT rolcreatedb FROM pg_roles WHERE rolname = 'clerk'") == "t\n"
    assert other.sql("SELECT count(*) FROM t", "app") == "100\n"


def test_a_drill_touches_no_tablespace(system: System, server: Postgres) -> None:
    config = json.loads(system.conf.read_text())
    config["DRILL"] = drill(ASSERTIONS={f"POSTGRES/{server.port}/app": "SELECT 1 FROM t"})
    system.conf.write_text(json.dumps(config))
    before = sorted(server.folder.glob("*/*"))
    assert section(system.result("--only", "DRILL"))["status"] == "ok"
    assert sorted(server.folder.glob("*/*")) == before
