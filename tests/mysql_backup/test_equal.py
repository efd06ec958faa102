"""What a server holds comes back equal, whatever made it; what a dump lacks is named."""

from __future__ import annotations

import re

import pytest

from mysql_backup import changed_values
from tests.mysql_backup.test_mysql_dump import configure, mysql, to
from tests.restore.test_drill import drill, section
from tests.servers import MariaDB
from tests.system import System
from tools.modules import server_settings

pytestmark = pytest.mark.needs("mariadbd", "mariadb-dump")
KINDS = r"""
CREATE DATABASE k CHARACTER SET latin2 COLLATE latin2_czech_cs; CREATE DATABASE k2; USE k;
CREATE TABLE gen (a INT, b INT AS (a*2) STORED, c INT AS (a+1) VIRTUAL, INDEX(c));
INSERT INTO gen(a) VALUES (1),(2);
CREATE TABLE onlygen (b INT AS (1+1) STORED, c INT AS (3) VIRTUAL); INSERT INTO onlygen VALUES ();
CREATE TABLE invis (a INT, h INT INVISIBLE DEFAULT 4); INSERT INTO invis(a,h) VALUES (1,7);
SET sql_mode='NO_AUTO_VALUE_ON_ZERO';
CREATE TABLE zero (id INT AUTO_INCREMENT PRIMARY KEY, t TIMESTAMP NULL, z DATE
  DEFAULT '0000-00-00');
INSERT INTO zero VALUES (0,'0000-00-00 00:00:00','0000-00-00'),(5,NULL,'2020-01-01');
SET time_zone='+02:00'; CREATE TABLE tz (t TIMESTAMP(6), d DATETIME(3));
INSERT INTO tz VALUES ('2020-10-25 02:30:00.123456','2020-10-25 02:30:00.123');
CREATE EVENT ev ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DO SELECT 1;
SET time_zone=DEFAULT, check_constraint_checks=0;
CREATE TABLE chk (x INT CHECK (x > 0)); INSERT INTO chk VALUES (-1),(5);
SET sql_mode='ALLOW_INVALID_DATES'; CREATE TABLE due (d DATE, t DATETIME);
INSERT INTO due VALUES ('2020-02-30','2021-02-31 08:00:00'),('2020-00-00','0000-00-00');
SET sql_mode=''; CREATE SEQUENCE k2.s2 START WITH 7; CREATE SEQUENCE s1 INCREMENT BY 2;
CREATE TABLE sq (id INT DEFAULT NEXTVAL(s1), j INT DEFAULT NEXTVAL(k2.s2), t TEXT);
INSERT INTO sq(t) VALUES ('x'),('y');
CREATE TABLE comp (t LONGTEXT COMPRESSED) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4;
INSERT INTO comp VALUES (REPEAT('a',10000));
CREATE TABLE trg (a TEXT);
CREATE TRIGGER t1 BEFORE INSERT ON trg FOR EACH ROW SET NEW.a=CONCAT(NEW.a,'1');
CREATE TRIGGER t0 BEFORE INSERT ON trg FOR EACH ROW PRECEDES t1 SET NEW.a=CONCAT(NEW.a,'0');
INSERT INTO trg VALUES ('x');
CREATE TABLE fk1 (i INT PRIMARY KEY); CREATE TABLE fk2 (i INT, FOREIGN KEY (i) REFERENCES fk1(i));
SET foreign_key_checks=0; INSERT INTO fk2 VALUES (9); SET foreign_key_checks=1;
CREATE TABLE mem (i INT) ENGINE=MEMORY; INSERT INTO mem VALUES (3);
SET explicit_defaults_for_timestamp=1; CREATE TABLE ts (i INT, t TIMESTAMP NOT NULL);
INSERT INTO ts VALUES (1,'2020-01-01'); SET innodb_strict_mode=0;
CREATE TABLE wide (WIDE) ROW_FORMAT=COMPACT CHARSET latin1;
SET sql_mode='NO_BACKSLASH_ESCAPES,ANSI_QUOTES,PIPES_AS_CONCAT';
CREATE VIEW vw AS SELECT 'a\' || "i" AS "q" FROM fk2; CREATE VIEW av AS SELECT * FROM vw;
CREATE FUNCTION fn() RETURNS TEXT DETERMINISTIC RETURN 'x\' || 'y';
CREATE TABLE dflt (a VARCHAR(9) DEFAULT 'a\b', c VARCHAR(20) AS ('z\' || a) STORED);
INSERT INTO dflt(a) VALUES ('q\');
SET sql_mode='ORACLE'; CREATE VIEW ov AS SELECT 'a' || 'b' AS c;
""".replace("(WIDE)", f"({', '.join(f'c{number} CHAR(255)' for number in range(36))})")


