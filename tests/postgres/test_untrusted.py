"""What a source database or a stored item contains is data: on real servers, in this process."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from postgres import (
    catalogs,
    pg_server,
    restore_dump,
    roles,
    server_facts,
    sql_items,
    stored_facts,
)
from postgres.client_programs import ClientPrograms
from postgres.pg_server import PostgresConnection
from postgres.restore_dump import StoredDatabase
from postgres.settings import list_entries
from tests.postgres.test_hostile_facts import ROLES, SETTINGS, filled
from tests.servers import Postgres, program
from tools.base.errors import StoreError
from tools.base.result import Result
from tools.flow.facts import PostgresFacts
from tools.flow.item_record import StoredItem
from tools.modules import registry
from tools.modules.contracts import Following, Server

pytestmark = pytest.mark.needs("initdb", "postgres", "pg_dump")


@pytest.fixture(scope="module")
def source() -> Iterator[Postgres]:
    started = Postgres()
    filled(started)
    yield started
    started.stop()


@pytest.fixture
def target() -> Iterator[Postgres]:
    started = Postgres()
    yield started
    started.stop()


def connection(server: Postgres, user: str = "postgres") -> PostgresConnection:
    programs = ClientPrograms(program("psql"), program("pg_dump"))
    return PostgresConnection(programs, str(server.folder), server.port, user)


def client(server: Postgres, name: str, *arguments: str) -> bytes:
    """What a client program writes."""
    login = ["-h", str(server.folder), "-p", str(server.port), "-U", "postgres"]
    command = [program(name), *login, *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


def restored(target: Postgres, sql: bytes) -> Result:
    """The result of a restore of roles."""
    facts, more = stored_facts.read(lambda: iter([sql]))
    return roles.restore(connection(target), facts, more, tablespaces=True)


def test_roles_of_pg_dumpall_are_read_as_the_catalogs_have_them(
    source: Postgres, target: Postgres
) -> None:
    """Items of earlier versions: hostile names and values come back equal, nothing runs."""
    sql = client(source, "pg_dumpall", "--globals-only")
    (everyone,) = (line for line in SETTINGS.splitlines() if line.startswith("ALTER ROLE ALL"))
    # Earlier versions added them to the output of pg_dumpall.
    sql += everyone.replace("public", "'public'").encode() + b"\n"
    read = sql_items.parse(sql)
    facts = catalogs.server(connection(source), passwords=True)
    assert {one.name for one in facts.roles} == set(read.roles)
    assert {(one.role, one.name, tuple(list_entries(one.value))) for one in read.settings} == {
        (one.role, one.name, tuple(list_entries(one.value)))
        for one in facts.settings
        if not one.database
    }
    assert {(one.role, one.member) for one in facts.memberships} == {
        (one.role, one.member) for one in read.memberships
    }
    result = restored(target, sql)
    assert result.warnings == ()
    before, after = source.sql(ROLES), target.sql(ROLES)
    secret = "SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'"
    after = after.replace(target.sql(secret).strip(), source.sql(secret).strip())
    assert after == before


def test_a_forged_item_of_roles_changes_nothing(source: Postgres, target: Postgres) -> None:
    sql = client(source, "pg_dumpall", "--globals-only")
    with pytest.raises(StoreError, match="rejected statement: DROP DATABASE: not allowed"):
        restored(target, sql + b"DROP DATABASE postgres;\n")
    assert target.sql("SELECT count(*) FROM pg_roles WHERE rolname !~ '^pg_'") == "1\n"


@pytest.mark.fault(
    "a role that is a superuser only on the target", "exit 3, the backup gives it no members"
)
def test_existing_roles_gain_and_give_no_power(source: Postgres, target: Postgres) -> None:
    target.sql(
        """CREATE ROLE admins SUPERUSER; CREATE ROLE lowly; CREATE ROLE "user" CREATEDB;
        CREATE ROLE "quote's""" + '""' + '"'
    )  # fmt: skip
    facts = catalogs.server(connection(source), passwords=True)
    result = roles.restore(connection(target), facts, tablespaces=True)
    text = "\n".join(result.warnings)
    assert "membership of lowly in admins not restored: role admins has SUPERUSER" in text
    assert "exists and would get pg_read_all_data" in text
    assert "log_statement not granted: role lowly exists" in text
    assert target.sql("SELECT count(*) FROM pg_auth_members WHERE roleid >= 16384") == "0\n"
    limit = "SELECT rolconnlimit, rolvaliduntil FROM pg_roles WHERE rolname = 'lowly'"
    assert target.sql(limit) == "-1|\n"


def test_by_a_role_that_is_no_superuser(source: Postgres, target: Postgres) -> None:
    target.sql("CREATE ROLE low LOGIN CREATEROLE; CREATE ROLE few LOGIN")
    facts = catalogs.server(connection(source), passwords=True)
    with pytest.raises(StoreError, match=r"none of \d+ new roles could be created"):
        roles.restore(connection(target, "few"), facts, tablespaces=True)
    source.sql("CREATE ROLE dba SUPERUSER LOGIN CONNECTION LIMIT 4")
    facts = catalogs.server(connection(source), passwords=True)
    result = roles.restore(connection(target, "low"), facts, tablespaces=True)
    source.sql("DROP ROLE dba")
    assert any("(created without these attributes)" in line for line in result.warnings)
    query = "SELECT rolsuper, rolcanlogin, rolconnlimit FROM pg_roles WHERE rolname = 'dba'"
    assert target.sql(query) == "f|t|4\n"


