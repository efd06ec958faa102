"""What the author of a routine, or of a dump, cannot make of an honest restore."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from mysql_backup import (
    account_check,
    definition_check,
    dump_check,
    dump_reader,
    row_literals,
    statements,
)
from tests.mysql_backup.test_mysql_dump import configure, to
from tests.servers import MariaDB
from tests.system import System
from tools.base.errors import StoreError
from tools.flow.facts import MysqlFacts

GRANT = b"GRANT ALL ON *.* TO low@localhost WITH GRANT OPTION"
# Bodies that a server reads as a string or comment, and a client as the end of the statement.
BODIES = {
    "control character": ("utf8mb4", b"SELECT 1 --\x01 ;; " + GRANT + b";;\n"),
    "delete character": ("utf8mb4", b"SELECT 1 --\x7f ;; " + GRANT + b";;\n"),
    "sjis": ("sjis", b"SELECT '\x95\x5c', 2 -- ' ;; " + GRANT + b";;\n"),
    "gbk": ("gbk", b"SELECT '\xd5\x5c', 2 -- ' ;; " + GRANT + b";;\n"),
}
HONEST = (
    rb"""
CREATE PROCEDURE q() BEGIN /* don't ; -- */ SELECT 'it''s', "a\"b;", `x;` FROM t; -- isn't
# won't
SELECT /*+ MAX_EXECUTION_TIME(9) */ 1/2, 3--1, 5 - -1, '\\', 'c:\\'; END//
CREATE FUNCTION g(i INT) RETURNS INT DETERMINISTIC RETURN i//
CREATE TRIGGER r BEFORE INSERT ON t FOR EACH ROW BEGIN /* a */ SET NEW.x = '/* */'; END//
CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO BEGIN SELECT '*/'; END//
CREATE VIEW w AS SELECT '/*!90000 ;' AS a, x FROM t//
SET NAMES gbk//
CREATE PROCEDURE han() SELECT '"""
    + b"\xb0\xa1\xd5\x61"
    + rb"""', 'a\\b' AS b//
SET NAMES sjis//
CREATE PROCEDURE kana() SELECT '"""
    + b"\xb1\xb2\x95\x5cx"
    + rb"""' AS b//
SET sql_mode = 'ORACLE'//
CREATE PACKAGE pk AS FUNCTION f RETURN INT; END//
CREATE PACKAGE BODY pk AS FUNCTION f RETURN INT AS BEGIN RETURN 1; END; END//
CREATE PROCEDURE o AS BEGIN SELECT 'x' || "x" FROM t; END//
"""
)
QUERIES = """\
SELECT routine_name, HEX(routine_definition), sql_mode, definer FROM information_schema.routines
  WHERE routine_schema = 'hon' ORDER BY 1;
SELECT HEX(action_statement), definer FROM information_schema.triggers WHERE trigger_schema = 'hon';
SELECT HEX(event_definition) FROM information_schema.events WHERE event_schema = 'hon';
SHOW CREATE VIEW hon.w; SHOW CREATE DATABASE hon; SHOW CREATE DATABASE old;
"""


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDB]:
    """One for all tests of this file."""
    started = MariaDB()
    yield started
    started.stop()


def send(server: MariaDB, sql: bytes, charset: str = "utf8mb4", user: str = "root") -> None:
    """Send statements that end with //, unchanged."""
    command = [
        "mariadb",
        "--no-defaults",
        "-S",
        f"{server.folder}/socket",
        f"-u{user}",
        "--comments",
    ]
    command += ["--binary-mode", f"--default-character-set={charset}", "hon"]
    subprocess.run(command, input=b"DELIMITER //\n" + sql, check=True)


def backed_up(system: System) -> str:
    """The result of a run that names what its restore will reject: exit 3."""
    result = system.result()
    assert result["exit_code"] == 3
    return str(result)


