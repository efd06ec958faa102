"""Several servers in one section: one that is down is named, and the others are stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.servers import MariaDB, Postgres, Redis, Server, documented, free_port
from tests.system import System


@dataclass(frozen=True)
class Case:
    """One module: its section for some ports, and the items that the living server gives."""

    server: Server
    section: Callable[[str], dict[str, Any]]
    items: set[str]
    says: str  # of a server that is down


def _mysql(physical: bool) -> Case:
    server = MariaDB()
    server.sql("CREATE DATABASE shop; CREATE TABLE shop.t (i INT)")
    file, items = "mysql_dump.py", {f"users@{server.port}", f"{server.port}/shop"}
    if physical:
        server.sql(documented("mysql_xtrabackup"))
        file, items = "mysql_xtrabackup.py", {str(server.port)}

    def section(ports: str) -> dict[str, Any]:
        parameters = {"MY_INSTANCES": ports, "CREDENTIAL_PATH": str(server.credentials)}
        more = {} if physical else {"BINLOG_DAYS": "0"}
        return {
            "ACTION": "execute", "NAME": "mysql_backup", "EXECUTABLE": file,
            "PARAMETERS": {**parameters, **more},
        }  # fmt: skip

    return Case(server, section, items, "ERROR 2002 (HY000): Can't connect")


def _postgres(base: bool) -> Case:
    server = Postgres()
    server.sql("CREATE DATABASE shop")
    file, cls = ("base", "PostgresBaseBackup") if base else ("postgres", "PostgresBackup")
    port = server.port
    items = {str(port)} if base else {f"roles@{port}", f"{port}/shop"}

    def section(ports: str) -> dict[str, Any]:
        login = {"HOST": "127.0.0.1", "USER": "postgres", "PASSFILE": str(server.pgpass)}
        return {
            "ACTION": "load", "FROM": "postgres", "FILENAME": file, "CLASS": cls,
            "PARAMETERS": {"PORT": ports, **login, **({} if base else {"EXCLUDE_DB": "postgres"})},
        }  # fmt: skip

    return Case(server, section, items, "psql ended with exit code 2")


def _redis() -> Case:
    server = Redis()

    def section(ports: str) -> dict[str, Any]:
        return {
            "ACTION": "load", "FROM": "redis", "FILENAME": "redis", "CLASS": "RedisBackup",
            "PARAMETERS": {"PORT": ports, "PASSWORD": server.password},
        }  # fmt: skip

    return Case(server, section, {str(server.port)}, "redis-cli ended with exit code 1")


CASES = {
    "mysql": lambda: _mysql(physical=False),
    "xtrabackup": lambda: _mysql(physical=True),
    "postgres": lambda: _postgres(base=False),
    "postgres-base": lambda: _postgres(base=True),
    "redis": _redis,
}
NEEDS = {
    "mysql": ("mariadbd", "mariadb-dump"),
    "xtrabackup": ("mariadbd", "mariabackup", "root"),
    "postgres": ("initdb", "postgres", "pg_dump"),
    "postgres-base": ("initdb", "postgres", "pg_basebackup"),
    "redis": ("redis-server", "redis-cli"),
}


@pytest.fixture(params=[pytest.param(k, marks=pytest.mark.needs(*v)) for k, v in NEEDS.items()])
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    new = CASES[request.param]()
    yield new
    new.server.stop()


@pytest.mark.fault(
    "one server of several that is down", "exit 1, named; the items of the others are stored"
)
def test_one_server_that_is_down_does_not_cost_the_others(system: System, case: Case) -> None:
    """Issue 11 N1: streamed and staged, the dead ones are named and the living one is stored."""
    dead = [free_port(), free_port()]
    sections = system.full_sections()
    del sections["FILESET"]
    section = case.section(f"{dead[0]} {case.server.port} {dead[1]}")
    modes = ("True", "False") if case.server.user == "redis" else ("True",)
    for number, stream in enumerate(modes):
        system.configure({"DB": section, **sections}, STREAM=stream)
        result = system.result()
        assert result["exit_code"] == 1
        text = repr(result)
        for port in dead:
            assert str(port) in text, text
        assert case.says in text
        assert len(stored(system)) == number + 1
        assert stored(system)[-1] == case.items
    done = system.run("-t")
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).splitlines()
    bad = [line for line in lines if "BAD" in line]
    assert len(bad) == len(dead), lines
    assert all(f"port {port}" in "".join(bad) for port in dead)
    assert any("ok" in line and f"port {case.server.port}:" in line for line in lines), lines


def stored(system: System) -> list[set[str]]:
    """The items of each run, oldest first."""
    paths = sorted((system.store / "srv-test").glob("*.manifest.json"))
    return [{item["name"] for item in json.loads(path.read_text())["items"]} for path in paths]
