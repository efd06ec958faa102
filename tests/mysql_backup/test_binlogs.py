"""Binary logs stored once, and a database restored to a moment between two writes."""

from __future__ import annotations

import json
import tarfile
import time
from typing import Any

import pytest

from tests.mysql_backup.test_mysql_dump import configure, shop, state, to
from tests.servers import MariaDB, MySQL
from tests.system import System, execute, next_second

pytestmark = pytest.mark.needs("mariadbd", "mariadb-dump")


def backed_up(system: System, code: int = 0) -> dict[str, Any]:
    """One run, in a second of its own."""
    result = system.result()
    assert result["exit_code"] == code, result
    next_second()
    return result


def logs(system: System) -> list[tuple[str, str]]:
    """The first and last log of each run, oldest first."""
    spans = []
    for path in sorted((system.store / "srv-test").glob("*.manifest.json")):
        for item in json.loads(path.read_text())["items"]:
            if item["kind"] == "mysql-binlogs":
                spans.append((item["facts"]["first"], item["facts"]["last"]))
    return spans


def runs(system: System) -> list[str]:
    names = (system.store / "srv-test").glob("*.manifest.json")
    return sorted(path.name.partition(".")[0] for path in names)


def write(server: MySQL, value: int) -> str:
    """Write a row in a second of its own; gives the time before it, UTC."""
    next_second()
    moment = server.sql("SELECT UTC_TIMESTAMP()").strip()
    server.sql(f"INSERT INTO t (v) VALUES ('late {value}')", "shop")
    next_second()
    return moment


def late(server: MySQL, database: str) -> list[str]:
    return server.sql("SELECT v FROM t WHERE v LIKE 'late%' ORDER BY id", database).splitlines()


def test_each_log_is_stored_once(system: System, server: MariaDB) -> None:
    shop(server)
    configure(system, server)
    for _ in range(3):
        backed_up(system)
    first, second, third = logs(system)
    assert second == (third[0].replace(third[0][-1], str(int(third[0][-1]) - 1)),) * 2
    assert int(second[0][-6:]) == int(first[1][-6:]) + 1
    out = system.restored("--item", f"binlogs@{server.port}")
    with tarfile.open(out / f"MYSQL/binlogs@{server.port}.tar") as tar:
        (member,) = tar.getmembers()
        file = tar.extractfile(member)
        assert file is not None
        data = file.read()
    assert member.name == third[0]
    assert data == (server.folder / "data" / member.name).read_bytes()


def test_a_staged_run_takes_the_last_days(system: System, server: MariaDB) -> None:
    shop(server)
    configure(system, server, "False")
    backed_up(system)
    backed_up(system)
    (first, _), (again, last) = logs(system)
    assert first == again
    assert last > first
    moment = write(server, 1)
    backed_up(system)
    server.sql("DROP DATABASE shop")
    run = runs(system)[0]
    system.restore("--restore", run, "--item", "shop", *to(server), "--until", moment)
    assert late(server, "shop") == []


def test_to_a_second_between_two_writes(system: System, server: MariaDB) -> None:
    server.sql("SET GLOBAL gtid_strict_mode = 1")  # what is played gets GTIDs of its own
    shop(server)
    shop(server, "other")
    configure(system, server)
    backed_up(system)
    first = write(server, 1)
    server.sql("DELETE FROM aria; ALTER TABLE cache ADD COLUMN more INT", "shop")
    server.sql("DELETE FROM t", "other")
    backed_up(system)
    between = write(server, 2)
    expected = state(server, "shop")
    server.sql("INSERT INTO t (v) VALUES ('late 3')", "shop")
    backed_up(system)
    server.sql("DROP DATABASE shop")
    run = runs(system)[0]
    arguments = ("--restore", run, "--item", "shop", *to(server))
    text = system.restore(*arguments, "--until", between)
    assert "1 of 1 view, binlog.000001 to binlog.000003 replayed: 5 tables" in text
    assert late(server, "shop") == ["late 1"]
    assert server.sql("SELECT COUNT(*) FROM aria", "shop") == "0\n"
    system.restore(*arguments, "--to-database", "early", "--until", first)
    assert late(server, "early") == []
    assert server.sql("SELECT COUNT(*) FROM aria", "early") == "2\n"
    second = server.sql(f"SELECT '{between}' + INTERVAL 1 SECOND").strip().replace(" ", "T")
    system.restore(*arguments, "--to-database", "both", "--until", second)
    assert late(server, "both") == ["late 1", "late 2"]
    assert state(server, "both")["log"][1] == expected["log"][1]
    assert server.sql("SELECT COUNT(*) FROM t", "other") == "0\n"


