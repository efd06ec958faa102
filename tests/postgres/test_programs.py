"""Which client programs a restore of PostgreSQL takes, and what it says where they are too old."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from postgres import client_programs, dump_loading, pg_server
from postgres.client_programs import ClientPrograms
from tests.postgres.test_postgres import configure, to
from tests.servers import Postgres, program
from tests.system import System
from tools.base.errors import StoreError
from tools.flow import process
from tools.flow.facts import PostgresFacts

pytestmark = pytest.mark.needs("initdb", "postgres", "pg_dump")


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    started = Postgres()
    started.sql("CREATE TABLE t AS SELECT 1 AS i")
    yield started
    started.stop()


def test_a_restore_takes_those_of_the_config(tmp_path: Path, server: Postgres) -> None:
    """TRIALS P1: PSQL and PSQLDUMP of the section, and pg_restore beside PSQLDUMP."""
    system = System(tmp_path)
    folder = tmp_path / "18"
    folder.mkdir()
    for name in ("pg_dump", "pg_dumpall", "pg_restore", "psql"):
        (folder / name).write_text(
            f'#!/bin/bash\necho {name} >>{tmp_path}/called\nexec {program(name)} "$@"\n'
        )
        (folder / name).chmod(0o755)
    configure(system, server, PSQL=str(folder / "psql"), PSQLDUMP=str(folder / "pg_dump"))
    assert system.result()["exit_code"] == 0
    (tmp_path / "called").unlink()
    arguments = ("--restore", "latest", "--item", f"{server.port}/postgres")
    system.restore(*arguments, *to(server, "--to-database", "copy"))
    assert {"pg_restore", "psql"} == set((tmp_path / "called").read_text().split())
    server.sql("DROP DATABASE copy")


@pytest.mark.fault("a pg_restore that is older than the dump", "exit 1, both versions named")
def test_a_pg_restore_that_is_too_old(server: Postgres) -> None:
    """TRIALS P1: both versions are named, and where to put the right one."""
    programs = ClientPrograms(program("psql"), program("pg_dump"))
    target = pg_server.PostgresConnection(
        programs, "127.0.0.1", server.port, "postgres", server.pgpass
    )
    command = [program("pg_dump"), "--format=custom", *target.arguments(), "--dbname=postgres"]
    raw = bytearray(b"".join(process.output(command, env=target.environment())))
    raw[6] = 99  # the minor version of the format, after PGDMP and the major one
    facts = PostgresFacts(tool="pg_dump (PostgreSQL) 99.1")
    with (
        dump_loading.open_dump(target, facts, lambda: iter([bytes(raw)])) as stored,
        pytest.raises(StoreError, match=r"is older than the dump \(.* 99\.1") as caught,
    ):
        dump_loading.load_database(target, "new", stored, tablespaces=True)
    assert "client programs of version 99 or later, and set PSQLDUMP" in caught.value.hint
    server.sql("DROP DATABASE IF EXISTS new")


@pytest.mark.parametrize(
    ("host", "versions", "newest"),
    [
        ("db", ("9.6", "15", "lost+found"), "15"),
        ("/run/postgresql", ("9.6", "9.10"), "9.10"),
        ("db", (), ""),
        ("", ("9.6", "15"), ""),  # the wrapper knows the port of the default cluster
    ],
)
def test_the_wrapper_of_debian_is_not_asked_where_its_answer_is_known(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    versions: tuple[str, ...],
    newest: str,
) -> None:
    """pg_wrapper(1): with --host it starts the newest version, and looks at no cluster."""
    wrapper = tmp_path / "pg_wrapper"
    wrapper.touch()
    names = [tmp_path / "psql", tmp_path / "pg_dump"]
    for name in names:
        name.symlink_to(wrapper)
        for version in versions:
            (tmp_path / "versions" / version / "bin").mkdir(parents=True, exist_ok=True)
            (tmp_path / "versions" / version / "bin" / name.name).touch()
    monkeypatch.setattr(client_programs, "_VERSIONS", tmp_path / "versions")
    programs = client_programs.for_host(str(names[0]), str(names[1]), host)
    expected = [tmp_path / "versions" / newest / "bin" / name.name for name in names]
    assert programs == ClientPrograms(*map(str, expected if newest else names))


def test_a_program_that_is_no_wrapper_stays(tmp_path: Path) -> None:
    (tmp_path / "psql").touch()
    psql = str(tmp_path / "psql")
    assert client_programs.for_host(psql, "/no/such/pg_dump", "db").psql == psql
    assert client_programs.for_host(psql, "/no/such/pg_dump", "db").dump == "/no/such/pg_dump"
