"""What restores that were killed left on a server."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from postgres import catalogs, database_properties, dump_loading, libraries, pg_server, remains
from tests.postgres.test_untrusted import connection
from tests.servers import Postgres
from tools.flow.facts import PostgresFacts

pytestmark = pytest.mark.needs("initdb", "postgres")
NAME = "0123456789ab"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    started = Postgres()
    yield started
    started.stop()


def marked(**more: object) -> str:
    """The mark of this process with other facts."""
    return json.dumps({**json.loads(bytes.fromhex(remains.mark())), **more}).encode().hex()


def create(server: Postgres, kind: str, name: str, mark: str) -> None:
    server.sql(f"CREATE {kind} {name}")
    server.sql(f"ALTER {kind} {name} SET {remains.SETTING} = '{mark}'")


@pytest.mark.fault("a restore is killed", "the next one removes what is left, or names it")
def test_what_killed_restores_left(server: Postgres) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    ended = marked(process=process.pid, started="1")
    for kind, word in (("DATABASE", "new"), ("DATABASE", "old"), ("ROLE", "load")):
        create(server, kind, f"nc_{word}_{NAME}", ended)
    create(server, "DATABASE", "nc_shop", ended)
    create(server, "DATABASE", "shop", ended)  # that is restored now
    create(server, "DATABASE", "nc_new_aaaaaaaaaaaa", remains.mark())  # of a restore in progress
    elsewhere = marked(machine="another")
    create(server, "DATABASE", "nc_keys_bbbbbbbbbbbb", elsewhere)
    create(
        server, "ROLE", "nc_load_cccccccccccc", marked(machine="another", time=time.time() - 1e6)
    )
    target = connection(server)
    facts = catalogs.server(target, passwords=True)
    assert [one.name for one in facts.roles] == ["postgres"]
    assert facts.settings == ()
    names = {one.name for one in pg_server.list_databases(target)}
    assert names == {"postgres", "nc_shop", "shop", f"nc_old_{NAME}", "template1"}
    swept = remains.sweep(target, "shop")
    assert swept.note == (
        f"; removed what a killed restore left: database nc_new_{NAME}, "
        f"role nc_load_{NAME}, role nc_load_cccccccccccc; "
        "left by another restore, or in use by it: database nc_keys_bbbbbbbbbbbb"
    )
    old, unfinished = swept.warnings
    assert old.startswith(f"database nc_old_{NAME}: a restore was killed")
    assert unfinished.startswith("database nc_shop: a restore was killed before it had its owner")
    query = "SELECT datname FROM pg_database WHERE datname ~ '^nc_' ORDER BY 1"
    assert server.sql(query).split() == [
        "nc_keys_bbbbbbbbbbbb",
        "nc_new_aaaaaaaaaaaa",
        f"nc_old_{NAME}",
        "nc_shop",
    ]
    assert server.sql("SELECT count(*) FROM pg_roles WHERE rolname ~ '^nc_'") == "0\n"


@pytest.mark.fault("local_preload_libraries with a path", "left out and named, never loaded")
def test_libraries_of_a_role_are_not_loaded_from_anywhere(server: Postgres) -> None:
    """Any role may choose them; the restore that tests them is a superuser."""
    server.sql(
        "CREATE ROLE lowly; SET ROLE lowly; ALTER ROLE lowly SET local_preload_libraries TO "
        "'$libdir/auto_explain'"
    )
    (line,) = libraries.reset_unloadable(connection(server))
    assert line.endswith('access to library "$libdir/auto_explain" is not allowed')
    assert (
        server.sql(
            "SELECT count(*) FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = setrole "
            "WHERE rolname = 'lowly'"
        )
        == "0\n"
    )


def test_nobody_else_connects_to_a_database_before_it_is_complete(server: Postgres) -> None:
    """The owner of one of its schemas could put code into it while a superuser loads it."""
    target = connection(server)
    server.sql("CREATE ROLE outsider LOGIN")
    dump_loading._create(target, "half", PostgresFacts(), tablespaces=True)
    query = "SELECT has_database_privilege('outsider', 'half', 'CONNECT'), datacl FROM pg_database "
    query += "WHERE datname = 'half'"
    assert server.sql(query).startswith("f|")
    database_properties.open_to_all(target, "half")
    assert server.sql(query) == "t|\n"
    server.sql("DROP DATABASE half; DROP ROLE outsider")
