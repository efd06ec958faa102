"""Logins that a PostgreSQL server rejects: why, what to do, and the command that does it.

The texts are those of the server in English (src/backend/libpq/auth.c, utils/init/miscinit.c). A
server with messages in another language is quoted as it is.
"""

from __future__ import annotations

import re

from tools import os_works
from tools.base import fixes
from tools.base.errors import SourceError

_PASSWORD = re.compile(r"password authentication failed|no password supplied")
_PEER = re.compile(r"(?:Peer|Ident) authentication failed")
_PAGE = "docs/modules/postgres.md"


def explained(error: SourceError, host: str, port: int | None, user: str) -> SourceError:
    """Return the error with its cause and what to do, if the server rejected the login.

    host, port, user: as configured; "" and None mean the defaults of libpq
    """
    role = user or os_works.user()
    if f'role "{role}" does not exist' in error.hint:
        if role == "root":  # it usually restores
            command = by_superuser(host, port, "CREATE ROLE root LOGIN SUPERUSER")
            hint = "For a backup set USER. For a restore name the role with --to-user"
            hint += f", or create a superuser for as long as it takes: {command}" if command else ""
            return SourceError("role root does not exist", f"{hint}.")
        return SourceError(
            f"role {role} does not exist",
            f"Create a role that can log in and read everything, or set USER ({_PAGE}).",
            by_superuser(host, port, f"CREATE ROLE {_quoted(role)} LOGIN", granting(role)),
        )
    if _PEER.search(error.hint):
        return SourceError(
            f"the server does not let the system user {os_works.user()} log in as {role}",
            f"Create a role {os_works.user()} and remove USER, or map the names in pg_ident.conf "
            f"({_PAGE}).\n{error.hint}",
        )
    if _PASSWORD.search(error.hint):
        return SourceError(
            f"the server rejects the password of {role}, or there is none",
            "Write HOST:PORT:DATABASE:USER:PASSWORD into the file .pgpass in the home folder of "
            f"{os_works.user()} (mode 0600), or set PASSFILE.\n{error.hint}",
        )
    return error


def granting(role: str) -> str:
    """Return the statement that lets a role read everything."""
    return f"GRANT pg_read_all_data TO {_quoted(role)}"


def by_superuser(host: str, port: int | None, *statements: str) -> str:
    """Return the command of the superuser of packages, who logs in by the socket.

    "" for a server on another machine.
    """
    if host and not host.startswith("/"):
        return ""
    where = [f"--host={host}"] if host else []
    where += [f"--port={port}"] if port else []
    options = [word for one in statements for word in ("-c", f"{one};")]
    return fixes.as_user("postgres", fixes.command("psql", *where, *options))


def _quoted(role: str) -> str:
    return '"' + role.replace('"', '""') + '"'