def test_the_command_of_the_recovery_sheet(
    source: Postgres, target: Postgres, tmp_path: Path
) -> None:
    """Roles without this program: psql alone loads them from the item."""
    file = tmp_path / "odd 'name.json"
    facts = catalogs.server(connection(source), passwords=True)
    file.write_bytes(server_facts.to_bytes(facts))
    command = registry.kind(pg_server.ROLES).load.format(file=shlex.quote(str(file)))
    sheet, _end, _note = command.partition("\nEND\n")
    login = f"export PGHOST={target.folder} PGPORT={target.port} PGUSER=postgres\n"
    subprocess.run(["bash", "-c", f"{login}{sheet}\nEND\n"], check=True, capture_output=True)
    query = (
        "SELECT rolname, rolsuper, rolinherit, rolcreatedb, rolcanlogin, rolpassword "
        "FROM pg_authid WHERE rolname !~ '^(pg_|postgres)' ORDER BY 1; "
        "SELECT r.rolname, m.rolname, admin_option FROM pg_auth_members "
        "JOIN pg_roles r ON r.oid = roleid JOIN pg_roles m "
        "ON m.oid = member ORDER BY 1, 2"
    )
    assert target.sql(query) == source.sql(query)


def roles_item(content: bytes) -> Server:
    """A server to restore into, whose run has this item of roles, of an earlier version."""
    item = StoredItem("POSTGRES", "roles@5432", pg_server.ROLES, ".sql", (), ())
    following = Following("2026-11-01_000000", item, lambda: iter([content]))
    return Server("", following=lambda: iter([following]))


def loaded(
    target: Postgres, name: str, dump: bytes, roles_sql: bytes = b"", search_path: str = ""
) -> Result:
    """The result of a restore of a dump. search_path: of its database"""
    item = StoredItem("POSTGRES", "5432/d", "postgres", ".pgdump", (), ())
    stored = StoredDatabase(
        PostgresFacts("15", "15", search_path=search_path),
        lambda: iter([dump]),
        lambda *arguments: stored_facts.restore_properties(item, roles_item(roles_sql), *arguments),
    )
    return restore_dump.restore_database(
        connection(target), name, stored, overwrite=True, tablespaces=False
    )


def test_properties_in_a_dump_of_an_earlier_version(source: Postgres, target: Postgres) -> None:
    sql = client(source, "pg_dumpall", "--globals-only")
    assert restored(target, sql).warnings == ()
    result = loaded(target, "n\ne'w", client(source, "pg_dump", "-Fc", "d"), sql)
    assert result.warnings == ()
    query = """SELECT shobj_description(oid, 'pg_database'), datconnlimit,
      (SELECT array_agg(regexp_replace(a::text, '/postgres$', '/"Two Words"') ORDER BY a::text)
      FROM unnest(datacl) a WHERE a::text !~ '^(postgres|"Two Words")='),
      (SELECT array_agg(setconfig::text ORDER BY setrole) FROM pg_db_role_setting
      WHERE setdatabase = d.oid) FROM pg_database d WHERE datname = """
    after = target.sql(f"{query} E'n\\ne''w'")
    assert after == source.sql(f"{query} 'd'")
    assert "create role y superuser" in after


@pytest.mark.fault("a forged dump whose comment holds \\!", "exit 3, no command runs")
def test_a_forged_archive_runs_no_command(target: Postgres, tmp_path: Path) -> None:
    marker = tmp_path / "made"
    target.sql("CREATE DATABASE forged; COMMENT ON DATABASE forged IS 'X'")
    long = "y" * 200
    target.sql(f"CREATE TABLE t (i int); COMMENT ON TABLE t IS '{long}'", "forged")
    target.sql(f"COMMENT ON DATABASE forged IS '{long}'")
    dump = client(target, "pg_dump", "-Fc", "forged")
    assert dump.count(long.encode()) == 2  # of the table, and of the database
    text = f"'; \\! touch {marker}\n\\! touch {marker}\n-- ".encode()
    result = loaded(target, "copy", dump.replace(long.encode(), text.ljust(200, b"y")))
    assert not marker.exists()
    assert any("COMMENT ON TABLE" in line for line in result.warnings)
    assert any("settings and privileges not restored" in line for line in result.warnings)
    assert target.sql("SELECT count(*) FROM t", "copy") == "0\n"


@pytest.mark.fault("operators of a user on the way of our queries", "they are never executed")
def test_queries_use_only_built_in_functions(source: Postgres) -> None:
    """CVE-2018-1058: a better match in a schema of search_path would run as the superuser."""
    source.sql(
        """CREATE FUNCTION trap(oid, int) RETURNS bool LANGUAGE plpgsql AS
          'BEGIN RAISE EXCEPTION ''executed''; END';
        CREATE OPERATOR >= (FUNCTION = trap, LEFTARG = oid, RIGHTARG = int)""",
        "template1",
    )
    with pytest.raises(AssertionError, match="executed"):
        source.sql("SELECT count(*) FROM pg_class WHERE oid >= 16384", "template1")
    assert pg_server.is_pristine(connection(source), "template1") is False
