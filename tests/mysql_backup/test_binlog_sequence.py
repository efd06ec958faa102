"""Binary logs that are of another sequence, encrypted, or played only in part."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mysql_backup.test_binlogs import backed_up, late, logs, runs, write
from tests.mysql_backup.test_mysql_dump import configure, shop, to
from tests.servers import MariaDB, MySQL
from tests.system import System, next_second

pytestmark = pytest.mark.needs("mariadbd", "mariadb-dump")
KEY = "1;770A8A65DA156D24EE2A093277530142\n"


class Encrypting(MariaDB):
    """A server that encrypts its binary logs."""

    def serve(self, data: Path) -> None:
        """See MySQL."""
        self.keys = self.folder / "keys"
        self.keys.write_text(KEY)
        self.more = (
            *MariaDB.more, "--encrypt-binlog=ON", "--plugin-load-add=file_key_management",
            f"--file-key-management-filename={self.keys}",
        )  # fmt: skip
        super().serve(data)


@pytest.fixture
def encrypting() -> Iterator[Encrypting]:
    started = Encrypting()
    yield started
    started.stop()


def purge_to(server: MySQL, name: str) -> None:
    """Remove the logs before this one; the server lets go of them by and by."""
    while server.sql("SHOW BINARY LOGS").split()[0] != name:
        server.sql(f"PURGE BINARY LOGS TO '{name}'")
        time.sleep(0.2)


def findings(system: System) -> list[str]:
    """The lines of `backup.py -t`, which must find nothing BAD."""
    done = system.run("-t")
    assert done.returncode == 0, done.stderr
    return (done.stdout + done.stderr).splitlines()


def now(server: MySQL) -> str:
    next_second()
    next_second()
    return server.sql("SELECT UTC_TIMESTAMP() - INTERVAL 1 SECOND").strip()


@pytest.mark.fault(
    "RESET MASTER, and the log with the number of the last stored one is purged",
    "exit 1; no replay across it",
)
def test_a_number_that_is_absent_after_a_reset(system: System, server: MariaDB) -> None:
    """Issue 11 N2: the numbers go on, but the logs are of another sequence."""
    shop(server)
    configure(system, server)
    backed_up(system)
    last = int(logs(system)[-1][1][-6:])
    server.sql("INSERT INTO t (v) VALUES ('late 1')", "shop")
    server.sql("RESET MASTER")
    next_second()
    server.sql("INSERT INTO t (v) VALUES ('late 2')", "shop")
    while int(server.sql("SHOW BINARY LOGS").split()[-2][-6:]) < last + 1:
        server.sql("FLUSH BINARY LOGS")
    purge_to(server, f"binlog.{last + 1:06}")
    server.sql("INSERT INTO t (v) VALUES ('late 3')", "shop")
    assert "binary logs were reset" in backed_up(system, 1)["sections"][0]["message"]
    backed_up(system)  # it is said once
    arguments = (
        "--restore",
        runs(system)[0],
        "--item",
        "shop",
        *to(server),
        "--until",
        now(server),
    )
    text = system.restore(*arguments, "--to-database", "copy", code=1)
    assert "gap in the binary logs" in text
    assert "copy" not in server.sql("SHOW DATABASES").split()
    # a run between that is gone tells nothing of the reset: the times of the logs do
    middle = runs(system)[1]
    for path in (system.store / "srv-test").glob(f"{middle}*"):
        path.unlink()
    assert "gap" in system.restore(*arguments, "--to-database", "copy", code=1)


def test_a_reset_to_a_log_of_the_same_number_and_size(system: System, server: MariaDB) -> None:
    """Issue 11 N2: idle logs all have one size, so number and size do not tell them apart."""
    shop(server)
    configure(system, server)
    backed_up(system)
    while len(logs(system)) < 3:
        backed_up(system)
    number = int(logs(system)[-1][1][-6:])
    server.sql("RESET MASTER")
    while int(server.sql("SHOW BINARY LOGS").split()[-2][-6:]) < number + 1:
        server.sql("FLUSH BINARY LOGS")
    next_second()
    assert (
        "binary logs were reset: binlog.000001 follows"
        in backed_up(system, 1)["sections"][0]["message"]
    )


def test_purged_after_they_were_stored(system: System, server: MariaDB) -> None:
    """Issue 11 N2: an absent number of the same sequence is no gap."""
    shop(server)
    configure(system, server)
    backed_up(system)
    purge_to(server, server.sql("SHOW BINARY LOGS").split()[-2])
    moment = write(server, 1)
    backed_up(system)
    arguments = (
        "--restore",
        runs(system)[0],
        "--item",
        "shop",
        *to(server),
        "--until",
        now(server),
    )
    backed_up(system)
    system.restore(*arguments, "--to-database", "copy")
    assert late(server, "copy") == ["late 1"]
    arguments = (*arguments[:-1], moment)
    system.restore(*arguments, "--to-database", "early")
    assert late(server, "early") == []


@pytest.mark.fault("encrypted binary logs", "exit 3 in each run, WARN in -t, --until refused")
def test_encrypted(system: System, encrypting: Encrypting) -> None:
    """Issue 11 N4: named at backup and in -t, refused at --until."""
    server = encrypting
    shop(server)
    configure(system, server)
    result = backed_up(system, 3)
    assert "encrypted binary log" in json.dumps(result)
    lines = findings(system)
    assert any(line.startswith("WARN") and "encrypted binary logs" in line for line in lines)
    write(server, 1)
    backed_up(system, 3)
    arguments = (
        "--restore",
        runs(system)[0],
        "--item",
        "shop",
        *to(server),
        "--until",
        now(server),
    )
    backed_up(system, 3)
    text = system.restore(*arguments, "--to-database", "copy", code=1)
    assert "is encrypted: no client program can replay it" in text
    assert "copy" not in server.sql("SHOW DATABASES").split()
    # an older run does not say it in its manifest: the files themselves do
    for path in (system.store / "srv-test").glob("*.manifest.json"):
        manifest = json.loads(path.read_text())
        for item in manifest["items"]:
            item["facts"].pop("encrypted", None)
        system.sign(path, json.dumps(manifest))
    text = system.restore(*arguments, "--to-database", "copy", code=1)
    assert "is encrypted: no client program can replay it" in text
    system.restore(*arguments[:-2], "--to-database", "copy")


@pytest.mark.fault("mysqlbinlog that ends early without an error", "exit 1, nothing is left")
def test_a_replay_that_falls_short(
    system: System, server: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 11 N4: what was played is compared with what was wanted."""
    shop(server)
    configure(system, server)
    backed_up(system)
    for number in range(3):
        write(server, number)
    file, position = server.sql("SHOW BINLOG STATUS").split()[:2]
    gtid = server.sql("SELECT @@gtid_binlog_pos").strip()
    backed_up(system)
    moment = now(server)
    backed_up(system)
    programs = system.folder / "programs"
    programs.mkdir()
    short = programs / "mariadb-binlog"
    short.write_text('#!/bin/sh\n/usr/bin/mariadb-binlog "$@" | sed "/^# at 6/q"\n')
    short.chmod(0o755)
    arguments = ("--restore", runs(system)[0], "--item", "shop", *to(server))
    for until in (moment, f"{file}:{position}", gtid):
        for name, search, code in (("copy", None, 0), ("none", f"{programs}:/usr/bin:/bin", 1)):
            with monkeypatch.context() as changed:
                if search:
                    changed.setenv("PATH", search)
                text = system.restore(
                    *arguments, "--to-database", name, "--overwrite", "--until", until, code=code
                )
            if code:
                assert "the binary logs were replayed to binlog.000001:6" in text or "only" in text
    assert late(server, "copy") == ["late 0", "late 1", "late 2"]
    assert "none" not in server.sql("SHOW DATABASES").split()


