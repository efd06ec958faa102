"""MySQL of Oracle, where it differs from MariaDB: GTIDs, accounts and roles, its own programs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.mysql_backup.test_binlogs import backed_up, late, runs, write
from tests.mysql_backup.test_mysql_dump import configure, mysql, state, to
from tests.restore.test_drill import drill, section
from tests.servers import MySQL
from tests.system import System

# the last is a program that MariaDB does not have
pytestmark = pytest.mark.needs("mysqld", "mysqldump", "mysql_config_editor")
OBJECTS = """\
CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v TEXT, b BLOB, j JSON, INDEX (v(10)));
SET SESSION cte_max_recursion_depth = 9999;
INSERT INTO t (v, b, j) WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s
WHERE n < 3000) SELECT CONCAT('row ', n, ' é\\n'), UNHEX(SHA2(n, 256)), JSON_OBJECT('n', n) FROM s;
CREATE TABLE log (n INT);
CREATE VIEW v AS SELECT COUNT(*) AS n FROM t;
CREATE TRIGGER g AFTER INSERT ON t FOR EACH ROW INSERT INTO log VALUES (NEW.id);
CREATE FUNCTION f(i INT) RETURNS INT DETERMINISTIC RETURN i + 1;
CREATE PROCEDURE p() SELECT 'a procedure';
CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DELETE FROM log;
"""
ACCOUNTS = """\
CREATE USER zoe@'%' IDENTIFIED BY 'a pass\\\\word';
CREATE USER 'odd `name'@'%' IDENTIFIED BY 'x' COMMENT 'it''s a \\\\ DEFAULT ROLE `clerk`@`%`';
CREATE ROLE clerk, 'b\\\\s';
GRANT SELECT ON shop.* TO clerk;
GRANT clerk, 'b\\\\s' TO zoe@'%';
SET DEFAULT ROLE clerk, 'b\\\\s' TO zoe@'%';
GRANT INSERT ON shop.t TO 'odd `name'@'%';
"""


@pytest.fixture
def server() -> Iterator[MySQL]:
    """One for each test: they make accounts and logs."""
    started = MySQL()
    yield started
    started.stop()


def shop(server: MySQL, name: str = "shop") -> None:
    server.sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci")
    server.sql(OBJECTS, name)


def accounts(server: MySQL) -> list[str]:
    """All that the server says of the accounts of ACCOUNTS."""
    answers = []
    for who in ("zoe", "`odd ``name`", "clerk", "'b\\\\s'"):
        for query in (f"SHOW CREATE USER {who}@'%'", f"SHOW GRANTS FOR {who}@'%'"):
            answers.append(server.sql(f"SET print_identified_with_as_hex = ON; {query}"))
    return answers


@pytest.mark.parametrize("stream", ["True", "False"])
def test_back_up_drop_restore_compare(system: System, server: MySQL, stream: str) -> None:
    shop(server)
    shop(server, "mixed")
    server.sql("CREATE TABLE m (i INT) ENGINE=MyISAM; INSERT INTO m VALUES (7)", "mixed")
    server.sql(ACCOUNTS)
    before = {name: state(server, name) for name in ("shop", "mixed")}, accounts(server)
    configure(system, server, stream)
    assert system.result()["exit_code"] == 0
    facts = {one["name"].partition("/")[2]: one["facts"] for one in system.manifest()["items"]}
    assert facts["shop"]["consistency"] == "single transaction"
    assert facts["mixed"]["consistency"] == "locked"
    assert int(facts["shop"]["binlog_position"]) > 0
    server.sql("DROP DATABASE shop; DROP DATABASE mixed; DROP ROLE clerk, 'b\\\\s'")
    server.sql("DROP USER zoe@'%', 'odd `name'@'%'")
    text = system.restore("--restore", "latest", *to(server))
    assert "database shop: 2 tables, 3000 rows" in text
    assert ({name: state(server, name) for name in ("shop", "mixed")}, accounts(server)) == before
    path = server.option_file("zoe.cnf", "zoe", "a pass\\word")
    client = ["mysql", f"--defaults-file={path}", f"--port={server.port}"]
    command = [*client, "--execute=SELECT COUNT(*) FROM shop.t"]
    assert b"3000" in subprocess.run(command, capture_output=True, check=True).stdout


def test_to_a_second_a_position_and_a_gtid(system: System, server: MySQL) -> None:
    shop(server)
    configure(system, server)
    backed_up(system)
    write(server, 1)
    server.sql("CREATE TABLE w (i INT); ALTER TABLE w ADD COLUMN more INT", "shop")
    backed_up(system)
    file, position = server.sql("SHOW BINARY LOG STATUS").split()[:2]
    uuid, _, numbers = server.sql("SELECT @@gtid_executed").strip().partition(":")
    gtid = f"{uuid}:{numbers.rpartition('-')[2]}"
    between = write(server, 2)
    backed_up(system)
    arguments = ("--restore", runs(system)[0], "--item", "shop", *to(server))
    for number, until in enumerate((between, f"{file}:{position}", gtid)):
        system.restore(*arguments, "--to-database", f"copy{number}", "--until", until)
        assert late(server, f"copy{number}") == ["late 1"], until
        assert "w" in server.sql("SHOW TABLES", f"copy{number}").split()
    assert late(server, "shop") == ["late 1", "late 2"]
    for until, says in (
        (f"{uuid}:1", "the dump is newer"),
        (f"{uuid}:9999", "the stored binary logs end at"),
        (f"{uuid}:1-9", "not a time, position or GTID"),
    ):
        text = system.restore(*arguments, "--to-database", "none", "--until", until, code=1)
        assert says in text, until
    assert "none" not in server.sql("SHOW DATABASES").split()
    server.sql("DROP DATABASE shop")
    system.restore(*arguments, "--until", between)
    assert late(server, "shop") == ["late 1"]


def test_a_drill(system: System, server: MySQL) -> None:
    shop(server)
    assertions = {f"MYSQL/{server.port}/shop": "SELECT COUNT(*) = 3000 FROM t"}
    sections = system.full_sections()
    del sections["FILESET"]
    both = {"MYSQL": mysql(server), **sections}
    system.configure(both, STREAM="True")
    assert system.result()["exit_code"] == 0
    system.configure({**both, "DRILL": drill(ASSERTIONS=assertions)}, STREAM="True")
    result = system.result("--only", "DRILL")
    assert section(result)["status"] == "ok", json.dumps(result)
