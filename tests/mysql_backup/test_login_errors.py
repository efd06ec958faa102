"""Logins that a server rejects: one line of ours, with host, port and account."""

from __future__ import annotations

from pathlib import Path

import pytest

from mysql_backup import mysql_server
from mysql_backup.mysql_server import MySQLConnection
from tools.base.errors import SourceError

DENIED = "ERROR 1045 (28000): Access denied for user 'me'@'localhost' (using password: {})"


def explained(line: str, host: str = "db.example", options: Path | None = None) -> SourceError:
    connection = MySQLConnection("mariadb", options, 3307, host)
    with pytest.raises(SourceError) as caught, mysql_server.client_errors(connection):
        raise SourceError("mariadb ended with exit code 1", line)
    return caught.value


def test_a_wrong_and_a_missing_password_are_told_apart() -> None:
    error = explained(DENIED.format("YES"))
    login = "db.example:3307: the server rejects the login of 'me'@'localhost'"
    assert str(error) == f"{login}: the password is wrong, or there is no such user"
    assert "CREDENTIAL_PATH" in error.hint.split("\n")[0]
    assert DENIED.format("YES") in error.hint
    assert str(explained(DENIED.format("NO"))) == f"{login} without a password"
    other = explained(
        "ERROR 1698 (28000): Access denied for user 'root'@'localhost'", "/run/m.sock"
    )
    assert str(other) == "socket /run/m.sock: the server rejects the login of 'root'@'localhost'"


def test_the_host_is_that_of_the_option_file(tmp_path: Path) -> None:
    options = tmp_path / "my.cnf"
    options.write_text("[client]\nhost = '10.0.0.7'\n")
    assert str(explained(DENIED.format("NO"), "", options)).startswith("10.0.0.7:3307: ")
    assert str(explained(DENIED.format("NO"), "")).startswith("localhost:3307: ")
    options.write_text("[client]\nsocket = /run/m.sock\n")
    assert str(explained(DENIED.format("NO"), "", options)).startswith("localhost (socket of")


def test_a_denied_statement_is_no_login() -> None:
    line = "ERROR 1045 (28000) at line 1: Access denied for user 'me'@'%' (using password: YES)"
    assert str(explained(line)) == line