def test_a_position_at_which_no_event_ends(system: System, server: MariaDB) -> None:
    """Issue 11 N4: mysqlbinlog would stop before it, and say so only on its standard error."""
    shop(server)
    configure(system, server)
    backed_up(system)
    write(server, 1)
    file, position = server.sql("SHOW BINLOG STATUS").split()[:2]
    server.sql("FLUSH BINARY LOGS")
    backed_up(system)
    arguments = (
        "--restore",
        runs(system)[0],
        "--item",
        "shop",
        *to(server),
        "--to-database",
        "copy",
    )
    for wrong in (int(position) - 1, int(position) + 100000):
        text = system.restore(*arguments, "--until", f"{file}:{wrong}", code=1)
        assert f"no event ends at {file}:{wrong}" in text
    assert "copy" not in server.sql("SHOW DATABASES").split()
    system.restore(*arguments, "--until", f"{file}:{position}")
    assert late(server, "copy") == ["late 1"]


def test_the_events_of_a_file_are_those_of_mariadb_binlog(server: MariaDB) -> None:
    """Every event, as the server's own tool lists them."""
    shop(server)
    server.sql("FLUSH BINARY LOGS")
    path = server.data / "binlog.000001"
    command = ["mariadb-binlog", "--no-defaults", str(path)]
    listed = subprocess.run(command, capture_output=True, check=True).stdout
    from mysql_backup import binlog_file as reader

    expected = [int(line[5:]) for line in listed.split(b"\n") if line.startswith(b"# at ")]
    assert [event.start for event in reader.events(path)] == expected
    assert not reader.head(path).encrypted


@pytest.mark.parametrize("form", ["MIXED", "STATEMENT"])
def test_statements_are_noted(system: System, server: MariaDB, form: str) -> None:
    """Issue 11 N5: a WARN line in -t and a note in each backup."""
    server.sql(f"SET GLOBAL binlog_format = {form}")
    shop(server)
    configure(system, server)
    backed_up(system)
    (item,) = [one for one in system.manifest()["items"] if one["kind"] == "mysql-binlogs"]
    assert item["notes"][0].startswith(f"binlog_format is {form}: --until misses statements")
    assert f"binlog_format is {form}" in system.restore("--show", "latest")
    lines = findings(system)
    assert any(line.startswith("WARN") and f"binlog_format is {form}" in line for line in lines)
