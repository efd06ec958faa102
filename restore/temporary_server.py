"""Temporary database servers for a drill: with a data folder of their own, on a socket alone."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools import os_works
from tools.base.errors import BackupError, ConfigError
from tools.flow import process, stream
from tools.modules import server_settings
from tools.modules.contracts import Server

_START_TIMEOUT = 120.0  # seconds
_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/local/pgsql/bin", "/usr/local/bin", "/opt/bin")
# The role of assertions. A view or function of the backup that one calls would run with the
# privileges of a superuser otherwise, who can run programs. PostgreSQL before 14 has no such role.
_READER = (
    "CREATE ROLE {0} LOGIN BYPASSRLS",
    "DO $$ BEGIN IF to_regrole('pg_read_all_data') IS NULL THEN ALTER ROLE {0} SUPERUSER; "
    "ELSE GRANT pg_read_all_data, pg_monitor TO {0}; END IF; END $$",
)
_PORT = 5432  # of PostgreSQL: names its socket; nothing listens on the network


@dataclass(frozen=True)
class TemporaryServer:
    """A running server.

    server:   for restores into it
    client:   the command of its client; database, sql: its options for a database and a statement
    opened:   lets the client into a database, and returns the value of its option
    """

    server: Server
    client: tuple[str, ...]
    database: str
    sql: str
    opened: Callable[[str], str] = str

    def query_value(self, database: str, sql: str) -> str:
        """Return the first column of the first row; "" where there is none. Raises SourceError."""
        argv = [*self.client, f"{self.database}={self.opened(database)}", f"{self.sql}={sql}"]
        env = {**os_works.environment({}), "LC_ALL": "C.UTF-8"}
        out = b"".join(process.output(argv, env=env)).decode("utf-8", "replace")
        return out.partition("\n")[0].partition("\t")[0].strip()


@contextlib.contextmanager
def start_server(
    kind: str, folder: Path, sockets: Path, variables: Sequence[Mapping[str, str]] = ()
) -> Iterator[TemporaryServer]:
    """Start a server, and stop it at the end. Raises BackupError.

    kind:      "mysql" or "postgres"
    folder:    for its data
    sockets:   a folder with a short path (that of a socket has at most 107 bytes)
    variables: settings of the servers that the items come from: MariaDB and MySQL are started
               with them, because a drill in a more tolerant server proves nothing
    """
    user = _server_user((kind,))
    for path in (folder, sockets):
        _chown(path, user)
    if kind == "mysql":
        with _mysql(folder, sockets, user, variables) as running:
            yield running
    else:
        with _postgres(folder, sockets, user) as running:
            yield running


@contextlib.contextmanager
def _mysql(
    folder: Path, sockets: Path, user: str, variables: Sequence[Mapping[str, str]]
) -> Iterator[TemporaryServer]:
    data, socket = folder / "data", sockets / "s"
    for path in (data, folder / "temporary"):
        path.mkdir(mode=0o700)
        _chown(path, user)
    env = {**os_works.environment({}), "TMPDIR": str(folder / "temporary")}
    program = [_program("mariadbd", "mysqld"), "--no-defaults", f"--datadir={data}"]
    if b"MariaDB" in b"".join(process.output([program[0], "--version"])):
        install = [_program("mariadb-install-db", "mysql_install_db"), *program[1:]]
        install += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        only_mysql = []
    else:
        install, only_mysql = [*program, "--initialize-insecure"], ["--mysqlx=OFF"]
    install += server_settings.arguments(variables, install=True)
    stream.drained(process.output(_command_as(user, install), env=env, folder=folder))
    serve = [*program, f"--socket={socket}", f"--tmpdir={folder / 'temporary'}", *only_mysql]
    serve += ["--skip-networking", "--skip-log-bin", "--event-scheduler=OFF"]
    serve += ["--innodb-flush-log-at-trx-commit=0", "--performance-schema=OFF"]
    # a view of the source that an assertion reads could call LOAD_FILE
    serve += [f"--secure-file-priv={folder / 'temporary'}", "--local-infile=0"]
    serve += server_settings.arguments(variables, install=False)
    login = sockets / "login.cnf"
    login.touch(0o600)
    login.write_text(f"[client]\nuser=root\nsocket={socket}\n", encoding="utf-8")
    client = _program("mariadb", "mysql")
    query = (client, f"--defaults-file={login}", "--batch", "--skip-column-names")
    with process.started(_command_as(user, serve), env=env, folder=folder) as group:
        _wait(group, [*query, "--execute=SELECT 1"])
        yield TemporaryServer(
            # a table of the source may name any folder of this machine (DATA DIRECTORY)
            Server("localhost", credentials=login, tablespaces=False),
            (*query, "--default-character-set=utf8mb4"),
            "--database",
            "--execute",
        )


@contextlib.contextmanager
def _postgres(folder: Path, sockets: Path, user: str) -> Iterator[TemporaryServer]:
    data = folder / "data"
    install = [_program("initdb"), "-D", str(data), "-U", "postgres", "--auth=trust"]
    install += ["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
    env = {**os_works.environment({}), "LC_ALL": "C.UTF-8"}
    stream.drained(process.output(_command_as(user, install), env=env, folder=folder))
    serve = [_program("postgres"), "-D", str(data), "-k", str(sockets), "-p", str(_PORT)]
    serve += ["-c", "listen_addresses=", "-c", "fsync=off"]
    client = _program("psql")
    login = ("-h", str(sockets), "-p", str(_PORT), "-U", "postgres")
    query = (client, "-X", "-A", "-t", "-q", "--set=ON_ERROR_STOP=1", *login)
    reader = f"nc_drill_{secrets.token_hex(6)}"

    def opened(database: str) -> str:
        name = '"' + database.replace('"', '""') + '"'
        statements = (
            f"GRANT CONNECT ON DATABASE {name} TO {reader}",
            f"ALTER DATABASE {name} CONNECTION LIMIT -1",
        )
        commands = [f"--command={one}" for one in statements]
        stream.drained(process.output([*query, "--dbname=postgres", *commands], env=env))
        escaped = database.replace("\\", "\\\\").replace("'", "\\'")
        return f"dbname='{escaped}'"  # otherwise a name may be read as a connection string

    with process.started(_command_as(user, serve), env=env, folder=folder) as group:
        _wait(group, [*query, "--dbname=postgres", "--command=SELECT 1"])
        created = [f"--command={one.format(reader)}" for one in _READER]
        stream.drained(process.output([*query, "--dbname=postgres", *created], env=env))
        yield TemporaryServer(
            Server(str(sockets), _PORT, "postgres", tablespaces=False),
            (*query, f"--username={reader}"),
            "--dbname",
            "--command",
            opened,
        )


def _wait(group: process.Group, query: list[str]) -> None:
    """Wait until the server answers. Raises BackupError, with its output, where it does not."""
    lines: list[str] = []
    for pipe in (group.popen.stdout, group.popen.stderr):
        if pipe is not None:
            group.drain(pipe, lines.append)
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        try:
            stream.drained(process.output(query, env=os_works.environment({})))
        except BackupError as error:
            exited = group.popen.poll() is not None
            if exited or time.monotonic() > deadline:
                problem = "exited" if exited else f"no answer within {_START_TIMEOUT:g} s"
                text = "\n".join(lines[-10:]) or str(error)
                raise BackupError(f"temporary server {group.name}: {problem}", text) from None
            time.sleep(0.1)
        else:
            return


def _program(*names: str) -> str:
    """Return the path of a server's program, also where Debian keeps those of PostgreSQL."""
    debian = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    path = ":".join([os.environ.get("PATH", os.defpath), *debian, *_FOLDERS])
    for name in names:
        if program := shutil.which(name, path=path):
            return program
    raise ConfigError(
        f"{names[0]}: command not found",
        "Install the server package: a drill starts its own server.",
    )


def _server_user(names: tuple[str, ...]) -> str:
    """Return the user that runs the server as root may not; "" for the user of the backup."""
    if not os_works.is_root():
        return ""
    users = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in (*names, "nobody") if name in users), "")


def _chown(path: Path, user: str) -> None:
    if user:
        entry = pwd.getpwnam(user)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def _command_as(user: str, argv: list[str]) -> list[str]:
    """Return the command for another user (setpriv(1), util-linux)."""
    if not user:
        return argv
    entry = pwd.getpwnam(user)
    return [
        "setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", "--",
        *argv,
    ]  # fmt: skip
