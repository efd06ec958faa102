"""Names, settings and comments of a source gain nothing on the server they are restored into."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres.test_postgres import configure, databases, quoted, to
from tests.servers import Postgres
from tests.system import System

pytestmark = pytest.mark.needs("initdb", "postgres", "pg_dump")
NAMES = [
    *("line\nbreak", "quote's\"", "back\\slash", "user", "select", "Two Words", "\\! id", "-- x"),
    *("'; CREATE ROLE y SUPERUSER; --", "%I %L %s", ":'f'", "$$", "ümläut", ";\n\\! id"),
]
DATABASES = ["line\nbreak", "\\! id", "'; CREATE ROLE y SUPERUSER; --"]
# The examples of issue 14, and their kin.
SETTINGS = (
    r"""
ALTER ROLE lowly SET application_name TO E'c\nALTER ROLE postgres WITH ';
ALTER ROLE lowly SET search_path TO '; create role x superuser login; --';
ALTER ROLE "line
break" SET search_path TO 'a,b', 'q"u''o', 'two words', '"$user"', E'back\\slash', E'l\nb';
ALTER ROLE "user" SET local_preload_libraries TO '';
ALTER ROLE "user" SET temp_tablespaces TO 'two words', 'a,b';
ALTER ROLE "user" SET "my.text" TO E'it''s \\ one\n\\! id\n-- x';
ALTER ROLE "user" SET work_mem TO '65536kB';
ALTER ROLE ALL SET search_path TO 'odd, one', public;
ALTER DATABASE d SET application_name TO E'; create role y superuser; --\n\\! id';
ALTER DATABASE d SET search_path TO 'x'';y', 'a"b';
ALTER ROLE lowly IN DATABASE d SET application_name TO E'''; create role y superuser; --';
COMMENT ON DATABASE d IS E'\\! touch /tmp/nc-hostile\n-- ''; create role y superuser; --';
COMMENT ON ROLE lowly IS E'a\nALTER ROLE lowly WITH SUPERUSER;\n\\! id';
ALTER ROLE lowly VALID UNTIL '2099-01-01 00:00:00+00' CONNECTION LIMIT 7;
ALTER ROLE "user" LOGIN PASSWORD 'geheim' NOINHERIT CREATEDB;
CREATE ROLE admins CREATEROLE; GRANT admins TO "user" WITH ADMIN OPTION;
GRANT admins TO lowly; GRANT pg_read_all_data TO "quote's"""
    + '""'
    + r"""";
GRANT CREATE ON DATABASE d TO "line
break" WITH GRANT OPTION;
SET ROLE "line
break"; GRANT CREATE ON DATABASE d TO "back\slash"; RESET ROLE;
REVOKE CONNECT ON DATABASE d FROM PUBLIC;
GRANT SET ON PARAMETER log_statement TO lowly;
"""
)
ROLES = """
SELECT a.rolname, to_jsonb(a) - 'oid', shobj_description(a.oid, 'pg_authid') FROM pg_authid a
  WHERE a.rolname !~ '^pg_' ORDER BY 1;
SELECT a.admin_option, r.rolname, m.rolname, g.rolname FROM pg_auth_members a
  JOIN pg_roles r ON r.oid = roleid JOIN pg_roles m ON m.oid = member
  JOIN pg_roles g ON g.oid = grantor ORDER BY 2, 3, 4;
SELECT setconfig, rolname FROM pg_db_role_setting LEFT JOIN pg_roles r ON r.oid = setrole
  WHERE setdatabase = 0 ORDER BY rolname;
SELECT parname, paracl FROM pg_parameter_acl;
"""
DATABASES_STATE = """
SELECT setconfig, rolname, datname FROM pg_db_role_setting LEFT JOIN pg_roles r ON r.oid = setrole
  JOIN pg_database d ON d.oid = setdatabase ORDER BY datname, rolname;
SELECT datname, (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) a), datconnlimit,
  shobj_description(oid, 'pg_database'), pg_get_userbyid(datdba) FROM pg_database
  WHERE NOT datistemplate ORDER BY 1;
"""


@pytest.fixture
def servers() -> Iterator[tuple[Postgres, Postgres]]:
    """Source and target."""
    with contextlib.ExitStack() as stack:
        both = Postgres(), Postgres()
        for server in both:
            stack.callback(server.stop)
        yield both


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def filled(server: Postgres) -> None:
    server.sql("CREATE ROLE lowly LOGIN")
    for name in NAMES:
        server.sql(f"CREATE ROLE {quoted(name)}")
    for name in DATABASES:
        server.sql(f"CREATE DATABASE {quoted(name)} OWNER {quoted(name)}")
    server.sql('CREATE DATABASE d OWNER "Two Words" CONNECTION LIMIT 5')
    server.sql(SETTINGS)


@pytest.mark.fault(
    "settings and comments with SQL, of a login without rights", "restored as data, nothing runs"
)
def test_everything_comes_back_equal_and_nothing_runs(
    system: System, servers: tuple[Postgres, Postgres]
) -> None:
    source, target = servers
    filled(source)
    configure(system, source)
    assert system.result()["exit_code"] == 0
    system.restore("--restore", "latest", *to(target, "--overwrite"))
    before, after = source.sql(ROLES + DATABASES_STATE), target.sql(ROLES + DATABASES_STATE)
    secret = "SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'"
    after = after.replace(target.sql(secret).strip(), source.sql(secret).strip())
    assert after == before
    assert target.sql("SELECT rolname FROM pg_roles WHERE rolsuper") == "postgres\n"
    assert not Path("/tmp/nc-hostile").exists()  # noqa: S108
    roles = f"POSTGRES/roles@{source.port}.json"
    content = json.loads((system.restored("--item", f"roles@{source.port}") / roles).read_bytes())
    assert content["version"] == 1
    system.restore(
        "--restore", "latest", "--item", f"{source.port}/d", *to(target, "--to-database", "new\nd")
    )
    config = "SELECT setconfig FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase "
    expected = source.sql(f"{config} WHERE datname = 'd' AND setrole = 0")
    assert target.sql(f"{config} WHERE datname = E'new\\nd' AND setrole = 0") == expected
    assert databases(target) == {"postgres", "d", "new\nd", *DATABASES}