@pytest.mark.needs("mariadbd", "mariadb-dump")
@pytest.mark.fault("a routine that client and server read differently", "exit 1, nothing is sent")
@pytest.mark.parametrize("name", BODIES)
def test_no_body_becomes_a_statement(system: System, server: MariaDB, name: str) -> None:
    """Issue 14 C: its author, who may only make routines, gets no privilege."""
    charset, body = BODIES[name]
    server.sql("CREATE OR REPLACE DATABASE hon; CREATE OR REPLACE USER low@localhost")
    server.sql("GRANT CREATE ROUTINE ON hon.* TO low@localhost; CREATE TABLE hon.t (x INT)")
    send(server, b"CREATE PROCEDURE p() " + body + b"//\n", charset, "low")
    configure(system, server)
    warned = "procedure p: a restore of its database will be rejected: a client and a server may"
    assert warned in backed_up(system)
    for database in ("hon", "hon2"):
        arguments = ("--item", "hon", *to(server, "--to-database", database, "--overwrite"))
        text = system.restore("--restore", "latest", *arguments, code=1)
        assert "a client and a server may read a string or comment in different ways" in text
        assert "ALL PRIVILEGES" not in server.sql("SHOW GRANTS FOR low@localhost")
    assert "hon2" not in server.sql("SHOW DATABASES")


@pytest.mark.needs("mariadbd", "mariadb-dump")
@pytest.mark.fault("a routine that the dump program cuts at a zero byte", "exit 1, nothing is sent")
def test_a_cut_body_opens_no_string(system: System, server: MariaDB) -> None:
    """Issue 14 C: a string that is left open would end in another object of the same author."""
    server.sql("CREATE OR REPLACE DATABASE hon; CREATE OR REPLACE USER low@localhost")
    server.sql("GRANT CREATE ROUTINE ON hon.* TO low@localhost; CREATE TABLE hon.t (x INT)")
    evil = b"CREATE DEFINER=root@localhost PROCEDURE evil() GRANT ALL ON *.* TO low@localhost"
    send(server, b"CREATE PROCEDURE a() SELECT '\0'//", user="low")
    send(server, b"CREATE PROCEDURE b() SELECT \"'; ;; " + evil + b' ;; ", 1//', user="low")
    configure(system, server)
    assert "procedure a: a restore of its database will be rejected: the dump" in backed_up(system)
    arguments = ("--item", "hon", *to(server, "--to-database", "hon2"))
    text = system.restore("--restore", "latest", *arguments, code=1)
    assert "the dump program wrote it incompletely" in text
    assert "hon2" not in server.sql("SHOW DATABASES")


@pytest.mark.needs("mariadbd", "mariadb-dump")
def test_odd_honest_objects_come_back(system: System, server: MariaDB) -> None:
    """Issue 14 C: what looks odd and is read in one way is restored, also under another name."""
    server.sql("CREATE OR REPLACE DATABASE hon CHARACTER SET latin1; CREATE TABLE hon.t (x TEXT)")
    send(server, HONEST, "gbk")
    server.sql("ALTER DATABASE hon CHARACTER SET utf8mb4; CREATE OR REPLACE DATABASE old")
    before = server.sql(QUERIES)
    assert before.count("root@localhost") == 8
    configure(system, server)
    assert system.result()["exit_code"] == 0
    system.restore("--restore", "latest", "--item", "hon", *to(server, "--overwrite"))
    assert server.sql(QUERIES) == before
    server.sql("DROP DATABASE hon")
    system.restore("--restore", "latest", "--item", "hon", *to(server, "--to-database", "copy"))
    copied = server.sql(QUERIES.replace("hon", "copy"))
    assert copied == before.replace("hon", "copy")
    server.sql("DROP DATABASE copy")


