"""A Redis server that speaks TLS only, with certificates of our own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.redis.test_redis import configure
from tests.servers import Redis, program
from tests.system import System

pytestmark = pytest.mark.needs("redis-server", "openssl")


class TLSRedis(Redis):
    """The same server without a plain port; clients need a certificate."""

    def serve(self) -> None:
        """Start it with what lies in its folder."""
        if not (self.folder / "ca.crt").exists():
            self._certificates()
        config = self.folder / "redis.conf"
        config.write_text(
            f"port 0\ntls-port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f'requirepass "{self.password}"\nsave ""\ntls-ca-cert-file {self.folder}/ca.crt\n'
            f"tls-cert-file {self.folder}/one.crt\ntls-key-file {self.folder}/one.key\n"
        )
        config.chmod(0o644)
        self.start(program("redis-server"), str(config))

    def _certificates(self) -> None:
        """Two authorities, and a certificate of the first."""
        for name in ("ca", "other"):
            self.call(
                "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt",
            )  # fmt: skip
        subject = ("-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost")
        self.call("openssl", "req", *subject, "-keyout", "one.key", "-out", "one.csr")
        by = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
        self.call("openssl", "x509", "-req", "-in", "one.csr", *by, "-out", "one.crt")

    def cli(self, *arguments: str, stdin_data: bytes = b"") -> str:
        """What redis-cli prints."""
        files = [f"{self.folder}/{name}" for name in ("ca.crt", "one.crt", "one.key")]
        return super().cli(
            "--tls", "--cacert", files[0], "--cert", files[1], "--key", files[2], *arguments,
            stdin_data=stdin_data,
        )  # fmt: skip

    def answers(self) -> bool:
        """See Server."""
        try:
            return self.cli("PING") == "PONG\n"
        except subprocess.CalledProcessError:
            return False


@pytest.fixture
def server() -> Iterator[TLSRedis]:
    started = TLSRedis()
    yield started
    started.stop()


def files(server: TLSRedis, ca: str = "ca.crt") -> dict[str, str]:
    folder = server.folder
    paths = {"TLS_CA": folder / ca, "TLS_CERT": folder / "one.crt", "TLS_KEY": folder / "one.key"}
    return {"TLS": "True", **{key: str(path) for key, path in paths.items()}}


@pytest.mark.parametrize("stream", ["True", "False"])
def test_back_up_and_restore_over_tls(tmp_path: Path, server: TLSRedis, stream: str) -> None:
    """Issue 11 B: Redis over TLS, the password never among the arguments."""
    system = System(tmp_path)
    server.cli(stdin_data=b"SET a 1\nHSET h x 1\n")
    argv_file = tmp_path / "arguments"
    client = tmp_path / "redis-cli"
    client.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >> {argv_file}\nexec /usr/bin/redis-cli "$@"\n'
    )
    client.chmod(0o755)
    configure(system, server, stream, **files(server), HOST="localhost", REDIS_CLI=str(client))
    assert "Redis" in system.run("-t").stdout
    result = system.result()
    assert result["exit_code"] == 0, result
    assert server.password not in argv_file.read_text()
    assert "--sni\nlocalhost\n" in argv_file.read_text()
    server.end()
    shutil.copyfile(system.restored() / f"REDIS/{server.port}.rdb", server.folder / "dump.rdb")
    (server.folder / "dump.rdb").chmod(0o644)
    server.serve()
    assert server.cli("GET", "a") == "1\n"


@pytest.mark.fault("Redis over TLS: another authority, no TLS, no certificate", "exit 1, named")
def test_a_server_that_cannot_be_trusted(tmp_path: Path, server: TLSRedis) -> None:
    """Issue 11 B: a certificate that does not verify is a failure, and so is no certificate."""
    system = System(tmp_path)
    for parameters in (files(server, "other.crt"), {"TLS": "True"}, {}):
        configure(system, server, **parameters)
        result = system.result()
        assert result["exit_code"] == 1, parameters
        assert str(server.port) in json.dumps(result)
    assert system.stored() == []


@pytest.mark.parametrize(
    ("parameters", "says", "code"),
    [
        ({"TLS": "True", "TLS_CA": "/not/there"}, "TLS_CA: /not/there: no such file", 1),
        ({"TLS_CA": "/etc/hostname"}, "TLS_CA, TLS_CERT and TLS_KEY need TLS", 2),
        ({"TLS": "True", "TLS_CERT": "/etc/hostname"}, "only one of them is set", 2),
        ({"HOST": "rediss://:pw@h"}, "HOST: not a host name", 2),
    ],
)
def test_bad_keys(
    tmp_path: Path, server: TLSRedis, parameters: dict[str, Any], says: str, code: int
) -> None:
    system = System(tmp_path)
    configure(system, server, **parameters)
    done = system.run("-r")
    assert done.returncode in (code, 1)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert system.run("-t").returncode in (1, 2)
