"""What -t says of a login's rights, of its views, and of binary logs that cannot be read."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path

import pytest

from tests.mysql_backup.test_mysql_dump import configure, shop
from tests.servers import MariaDB
from tests.system import System
from tools.base import project

pytestmark = pytest.mark.needs("mariadbd", "mariadb-dump")


def findings(system: System) -> list[str]:
    done = system.run("-t")
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    return [
        f"{line} {after}" for line, after in itertools.pairwise([*lines, ""]) if "MYSQL" in line
    ]


def test_the_documented_rights_are_enough(system: System, server: MariaDB) -> None:
    """Issue 11 A11: no finding for the documented login."""
    shop(server)
    configure(system, server)
    assert findings(system) == []


def test_a_dump_program_that_is_older_than_the_server(
    system: System, server: MariaDB, tmp_path: Path
) -> None:
    shop(server)
    old = tmp_path / "mysqldump"
    old.write_text("#!/bin/sh\necho 'mysqldump  Ver 10.13 Distrib 5.1.73, for Linux (x86_64)'\n")
    old.chmod(0o755)
    configure(system, server, MYSQL_DUMP_BINARY=str(old))
    line = findings(system)[0]
    assert line.startswith("WARN MYSQL: ")
    assert "Distrib 5.1.73, for Linux (x86_64) is older than the server (" in line
    assert "set MYSQL_DUMP_BINARY to them" in line


def test_views_that_call_a_function(system: System, server: MariaDB) -> None:
    """Issue 11 A11: -t names the view that -r would fail on, and the right that is missing."""
    shop(server)
    server.sql(
        "CREATE VIEW `call\ns` AS SELECT f(1) AS n; CREATE VIEW fine AS SELECT 1 AS n", "shop"
    )
    server.sql("CREATE VIEW gone AS SELECT * FROM cache; DROP TABLE cache", "shop")
    configure(system, server)
    lines = "\n".join(findings(system))
    assert "view 'shop.call\\ns' cannot be dumped: ERROR 1370" in lines
    assert "GRANT EXECUTE ON FUNCTION shop.f" in lines.replace("`", "")
    assert "view shop.gone cannot be dumped: ERROR 1356" in lines
    assert "shop.fine" not in lines
    assert "shop.v " not in lines
    assert system.run("-t").returncode == 1
    assert system.result()["exit_code"] == 1
    server.sql("GRANT EXECUTE ON FUNCTION shop.f TO ncbackup@localhost; DROP VIEW shop.gone")
    assert findings(system) == []
    assert system.result()["exit_code"] == 0


@pytest.mark.parametrize(
    ("right", "level", "code"),
    [("TRIGGER", "WARN", 3), ("BINLOG MONITOR", "BAD", 1), ("RELOAD", "BAD", 1),
     ("EVENT", "WARN", 1)],
)  # fmt: skip
def test_missing_rights(system: System, server: MariaDB, right: str, level: str, code: int) -> None:
    """Issue 11 A11: each right that a backup needs is named by -t, and the run is not good."""
    shop(server)
    server.sql(f"REVOKE {right} ON *.* FROM ncbackup@localhost")
    configure(system, server)
    lines = findings(system)
    assert any(level in line and f"lacks {right}" in line for line in lines)
    assert any(f"GRANT {right} ON *.* TO `ncbackup`@`localhost`;" in line for line in lines)
    assert system.result()["exit_code"] == code


@pytest.mark.needs("root")
def test_binary_logs_that_cannot_be_read(
    system: System, server: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 11 A11: BAD in -t; the command has the group of the log folder, looked up."""
    shop(server)
    from mysql_backup import file_access as access

    folder = server.folder / "data"
    folder.chmod(0o750)
    log = folder / "binlog.000001"
    command = [
        "python3", "-c",
        "import sys; sys.path.insert(0, sys.argv[1]); from mysql_backup import file_access as a; "
        "from pathlib import Path; "
        "print(a.command(Path(sys.argv[2])))",
        str(project.ROOT), str(log),
    ]  # fmt: skip
    server.folder.chmod(0o755)
    for group, expected in (
        ("adm", "usermod -aG adm nobody"),
        ("mysql", "usermod -aG mysql nobody"),
    ):
        subprocess.run(["chgrp", group, str(folder)], check=True)
        out = subprocess.run(command, capture_output=True, check=True, user="nobody", text=True)
        assert out.stdout.strip() == expected
    folder.chmod(0o700)
    out = subprocess.run(command, capture_output=True, check=True, user="nobody", text=True)
    assert out.stdout.strip() == f"chmod g+rX {folder} && usermod -aG mysql nobody"
    assert access.command(Path("/")).endswith("root")


@pytest.mark.fault("binary logs that the user may not read", "exit 1, BAD in -t, the command named")
def test_unreadable_logs_are_bad(system: System, server: MariaDB, tmp_path: Path) -> None:
    """Issue 11 A7, A11: -t says what -r fails with, and the run has the same words."""
    shop(server)
    configure(system, server, BINLOG_PATH=str(tmp_path))
    assert any("BAD" in line for line in findings(system))
    result = system.result()
    assert result["exit_code"] == 1
    assert "set BINLOG_DAYS to 0" in json.dumps(result)