@pytest.mark.needs("mariadbd", "mariadb-dump")
@pytest.mark.fault("a logged statement that a client ends early", "exit 1, nothing of it is sent")
def test_no_logged_statement_becomes_another(system: System, server: MariaDB) -> None:
    """Issue 14 C: the text of DDL is in the binary log as its author sent it."""
    server.sql("CREATE OR REPLACE DATABASE hon; CREATE OR REPLACE USER low@localhost")
    server.sql("GRANT CREATE ON hon.* TO low@localhost; CREATE TABLE hon.t (x INT)")
    configure(system, server)
    assert system.result()["exit_code"] == 0
    first = system.manifest()["run_id"]
    send(server, b"SET NAMES gbk//\nCREATE TABLE g (x TEXT COMMENT '\xd5\x5c', y INT)//", "gbk")
    honest = server.sql("SELECT UTC_TIMESTAMP() + INTERVAL 1 SECOND; DO SLEEP(2)").strip()
    send(server, b"CREATE TABLE u (x INT) --\x01 /*!*/; " + GRANT + b"/*!*/;\n//", user="low")
    later = server.sql("DO SLEEP(1); SELECT UTC_TIMESTAMP(); DO SLEEP(1)").strip()
    assert system.result()["exit_code"] == 0
    arguments = ("--restore", first, "--item", "hon", *to(server, "--overwrite", "--until"))
    text = system.restore(*arguments, later, code=1)
    assert "a statement in the binary logs is rejected: 'CREATE TABLE u" in text
    assert "ALL PRIVILEGES" not in server.sql("SHOW GRANTS FOR low@localhost")
    server.sql("DROP DATABASE hon")
    system.restore(*arguments, honest)
    assert server.sql("SHOW TABLES", "hon") == "g\nt\n"


def check(text: str, old: str = "shop", new: str = "shop") -> None:
    """Check a dump, cut in pieces of several sizes."""
    data = text.encode()
    for size in (1, 7, 1 << 20):
        pieces = (data[at : at + size] for at in range(0, len(data), size))
        for _ in dump_check.checked(pieces, old, new):
            pass


@pytest.mark.parametrize(
    "text",
    [
        "USE other",
        "CREATE DATABASE x",
        "DROP DATABASE x",
        "DROP TABLE `other`.`t`",
        "DROP TABLE `t`, `u`",
        "CREATE TABLE `other`.`t` (a INT)",
        "CREATE TABLE `t` SELECT * FROM mysql.user",
        "CREATE TABLE t AS SELECT f()",
        "CREATE TEMPORARY TABLE t (a INT)",
        "CREATE VIEW `other`.`v` AS SELECT 1",
        "CREATE VIEW `v` AS SELECT 1; GRANT ALL ON *.* TO a",
        "/*!50001 CREATE VIEW `v` AS SELECT /* a */ '*/; GRANT ALL ON *.* TO a' */",
        "CREATE FUNCTION f RETURNS STRING SONAME 'x.so'",
        "CREATE PROCEDURE mysql.p() SELECT 1",
        "CREATE USER a",
        "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'x')",
        "GRANT ALL ON *.* TO a",
        "SET GLOBAL x = 1",
        "SET @@global.x = 1",
        "SET a = 1, GLOBAL b = 2",
        "SET @x = (SELECT f())",
        "SET @x = f()",
        "SET PASSWORD = 'x'",
        "SET PASSWORD FOR a = 'x'",
        "SET ROLE x",
        "SET STATEMENT max_statement_time=1 FOR SELECT 1",
        "ALTER USER a IDENTIFIED BY 'x'",
        "ALTER TABLE t ADD COLUMN a INT",
        "ALTER DATABASE other CHARACTER SET latin1",
        "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE t",
        "INSTALL PLUGIN a SONAME 'x'",
        "SELECT 1 INTO OUTFILE '/tmp/x'",
        "SELECT SETVAL(`other`.`s`, 1, 0)",
        "DO SETVAL(s, f(), 0)",
        "DO f()",
        "CALL p()",
        "PREPARE s FROM 'x'",
        "EXECUTE t",
        "INSERT INTO `t` VALUES (f())",
        "INSERT INTO `t` VALUES (1),((SELECT 1))",
        "INSERT INTO `t` VALUES (1) ON DUPLICATE KEY UPDATE a = f()",
        "INSERT INTO `t` SELECT 1",
        "INSERT INTO `other`.`t` VALUES (1)",
        "INSERT INTO `t` VALUES (LOAD_FILE('/etc/passwd'))",
        "INSERT INTO `t` VALUES (NULLf(1))",
        "INSERT INTO `t` VALUES (1, @@version)",
        "INSERT INTO `t` VALUES ('a' /*! , f() */)",
        "REPLACE INTO `t` SET a = 1",
        "CREATE TABLE `t` (a INT) /*!80000 COMMENT='*/; GRANT ALL ON *.* TO a; -- ' */",
        "CREATE TABLE `t` (a INT) /* `o`='*/; CREATE EVENT e DO SELECT 1; -- ' */",
        "CREATE TABLE `t` (a INT /* x */)",
        "CREATE PROCEDURE p() SELECT 1 /*M!100000 ' */, 2 -- '\n",
        "CREATE PROCEDURE p() SELECT \\C sjis\n 1",
        "CREATE PROCEDURE p() SELECT '\\\0', 1",
        "CREATE PROCEDURE p() SELECT 1 -- \0 x",
        "CREATE PROCEDURE p() SELECT 1 /* /*!50003 */, '*/ \\\\C gbk'",
        "CREATE FUNCTION f() RETURNS INT LANGUAGE JAVASCRIPT AS $$ ' $$; GRANT ALL ON a; -- '",
    ],
)
def test_what_no_dump_program_writes(text: str) -> None:
    """Issue 14 C: refused before anything is sent."""
    with pytest.raises(StoreError, match=r"rejected|other than literals"):
        check(f"DELIMITER ~~\n{text}~~\nDELIMITER ;\n")


