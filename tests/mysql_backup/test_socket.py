"""Servers that are reached through their socket only."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mysql_backup.test_mysql_dump import configure, shop, state
from tests.servers import MariaDB, documented, program
from tests.system import System

pytestmark = pytest.mark.needs("mariadbd", "mariadb-dump")


class SocketOnly(MariaDB):
    """A server with skip-networking: it has no port."""

    more = (*MariaDB.more, "--skip-networking")

    def option_file(self, name: str, user: str, password: str) -> Path:
        """See MySQL."""
        path = super().option_file(name, user, password)
        text = path.read_text().replace("host=127.0.0.1", f"socket={self.folder}/socket")
        path.write_text(text)
        return path


class DebianRoot(MariaDB):
    """A server whose root logs in through the socket, as Debian installs it."""

    def install(self) -> None:
        """See MySQL."""
        self.call(
            program("mariadb-install-db"), "--no-defaults", f"--datadir={self.data}",
            "--auth-root-authentication-method=socket", "--auth-root-socket-user=root",
            "--skip-test-db", TMPDIR=str(self.temporary),
        )  # fmt: skip


@pytest.fixture
def socket_only() -> Iterator[SocketOnly]:
    started = SocketOnly()
    yield started
    started.stop()


@pytest.fixture
def debian() -> Iterator[DebianRoot]:
    started = DebianRoot()
    yield started
    started.stop()


@pytest.mark.parametrize("stream", ["True", "False"])
def test_skip_networking(system: System, socket_only: SocketOnly, stream: str) -> None:
    """Issue 11 N3: MY_INSTANCES names its items; -t, backup, restore, --until."""
    server = socket_only
    assert server.sql("SELECT @@port") == "0\n"
    shop(server)
    before = state(server, "shop")
    configure(system, server, stream)
    done = system.run("-t")
    assert done.returncode == 0, done.stderr
    assert f"port {server.port}: " in done.stdout
    assert system.result()["exit_code"] == 0
    names = {item["name"] for item in system.manifest()["items"]}
    assert {f"users@{server.port}", f"{server.port}/shop", f"binlogs@{server.port}"} <= names
    server.sql("DROP DATABASE shop")
    login = ("--to-credentials", str(server.root))
    text = system.restore("--restore", "latest", "--to-host", f"{server.folder}/socket", *login)
    assert "3000 rows" in text or "database shop: " in text
    assert state(server, "shop") == before
    item = ("--item", "shop", *login)
    # the folder of the socket; and by socket= of the option file alone
    arguments = ("--restore", "latest", "--to-host", str(server.folder), *item)
    system.restore(*arguments, "--to-database", "copy")
    assert server.sql("SELECT COUNT(*) FROM copy.t") == "3000\n"


@pytest.mark.needs("mariabackup", "root")
def test_skip_networking_physically(system: System, socket_only: SocketOnly) -> None:
    """Issue 11 N3: the same of physical backups."""
    socket_only.sql(documented("mysql_xtrabackup"))
    shop(socket_only)
    section: dict[str, Any] = {
        "ACTION": "execute", "NAME": "mysql_backup", "EXECUTABLE": "mysql_xtrabackup.py",
        "PARAMETERS": {
            "MY_INSTANCES": str(socket_only.port), "CREDENTIAL_PATH": str(socket_only.credentials),
        },
    }  # fmt: skip
    sections = system.full_sections()
    del sections["FILESET"]
    system.configure({"PHYSICAL": section, **sections}, STREAM="True")
    result = system.result()
    assert result["exit_code"] == 0, json.dumps(result)
    out = system.restored()
    assert (out / f"PHYSICAL/{socket_only.port}/shop").is_dir()


@pytest.mark.needs("root")
def test_restore_by_root_of_debian(system: System, debian: DebianRoot) -> None:
    """Issue 11 E: through a socket, without a password; the client's own words come first."""
    assert os.geteuid() == 0
    shop(debian)
    before = state(debian, "shop")
    configure(system, debian)
    assert system.result()["exit_code"] == 0
    debian.sql("DROP DATABASE shop")
    arguments = ("--restore", "latest", "--item", "shop")
    wrong = ("--to-host", "127.0.0.1", "--to-port", str(debian.port), "--to-user", "root")
    text = system.restore(*arguments, *wrong, code=1)
    assert "ERROR 1698 (28000): Access denied for user 'root'@'localhost'" in text
    assert "ended with exit code" not in text
    assert "--to-host /run/mysqld/mysqld.sock" in text
    system.restore(*arguments, "--to-host", f"{debian.folder}/socket")
    assert state(debian, "shop") == before
    system.restore(*arguments, "--to-host", str(debian.folder), "--overwrite")
    assert state(debian, "shop") == before
    # an option file that names another host does not turn it into TCP
    other = system.folder / "other.cnf"
    other.write_text("[client]\nhost=127.0.0.1\nport=1\n")
    login = ("--to-credentials", str(other))
    system.restore(*arguments, "--to-host", f"{debian.folder}/socket", *login, "--overwrite")
    # the port says which server is meant
    text = system.restore(
        *arguments, "--to-host", f"{debian.folder}/socket", "--to-port", "1", code=1
    )
    assert f"has port {debian.port}, not 1" in text


@pytest.mark.fault(
    "--to-host: a path that is not a socket, or several", "one line, nothing is done"
)
def test_paths_that_are_no_socket(system: System, debian: DebianRoot, tmp_path: Path) -> None:
    """Issue 11 E: one clear line for each."""
    shop(debian)
    configure(system, debian)
    assert system.result()["exit_code"] == 0
    arguments = ("--restore", "latest", "--item", "shop", "--to-host")
    assert "no socket" in system.restore(*arguments, str(tmp_path), code=1)
    assert "no socket" in system.restore(*arguments, str(tmp_path / "none"), code=1)
    text = system.restore(*arguments, "127.0.0.1", "--to-port", "1", "--to-user", "root", code=1)
    assert "ERROR 2002 (HY000)" in text or "ERROR 2003 (HY000)" in text
    assert "ended with exit code" not in text


def test_nothing_reads_local_files(system: System, socket_only: SocketOnly) -> None:
    """Issue 11: LOAD DATA LOCAL in what is restored reads no file of the restoring machine."""
    del system

    from mysql_backup import mysql_server

    target = mysql_server.MySQLConnection(program("mariadb"), socket_only.root)
    socket_only.sql("CREATE DATABASE shop; CREATE TABLE shop.t (v TEXT)")
    load = "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE shop.t"
    done = subprocess.run(
        target.command("--binary-mode"), input=load.encode(), capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"ERROR 4166" in done.stderr or b"ERROR 1148" in done.stderr, done.stderr
    assert socket_only.sql("SELECT COUNT(*) FROM shop.t") == "0\n"