def everything(server: MariaDB, *names: str) -> list[str]:
    """All that the server says of some databases."""
    answers = []
    for name in names:
        where = f"_schema = '{name}' ORDER BY 1"
        tables = f"SELECT table_name FROM information_schema.tables WHERE table{where}"
        answers.append(server.sql(f"SHOW CREATE DATABASE {name}"))
        for table in server.sql(tables).split():
            table_name = f"{name}.{table}"
            answers.append(
                server.sql(f"SHOW CREATE TABLE {table_name}; SELECT * FROM {table_name}")
            )
        kinds = {
            "routine": "routine_name, routine_definition, sql_mode, definer",
            "trigger": "trigger_name, action_order, action_statement, sql_mode",
            "event": "event_name, time_zone, starts, sql_mode, event_definition",
        }
        for kind, columns in kinds.items():
            rows = f"SELECT {columns} FROM information_schema.{kind}s WHERE {kind}{where}"
            answers.append(server.sql(rows))
    return answers


@pytest.mark.parametrize("mode", ["", "ORACLE", "NO_BACKSLASH_ESCAPES,ANSI_QUOTES,TRADITIONAL"])
def test_all_kinds_come_back_equal(system: System, server: MariaDB, mode: str) -> None:
    """Issue 11 B: invalid dates, CHECKs, NEXTVAL, settings of the session and their kin."""
    server.sql(KINDS)
    before = everything(server, "k", "k2")
    configure(system, server)
    assert system.result()["exit_code"] == 0
    server.sql(f"DROP DATABASE k; DROP DATABASE k2; SET GLOBAL sql_mode = '{mode}'")
    server.sql("SET GLOBAL explicit_defaults_for_timestamp = 0")
    text = system.restore("--restore", "latest", "--item", "k", "--item", "k2", *to(server))
    server.sql("SET GLOBAL sql_mode = ''")
    assert everything(server, "k", "k2") == before, text


def test_a_sequence_under_another_name(system: System, server: MariaDB) -> None:
    """Issue 11 B (DEFAULT NEXTVAL): the sequence is that of the new database."""
    server.sql("CREATE DATABASE shop; CREATE SEQUENCE shop.s")
    server.sql("CREATE TABLE t (id INT DEFAULT NEXTVAL(s), v INT)", "shop")
    server.sql("INSERT INTO t(v) VALUES (1)", "shop")
    configure(system, server)
    assert system.result()["exit_code"] == 0
    server.sql("DROP DATABASE shop")
    arguments = ("--item", "shop", *to(server), "--to-database", "copy")
    system.restore("--restore", "latest", *arguments)
    server.sql("INSERT INTO t(v) VALUES (2)", "copy")
    assert "nextval(`copy`.`s`)" in server.sql("SHOW CREATE TABLE copy.t")


BIG = "CREATE DATABASE shop; CREATE TABLE shop.f (b LONGBLOB); SET @b = UNHEX('00FF5C27');"
BIG += "INSERT INTO shop.f VALUES (REPEAT(@b, 2300000))"


@pytest.mark.fault("a row above max_allowed_packet", "exit 3; raised at a restore, or an error")
def test_a_row_above_the_limit(system: System, server: MariaDB) -> None:
    """Issue 11 B (max_allowed_packet): named at backup; where not raised, nothing is sent."""
    server.sql(BIG)
    configure(system, server)
    result = system.result()
    assert result["exit_code"] == 3
    assert "max_allowed_packet of the server is 16777216" in result["stderr"]
    server.sql("DROP DATABASE shop")
    server.sql("CREATE USER low@localhost IDENTIFIED BY 'low'")
    server.sql("GRANT ALL ON shop.* TO low@localhost")
    login = server.option_file("low.cnf", "low", "low")
    where = ["--to-host", "127.0.0.1", "--to-port", str(server.port)]
    where += ["--to-credentials", str(login)]
    text = system.restore("--restore", "latest", "--item", "shop", *where, code=1)
    assert "a row of the dump needs 18404" in text
    assert "hint: Run as an administrator of the server: SET GLOBAL max_allowed_packet" in text
    assert "shop" not in server.sql("SHOW DATABASES")
    system.restore("--restore", "latest", "--item", "shop", *to(server), code=3)
    assert server.sql("SELECT LENGTH(b) FROM shop.f; SELECT @@global.max_allowed_packet") == (
        "9200000\n16777216\n"
    )


@pytest.mark.fault("FLOAT with more digits than a dump holds", "exit 3, the table is named")
def test_floats_that_a_dump_rounds(system: System, server: MariaDB) -> None:
    """Issue 11 B (FLOAT precision): a warning where values differ, and only there."""
    server.sql("CREATE DATABASE shop; CREATE TABLE shop.plain (f FLOAT, g FLOAT(7,3))")
    server.sql("INSERT INTO shop.plain VALUES (1.1, 47.378), (NULL, NULL), (1e30, 0)")
    configure(system, server)
    assert system.result()["exit_code"] == 0
    server.sql("CREATE TABLE shop.geo (f FLOAT); INSERT INTO shop.geo VALUES (16777217)")
    result = system.result()
    assert result["exit_code"] == 3
    assert "values of geo are dumped with 6 digits" in result["stderr"]