def test_a_dump_that_goes_on_after_its_last_delimiter() -> None:
    with pytest.raises(StoreError, match="within a statement"):
        check("INSERT INTO `t` VALUES (1)")
    with pytest.raises(StoreError, match="rejected"):
        check("SET NAMES utf8; DROP DATABASE x")


HEX = "0x" + "AB" * 3000
DUMP_HEAD = f"""\
/*M!999999\\- enable the sandbox mode */
-- MySQL dump 10.13  Distrib 8.0.36, for Linux (x86_64)
/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;
/*!50503 SET NAMES utf8mb4 */;
/*!40014 SET @OLD_UNIQUE_CHECKS=@@UNIQUE_CHECKS, UNIQUE_CHECKS=0 */;
/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;
/*!80000 SET SESSION information_schema_stats_expiry=0 */;
SET @MYSQLDUMP_TEMP_LOG_BIN = @@SESSION.SQL_LOG_BIN;
SET @@SESSION.SQL_LOG_BIN= 0;
SET @OLD_AUTOCOMMIT=@@AUTOCOMMIT, @@AUTOCOMMIT=0;
/*!50717 SELECT COUNT(*) INTO @rocksdb_has_p_s_session_variables FROM INFORMATION_SCHEMA.TABLES */;
/*!50717 SET @rocksdb_get_is_supported = IF (@rocksdb_has_p_s, 'SELECT \\'x\\'', 'SELECT 0') */;
/*!50717 PREPARE s FROM @rocksdb_get_is_supported */;
/*!50717 EXECUTE s */;
/*!50717 DEALLOCATE PREPARE s */;
DROP TABLE IF EXISTS `t`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
CREATE TABLE `t` (
  `a` int NOT NULL COMMENT 'it''s; \\\\ /* */',
  `b` text /*!80023 INVISIBLE */, `c` int DEFAULT nextval(`shop`.`s`),
  CONSTRAINT `k` FOREIGN KEY (`a`) REFERENCES `other`.`u` (`a`),
  CHECK (`a` like 'select%')
) ENGINE=InnoDB /*!80016 DEFAULT ENCRYPTION='N' */
/*!50100 PARTITION BY RANGE (`a`)
(PARTITION p VALUES LESS THAN (1) COMMENT = '*/'
ENGINE = InnoDB) */;
LOCK TABLES `t` WRITE;
/*!40000 ALTER TABLE `t` DISABLE KEYS */;
INSERT INTO `t` VALUES (1,'a\\'b''c; -- (',NULL),(-2,'',0x),(+3.5,_binary 'x\\0',{HEX}),
(1.5e-10,x'4D',10);
INSERT INTO `u` () VALUES (),();
INSERT  IGNORE INTO `t` (`a`, `b c`) VALUES ({"9" * 65},NULL),({HEX},1),(0,0);
/*!40000 ALTER TABLE `t` ENABLE KEYS */;
UNLOCK TABLES;
commit;
CREATE TABLE `u` (`a` int /* `o`=YES */) ENGINE=MyISAM /* `PAGE_COMPRESSED`='1' `b`='*\\/;' */;
CREATE SEQUENCE `s` start with 1 minvalue 1 cache 1000 nocycle ENGINE=InnoDB;
DO SETVAL(`s`, 1001, 0);
/*!80002 ANALYZE TABLE `t` UPDATE HISTOGRAM ON `a` WITH 100 BUCKETS */;
ALTER DATABASE `shop` CHARACTER SET latin1 COLLATE latin1_swedish_ci ;
/*!50003 SET sql_mode              = 'ANSI_QUOTES' */ ;
DELIMITER ;;
CREATE DEFINER="root"@"localhost" PROCEDURE "p ""q"()
BEGIN SELECT "a", 'b;\0'; END ;;
/*!50106 CREATE*/ /*!50117 DEFINER=`a`@`%`*/ /*!50106 EVENT IF NOT EXISTS `e`
ON SCHEDULE EVERY 1 DAY DO SELECT 1 */ ;;
/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`%`*/ /*!50003 TRIGGER shop.g AFTER INSERT ON t
FOR EACH ROW SET @a=1 */;;
CREATE DEFINER=`a` AGGREGATE FUNCTION `f`(x INT) RETURNS int(11) RETURN 1 ;;
CREATE OR REPLACE DEFINER=`a`@`%` PACKAGE BODY "k" AS END ;;
DELIMITER ;
/*!50001 DROP VIEW IF EXISTS `v`*/;
/*!50001 CREATE ALGORITHM=UNDEFINED */
/*!50013 DEFINER=`a`@`%` SQL SECURITY DEFINER */
/*!50001 VIEW `v` (`x`) AS select `other`.`f`() AS `x` */
/*!50002 WITH CASCADED CHECK OPTION */;
/*!40111 SET SQL_NOTES=@OLD_SQL_NOTES */;
-- Dump completed
"""


