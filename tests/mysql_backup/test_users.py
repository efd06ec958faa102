"""Users, roles and grants of MariaDB, back on a server where they are missing or different."""

from __future__ import annotations

import subprocess

import pytest

from mysql_backup import grants as grants_module
from mysql_backup import statements
from tests.mysql_backup.test_mysql_dump import configure, to
from tests.servers import MariaDB
from tests.system import System

ACCOUNTS = """\
CREATE DATABASE shop;
CREATE TABLE shop.t (i INT, secret INT); INSERT INTO shop.t VALUES (1, 2);
CREATE PROCEDURE shop.p() SELECT 1;
CREATE ROLE clerk; GRANT SELECT (i) ON shop.t TO clerk;
CREATE USER zoe@localhost IDENTIFIED BY 'first' WITH MAX_QUERIES_PER_HOUR 999;
GRANT RELOAD ON *.* TO zoe@localhost WITH GRANT OPTION;
GRANT clerk TO zoe@localhost; SET DEFAULT ROLE clerk FOR zoe@localhost;
GRANT EXECUTE ON PROCEDURE shop.p TO zoe@localhost; GRANT SELECT ON shop.t TO zoe@localhost;
CREATE USER 'odd `name'@localhost IDENTIFIED BY 'x'; GRANT ALL ON shop.* TO 'odd `name'@localhost;
CREATE DEFINER=zoe@localhost VIEW shop.v AS SELECT i FROM shop.t;
GRANT SELECT ON shop.v TO zoe@localhost;
CREATE DEFINER=zoe@localhost VIEW shop.w AS SELECT i FROM shop.v;
GRANT SELECT ON shop.w TO zoe@localhost;
"""
REMOVED = """\
DROP DATABASE shop; DROP ROLE clerk; DROP USER zoe@localhost, 'odd `name'@localhost;
"""


def grants(server: MariaDB) -> list[list[str]]:
    """All that the server says of the accounts; the order of grants is its own affair."""
    names = ("zoe@localhost", "`odd ``name`@localhost")
    queries = [f"SHOW CREATE USER {name}" for name in names]
    queries += [f"SHOW GRANTS FOR {name}" for name in (*names, "clerk")]
    return [sorted(server.sql(one).splitlines()) for one in queries]


