"""MariaDB backed up physically, full and incremental, and a server started on what came back."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mysql_backup import mysql_xtrabackup
from tests.mysql_backup.test_mysql_dump import shop, state
from tests.servers import MariaDB, documented
from tests.system import System, next_second
from tools.base.errors import StoreError
from tools.flow.facts import Json
from tools.flow.item_record import StoredItem

pytestmark = pytest.mark.needs("mariadbd", "mariabackup", "root")


@pytest.fixture
def server() -> Iterator[MariaDB]:
    started = MariaDB()
    started.sql(documented("mysql_xtrabackup"))
    yield started
    started.stop()


def configure(system: System, server: MariaDB, stream: str = "True", **more: Any) -> None:
    sections = system.full_sections()
    del sections["FILESET"]
    section = {
        "ACTION": "execute",
        "NAME": "mysql_backup",
        "EXECUTABLE": "mysql_xtrabackup.py",
        "PARAMETERS": {
            "MY_INSTANCES": str(server.port),
            "CREDENTIAL_PATH": str(server.credentials),
            **more,
        },
    }
    system.configure({"PHYSICAL": section, **sections}, STREAM=stream)


def backed_up(system: System, code: int = 0) -> dict[str, Any]:
    result = system.result()
    assert result["exit_code"] == code, result
    next_second()
    return result


def facts(system: System) -> list[dict[str, Any]]:
    """What each run says of its backup, oldest first."""
    paths = sorted((system.store / "srv-test").glob("*.manifest.json"))
    items = [json.loads(path.read_text())["items"][0] for path in paths]
    return [{**item["facts"], "base": item["base"]} for item in items]


def rows(server: MariaDB) -> str:
    """Every object and row; a server counts AUTO_INCREMENT anew when it starts."""
    return re.sub(r"AUTO_INCREMENT=\d+", "", json.dumps(state(server, "shop"), sort_keys=True))


def started_on(server: MariaDB, folder: Path) -> None:
    """Stop the server and start it on what came back, as a user would do it."""
    server.end()
    data = server.folder / "restored"
    shutil.rmtree(data, ignore_errors=True)
    shutil.copytree(folder, data)
    subprocess.run(["chown", "-R", f"{server.user}:", data], check=True)
    server.serve(data)


@pytest.mark.parametrize("stream", ["True", "False"])
def test_a_full_backup(system: System, server: MariaDB, stream: str) -> None:
    shop(server, myisam=True)
    before = rows(server)
    configure(system, server, stream)
    backed_up(system)
    assert server.password not in system.log.read_text()
    server.sql("DROP DATABASE shop")
    out = system.restored() / f"PHYSICAL/{server.port}"
    started_on(server, out)
    assert rows(server) == before
    assert not list(system.work.glob(".dump-*"))


def test_incremental_backups(system: System, server: MariaDB) -> None:
    shop(server)
    server.sql("CREATE TABLE big AS SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_20000", "shop")
    configure(system, server, FULL_EVERY="7d")
    backed_up(system)
    states = []
    for number in range(2):
        server.sql(f"INSERT INTO t (v) VALUES ('later {number}'); DELETE FROM t LIMIT 100", "shop")
        states.append(rows(server))
        backed_up(system)
    full, first, second = facts(system)
    assert full["base"] is None
    assert full["run"] in system.restore("--list").splitlines()[2]
    assert first["base"] == full["run"] == second["full"]
    assert second["base"] == first["run"]
    assert first["from_lsn"] == full["to_lsn"]
    runs = sorted(path.name[:15] for path in system.store.rglob("*.manifest.json"))
    sizes = [sum(part.stat().st_size for part in system.store.rglob(f"{run}*")) for run in runs]
    assert sizes[-1] < sizes[0] / 2
    for run, expected in zip(runs[1:], states, strict=True):
        out = system.restored(run=run) / f"PHYSICAL/{server.port}"
        started_on(server, out)
        assert rows(server) == expected
    missing = system.store / "srv-test" / f"{runs[1]}.manifest.json"
    missing.rename(system.folder / "away")
    arguments = ("--restore", runs[2], "--destination", str(system.folder / "no"))
    text = system.restore(*arguments, code=1)
    assert f"base run {runs[1]} is not in this store" in text
    assert not (system.folder / "no").exists()


def test_a_server_that_was_made_anew_gets_a_full_backup(system: System, server: MariaDB) -> None:
    shop(server)
    configure(system, server, FULL_EVERY="7d")
    backed_up(system)
    out = system.restored() / f"PHYSICAL/{server.port}"
    started_on(server, out)
    backed_up(system)
    assert [one["base"] for one in facts(system)] == [None, None]


@pytest.mark.fault("a physical backup that ends early, or cannot read", "exit 1, nothing stored")
def test_what_fails(system: System, server: MariaDB, tmp_path: Path) -> None:
    shop(server)
    cut = tmp_path / "mariabackup"
    cut.write_text('#!/bin/sh\nmariabackup "$@" 2>/dev/null\n')
    cut.chmod(0o755)
    configure(system, server, XTRABACKUP_BINARY=str(cut))
    assert 'no "completed OK!" in its output' in backed_up(system, 1)["sections"][0]["message"]
    configure(system, server, DATA_DIR="/does/not/exist")
    assert "no such file" in backed_up(system, 1)["sections"][0]["message"]
    configure(system, server, MY_INSTANCES="1")
    assert "Can't connect" in json.dumps(backed_up(system, 1))
    configure(system, server, CREDENTIAL_PATH="/a /b /c")
    assert "CREDENTIAL_PATH: 3 paths for 1 ports" in system.run("-r").stderr
    assert system.stored() == []
    configure(system, server)
    assert "is readable" in system.run("-t").stdout


@pytest.mark.parametrize("tool", ["rm", "/srv/x/mariabackup", "../mariabackup"])
def test_a_manifest_does_not_choose_the_program(tmp_path: Path, tool: str) -> None:
    """Issue 14: a program of that name was looked for, and the path of a real one was started."""
    kind = mysql_xtrabackup.KIND
    facts: dict[str, Json] = {"from_lsn": 0, "to_lsn": 1, "tool": tool}
    item = StoredItem("XTRABACKUP", "3306", kind, ".xbstream", (), (), facts=facts)
    with pytest.raises(StoreError, match="unknown backup program"):
        mysql_xtrabackup.restore_to_folder(
            item, lambda: iter(()), tmp_path / "new", lambda: iter(())
        )
    assert not list(tmp_path.iterdir())
