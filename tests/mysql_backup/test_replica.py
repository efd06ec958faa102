"""Replicas: where their primary stood, and whether they follow it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mysql_backup.test_mysql_dump import configure, shop, to
from tests.servers import MariaDB
from tests.system import System

pytestmark = pytest.mark.needs("mariadbd", "mariadb-dump")


class Replica(MariaDB):
    """A server without binary logs."""

    more = (*MariaDB.more, "--skip-log-bin", "--server-id=2")


@pytest.fixture
def pair() -> Iterator[tuple[MariaDB, Replica]]:
    """A primary, and a replica that follows it."""
    primary = MariaDB()
    try:
        primary.sql("CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'repl'")
        primary.sql("GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'")
        primary.sql("RESET MASTER")
        replica = Replica()
        try:
            follow(replica, primary, "binlog.000001", 4)
            yield primary, replica
        finally:
            replica.stop()
    finally:
        primary.stop()


def follow(replica: MariaDB, primary: MariaDB, file: str, position: int | str) -> None:
    replica.sql(
        f"CHANGE MASTER TO master_host='127.0.0.1', master_port={primary.port}, "
        f"master_user='repl', master_password='repl', master_log_file='{file}', "
        f"master_log_pos={position}, master_connect_retry=1; START SLAVE"
    )


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def caught_up(primary: MariaDB, replica: MariaDB) -> None:
    position = primary.sql("SELECT @@gtid_binlog_pos")
    until(lambda: replica.sql("SELECT @@gtid_slave_pos") == position)


def facts(system: System) -> dict[str, Any]:
    path = sorted((system.store / "srv-test").glob("*.manifest.json"))[-1]
    items = json.loads(path.read_text())["items"]
    (item,) = [one for one in items if one["name"].endswith("/shop")]
    return {**item["facts"], "notes": item["notes"]}


@pytest.mark.parametrize("stream", ["True", "False"])
def test_the_position_of_the_primary(
    system: System, pair: tuple[MariaDB, Replica], stream: str, tmp_path: Path
) -> None:
    """Issue 11, second round: a replica without binary log stores the primary's position.

    A new replica that is made of the backup alone follows the primary from it.
    """
    primary, replica = pair
    shop(primary)
    caught_up(primary, replica)
    configure(system, replica, stream)
    result = system.result()
    assert result["exit_code"] == 0, json.dumps(result)
    file, position = primary.sql("SHOW MASTER STATUS").split()[:2]
    stored = facts(system)
    assert stored["primary_host"] == "127.0.0.1"
    assert stored["primary_port"] == primary.port
    assert (stored["primary_log_file"], str(stored["primary_log_position"])) == (file, position)
    assert stored["gtid_slave_pos"] == primary.sql("SELECT @@gtid_binlog_pos").strip()
    assert stored["primary_position"] == "exact"
    output = system.restore("--show", "latest")
    assert f"replica of 127.0.0.1:{primary.port}, executed up to {file}:{position}" in output
    done = system.run("-t")
    assert done.returncode == 0, done.stderr
    assert "replica of 127.0.0.1" in done.stdout
    primary.sql("INSERT INTO t (v) VALUES ('after')", "shop")
    replica.sql("STOP SLAVE")  # a primary keeps one replica of each server-id
    fresh = Replica()
    try:
        system.restore("--restore", "latest", "--item", "shop", *to(fresh))
        follow(fresh, primary, stored["primary_log_file"], stored["primary_log_position"])
        until(lambda: fresh.sql("SELECT COUNT(*) FROM t WHERE v = 'after'", "shop") == "1\n")
        assert fresh.sql("CHECKSUM TABLE t", "shop") == primary.sql("CHECKSUM TABLE t", "shop")
    finally:
        fresh.stop()


@pytest.mark.fault("a replica that is stopped, or has an error", "exit 3, WARN in -t")
def test_a_replica_that_does_not_follow(system: System, pair: tuple[MariaDB, Replica]) -> None:
    """Issue 11, second round: its data may be old."""
    primary, replica = pair
    shop(primary)
    caught_up(primary, replica)
    configure(system, replica)
    replica.sql("DROP TABLE shop.cache")
    primary.sql("INSERT INTO cache VALUES ('z')", "shop")
    until(lambda: "'Table 'shop.cache' doesn't exist'" in replica.sql("SHOW ALL SLAVES STATUS"))
    result = system.result()
    assert result["exit_code"] == 3
    text = json.dumps(result)
    assert "not applying: SQL thread stopped: Error executing row event" in text
    done = system.run("-t")
    assert done.returncode == 0
    assert "WARN" in done.stderr
    assert "not applying" in done.stderr


def test_a_login_that_may_not_ask(system: System, pair: tuple[MariaDB, Replica]) -> None:
    """Issue 11, second round: a replica whose login lacks SLAVE MONITOR is named."""
    primary, replica = pair
    shop(primary)
    caught_up(primary, replica)
    replica.sql("REVOKE SLAVE MONITOR ON *.* FROM ncbackup@localhost")
    configure(system, replica)
    result = system.result()
    assert result["exit_code"] == 3
    assert "GRANT SLAVE MONITOR" in json.dumps(result)
    assert facts(system)["gtid_slave_pos"] == primary.sql("SELECT @@gtid_binlog_pos").strip()