def answered(server: MariaDB, password: str, sql: str) -> bytes:
    """What the server answers the user zoe, and what the client says."""
    login = server.option_file("zoe.cnf", "zoe", password)
    command = ["mariadb", f"--defaults-file={login}", "-N", f"--port={server.port}", "-e", sql]
    done = subprocess.run(command, capture_output=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.needs("mariadbd", "mariadb-dump")
@pytest.mark.parametrize("stream", ["True", "False"])
def test_on_a_server_without_them(system: System, server: MariaDB, stream: str) -> None:
    server.sql(ACCOUNTS)
    before = grants(server)
    configure(system, server, stream)
    assert system.result()["exit_code"] == 0
    server.sql(REMOVED)
    text = system.restore("--restore", "latest", "--item", "shop", *to(server), code=3)
    assert "1 of 2 views" in text
    assert "view w was not created: ERROR 1449" in text
    assert "definer zoe@localhost does not exist" in text
    assert "hint: Restore the databases, users and definers" in text
    text = system.restore("--restore", "latest", *to(server, "--overwrite"))
    assert f"rest of MYSQL/users@{server.port}" in text
    assert "all grants\n" in text
    assert grants(server) == before
    assert answered(server, "first", "SELECT i FROM shop.w; CALL shop.p()") == b"1\n1\n"
    assert "mariadb_dump_import_role" not in server.sql("SELECT user FROM mysql.user")


@pytest.mark.needs("mariadbd", "mariadb-dump")
def test_one_that_is_there_keeps_its_password(system: System, server: MariaDB) -> None:
    server.sql(ACCOUNTS)
    server.sql("CREATE DATABASE other")
    configure(system, server)
    assert system.result()["exit_code"] == 0
    server.sql("SET PASSWORD FOR zoe@localhost = PASSWORD('second')")
    server.sql("REVOKE EXECUTE ON PROCEDURE shop.p FROM zoe@localhost")
    arguments = ("--item", f"users@{server.port}", "--item", "shop", *to(server, "--overwrite"))
    lines = system.restore("--restore", "latest", *arguments, "--dry-run").splitlines()
    assert len(lines) == 2, lines
    system.restore("--restore", "latest", *arguments)
    assert answered(server, "second", "CALL shop.p()") == b"1\n"
    assert b"denied" in answered(server, "first", "SELECT 1")


@pytest.mark.needs("mariadbd", "mariadb-dump")
@pytest.mark.fault("a grant on a table that is in no backup", "exit 3, the grant is named")
def test_a_grant_on_what_is_not_there(system: System, server: MariaDB) -> None:
    server.sql(ACCOUNTS)
    configure(system, server, EXCLUDE_TABLE="shop.t")
    server.sql("DROP VIEW shop.v, shop.w")
    assert system.result()["exit_code"] == 0
    server.sql(REMOVED)
    text = system.restore("--restore", "latest", *to(server), code=3)
    assert "all grants but 4" in text
    assert "statement failed: 'GRANT SELECT ON `shop`.`t` TO `zoe`@`localhost`': ERROR 1146" in text
    assert "shop.t" in text
    assert "EXECUTE" in server.sql("SHOW GRANTS FOR zoe@localhost")  # what could be made is made


@pytest.mark.needs("mariadbd", "mariadb-dump")
@pytest.mark.fault("a restore of users by one who may not", "exit 1 with the server's words")
def test_by_a_user_who_may_not(system: System, server: MariaDB) -> None:
    server.sql(ACCOUNTS)
    configure(system, server)
    assert system.result()["exit_code"] == 0
    login = ("--to-credentials", str(server.credentials))
    where = ("--to-host", "127.0.0.1", "--to-port", str(server.port))
    arguments = ("--restore", "latest", "--item", f"users@{server.port}", *where, *login)
    text = system.restore(*arguments, code=1)
    assert "users and grants: ERROR" in text
    assert "denied" in text
    assert "IDENTIFIED" not in text  # no hash of a password


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "GRANT RELOAD ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD '*DE' WITH GRANT OPTION;",
            "GRANT RELOAD ON *.* TO `a`@`%` WITH GRANT OPTION;",
        ),
        (
            "GRANT USAGE ON *.* TO `a``b`@`%` IDENTIFIED VIA ed25519 USING ' REQUIRE ;' OR "
            "unix_socket REQUIRE SSL WITH MAX_QUERIES_PER_HOUR 3;",
            "GRANT USAGE ON *.* TO `a``b`@`%` REQUIRE SSL WITH MAX_QUERIES_PER_HOUR 3;",
        ),
        (
            "GRANT USAGE ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD '';",
            "GRANT USAGE ON *.* TO `a`@`%`;",
        ),
        ("GRANT USAGE ON *.* TO `role`;", ""),
        ("CREATE USER `a`@`%` IDENTIFIED BY PASSWORD '*B';", ""),
    ],
)
def test_a_grant_sets_no_password(line: str, expected: str) -> None:
    (statement, *_) = statements.Reader().read([line[:20].encode(), line[20:].encode()])
    assert grants_module.without_password(statement) + b";" == (expected or line).encode()


MINOR = """\
CREATE USER minor@localhost IDENTIFIED BY 'low';
GRANT ALL PRIVILEGES ON *.* TO minor@localhost WITH GRANT OPTION;
"""


@pytest.mark.needs("mariadbd", "mariadb-dump")
@pytest.mark.fault("GRANT PROXY refused to who restores users", "exit 3, named; all other grants")
def test_by_an_administrator_who_is_not_root(system: System, server: MariaDB) -> None:
    """Issue 11 B (users): what one user may not grant costs nothing else."""
    server.sql(ACCOUNTS)
    server.sql("CREATE SERVER far FOREIGN DATA WRAPPER mysql OPTIONS (HOST '::1', PASSWORD 'p''w')")
    server.sql("INSTALL SONAME 'auth_ed25519'")
    server.sql("CREATE USER edda@localhost IDENTIFIED VIA ed25519 USING PASSWORD('e')")
    server.sql(MINOR)
    before = grants(server)
    query = "SELECT * FROM mysql.servers; SHOW CREATE USER edda@localhost"
    objects = server.sql(query)
    configure(system, server)
    assert system.result()["exit_code"] == 0
    assert "time zones" in str(system.manifest()["items"][0]["notes"])
    server.sql(REMOVED)
    server.sql("DROP SERVER far; DROP USER edda@localhost; UNINSTALL SONAME 'auth_ed25519'")
    login = server.option_file("minor.cnf", "minor", "low")
    where = ("--to-host", "127.0.0.1", "--to-port", str(server.port))
    arguments = (*where, "--to-credentials", str(login), "--overwrite")
    text = system.restore("--restore", "latest", *arguments, code=3)
    assert "statement failed: 'GRANT PROXY ON" in text
    assert f"rest of MYSQL/users@{server.port}" in text
    assert grants(server) == before
    assert server.sql(query) == objects
