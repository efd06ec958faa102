"""Dumps of a standby: what it does not have is named, and a recovery conflict is tried again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres.test_omissions import item
from tests.postgres.test_postgres import configure
from tests.servers import Postgres, program
from tests.system import System

pytestmark = pytest.mark.needs("initdb", "postgres", "pg_dump", "pg_basebackup")
# What the primary does while the first dump waits for its reader: it takes the table away.
CONFLICTING = """\
#!/bin/bash
[ "$1" = --version ] && exec REAL "$@"
[[ "$*" == *shop* ]] && [ ALWAYS = yes -o ! -e FOLDER/once ] || exec REAL "$@"
touch FOLDER/once
set -o pipefail
REAL "$@" | (head -c 100000; psql -qX -h SOCKET -p PORT -U postgres shop -c 'TRUNCATE big' \
  -c "FILL" >/dev/null; sleep 3; cat)
"""
FILL = "INSERT INTO big SELECT repeat(md5(g::text), 100) FROM generate_series(1, 8000) g"


class Standby(Postgres):
    """A hot standby of another server, which gives queries no time."""

    def __init__(self, primary: Postgres) -> None:
        self.primary = primary
        super().__init__()

    def make(self, data: Path) -> None:
        """The data of the primary, and how it is followed."""
        where = ["-h", str(self.primary.folder), "-p", str(self.primary.port), "-U", "postgres"]
        self.call(program("pg_basebackup"), *where, "-D", str(data), "-R", "--checkpoint=fast")
        with (data / "postgresql.conf").open("a") as file:
            file.write("max_standby_streaming_delay = 0\nmax_standby_archive_delay = 0\n")
        (data / "postmaster.pid").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def primary() -> Iterator[Postgres]:
    started = Postgres()
    started.sql("CREATE DATABASE shop")
    started.sql("CREATE UNLOGGED TABLE volatile (i int); CREATE TABLE t (i int)", "shop")
    started.sql("INSERT INTO t SELECT generate_series(1, 5)", "shop")
    started.sql("CREATE TABLE big (v text)", "shop")
    yield started
    started.stop()


@pytest.fixture(scope="module")
def standby(primary: Postgres) -> Iterator[Standby]:
    started = Standby(primary)
    yield started
    started.stop()


def filled(primary: Postgres, standby: Standby) -> None:
    """A table that is larger than all buffers between, on both servers."""
    primary.sql(f"TRUNCATE big; {FILL}", "shop")
    for _ in range(300):
        if standby.sql("SELECT count(*) FROM big", "shop") == "8000\n":
            return
        time.sleep(0.1)
    pytest.fail("the standby does not follow")


def conflicting(system: System, primary: Postgres, always: str) -> str:
    """A pg_dump that meets a conflict, the first time or each time."""
    text = CONFLICTING.replace("REAL", program("pg_dump")).replace("ALWAYS", always)
    text = (
        text.replace("FILL", FILL)
        .replace("FOLDER", str(system.folder))
        .replace("SOCKET", str(primary.folder))
    )
    path = system.folder / "pg_dump"
    path.write_text(text.replace("PORT", str(primary.port)))
    path.chmod(0o755)
    return str(path)


def test_unlogged_tables_are_named(tmp_path: Path, standby: Standby) -> None:
    """Issue 11 B, second round: a standby does not have the rows of unlogged tables."""
    system = System(tmp_path)
    configure(system, standby)
    assert system.result()["exit_code"] == 3
    (warning,) = item(system, "/shop")["warnings"]
    assert warning.startswith("rows of unlogged tables not in the dump: public.volatile")


@pytest.mark.fault("a recovery conflict on a standby", "the dump is made once more")
def test_a_conflict_is_tried_again(tmp_path: Path, primary: Postgres, standby: Standby) -> None:
    """Issue 11 B, second round: the second try is good."""
    system = System(tmp_path)
    filled(primary, standby)
    configure(system, standby, PSQLDUMP=conflicting(system, primary, "no"))
    result = system.result()
    assert result["exit_code"] == 3, result
    assert "conflict with recovery" in system.log.read_text()
    assert item(system, "/shop")["size"]


@pytest.mark.fault("recovery conflicts each time", "exit 1, the settings of the standby named")
def test_conflicts_that_last(tmp_path: Path, primary: Postgres, standby: Standby) -> None:
    """Issue 11 B, second round: the settings are named with their values."""
    system = System(tmp_path)
    configure(system, standby, PSQLDUMP=conflicting(system, primary, "yes"))
    filled(primary, standby)
    result = system.result()
    assert result["exit_code"] == 1
    text = json.dumps(result)
    assert "shop: conflict with recovery on a standby" in text
    assert "max_standby_streaming_delay = 0, max_standby_archive_delay = 0" in text
    assert "hot_standby_feedback to on" in text
