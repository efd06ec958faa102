"""A table that another session has locked: its database fails by name, the others are stored."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.servers import MariaDB, Postgres, documented, program
from tests.system import System

_SCHEMA = (
    "CREATE TABLE free (i INT); CREATE TABLE held (i INT); CREATE VIEW v AS SELECT * FROM held"
)


@dataclass
class Case:
    """One module: its section, the client of a session that locks, and what it runs."""

    server: MariaDB | Postgres
    section: dict[str, Any]
    client: list[str]
    lock: str
    stored: set[str]
    says: str


def _mariadb(engine: str) -> Case:
    server = MariaDB()
    server.sql("CREATE DATABASE shop; CREATE DATABASE other")
    server.sql(_SCHEMA.replace(" (i INT)", f" (i INT) ENGINE={engine}"), "shop")
    parameters = {"MY_INSTANCES": str(server.port), "CREDENTIAL_PATH": str(server.credentials)}
    section = {"ACTION": "execute", "NAME": "mysql_backup", "EXECUTABLE": "mysql_dump.py"}
    socket = ["-S", f"{server.folder}/socket", "-uroot"]
    client = [program("mariadb"), "--no-defaults", *socket, "-N", "--unbuffered", "shop"]
    return Case(
        server,
        {**section, "PARAMETERS": {**parameters, "BINLOG_DAYS": "0"}},
        client,
        "LOCK TABLES held WRITE; SELECT 'locked';\n",
        {f"users@{server.port}", f"{server.port}/other"},
        "shop: table held is locked by another session (waited 1 s)",
    )


def _postgres() -> Case:
    server = Postgres()
    for name in ("shop", "other"):
        server.sql(f"CREATE DATABASE {name}")
    server.sql(_SCHEMA, "shop")
    login = {"HOST": "127.0.0.1", "PORT": str(server.port), "USER": "postgres"}
    parameters = {**login, "PASSFILE": str(server.pgpass), "EXCLUDE_DB": "postgres"}
    section = {"ACTION": "load", "FROM": "postgres", "FILENAME": "postgres"}
    return Case(
        server,
        {**section, "CLASS": "PostgresBackup", "PARAMETERS": parameters},
        server._psql("shop"),
        "BEGIN; LOCK TABLE held; SELECT 'locked';\n",
        {f"roles@{server.port}", f"{server.port}/other"},
        "shop: public.held: locked by another session (waited 1 s)",
    )


_CASES: dict[str, Callable[[], Case]] = {
    "InnoDB": lambda: _mariadb("InnoDB"),
    "MyISAM": lambda: _mariadb("MyISAM"),
    "PostgreSQL": _postgres,
}


@pytest.fixture(
    params=[
        pytest.param("InnoDB", marks=pytest.mark.needs("mariadbd", "mariadb-dump")),
        pytest.param("MyISAM", marks=pytest.mark.needs("mariadbd", "mariadb-dump")),
        pytest.param("PostgreSQL", marks=pytest.mark.needs("initdb", "postgres", "pg_dump")),
    ]
)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """A server with two databases."""
    new = _CASES[request.param]()
    yield new
    new.server.stop()


@contextmanager
def _locked(case: Case) -> Iterator[None]:
    """Hold the lock in another session."""
    with subprocess.Popen(case.client, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write(case.lock.encode())
        session.stdin.flush()
        assert session.stdout.readline() == b"locked\n"
        yield
        session.kill()


@pytest.mark.fault(
    "a table is locked by another session, longer than LOCK_TIMEOUT",
    "exit 1, the table is named; the other databases are stored",
)
def test_a_locked_table(system: System, case: Case) -> None:
    parameters = {**case.section["PARAMETERS"], "LOCK_TIMEOUT": "1s"}
    sections = system.full_sections()
    del sections["FILESET"]
    system.configure({"DB": {**case.section, "PARAMETERS": parameters}, **sections}, STREAM="True")
    with _locked(case):
        result = system.result()
    assert result["exit_code"] == 1
    assert case.says in json.dumps(result)
    assert {item["name"].removeprefix("DB/") for item in system.manifest()["items"]} == case.stored
    assert system.result()["exit_code"] == 0


@pytest.mark.needs("mariadbd", "mariadb-backup")
def test_a_physical_backup_waits_for_a_lock(system: System) -> None:
    case = _mariadb("InnoDB")
    try:
        case.server.sql(documented("mysql_xtrabackup"))
        parameters = {
            key: case.section["PARAMETERS"][key] for key in ("MY_INSTANCES", "CREDENTIAL_PATH")
        }
        section = {**case.section, "EXECUTABLE": "mysql_xtrabackup.py"}
        section["PARAMETERS"] = {**parameters, "LOCK_TIMEOUT": "1s"}
        sections = system.full_sections()
        del sections["FILESET"]
        system.configure({"DB": section, **sections}, STREAM="True")
        with _locked(case):
            result = system.result()
        assert result["exit_code"] == 1
        assert "(waited 1 s)" in json.dumps(result), result
    finally:
        case.server.stop()
