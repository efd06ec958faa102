"""Views: what they need may be in other databases, or granted later; and all kinds of columns."""

from __future__ import annotations

import pytest

from mysql_backup import deferred_views, dump_reader
from tests.mysql_backup.test_binlogs import backed_up, runs, write
from tests.mysql_backup.test_mysql_dump import configure, databases, to
from tests.servers import MariaDB
from tests.system import System
from tools.base.errors import StoreError
from tools.flow.facts import MysqlFacts

CROSSING = """\
CREATE DATABASE a; CREATE DATABASE b;
CREATE TABLE a.t (i INT PRIMARY KEY, twice INT AS (i * 2) STORED, thrice INT AS (i * 3) VIRTUAL,
  INDEX (thrice), CHECK (i < 10), j JSON, hidden INT INVISIBLE DEFAULT 5, FULLTEXT (words),
  words TEXT, place POINT NOT NULL, SPATIAL INDEX (place));
INSERT INTO a.t (i, j, words, place) VALUES
  (1, '{"a": 1}', '\n-- Final view structure for view `t`\n', POINT(1, 2)),
  (2, '2', 'é', POINT(3, 4));
CREATE TABLE b.parts (i INT) PARTITION BY RANGE (i)
  (PARTITION p VALUES LESS THAN (10), PARTITION q VALUES LESS THAN MAXVALUE);
INSERT INTO b.parts VALUES (1), (11);
CREATE TABLE b.t (i INT PRIMARY KEY, r INT, FOREIGN KEY (r) REFERENCES a.t (i));
INSERT INTO b.t VALUES (1, 1);
CREATE TABLE a.u (r INT, FOREIGN KEY (r) REFERENCES b.t (i)); INSERT INTO a.u VALUES (1);
CREATE FUNCTION b.f() RETURNS INT DETERMINISTIC RETURN 7;
CREATE VIEW a.`v``1` AS SELECT i FROM b.t; CREATE VIEW b.v AS SELECT i FROM a.`v``1`;
CREATE VIEW a.`line\nbreak` AS SELECT 8 AS n;
CREATE VIEW a.called AS SELECT b.f() AS f; CREATE VIEW a.above AS SELECT i FROM b.v;
"""
QUERIES = """\
SELECT i, twice, thrice, hidden, j, words, ST_AsText(place) FROM a.t ORDER BY i;
SELECT * FROM b.parts PARTITION (q); SELECT * FROM a.above; SELECT * FROM a.called;
SELECT * FROM a.`line\nbreak`; SHOW CREATE VIEW b.v;
SHOW CREATE TABLE a.t; SHOW CREATE TABLE b.parts; SHOW CREATE TABLE a.u;
"""
REMOVED = "SET foreign_key_checks = 0; DROP DATABASE a; DROP DATABASE b;"


@pytest.mark.needs("mariadbd", "mariadb-dump")
@pytest.mark.fault("views of two databases that need each other", "both come back")
def test_of_databases_that_need_each_other(system: System, server: MariaDB) -> None:
    server.sql(CROSSING)
    before = server.sql(QUERIES)
    server.sql("GRANT EXECUTE ON FUNCTION b.f TO ncbackup@localhost")
    configure(system, server)
    assert system.result()["exit_code"] == 0
    server.sql(REMOVED)
    text = system.restore("--restore", "latest", *to(server))
    assert f"rest of MYSQL/{server.port}/a" in text
    assert "4 of 4 views" in text
    assert server.sql(QUERIES) == before
    text = system.restore("--restore", "latest", *to(server), code=1)
    assert text.count("is not empty") == 2  # of both databases
    assert text.count("hint: Choose another name") == 1


