"""Real database servers: each in a folder of its own, on a free port, as an unprivileged user."""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.base import project

PROGRAMS = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
_PATIENCE = 60.0  # seconds until a server must answer


def search_path() -> str:
    """Where programs of servers lie: the path, and the folders of Debian's PostgreSQL."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=str)
    packages = Path(sys.prefix, "bin")  # programs that Python packages bring
    # Debian's folder stands first: what lies in /usr/bin is a wrapper, ten times as slow.
    return ":".join([*map(str, folders), PROGRAMS, str(Path.home() / "go/bin"), str(packages)])


def program(name: str) -> str:
    """The path of a program that a test has named as needed."""
    path = shutil.which(name, path=search_path())
    assert path, name
    return path


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def documented(page: str, brand: str = "") -> str:
    """The statements that the page of a module tells an administrator of this brand to run."""
    text = (project.ROOT / f"docs/modules/{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sql\n(.*?)^```$", text, re.M | re.S)
    (statements,) = (block for block in blocks if not brand or block.startswith(f"-- {brand}\n"))
    return str(statements)


_INSTALLED: dict[str, Path] = {}  # data of a new server of each kind


class Server:
    """A folder, a port, and a process that is stopped with all that it started."""

    user = "nobody"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nc-test-server-"))
        self.port = free_port()
        self.as_user = self.user if os.geteuid() == 0 else None
        if self.as_user:
            entry = pwd.getpwnam(self.as_user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)  # where a fixture fails before it yields

    def call(self, *command: str, **environment: str) -> bytes:
        """Run a program to its end as the server's user; it must end well."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            user=self.as_user,
            env={**os.environ, "HOME": str(self.folder), "LC_ALL": "C.UTF-8", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, (command, done.stderr, done.stdout)
        return done.stdout

    def once(self, make: Callable[[Path], None], data: Path) -> None:
        """Make the data of a new server: made once, and copied for each later server."""
        if make.__qualname__ not in _INSTALLED:
            folder = Path(tempfile.mkdtemp(prefix="nc-test-made-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            if self.as_user:
                shutil.chown(folder, self.as_user)
            make(folder / "data")
            _INSTALLED[make.__qualname__] = folder / "data"
        self.call("/bin/cp", "-a", str(_INSTALLED[make.__qualname__]), str(data))

    def start(self, *command: str) -> None:
        """Start the server and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                user=self.as_user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + _PATIENCE
        while not self.answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it takes orders by now."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop exactly what was started, and remove the folder."""
        self.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def end(self) -> None:
        """Stop exactly what was started."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class MySQL(Server):
    """A server with binary logs, and a user who may dump: what MySQL and MariaDB share."""

    user = "mysql"
    password = "p w\"#x'\\"
    brand = "MySQL"
    admin, client = "mysqladmin", "mysql"
    scheduler = "ON"
    more: tuple[str, ...] = ("--mysqlx=OFF", "--gtid-mode=ON", "--enforce-gtid-consistency=ON")

    def __init__(self) -> None:
        super().__init__()
        self.data = self.folder / "data"
        self.temporary = self.folder / "temporary"
        self.call("/bin/mkdir", str(self.temporary))
        self.install()
        self.serve(self.data)
        self.sql(documented("mysql_dump", self.brand).replace("'PASSWORD'", quoted(self.password)))
        self.credentials = self.option_file("bk.cnf", "ncbackup", self.password)
        self.root = self.option_file("root.cnf", "root", "")

    def install(self) -> None:
        """Make its data."""
        arguments = ("--no-defaults", "--initialize-insecure", f"--datadir={self.data}")
        self.call(program("mysqld"), *arguments)

    def serve(self, data: Path) -> None:
        """Start it with these data."""
        self.start(
            program("mariadbd" if self.brand == "MariaDB" else "mysqld"), "--no-defaults",
            f"--datadir={data}", f"--tmpdir={self.temporary}",
            f"--socket={self.folder}/socket", f"--port={self.port}", "--bind-address=127.0.0.1",
            "--server-id=1", f"--log-bin={data}/binlog",
            "--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0",
            f"--event-scheduler={self.scheduler}", "--log-bin-trust-function-creators=1",
            *self.more,
        )  # fmt: skip

    def option_file(self, name: str, user: str, password: str) -> Path:
        """Logins as the documented section has them."""
        path = self.folder / name
        escaped = password.replace("\\", "\\\\").replace("'", "\\'")
        login = f"user={user}\npassword='{escaped}'\nhost=127.0.0.1\n"
        path.write_text("".join(f"[{group}]\n{login}" for group in ("mysqldump", "mysql")))
        path.chmod(0o600)
        return path

    def answers(self) -> bool:
        """See Server."""
        command = [program(self.admin), "--no-defaults", "-S", f"{self.folder}/socket", "-uroot"]
        done = subprocess.run([*command, "ping"], capture_output=True, check=False)
        return done.returncode == 0

    def sql(self, text: str, database: str = "") -> str:
        """What the client prints, as root."""
        command = [program(self.client), "--no-defaults", "-S", f"{self.folder}/socket", "-uroot"]
        command += ["--batch", "--skip-column-names", "--default-character-set=utf8mb4"]
        command += [f"--database={database}"] if database else []
        done = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()


class MariaDB(MySQL):
    """The same of MariaDB."""

    brand = "MariaDB"
    admin, client = "mariadb-admin", "mariadb"
    more: tuple[str, ...] = (
        "--binlog-format=ROW", "--innodb-log-file-size=16M", "--performance-schema=OFF",
    )  # fmt: skip

    def install(self) -> None:
        """See MySQL."""
        self.once(self._install, self.data)

    def _install(self, data: Path) -> None:
        self.call(
            program("mariadb-install-db"), "--no-defaults", f"--datadir={data}",
            "--auth-root-authentication-method=normal", "--skip-test-db",
            TMPDIR=str(self.temporary),
        )  # fmt: skip


def quoted(text: str) -> str:
    """A text as SQL of MariaDB has it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


class Postgres(Server):
    """A server with passwords, and a role that may dump."""

    user = "postgres"
    password = "adm p:w\\d"

    def __init__(self) -> None:
        super().__init__()
        self.pgpass = self.folder / "pgpass"
        data = self.folder / "data"
        self.make(data)
        self.serve(data)
        escaped = self.password.replace("\\", "\\\\").replace(":", "\\:")
        self.pgpass.write_text(f"127.0.0.1:{self.port}:*:postgres:{escaped}\n")
        self.pgpass.chmod(0o600)

    def make(self, data: Path) -> None:
        """Make its data."""
        self.once(self._make, data)

    def _make(self, data: Path) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        self.call(
            program("initdb"), "-D", str(data), "-U", "postgres", "--auth-local=trust",
            "--auth-host=scram-sha-256", f"--pwfile={secret}", "--locale=C.UTF-8", "-E", "UTF8",
            "--no-sync",
        )  # fmt: skip

    def serve(self, data: Path) -> None:
        """Start it with these data."""
        self.start(
            program("postgres"), "-D", str(data), "-p", str(self.port), "-h", "127.0.0.1",
            "-k", str(self.folder), "-c", "fsync=off", "-c", "shared_buffers=16MB",
            "-c", "full_page_writes=off", "-c", "autovacuum=off",
        )  # fmt: skip

    def _psql(self, database: str) -> list[str]:
        where = ["-h", str(self.folder), "-p", str(self.port), "-U", "postgres"]
        escaped = database.replace("\\", "\\\\").replace("'", "\\'")
        return [program("psql"), "-X", "-A", "-t", "-q", *where, "-d", f"dbname='{escaped}'"]

    def answers(self) -> bool:
        """See Server."""
        done = subprocess.run(
            [*self._psql("postgres"), "-c", "SELECT 1"], capture_output=True, check=False
        )
        return done.returncode == 0

    def sql(self, text: str, database: str = "postgres") -> str:
        """What psql prints, as the superuser."""
        command = [*self._psql(database), "-v", "ON_ERROR_STOP=1"]
        done = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()


class Redis(Server):
    """A server with a password."""

    user = "redis"
    password = "re dis#1"

    def __init__(self) -> None:
        super().__init__()
        self.serve()

    def serve(self) -> None:
        """Start it with what lies in its folder."""
        config = self.folder / "redis.conf"
        config.write_text(
            f'port {self.port}\nbind 127.0.0.1\ndir {self.folder}\nrequirepass "{self.password}"\n'
            'save ""\n'
        )
        config.chmod(0o644)
        self.start(program("redis-server"), str(config))

    def answers(self) -> bool:
        """See Server."""
        command = ["redis-cli", "-p", str(self.port), "--no-auth-warning", "PING"]
        env = {**os.environ, "REDISCLI_AUTH": self.password}
        done = subprocess.run(command, env=env, capture_output=True, check=False)
        return done.stdout == b"PONG\n"

    def cli(self, *arguments: str, stdin_data: bytes = b"") -> str:
        """What redis-cli prints."""
        command = ["redis-cli", "-p", str(self.port), "--no-auth-warning", *arguments]
        env = {**os.environ, "REDISCLI_AUTH": self.password}
        return subprocess.run(
            command, env=env, input=stdin_data, capture_output=True, check=True
        ).stdout.decode("utf-8", "backslashreplace")


class LDAP(Server):
    """slapd with one database of people; its configuration is of slapd's own kind."""

    user = "openldap"
    suffix = "dc=example,dc=org"

    def __init__(self) -> None:
        super().__init__()
        self.config = self.folder / "slapd.d"
        self.data = self.folder / "data"
        for folder in (self.config, self.data):
            self.call("/bin/mkdir", str(folder))
        config = self.folder / "config.ldif"
        config.write_text(_SLAPD.format(folder=self.folder, suffix=self.suffix))
        self.call(program("slapadd"), "-n", "0", "-F", str(self.config), "-l", str(config))
        self.serve()

    def serve(self) -> None:
        """Start it with what lies in its folders."""
        where = f"ldap://127.0.0.1:{self.port}/"
        self.start(program("slapd"), "-F", str(self.config), "-h", where, "-d", "0")

    def answers(self) -> bool:
        """See Server."""
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", self.port)) == 0

    def add(self, ldif: str) -> None:
        """Add entries as the administrator."""
        command = ["ldapadd", "-x", "-H", f"ldap://127.0.0.1:{self.port}/"]
        command += ["-D", f"cn=admin,{self.suffix}", "-w", "secret"]
        subprocess.run(command, input=ldif.encode(), check=True, capture_output=True)

    def entries(self) -> str:
        """All of the data, as slapcat has it."""
        command = (program("slapcat"), "-F", str(self.config), "-n", "1", "-o", "ldif-wrap=no")
        return self.call(*command).decode()


_SLAPD = """\
dn: cn=config
objectClass: olcGlobal
cn: config
olcPidFile: {folder}/slapd.pid

dn: cn=module,cn=config
objectClass: olcModuleList
cn: module
olcModulePath: /usr/lib/ldap
olcModuleLoad: back_mdb

dn: cn=schema,cn=config
objectClass: olcSchemaConfig
cn: schema

include: file:///etc/ldap/schema/core.ldif

dn: olcDatabase=mdb,cn=config
objectClass: olcDatabaseConfig
objectClass: olcMdbConfig
olcDatabase: mdb
olcSuffix: {suffix}
olcRootDN: cn=admin,{suffix}
olcRootPW: secret
olcDbDirectory: {folder}/data
"""


@contextlib.contextmanager
def forwarded(port: int) -> Iterator[int]:
    """Another port that leads to the same server."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as server:
                threading.Thread(target=copied, args=(server, self.request), daemon=True).start()
                copied(self.request, server)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield int(listening.server_address[1])
        listening.shutdown()


def copied(source: socket.socket, target: socket.socket) -> None:
    """Hand on what comes, and the end of it."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(1 << 16):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
