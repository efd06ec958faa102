"""Servers that a drill starts for itself: in a folder of their own, by a socket alone."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools import os_works
from tools.base.errors import BackupError, ConfigError
from tools.flow import process, stream
from tools.modules import server_settings

_PATIENCE = 120.0  # seconds that a server may need to start
_PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/local/pgsql/bin", "/usr/local/bin", "/opt/bin")
_PORT = 5432  # of PostgreSQL: names its socket; nothing listens on the network


@dataclass(frozen=True)
class Throwaway:
    """A server that runs.

    restore: the words of restore.py that lead to it
    ask:     its client; database, sql: the options that name a database and hold a statement
    """

    restore: tuple[str, ...]
    ask: tuple[str, ...]
    database: str
    sql: str

    def answer(self, database: str, sql: str) -> str:
        """The first column of the first row; "" where there is none. Raises SourceError."""
        words = [*self.ask, f"{self.database}={database}", f"{self.sql}={sql}"]
        env = {**os_works.environment({}), "LC_ALL": "C.UTF-8"}
        out = b"".join(process.output(words, env=env)).decode("utf-8", "replace")
        return out.partition("\n")[0].partition("\t")[0].strip()


@contextlib.contextmanager
def started(
    kind: str, folder: Path, sockets: Path, facts: Sequence[Mapping[str, str]] = ()
) -> Iterator[Throwaway]:
    """A server for items, and its end. Raises BackupError.

    kind: "mysql" or "postgres".
    folder: for its data. sockets: a folder with a short name (a socket's has 107 bytes).
    facts: what the manifest says of the items: a server of MariaDB or MySQL gets the settings
    of theirs, since what a better one takes proves nothing.
    """
    user = _user((kind,))
    for place in (folder, sockets):
        _give(place, user)
    if kind == "mysql":
        with _mysql(folder, sockets, user, facts) as found:
            yield found
    else:
        with _postgres(folder, sockets, user) as found:
            yield found


@contextlib.contextmanager
def _mysql(
    folder: Path, sockets: Path, user: str, facts: Sequence[Mapping[str, str]]
) -> Iterator[Throwaway]:
    data, socket = folder / "data", sockets / "s"
    for place in (data, folder / "temporary"):
        place.mkdir(mode=0o700)
        _give(place, user)
    env = {**os_works.environment({}), "TMPDIR": str(folder / "temporary")}
    server = [_program("mariadbd", "mysqld"), "--no-defaults", f"--datadir={data}"]
    if b"MariaDB" in b"".join(process.output([server[0], "--version"])):
        make = [_program("mariadb-install-db", "mysql_install_db"), *server[1:]]
        make += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        more = []
    else:
        make, more = [*server, "--initialize-insecure"], ["--mysqlx=OFF"]
    make += server_settings.words(facts, install=True)
    stream.drained(process.output(_as(user, make), env=env, folder=folder))
    serve = [*server, f"--socket={socket}", f"--tmpdir={folder / 'temporary'}", *more]
    serve += ["--skip-networking", "--skip-log-bin", "--event-scheduler=OFF"]
    serve += ["--innodb-flush-log-at-trx-commit=0", "--performance-schema=OFF"]
    serve += server_settings.words(facts, install=False)
    login = sockets / "login.cnf"
    login.touch(0o600)
    login.write_text(f"[client]\nuser=root\nsocket={socket}\n", encoding="utf-8")
    client = _program("mariadb", "mysql")
    ask = (client, f"--defaults-file={login}", "--batch", "--skip-column-names")
    with process.started(_as(user, serve), env=env, folder=folder) as group:
        _wait(group, [*ask, "--execute=SELECT 1"])
        yield Throwaway(
            ("--to-host", "localhost", "--to-credentials", str(login)),
            (*ask, "--default-character-set=utf8mb4"),
            "--database",
            "--execute",
        )


@contextlib.contextmanager
def _postgres(folder: Path, sockets: Path, user: str) -> Iterator[Throwaway]:
    data = folder / "data"
    make = [_program("initdb"), "-D", str(data), "-U", "postgres", "--auth=trust"]
    make += ["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
    env = {**os_works.environment({}), "LC_ALL": "C.UTF-8"}
    stream.drained(process.output(_as(user, make), env=env, folder=folder))
    serve = [_program("postgres"), "-D", str(data), "-k", str(sockets), "-p", str(_PORT)]
    serve += ["-c", "listen_addresses=", "-c", "fsync=off"]
    client = _program("psql")
    where = ("-h", str(sockets), "-p", str(_PORT), "-U", "postgres")
    ask = (client, "-X", "-A", "-t", "-q", "--set=ON_ERROR_STOP=1", *where)
    with process.started(_as(user, serve), env=env, folder=folder) as group:
        _wait(group, [*ask, "--dbname=postgres", "--command=SELECT 1"])
        yield Throwaway(
            (
                "--to-host",
                str(sockets),
                "--to-port",
                str(_PORT),
                "--to-user",
                "postgres",
                "--no-tablespaces",
            ),
            ask,
            "--dbname",
            "--command",
        )


def _wait(group: process.Group, asked: list[str]) -> None:
    """Until it answers. Raises BackupError where it does not, with what it said."""
    said: list[str] = []
    for pipe in (group.popen.stdout, group.popen.stderr):
        if pipe is not None:
            group.drain(pipe, said.append)
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            stream.drained(process.output(asked, env=os_works.environment({})))
        except BackupError as error:
            ended = group.popen.poll() is not None
            if ended or time.monotonic() > until:
                what = "ended" if ended else f"did not answer in {_PATIENCE:g} s"
                text = "\n".join(said[-10:]) or str(error)
                raise BackupError(f"the throwaway {group.name} {what}", text) from None
            time.sleep(0.1)
        else:
            return


def _program(*names: str) -> str:
    """A program of a server, also where Debian keeps those of PostgreSQL."""
    theirs = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    path = ":".join([os.environ.get("PATH", os.defpath), *theirs, *_PLACES])
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    raise ConfigError(
        f"there is no {names[0]}", "A drill needs the server's own programs on this machine."
    )


def _user(names: tuple[str, ...]) -> str:
    """Whom the server runs as: these servers refuse root; "" for ourselves."""
    if not os_works.is_root():
        return ""
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in (*names, "nobody") if name in known), "")


def _give(place: Path, user: str) -> None:
    if user:
        entry = pwd.getpwnam(user)
        os.chown(place, entry.pw_uid, entry.pw_gid)


def _as(user: str, words: list[str]) -> list[str]:
    """The command as another user (setpriv(1), util-linux)."""
    if not user:
        return words
    entry = pwd.getpwnam(user)
    return [
        "setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", "--",
        *words,
    ]  # fmt: skip