def test_to_a_position_and_to_a_gtid(system: System, server: MariaDB) -> None:
    shop(server)
    configure(system, server)
    backed_up(system)
    server.sql("INSERT INTO t (v) VALUES ('late 1')", "shop")
    file, position = server.sql("SHOW BINLOG STATUS").split()[:2]
    gtid = server.sql("SELECT @@gtid_binlog_pos").strip()
    server.sql("INSERT INTO t (v) VALUES ('late 2')", "shop")
    backed_up(system)
    arguments = ("--restore", runs(system)[0], "--item", "shop", *to(server))
    for number, until in enumerate((f"{file}:{position}", gtid)):
        system.restore(*arguments, "--to-database", f"copy{number}", "--until", until)
        assert late(server, f"copy{number}") == ["late 1"], until


def test_a_manifest_that_cannot_be_read_costs_no_log(system: System, server: MariaDB) -> None:
    shop(server)
    configure(system, server)
    for _ in range(2):
        backed_up(system)
    stored = logs(system)
    newest = sorted((system.store / "srv-test").glob("*.manifest.json"))[-1]
    newest.write_text("no manifest")
    backed_up(system, 3)  # a run is missing
    newest.unlink()
    assert logs(system)[-1][0] == stored[-1][0]  # what may be lost is stored once more


def test_a_store_that_missed_a_run_gets_all_logs(system: System, server: MariaDB) -> None:
    shop(server)
    other = system.folder / "other"
    second = execute("storage", DESTINATION="local", LOCAL_BACKUP=str(other))
    configure(system, server)
    config = json.loads(system.conf.read_text())
    system.conf.write_text(json.dumps({**config, "STORAGE_TWO": second}))
    backed_up(system)
    write(server, 1)
    other.rename(system.folder / "away")
    other.touch()
    backed_up(system, 1)
    other.unlink()
    (system.folder / "away").rename(other)
    between = write(server, 2)
    backed_up(system)
    spans = logs(system)
    assert spans[2][0] == spans[1][0]  # once more, for the one that lacks it
    first = runs(system)[0]
    arguments = ("--store", "STORAGE_TWO", "--restore", first, "--item", "shop", *to(server))
    system.restore(*arguments, "--to-database", "copy", "--until", between)
    assert late(server, "copy") == ["late 1"]


@pytest.mark.fault("binary logs purged before they were stored", "exit 1, the gap is named")
def test_a_gap(system: System, server: MariaDB) -> None:
    shop(server)
    configure(system, server)
    backed_up(system)
    server.sql("FLUSH BINARY LOGS; FLUSH BINARY LOGS")
    last = server.sql("SHOW BINARY LOGS").split()[-2]
    while len(server.sql("SHOW BINARY LOGS").splitlines()) > 1:  # it lets go of them by and by
        server.sql(f"PURGE BINARY LOGS TO '{last}'")
        time.sleep(0.2)
    next_second()
    result = backed_up(system, 1)
    assert "2 binary logs between" in result["sections"][0]["message"]
    assert "purged before they were backed up" in result["sections"][0]["message"]
    backed_up(system)  # it is said once
    now = server.sql("SELECT UTC_TIMESTAMP() - INTERVAL 1 SECOND").strip()
    arguments = ("--restore", runs(system)[0], "--item", "shop", *to(server))
    text = system.restore(*arguments, "--to-database", "copy", "--until", now, code=1)
    assert "gap in the binary logs: number" in text
    assert "copy" not in server.sql("SHOW DATABASES").split()


@pytest.mark.fault("binary logs that restart at 1 (RESET MASTER)", "exit 1; no replay across it")
def test_a_reset(system: System, server: MariaDB) -> None:
    shop(server)
    configure(system, server)
    backed_up(system)
    server.sql("RESET MASTER")
    for _ in range(3):
        server.sql("FLUSH BINARY LOGS")
    next_second()
    assert (
        "binary logs were reset: binlog.000001 follows"
        in backed_up(system, 1)["sections"][0]["message"]
    )
    now = server.sql("SELECT UTC_TIMESTAMP() - INTERVAL 1 SECOND").strip()
    arguments = ("--restore", runs(system)[0], "--item", "shop", *to(server))
    text = system.restore(*arguments, "--to-database", "copy", "--until", now, code=1)
    assert "gap" in text


@pytest.mark.fault("a binary log removed by hand, or unreadable", "exit 1, the file is named")
def test_a_file_that_is_gone(system: System, server: MariaDB) -> None:
    shop(server)
    configure(system, server)
    server.sql("FLUSH BINARY LOGS")
    (server.folder / "data/binlog.000001").unlink()
    message = backed_up(system, 1)["sections"][0]["message"]
    assert "binlog.000001: no such file" in message
    configure(system, server, BINLOG_PATH=str(system.folder))
    assert "no such file" in backed_up(system, 1)["sections"][0]["message"]
    assert system.run("-t").returncode == 1
    configure(system, server, BINLOG_DAYS="0")
    backed_up(system)


