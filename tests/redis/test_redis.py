"""A Redis server backed up, emptied, restored, every key compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Redis
from tests.system import System

pytestmark = pytest.mark.needs("redis-server")


@pytest.fixture
def server() -> Iterator[Redis]:
    started = Redis()
    yield started
    started.stop()


def configure(system: System, server: Redis, stream: str = "True", **parameters: Any) -> None:
    sections = system.full_sections()
    del sections["FILESET"]
    secret = system.folder / "password"
    secret.write_text(server.password)
    secret.chmod(0o600)
    parameters = {"PORT": str(server.port), "PASSWORD": f"file:{secret}", **parameters}
    section = {"ACTION": "load", "FROM": "redis", "FILENAME": "redis", "CLASS": "RedisBackup"}
    system.configure({"REDIS": {**section, "PARAMETERS": parameters}, **sections}, STREAM=stream)


def filled(server: Redis) -> None:
    lines = [f"SET key:{number} value-{number}" for number in range(5000)]
    lines += [f"RPUSH list {number}" for number in range(100)]
    lines += ["HSET hash a 1 b 2", "ZADD zset 1.5 a 2 b", "SADD set x y", "SELECT 3", "SET o 1"]
    lines += ["XADD stream * a 1", "SET gone x EX 100000"]
    server.cli(stdin_data="\n".join(lines).encode())


def state(server: Redis) -> list[str]:
    """Every key with its value, as DUMP of Redis has it, and how long it lives."""
    lines = []
    for database in ("0", "3"):
        keys = sorted(server.cli("-n", database, "KEYS", "*").split())
        commands = "\n".join(f"DUMP {key}\nEXISTS {key}" for key in keys).encode()
        lines += [*keys, server.cli("-n", database, stdin_data=commands)]
    return lines


@pytest.mark.parametrize("stream", ["True", "False"])
def test_back_up_drop_restore_compare(tmp_path: Path, server: Redis, stream: str) -> None:
    system = System(tmp_path)
    filled(server)
    before = (
        server.cli("DBSIZE"),
        server.cli("HGETALL", "hash"),
        server.cli("LRANGE", "list", "0", "-1"),
    )
    other = server.cli("-n", "3", "GET", "o")
    configure(system, server, stream)
    result = system.result()
    assert result["exit_code"] == 0, result
    server.cli("FLUSHALL")
    server.end()
    file = system.restored() / f"REDIS/{server.port}.rdb"
    shutil.copyfile(file, server.folder / "dump.rdb")
    (server.folder / "dump.rdb").chmod(0o644)
    server.serve()
    after = (
        server.cli("DBSIZE"),
        server.cli("HGETALL", "hash"),
        server.cli("LRANGE", "list", "0", "-1"),
    )
    assert after == before
    assert server.cli("-n", "3", "GET", "o") == other == "1\n"
    assert server.cli("GET", "key:4999") == "value-4999\n"
    assert not list(system.work.glob(".dump-*"))
    assert server.password not in system.log.read_text()


@pytest.mark.fault("Redis: down, or the wrong password", "exit 1, the password never shown")
def test_a_server_that_cannot_be_asked(tmp_path: Path, server: Redis) -> None:
    system = System(tmp_path)
    configure(system, server, PASSWORD="not the password")
    result = system.result()
    assert result["exit_code"] == 1
    assert "not the password" not in json.dumps(result) + system.log.read_text()
    configure(system, server, PORT="1")
    result = system.result()
    assert result["exit_code"] == 1
    assert "Connection refused" in json.dumps(result)
    assert system.stored() == []
    configure(system, server)
    assert "Redis" in system.run("-t").stdout


@pytest.mark.fault("a snapshot of Redis that is cut", "exit 1, nothing is stored")
def test_a_client_that_writes_half(tmp_path: Path, server: Redis) -> None:
    system = System(tmp_path)
    filled(server)
    program = tmp_path / "redis-cli"
    program.write_text(
        '#!/bin/sh\nfor last; do :; done\n/usr/bin/redis-cli "$@" || exit 1\n'
        'case "$*" in *--rdb*) truncate -s -100 "$last";; esac\n'
    )
    program.chmod(0o755)
    configure(system, server, REDIS_CLI=str(program))
    result = system.result()
    assert result["exit_code"] == 1
    assert "incomplete snapshot" in json.dumps(result)
    assert system.stored() == []


def test_bad_input(tmp_path: Path, server: Redis) -> None:
    system = System(tmp_path)
    configure(system, server, PORT="x")
    done = system.run("-r")
    assert done.returncode in (1, 2)
    assert "PORT: 'x' is not a list of ports" in done.stderr