def test_what_dump_programs_write() -> None:
    """Statements of mysqldump 5.7 to 9, of Percona's and of mariadb-dump."""
    check(DUMP_HEAD)


def warned(data: bytes, size: int) -> tuple[str, ...]:
    """What a backup says about a dump that passes by in pieces."""
    check = definition_check.DefinitionCheck("shop")
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert list(check.read(pieces)) == pieces
    return check.warnings()


ROWS = b"INSERT INTO `t` VALUES (1,';\\nINSERT INTO'),\n(2,NULL);\n" * 3
BODY = b"BEGIN\n/* don't ;\nINSERT INTO `t` VALUES (1);\nDELIMITER ;\nINSERT INTO x */\n%s; END"
PROCEDURE = (
    b"DELIMITER ;;\nCREATE DEFINER=`a`@`%%` PROCEDURE `%s`()\n" + BODY + b" ;;\nDELIMITER ;\n"
)


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_a_backup_says_what_its_restore_rejects(size: int) -> None:
    """Issue 14: rows are skipped, definitions are not; an honest dump has no warning."""
    assert warned(DUMP_HEAD.encode(), size) == ()
    good, odd = PROCEDURE % (b"good", b"SELECT 1"), PROCEDURE % (b"odd", b"SELECT 1 --\x01 a\n")
    cut = PROCEDURE % (b"cut", b"SELECT '")
    assert warned(b"SET NAMES utf8mb4;\n" + ROWS + good + ROWS, size) == ()
    (line,) = warned(b"SET NAMES utf8mb4;\n" + ROWS + good + odd + ROWS + good, size)
    assert line.startswith("procedure odd: a restore of its database will be rejected: a client")
    assert line.endswith("before you create it")
    assert "procedure cut: " in warned(ROWS + cut + ROWS + good, size)[0]


