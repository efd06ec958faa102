"""PostgreSQL with TLS: a certificate that is not trusted ends runs, tests and restores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postgres import login
from tests.postgres.test_postgres import configure, to
from tests.servers import Postgres
from tests.system import System
from tools.base import project
from tools.base.errors import ConfigError

pytestmark = pytest.mark.needs("initdb", "postgres", "pg_dump", "openssl")

RESTORE = str(project.ROOT / "restore/restore.py")


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """Its certificate is its own authority, and is good for 127.0.0.1 alone."""
    started = Postgres()
    data = started.folder / "data"
    certificate(data / "server", "127.0.0.1")
    started.call("/bin/cp", str(data / "server.crt"), str(started.folder / "root.crt"))
    started.sql("ALTER SYSTEM SET ssl = on; SELECT pg_reload_conf()")
    started.sql("CREATE TABLE t AS SELECT 1 AS i")
    yield started
    started.stop()


def certificate(stem: Path, address: str) -> None:
    """A key and a certificate for an address, for the owner of the folder."""
    command = ["openssl", "req", "-new", "-x509", "-days", "2", "-nodes", "-subj", "/CN=x"]
    command += ["-addext", f"subjectAltName=IP:{address}", "-newkey", "rsa:2048"]
    command += ["-keyout", f"{stem}.key", "-out", f"{stem}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    folder = stem.parent.stat()
    for end in ("key", "crt"):
        path = Path(f"{stem}.{end}")
        path.chmod(0o600 if end == "key" else 0o644)
        os.chown(path, folder.st_uid, folder.st_gid)


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


@pytest.fixture
def wrong(tmp_path: Path) -> str:
    """A certificate that has nothing to do with the server."""
    certificate(tmp_path / "other", "127.0.0.1")
    return str(tmp_path / "other.crt")


@pytest.mark.fault("a PostgreSQL server whose certificate is not trusted", "exit 1, in -t too")
def test_a_wrong_certificate(system: System, server: Postgres, wrong: str) -> None:
    """Issue 11 B: verify-full against a wrong certificate fails, by keys and by ENVIRONMENT."""
    configure(system, server, SSLMODE="verify-full", SSLROOTCERT=wrong)
    assert refuses(system)
    configure(system, server, SSLMODE="require", SSLROOTCERT=str(server.folder / "root.crt"))
    assert system.result()["exit_code"] == 0
    configure(system, server)
    of_section(system, ENVIRONMENT="PGSSLMODE PGSSLROOTCERT")
    trusted = str(server.folder / "root.crt")
    assert refuses(system, PGSSLMODE="verify-full", PGSSLROOTCERT=wrong)
    done = system.run("-r", "--json", PGSSLMODE="verify-full", PGSSLROOTCERT=trusted)
    assert done.returncode == 0, done.stderr
    of_section(system, ENVIRONMENT="")
    assert not refuses(system, PGSSLMODE="verify-full", PGSSLROOTCERT=wrong)  # not named


def of_section(system: System, **keys: str) -> None:
    """Keys of the section itself."""
    config = json.loads(system.conf.read_text())
    config["POSTGRES"] |= keys
    system.conf.write_text(json.dumps(config))


def refuses(system: System, **environment: str) -> bool:
    """Whether -t and -r both refuse the certificate."""
    tested, ran = (system.run(word, **environment) for word in ("-t", "-r"))
    codes = tested.returncode, ran.returncode
    assert codes in ((0, 0), (1, 1)), (tested.stdout, ran.stderr)
    if codes == (1, 1):
        assert "certificate verify failed" in tested.stdout + tested.stderr
        assert "certificate verify failed" in ran.stderr
    return codes == (1, 1)


def test_a_restore_takes_it_from_the_shell(system: System, server: Postgres, wrong: str) -> None:
    """Issue 11 B: PGSSLMODE and its like of the shell count for --to-host, its address does not."""
    configure(system, server)
    assert system.result()["exit_code"] == 0
    command = [sys.executable, RESTORE, "-c", str(system.conf), "--restore", "latest"]
    command += ["--item", f"{server.port}/postgres", *to(server, "--to-database", "copy")]
    trusted = str(server.folder / "root.crt")
    for roots, code in ((wrong, 1), (trusted, 0)):
        more = {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": roots, "PGHOSTADDR": "127.0.0.9"}
        done = subprocess.run(command, env={**os.environ, **more}, capture_output=True, check=False)
        assert done.returncode == code, done
    assert server.sql("TABLE t", "copy") == "1\n"
    server.sql("DROP DATABASE copy")


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca"])
def test_modes_reach_libpq(mode: str) -> None:
    assert login.variables(login.Login(sslmode=mode)) == {"PGSSLMODE": mode}


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"sslmode": "full"}, "SSLMODE: 'full': not a mode of libpq"),
        ({"sslrootcert": Path("/does/not/exist")}, "SSLROOTCERT: /does/not/exist: no such file"),
        ({"sslkey": Path("/does/not/exist")}, "SSLKEY: /does/not/exist: no such file"),
    ],
)
def test_keys_that_cannot_be(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        login.variables(login.Login(**keys))
    assert login.variables(login.Login(sslrootcert=Path("system"))) == {"PGSSLROOTCERT": "system"}
