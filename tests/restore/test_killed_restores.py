"""SIGKILL at random moments of a restore: nothing half has a final name, and the next one works."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import starter
from tests.servers import Postgres
from tests.system import System
from tools.base import project

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("KILLS", "3"))  # of each kind; more of them by hand
PROGRAM = str(project.ROOT / "restore/restore.py")


def killed(
    arguments: tuple[str, ...], judge: Callable[[], None], again: Callable[[], None]
) -> None:
    """Kill restores, after one that shows how long they take.

    judge: after each kill; again: restores without a kill, and puts all back as it was before
    """
    chance, began = random.Random(14), time.monotonic()
    starter.run([PROGRAM, *arguments], os.environ)
    duration = time.monotonic() - began
    again()
    for _ in range(KILLS):
        command = starter.start([PROGRAM, *arguments], os.environ)
        time.sleep(chance.uniform(0.05, 1.0) * duration)
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(command.pid, signal.SIGKILL)
        command.end(60)
        judge()
        again()


def state(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.fault(
    "SIGKILL at seeded moments of a restore into an empty folder",
    "nothing half has its final name; the next restore is whole and leaves nothing else",
)
def test_into_an_empty_folder(system: System) -> None:
    for number in range(200):
        (system.source / f"{number}").write_bytes(os.urandom(20_000))
    system.configure(system.short(), STREAM="True")
    assert system.result()["exit_code"] == 0
    expected, out = state(system.source), system.folder / "out"
    top = out / "FILESET" / str(system.source).lstrip("/")
    arguments = ("-c", str(system.conf), "--restore", "latest", "--destination", str(out))
    out.mkdir()

    def judge() -> None:
        assert not (out / "FILESET").exists() or state(top) == expected

    def again() -> None:
        system.restore_bare(*arguments, *(["--overwrite"] if (out / "FILESET").exists() else []))
        assert state(top) == expected
        assert [path.name for path in out.iterdir()] == ["FILESET"], "what the killed one left"
        for path in sorted(out.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()

    killed(arguments, judge, again)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    started = Postgres()
    yield started
    started.stop()


def postgres(server: Postgres) -> dict[str, Any]:
    login = {"HOST": "127.0.0.1", "PORT": str(server.port), "USER": "postgres"}
    section = {"ACTION": "load", "FROM": "postgres", "FILENAME": "postgres"}
    parameters = {**login, "PASSFILE": str(server.pgpass)}
    return {**section, "CLASS": "PostgresBackup", "PARAMETERS": parameters}


@pytest.mark.needs("initdb", "postgres")
@pytest.mark.fault(
    "SIGKILL at seeded moments of a restore of PostgreSQL",
    "the database is absent or whole; the next restore removes what is left",
)
def test_into_postgres(system: System, server: Postgres) -> None:
    server.sql("CREATE ROLE app LOGIN")
    server.sql("CREATE DATABASE shop OWNER app")
    server.sql(
        "CREATE TABLE t AS SELECT n, repeat(n::text, 20) AS text FROM generate_series(1, 20000) n;"
        "CREATE INDEX ON t (text); CREATE VIEW v AS SELECT * FROM t",
        "shop",
    )
    full = system.full_sections()
    sections = {key: full[key] for key in ("COMPRESSION", "ENCRYPTION", "STORAGE_LOCAL")}
    system.configure({"POSTGRES": postgres(server), **sections}, STREAM="True")
    assert system.result()["exit_code"] == 0
    query = "SELECT count(*), sum(n), md5(string_agg(text, '' ORDER BY n)) FROM v"
    expected = server.sql(query, "shop")
    login = ("--to-user", "postgres", "--to-credentials", str(server.pgpass))
    to_server = ("--to-host", "127.0.0.1", "--to-port", str(server.port))
    arguments = (
        "-c",
        str(system.conf),
        "--restore",
        "latest",
        "--item",
        "shop",
        *to_server,
        *login,
    )
    names = "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1"
    roles = "SELECT rolname FROM pg_roles WHERE rolname ~ '^nc_'"

    def judge() -> None:
        if "shop" in server.sql(names).split():
            assert server.sql(query, "shop") == expected

    def again() -> None:
        output = system.restore_bare(*arguments, "--overwrite")
        assert server.sql(query, "shop") == expected
        assert server.sql(names).split() == ["postgres", "shop"], output
        assert server.sql(roles) == ""
        server.sql("DROP DATABASE shop")

    server.sql("DROP DATABASE shop")
    killed(arguments, judge, again)