def test_a_string_without_an_end_costs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definition_check, "_LONGEST", 10_000)
    (line,) = warned(PROCEDURE % (b"cut", b"SELECT '") + ROWS * 10_000, 4096)
    assert line.startswith("procedure cut: ")


def test_many_odd_objects_are_counted() -> None:
    bodies = (PROCEDURE % (b"p%d" % at, b"SELECT 1 --\x01\n") for at in range(30))
    lines = warned(b"".join(bodies), 1 << 16)
    assert (len(lines), lines[-1]) == (21, "10 more objects that a restore rejects")


@pytest.mark.parametrize(
    "text",
    [
        "CREATE USER `a`@`%` IDENTIFIED BY PASSWORD '*AB';",
        "GRANT SELECT ON `x`.* TO `a`@`%`;",
        "/*!80001 ALTER USER 'a'@'%' DEFAULT ROLE NONE */;",
        "ALTER USER `a`@`%` DEFAULT ROLE `r`@`%`;",
        "/*M!100203 EXECUTE IMMEDIATE CONCAT('SET ROLE ', @current_role) */;",
        "SET SESSION sql_mode = '';",
    ],
)
def test_statements_of_accounts(text: str) -> None:
    assert list(account_check.checked([text.encode()]))


@pytest.mark.parametrize(
    "text",
    [
        "/*!80001 ALTER USER 'a*/; GRANT ALL ON *.* TO b; -- '@'%' DEFAULT ROLE NONE */;",
        "ALTER USER a IDENTIFIED BY 'x';",
        "SET GLOBAL x = 1;",
        "DROP DATABASE x;",
        "INSERT INTO user VALUES (1);",
        "GRANT ALL ON *.* TO `a` --\x01 ;",
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1;",
    ],
)
def test_what_no_dump_of_accounts_has(text: str) -> None:
    with pytest.raises(StoreError, match="users and grants: a statement"):
        list(account_check.checked([text.encode()]))


def test_rows_of_any_size_are_read_once() -> None:
    """A long value is not read again with each of its pieces."""
    for value in (b"0x" + b"AB" * 500_000, b"'" + b"x\\'" * 300_000 + b"'"):
        data = b"INSERT INTO `t` VALUES (" + value + b",1);"
        check = row_literals.RowCheck()
        pieces = (data[at : at + 4096] for at in range(0, len(data), 4096))
        for piece in statements.Reader().read(pieces):
            check.add(piece, last=bool(piece.delimiter))
            assert check.held < 100


def test_the_client_gets_no_executed_comments() -> None:
    """A client that finds a comment in an executed one misses its end, and reads on in a string."""
    head = "/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`%`*/ /*!50003 TRIGGER g BEFORE INSERT ON t FOR"
    dump = f"SET NAMES utf8;\nDELIMITER ;;\n{head} EACH ROW /* a */ SET @a = '*/ \\\\C gbk' */;;"
    reader = dump_reader.DumpReader("shop", "shop", MysqlFacts())
    sent = b"".join(reader.read([f"-- head\n{dump}\n".encode()])).split(b"\n")
    command, delimiter = sent[0].split()
    assert (command, len(delimiter)) == (b"DELIMITER", 15)
    assert b"/*!" not in b"".join(sent)
    assert b"-- head" not in sent
    assert sent.count(delimiter) == 2
    assert any(line.endswith(rb"/* a */ SET @a = '*/ \\C gbk'  ") for line in sent)
