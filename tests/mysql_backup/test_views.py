"""Views: what they need may be in other databases, or granted later; and all kinds of columns."""

from __future__ import annotations

import pytest

from tests.mysql_backup.test_binlogs import backed_up, runs, write
from tests.mysql_backup.test_mysql_dump import configure, databases, to
from tests.servers import MariaDB
from tests.system import System
from tools import plugin
from tools.errors import StoreError

views = plugin.load("mysql_backup/views.py")
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
ASKED = """\
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
    before = server.sql(ASKED)
    server.sql("GRANT EXECUTE ON FUNCTION b.f TO ncbackup@localhost")
    configure(system, server)
    assert system.result()["exit_code"] == 0
    server.sql(REMOVED)
    text = system.restore("--restore", "latest", *to(server))
    assert f"rest of MYSQL/{server.port}/a" in text
    assert "4 of 4 views" in text
    assert server.sql(ASKED) == before
    text = system.restore("--restore", "latest", *to(server), code=1)
    assert text.count("is not empty, and nothing is overwritten") == 4  # table and errors
    assert text.count("hint: Name another one") == 1


@pytest.mark.needs("mariadbd", "mariadb-dump")
@pytest.mark.fault("a view of what is not restored", "exit 3, the view is named; the rest is there")
def test_of_what_is_not_there(system: System, server: MariaDB) -> None:
    server.sql(CROSSING)
    server.sql("GRANT EXECUTE ON FUNCTION b.f TO ncbackup@localhost")
    configure(system, server)
    assert system.result()["exit_code"] == 0
    server.sql(REMOVED)
    text = system.restore("--restore", "latest", "--item", "a", *to(server), code=3)
    assert "the view v`1 was refused: ERROR 1146" in text
    assert "the view called was refused: ERROR 1305" in text
    assert "What views name, and definers, must be there" in text
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
    words = ("--item", "shop", *to(server, "--until", moment))
    text = system.restore("--restore", runs(system)[0], *words, code=1)
    assert "Table 'other.t' doesn't exist" in text
    assert "shop" not in databases(server)


DUMP = b"""\
-- head
INSERT INTO `t` VALUES ('\\n-- Final view structure for view `t`');
--
-- Final view structure for view `v`
--

/*!50001 DROP VIEW IF EXISTS `v`*/;
/*!50001 VIEW `v` AS select 1 */;
/*!50001 SET character_set_client      = @saved_cs_client */;
--
-- Final view structure for view `w
-- ``2`
--

/*!50001 VIEW `w ``2` AS select 1 */;
/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */;
/*M!100616 SET NOTE_VERBOSITY=@OLD_NOTE_VERBOSITY */;
-- Dump completed
"""


@pytest.mark.parametrize("size", [1, 7, 40, 1 << 20])
def test_they_are_withheld(size: int) -> None:
    found = views.Views()
    head = found.withheld(DUMP[at : at + size] for at in range(0, len(DUMP), size))
    assert b"".join(head) == DUMP[: DUMP.index(b"-- Final view structure for view `v`")]
    assert found.names == ["v", "w\n`2"]
    assert b"@saved" in found.text
    assert b"@OLD" not in found.text
    first, second = (f"ERROR 1146 (42S02) at line {line}: No" for line in (5, 12))
    assert found.refused(["a note", first, first]) == {"v": first}
    assert found.refused([first, second]) == {"v": first, "w\n`2": second}
    with pytest.raises(StoreError, match="the views could not be made"):
        found.refused(["ERROR 2013 (HY000) at line 5: Lost connection to server during query"])


def test_a_dump_without_them() -> None:
    found = views.Views()
    assert b"".join(found.withheld([b"one", b"two"])) == b"onetwo"
    assert found.names == []
