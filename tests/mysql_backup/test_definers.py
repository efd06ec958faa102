"""Definers: kept; named where the server does not know them; left out where they must be."""

from __future__ import annotations

import pytest

from mysql_backup import definers, statements
from tests.mysql_backup.test_mysql_dump import configure, shop, to
from tests.servers import MariaDB
from tests.system import System

LOW = """\
CREATE USER low@localhost IDENTIFIED BY 'low'; GRANT ALL ON `back%`.* TO low@localhost;
SET GLOBAL log_bin_trust_function_creators = 1;
"""
KEPT = """\
CREATE DATABASE shop; CREATE ROLE clerk; CREATE USER zoe@localhost;
CREATE DEFINER=zoe@localhost PROCEDURE shop.p() SELECT 1;
CREATE DEFINER=clerk PROCEDURE shop.q() SELECT 2;
"""


@pytest.mark.needs("mariadbd", "mariadb-dump")
@pytest.mark.fault("a restoring user who may name no definers", "exit 3, all is there as its own")
def test_by_a_user_who_may_name_none(system: System, server: MariaDB) -> None:
    shop(server)
    server.sql(LOW)
    configure(system, server)
    assert system.result()["exit_code"] == 0
    login = server.option_file("low.cnf", "low", "low")
    where = ("--to-host", "127.0.0.1", "--to-port", str(server.port), "--to-credentials", login)
    arguments = ("--restore", "latest", "--item", "shop", *map(str, where), "--to-database", "back")
    text = system.restore(*arguments, code=3)
    assert "are now owned by the restoring user" in text
    assert "1 of 1 view" in text
    server.sql("INSERT INTO t (v) VALUES ('x'); CALL p()", "back")  # the trigger, the routine
    assert server.sql("SELECT n, f(1) FROM v", "back") == "3001\t2\n"
    query = "SELECT DISTINCT definer FROM information_schema.{} WHERE {}_schema = 'back'"
    for kind in ("triggers", "routines", "events"):
        assert server.sql(query.format(kind, kind.removesuffix("s"))) == "low@localhost\n"
    assert server.sql(query.format("views", "table")) == "low@localhost\n"
    # Issue 14 C: their authors get none of its privileges
    query = "SELECT security_type FROM information_schema.routines WHERE routine_schema = 'back' "
    query += "UNION ALL SELECT security_type FROM information_schema.views "
    query += "WHERE table_schema = 'back' UNION ALL SELECT status FROM information_schema.events "
    query += "WHERE event_schema = 'back'"
    assert server.sql(query) == "INVOKER\n" * 3 + "DISABLED\n"


@pytest.mark.parametrize(
    ("line", "create", "added"),
    [
        ("CREATE DEFINER=`a`@`%` PROCEDURE `p`()", "CREATE PROCEDURE `p`()", "PROCEDURE `p`"),
        ('CREATE FUNCTION "f"() RETURNS INT', 'CREATE FUNCTION "f"() RETURNS INT', 'FUNCTION "f"'),
        (
            "/*!50001 CREATE */ /*!50013 DEFINER=`a`@`%` SQL SECURITY DEFINER */ /*!50001 VIEW `v`",
            "/*!50001 CREATE */ /*!50013 SQL SECURITY INVOKER */ /*!50001 VIEW `v`",
            "",
        ),
        (
            "CREATE DEFINER=`a` EVENT `e` ON SCHEDULE EVERY 1 DAY ENABLE DO SET @ENABLE = 1",
            "CREATE EVENT `e` ON SCHEDULE EVERY 1 DAY DISABLE DO SET @ENABLE = 1",
            "",
        ),
        (
            "CREATE DEFINER=`a` PACKAGE BODY `k` AS END",
            "CREATE PACKAGE BODY `k` SQL SECURITY INVOKER AS END",
            "",
        ),
        ("CREATE TABLE `t` (a INT)", "CREATE TABLE `t` (a INT)", ""),
        ("SET NAMES utf8", "SET NAMES utf8", ""),
    ],
)
def test_authors_get_no_privileges(line: str, create: str, added: str) -> None:
    """Issue 14 C: for a restoring user who becomes the definer."""
    (statement, *_) = statements.Reader().read([f"{line};".encode()])
    assert definers.without_privileges(statement) == create.encode()
    expected = f"ALTER {added} SQL SECURITY INVOKER" if added else ""
    assert definers.invoker_statement(statement) == expected.encode()


@pytest.mark.needs("mariadbd", "mariadb-dump")
@pytest.mark.fault("definers that the server does not know", "exit 3, each is named")
def test_unknown_ones_are_named(system: System, server: MariaDB) -> None:
    server.sql(KEPT)
    configure(system, server)
    assert system.result()["exit_code"] == 0
    arguments = ("--restore", "latest", "--item", "shop", *to(server, "--overwrite"))
    assert "definer" not in system.restore(*arguments)
    server.sql("DROP USER zoe@localhost; DROP ROLE clerk")
    text = system.restore(*arguments, code=3)
    assert "definer zoe@localhost does not exist" in text
    assert "definer clerk does not exist" in text or "definer clerk@" in text
    assert "definer" not in system.restore("--restore", "latest", *to(server, "--overwrite"))


@pytest.mark.parametrize(
    ("line", "stripped"),
    [
        (
            "/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`%`*/ /*!50003 TRIGGER g AFTER INSERT",
            "/*!50003 CREATE*/ /*!50017 */ /*!50003 TRIGGER g AFTER INSERT",
        ),
        (
            "/*!50106 CREATE*/ /*!50117 DEFINER=`a``b`@`c d`*/ /*!50106 EVENT `e` ON",
            "/*!50106 CREATE*/ /*!50117 */ /*!50106 EVENT `e` ON",
        ),
        ("CREATE DEFINER=`a`@`%` PROCEDURE `p`()", "CREATE PROCEDURE `p`()"),
        (
            "CREATE DEFINER=`role` FUNCTION `f`() RETURNS int(11)",
            "CREATE FUNCTION `f`() RETURNS int(11)",
        ),
        (
            "/*!50001 CREATE */ /*!50013 DEFINER=`a`@`%` SQL SECURITY DEFINER */ /*!50001 VIEW `v`",
            "/*!50001 CREATE */ /*!50013 SQL SECURITY DEFINER */ /*!50001 VIEW `v`",
        ),
        ("CREATE /* DEFINER=`x` */ DEFINER=`a` EVENT e", "CREATE /* DEFINER=`x` */ EVENT e"),
        ("INSERT INTO `t` VALUES ('CREATE DEFINER=`a`@`%` VIEW')", ""),
        ("CREATE PROCEDURE `p`() SELECT 'DEFINER=`a`@`%`', DEFINER=`b` FROM t", ""),
    ],
)
def test_what_is_stripped(line: str, stripped: str) -> None:
    data = f"-- head\n{line};".encode()
    (statement, *_) = statements.Reader().read([data])
    assert definers.strip_definers(statement) == f"-- head\n{stripped or line}".encode()
