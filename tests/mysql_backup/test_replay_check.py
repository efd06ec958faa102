"""Statements in binary logs that a replay of one database does not send."""

from __future__ import annotations

import pytest

from mysql_backup import replay_check
from tools.base.errors import StoreError


@pytest.mark.fault("a logged statement that changes another database", "exit 1, nothing is sent")
def test_no_replay_leaves_its_database() -> None:
    """Issue 14 C: on the target that database may belong to somebody else."""
    harmless = """\
CREATE TABLE hon.t (x INT, FOREIGN KEY (x) REFERENCES other.p (i)); DROP TABLE `Hon`.`t`, `u`;
CREATE VIEW v AS SELECT o.x FROM other.o; INSERT INTO t SELECT a.x FROM other.a; USE hon;
DROP TEMPORARY TABLE IF EXISTS `other`.`t`; UPDATE t SET x = (SELECT 1.5 FROM other.y);
ALTER TABLE t RENAME TO hon.u, ADD COLUMN y INT DEFAULT 1.5; RENAME TABLE t TO hon.v; COMMIT;
CREATE TRIGGER r BEFORE INSERT ON t FOR EACH ROW INSERT INTO other.log VALUES (1); TRUNCATE t;
UPDATE a JOIN b ON f(a.x, b.y) = 1 SET a.x = b.y, b.z = 2; DELETE a.* FROM a, b WHERE a.x = b.y;
UPDATE a JOIN (SELECT x FROM other.o) d ON a.x = d.x SET a.x = 1;
UPDATE a PARTITION (p, q) SET x = 1;
DELETE FROM a USING a JOIN b USING (x, y) WHERE a.x IN (SELECT x FROM other.o);
WITH c AS (SELECT 1 FROM other.o) DELETE FROM t WHERE x IN (SELECT * FROM c);
ALTER DATABASE hon CHARACTER SET latin1; LOAD DATA LOCAL INFILE 'x.y' INTO TABLE `t` (a);
"""
    assert b"LOAD DATA" in b"".join(replay_check.checked([harmless.encode()], "hon"))
    for text in (
        "DROP TABLE t, `Other`.`t`",
        "DROP DATABASE IF EXISTS other",
        "CREATE DATABASE other",
        "ALTER SCHEMA other CHARACTER SET latin1",
        "TRUNCATE TABLE other.t",
        "RENAME TABLE t TO other.t",
        "ALTER TABLE t RENAME TO other.t",
        "ALTER TABLE other.t ADD COLUMN x INT",
        "CREATE OR REPLACE VIEW other.v AS SELECT 1",
        "CREATE DEFINER=`a`@`b` TRIGGER other.r BEFORE INSERT ON other.t FOR EACH ROW SET @x = 1",
        "/*!50003 DROP PROCEDURE other.p */",
        "INSERT IGNORE INTO other.t VALUES (1)",
        "REPLACE other.t VALUES (1)",
        "UPDATE LOW_PRIORITY other.t SET x = 1",
        "UPDATE a, other.t SET t.x = 1",
        "UPDATE (a, other.t) SET t.x = 1",
        "UPDATE a JOIN b ON a.x = b.x, other.t SET t.x = 1",
        "UPDATE a JOIN other.t ON a.i = t.i SET t.x = 1",
        "WITH c AS (SELECT 1) UPDATE other.t JOIN c SET x = 1",
        "DELETE QUICK FROM other.t",
        "DELETE a, other.t FROM a JOIN other.t",
        "DELETE a FROM t AS b JOIN other.t AS a",
        "LOAD DATA LOCAL INFILE 'x' REPLACE INTO TABLE other.t",
    ):
        with pytest.raises(StoreError, match="changes another database: other"):
            list(replay_check.checked([f"{text}/*!*/;\n".encode()], "hon"))
