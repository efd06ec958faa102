"""Logins that a server rejects, in its own words."""

from __future__ import annotations

import pytest

from postgres import login_errors
from tools import os_works
from tools.base.errors import SourceError

_FAILED = 'psql: error: connection to server on socket "/run/.s.PGSQL.5432" failed: FATAL:  '


def explained(text: str, host: str = "", user: str = "") -> SourceError:
    error = SourceError("psql exited with 2", f"{_FAILED}{text}")
    return login_errors.explained(error, host, 5433, user)


def test_a_role_that_is_missing_is_created_by_the_command_of_the_guide() -> None:
    error = explained('role "me" does not exist', user="me")
    assert str(error) == "role me does not exist"
    assert error.fix.endswith(
        """psql --port=5433 -c 'CREATE ROLE "me" LOGIN;' -c 'GRANT pg_read_all_data TO "me";'"""
    )
    assert "--host=/run" in explained('role "me" does not exist', "/run", "me").fix
    assert not explained('role "me" does not exist', "db.example", "me").fix


def test_root_restores_and_backs_nothing_up() -> None:
    error = explained('role "root" does not exist', user="root")
    assert "--to-user, or create a superuser for as long as it takes: " in error.hint
    assert error.hint.endswith("psql --port=5433 -c 'CREATE ROLE root LOGIN SUPERUSER;'.")


def test_the_name_of_a_role_comes_from_the_config_alone() -> None:
    error = explained('role "x\\"; DROP ROLE postgres" does not exist', user="me")
    assert str(error) == "psql exited with 2"
    odd = "a\"b'c"
    assert (
        """'CREATE ROLE "a""b'"'"'c" LOGIN;'"""
        in explained(f'role "{odd}" does not exist', user=odd).fix
    )


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        ('Peer authentication failed for user "me"', "log in as me", "pg_ident.conf"),
        ('password authentication failed for user "me"', "the password of me", ".pgpass"),
        ("no password supplied", "the password of me", "PASSFILE"),
    ],
)
def test_other_rejections_keep_the_words_of_the_server(text: str, problem: str, hint: str) -> None:
    error = explained(text, user="me")
    assert problem in str(error)
    assert hint in error.hint
    assert os_works.user() in error.hint
    assert text in error.hint
    assert not error.fix