PRECISE = """\
CREATE TABLE price (id INT PRIMARY KEY, x INT, a BIGINT UNSIGNED GENERATED ALWAYS AS ROW START,
  b BIGINT UNSIGNED GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (a, b))
  WITH SYSTEM VERSIONING;
INSERT INTO price (id, x) VALUES (1, 1); UPDATE price SET x = 2;
CREATE TABLE v (i INT) WITH SYSTEM VERSIONING; INSERT INTO v VALUES (1); UPDATE v SET i = 2;
"""


@pytest.mark.fault("a transaction-precise versioned table", "exit 3, its history is named")
def test_a_table_that_is_versioned_by_transactions(system: System, server: MariaDB) -> None:
    """Issue 11 B [06]: its rows and all else are there, with the history of other tables."""
    server.sql("CREATE DATABASE shop")
    server.sql(PRECISE, "shop")
    configure(system, server)
    result = system.result()
    assert result["exit_code"] == 3
    assert "history of price not dumped" in result["stderr"]
    server.sql("DROP DATABASE shop")
    system.restore("--restore", "latest", "--item", "shop", *to(server), code=3)
    assert server.sql("SELECT id, x FROM price", "shop") == "1\t2\n"
    assert server.sql("SELECT i FROM v FOR SYSTEM_TIME ALL ORDER BY i", "shop") == "1\n2\n"


def test_a_table_without_its_engine(system: System, server: MariaDB) -> None:
    """Issue 11 A6: it is named, and costs nothing else."""
    server.sql("INSTALL SONAME 'ha_blackhole'; CREATE DATABASE shop")
    server.sql("CREATE TABLE old (i INT) ENGINE=BLACKHOLE; CREATE TABLE t (i INT)", "shop")
    server.sql("FLUSH TABLES; UNINSTALL SONAME 'ha_blackhole'")
    configure(system, server)
    result = system.result()
    assert result["exit_code"] == 3
    assert "table old not dumped: Unknown storage engine" in result["stderr"]


@pytest.mark.fault("an event for which mariadb-dump never ends", "exit 3, it is named; the rest")
def test_an_event_that_the_dump_program_cannot_dump(system: System, server: MariaDB) -> None:
    """Issue 14 C: who may make events could let every backup hang."""
    server.sql("CREATE DATABASE shop; CREATE TABLE shop.t (i INT)")
    server.sql("CREATE EVENT shop.late ON SCHEDULE EVERY 1 DAY DO SELECT 'a;;b'")
    configure(system, server)
    result = system.result()
    assert result["exit_code"] == 3
    assert "never ends for an event that contains ;; (late)" in result["stderr"]
    server.sql("DROP EVENT shop.late")
    assert system.result()["exit_code"] == 0


def test_the_drill_has_the_settings_of_the_source(system: System, server: MariaDB) -> None:
    """Issue 11 B [28]: the throwaway server has the limits of the source."""
    server.sql("CREATE DATABASE shop; CREATE TABLE shop.t (i INT)")
    server.sql("SET GLOBAL sql_mode = 'ANSI_QUOTES', GLOBAL max_allowed_packet = 2097152")
    query = "SELECT @@global.max_allowed_packet = 2097152 AND @@global.sql_mode = 'ANSI_QUOTES'"
    assertions = {f"MYSQL/{server.port}/shop": [query]}
    sections = system.full_sections()
    del sections["FILESET"]
    sections = {"MYSQL": mysql(server), **sections, "DRILL": drill(ASSERTIONS=assertions)}
    system.configure(sections, STREAM="True")
    system.result()  # the drill finds no run yet
    result = system.result()
    assert section(result)["status"] == "ok", section(result)["warnings"]


def test_words_for_another_server() -> None:
    facts = {"sql_mode": "", "max_allowed_packet": "1024", "tool": "x"}
    facts["collation_server"] = "a; b"
    assert server_settings.arguments([facts], install=False) == [
        "--loose-max-allowed-packet=1024",
        "--loose-sql-mode=",
    ]
    assert server_settings.arguments([facts], install=True) == []


def test_warnings_are_counted_by_table() -> None:
    """Issue 11 B: a value that the server altered is named."""
    changed = changed_values.ChangedValues()
    mark = re.search(rb"'(.*?)'", changed_values.marker("t"))
    assert mark
    altered = b"Warning (Code 1265): Data truncated for column 'd' at row 1\n"
    lines = mark[1] + b"\t64\n" + altered * 2
    lines += b"Note (Code 1051): x\nWarning (Code 1906): y\n"
    for at in range(0, len(lines), 7):
        changed.take(lines[at : at + 7])
    assert changed.warnings() == (
        "table d: the server changed values: Data truncated for column 'd' (2 warnings)",
    )