@pytest.mark.needs("mariadbd", "mariadb-dump")
@pytest.mark.fault("a view of what is not restored", "exit 3, the view is named; the rest is there")
def test_of_what_is_not_there(system: System, server: MariaDB) -> None:
    server.sql(CROSSING)
    server.sql("GRANT EXECUTE ON FUNCTION b.f TO ncbackup@localhost")
    configure(system, server)
    assert system.result()["exit_code"] == 0
    server.sql(REMOVED)
    text = system.restore("--restore", "latest", "--item", "a", *to(server), code=3)
    assert "view v`1 was not created: ERROR 1146" in text
    assert "view called was not created: ERROR 1305" in text
    assert "Restore the databases, users and definers" in text
    assert server.sql("SHOW TABLES", "a") == "line\\nbreak\nt\nu\n"  # no stand-in is left
    system.restore("--restore", "latest", "--item", "a", "--item", "b", *to(server, "--overwrite"))
    assert server.sql("SELECT i FROM a.above") == "1\n"


@pytest.mark.needs("mariadbd", "mariadb-dump")
@pytest.mark.fault("a view that calls a function, without EXECUTE", "exit 1, the grant is named")
def test_that_calls_a_function(system: System, server: MariaDB) -> None:
    server.sql(CROSSING)
    configure(system, server)
    result = system.result()
    assert result["exit_code"] == 1
    assert "GRANT EXECUTE ON FUNCTION b.f TO the user" in result["stderr"]


@pytest.mark.needs("mariadbd", "mariadb-dump")
def test_a_database_that_waits_is_dropped_where_its_end_fails(
    system: System, server: MariaDB
) -> None:
    """Binary logs are played in the second step; here one needs another database."""
    server.sql("CREATE DATABASE other; CREATE TABLE other.t (i INT); CREATE DATABASE shop")
    server.sql("CREATE TABLE t (v TEXT); CREATE VIEW w AS SELECT * FROM t", "shop")
    configure(system, server)
    backed_up(system)
    server.sql("CREATE TABLE last LIKE other.t", "shop")
    moment = write(server, 1)
    backed_up(system)
    server.sql("DROP DATABASE shop; DROP DATABASE other")
    arguments = ("--item", "shop", *to(server, "--until", moment))
    text = system.restore("--restore", runs(system)[0], *arguments, code=1)
    assert "Table 'other.t' doesn't exist" in text
    assert "shop" not in databases(server)


@pytest.mark.needs("mariadbd", "mariadb-dump")
@pytest.mark.fault("views over views of later names", "all can be updated as before")
def test_views_that_can_be_updated(system: System, server: MariaDB) -> None:
    """Issue 11 B (view order): a view over a stand-in could never be updated again."""
    server.sql(
        "CREATE DATABASE a; CREATE DATABASE b; CREATE DATABASE c;"
        "CREATE TABLE a.t (id INT PRIMARY KEY, x INT); INSERT INTO a.t VALUES (1, 1);"
        "CREATE VIEW c.z AS SELECT * FROM a.t; CREATE VIEW b.m AS SELECT * FROM c.z;"
        "CREATE VIEW a.z AS SELECT * FROM b.m; CREATE VIEW a.m AS SELECT * FROM a.z WHERE x > 0;"
        "CREATE VIEW a.a AS SELECT * FROM a.m WHERE x > 0 WITH CHECK OPTION"
    )
    query = "SELECT table_schema, table_name, is_updatable, check_option, view_definition "
    query += "FROM information_schema.views WHERE table_schema IN ('a', 'b', 'c') ORDER BY 1, 2"
    before = server.sql(query)
    assert before.count("YES") == 5
    configure(system, server)
    assert system.result()["exit_code"] == 0
    server.sql("DROP DATABASE a; DROP DATABASE b; DROP DATABASE c")
    system.restore("--restore", "latest", *to(server))
    assert server.sql(query) == before
    server.sql("UPDATE a.a SET x = 7")