@pytest.mark.fault("--until outside of what is stored", "exit 1, nothing is made")
def test_a_moment_that_is_not_stored(system: System, server: MariaDB) -> None:
    shop(server)
    configure(system, server)
    before = server.sql("SELECT UTC_TIMESTAMP() - INTERVAL 1 SECOND").strip()
    backed_up(system)
    arguments = ("--restore", "latest", "--item", "shop", *to(server), "--to-database", "copy")
    for until, says in (
        ("2099-01-01 00:00:00", "the stored binary logs end at"),
        (before, "the dump is newer"),
        ("binlog.000001:4", "the dump is newer"),
        ("binlog.000999:4", "the stored binary logs end at"),
        ("0-1-1", "the dump is newer"),
        ("yesterday", "not a time, position or GTID"),
    ):
        text = system.restore(*arguments, "--until", until, code=1)
        assert says in text, until
    assert "copy" not in server.sql("SHOW DATABASES").split()


@pytest.mark.fault("positions in a manifest that are none", "exit 1, one line, nothing is made")
def test_a_manifest_that_was_altered(system: System, server: MariaDB) -> None:
    shop(server)
    configure(system, server)
    backed_up(system)
    (path,) = (system.store / "srv-test").glob("*.manifest.json")
    for old, new in (
        ('"binlog_position": ', '"binlog_position": "x", "x": '),
        ('"time": ', '"tme": '),
    ):
        system.sign(path, path.read_text().replace(old, new))
        arguments = ("--restore", "latest", "--item", "shop", *to(server), "--to-database", "copy")
        text = system.restore(*arguments, "--until", "2099-01-01 00:00", code=1)
        assert "invalid fact in the manifest" in text
        assert "Traceback" not in text
    assert "copy" not in server.sql("SHOW DATABASES").split()


@pytest.mark.fault(
    "binary logs of a forged run, not signed or by another signer", "--until stops before them"
)
@pytest.mark.parametrize(("signed", "says"), [(False, "not signed"), (True, "an unknown key")])
def test_logs_of_a_forged_run(system: System, server: MariaDB, signed: bool, says: str) -> None:
    """Issue 14: no statement of an attacker with write access to the store is replayed."""
    shop(server)
    configure(system, server)
    backed_up(system)
    moment = write(server, 1)
    backed_up(system)
    system.forge(signed=signed)
    arguments = ("--restore", runs(system)[0], "--item", "shop", *to(server))
    text = system.restore(*arguments, "--to-database", "copy", "--until", moment, code=1)
    assert "the stored binary logs end at" in text
    assert f"run {runs(system)[1]} is left out: " in text
    assert says in text
    assert "copy" not in server.sql("SHOW DATABASES").split()


@pytest.mark.fault("a damaged binary log in the store", "nothing is made in the server")
def test_a_damaged_log(system: System, server: MariaDB) -> None:
    shop(server)
    configure(system, server)
    backed_up(system)
    moment = write(server, 1)
    backed_up(system)
    path = sorted((system.store / "srv-test").glob("*binlogs*"))[-1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    arguments = ("--restore", runs(system)[0], "--item", "shop", *to(server))
    system.restore(*arguments, "--to-database", "copy", "--until", moment, code=1)
    assert "copy" not in server.sql("SHOW DATABASES").split()


@pytest.mark.fault("a replay that would change the database of the old name", "exit 1, refused")
def test_a_statement_that_names_the_old_database(system: System, server: MariaDB) -> None:
    shop(server)
    configure(system, server)
    backed_up(system)
    server.sql("ALTER TABLE shop.aria ADD COLUMN more INT; DROP VIEW shop.v", "shop")
    moment = write(server, 1)
    backed_up(system)
    arguments = ("--restore", runs(system)[0], "--item", "shop", *to(server), "--until", moment)
    text = system.restore(*arguments, "--to-database", "copy", code=1)
    assert "refers to database shop: ALTER TABLE shop.aria" in text
    text = system.restore(*arguments, "--to-database", "copy two", code=1)
    assert "'copy two': unsupported database name" in text
    assert not {"copy", "copy two"} & set(server.sql("SHOW DATABASES").splitlines())
    server.sql("DROP DATABASE shop")
    system.restore(*arguments)
    assert "more" in server.sql("SHOW CREATE TABLE aria", "shop")


def test_statements_instead_of_rows_are_said(system: System, server: MariaDB) -> None:
    server.sql("SET GLOBAL binlog_format = MIXED")
    shop(server)
    configure(system, server)
    backed_up(system)
    moment = write(server, 1)
    backed_up(system)
    arguments = ("--restore", runs(system)[0], "--item", "shop", *to(server), "--until", moment)
    text = system.restore(*arguments, "--to-database", "copy", code=3)
    assert "binlog_format was MIXED" in text