@pytest.mark.needs("mariadbd", "mariadb-dump")
@pytest.mark.fault("a server whose global sql_mode reads SQL otherwise", "objects are as before")
@pytest.mark.parametrize("mode", ["NO_BACKSLASH_ESCAPES,ANSI_QUOTES", "ORACLE"])
def test_under_another_global_sql_mode(system: System, server: MariaDB, mode: str) -> None:
    """Issue 11 B (settings of the session): views are made under those of the dump."""
    server.sql("CREATE DATABASE shop")
    server.sql(
        r"CREATE TABLE t (a TEXT); INSERT INTO t VALUES ('c:\\x'), ('it\'s 12');"
        r"CREATE VIEW v AS SELECT a, a RLIKE '\\d+' AS n, 'c:\\tmp' AS p FROM t;"
        """CREATE VIEW odd AS SELECT 'it''s; -- no' AS `q"`, "it's" || 'x' AS `z`""",
        "shop",
    )
    query = 'SELECT HEX(a), n, HEX(p) FROM v; SELECT HEX(`q"`), z FROM odd'
    before = server.sql(query, "shop")
    configure(system, server)
    assert system.result()["exit_code"] == 0
    server.sql(f"DROP DATABASE shop; SET GLOBAL sql_mode = '{mode}'")
    system.restore("--restore", "latest", "--item", "shop", *to(server))
    assert server.sql(query, "shop") == before


DUMP = b"""\
/*!40101 SET NAMES utf8mb4 */;
/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;
DROP TABLE IF EXISTS `v`;
/*!50001 DROP VIEW IF EXISTS `v`*/;
/*!50001 CREATE VIEW `v` AS SELECT
 1 AS `a` */;
INSERT INTO `t` VALUES ('\\n-- Final view structure for view `t`');
--
-- Final view structure for view `v`
--

/*!50001 DROP VIEW IF EXISTS `v`*/;
/*!50001 SET @saved_cs_client          = @@character_set_client */;
/*!50001 SET character_set_client      = latin1 */;
/*!50001 CREATE ALGORITHM=UNDEFINED */
/*!50013 DEFINER=`a`@`%` SQL SECURITY DEFINER */
/*!50001 VIEW `v` AS select `w ``2`.`x` from `w ``2` */;
/*!50001 SET character_set_client      = @saved_cs_client */;
/*!50001 CREATE ALGORITHM=UNDEFINED */
/*!50001 VIEW `w ``2` AS select 1 */;
/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */;
-- Dump completed
"""


@pytest.mark.parametrize("size", [1, 7, 40, 1 << 20])
def test_they_are_kept_back(size: int) -> None:
    reader = dump_reader.DumpReader("shop", "shop", MysqlFacts())
    output = b"".join(reader.read(DUMP[at : at + size] for at in range(0, len(DUMP), size)))
    assert b"VIEW `v` AS" not in output
    assert b"Final view structure for view `t`" in output
    assert b"TIME_ZONE=@OLD" in output
    assert reader.head.startswith(b"/*!40101 SET NAMES utf8mb4 */;\n/*!40101 SET @OLD_SQL_MODE")
    every = reader.views.by_name
    assert [one.name for one in deferred_views.in_dependency_order(every, every)] == ["w `2", "v"]
    text = every["v"].text(owned_by_restorer=True)
    assert text.startswith(b"/*!50001 SET character_set_client      = latin1 */;\n")
    assert b"DEFINER=" not in text
    assert b"@saved" not in text


def test_what_a_client_refused() -> None:
    reader = dump_reader.DumpReader("shop", "shop", MysqlFacts())
    list(reader.read([DUMP]))
    every = deferred_views.in_dependency_order(reader.views.by_name, reader.views.by_name)
    script = deferred_views.Script(b"SET NAMES utf8mb4;\n", every, owned_by_restorer=False)
    lines = b"".join(script.chunks()).split(b"\n")
    at = [number for number, line in enumerate(lines, 1) if b"CREATE ALGORITHM" in line]
    first, second = (f"ERROR 1146 (42S02) at line {line}: No" for line in at)
    assert script.failed_views(["a note", first, first]) == {"w `2": first}
    assert script.failed_views([first, second]) == {"w `2": first, "v": second}
    with pytest.raises(StoreError, match="views could not be created"):
        script.failed_views(
            ["ERROR 2013 (HY000) at line 5: Lost connection to server during query"]
        )
