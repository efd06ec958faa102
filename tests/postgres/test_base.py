"""A whole PostgreSQL server backed up while it is written, and started on what came back."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postgres import base
from tests.servers import Postgres, documented
from tests.system import System
from tools.base.errors import StoreError
from tools.flow.item_record import StoredItem

pytestmark = pytest.mark.needs("initdb", "pg_basebackup")


@pytest.fixture
def server() -> Iterator[Postgres]:
    started = Postgres()
    started.sql(documented("base"))
    (started.folder / "nc").write_text(f"127.0.0.1:{started.port}:*:ncbase:PASSWORD\n")
    (started.folder / "nc").chmod(0o600)
    yield started
    started.stop()


def configure(system: System, server: Postgres, stream: str = "True", **more: Any) -> None:
    sections = system.full_sections()
    del sections["FILESET"]
    parameters = {"HOST": "127.0.0.1", "PORT": str(server.port), "USER": "ncbase"}
    parameters |= {"PASSFILE": str(server.folder / "nc"), **more}
    section = {"ACTION": "load", "FROM": "postgres", "FILENAME": "base"}
    section["CLASS"] = "PostgresBaseBackup"
    system.configure({"BASE": {**section, "PARAMETERS": parameters}, **sections}, STREAM=stream)


@pytest.mark.parametrize("stream", ["True", "False"])
def test_back_up_lose_restore_compare(tmp_path: Path, server: Postgres, stream: str) -> None:
    system = System(tmp_path)
    server.sql("CREATE DATABASE shop; CREATE ROLE clerk LOGIN")
    server.sql(
        "CREATE TABLE t AS SELECT n, md5(n::text) AS v FROM generate_series(1, 20000) AS n;"
        "SELECT lo_from_bytea(4711, 'a large object'); GRANT SELECT ON t TO clerk",
        "shop",
    )
    expected = server.sql("SELECT md5(string_agg(v, '' ORDER BY n)), count(*) FROM t", "shop")
    configure(system, server, stream)
    result = system.result()
    assert result["exit_code"] == 0, result
    (item,) = system.manifest()["items"]
    assert "/" in item["facts"]["wal_start"]
    server.end()
    shutil.rmtree(server.folder / "data")
    text = system.restore("--restore", "latest", "--destination", str(tmp_path / "out"))
    assert "verified against backup_manifest" in text
    data = server.folder / "restored"
    shutil.copytree(tmp_path / f"out/BASE/{server.port}", data)
    if server.as_user:
        subprocess.run(["chown", "-R", f"{server.as_user}:", data], check=True)
    server.serve(data)
    assert expected == server.sql(
        "SELECT md5(string_agg(v, '' ORDER BY n)), count(*) FROM t", "shop"
    )
    assert server.sql("SELECT convert_from(lo_get(4711), 'UTF8')", "shop") == "a large object\n"
    assert "clerk" in server.sql("SELECT rolname FROM pg_roles")


@pytest.mark.fault("a base backup without the right, or cut", "exit 1, nothing is stored")
def test_what_fails(tmp_path: Path, server: Postgres) -> None:
    system = System(tmp_path)
    cut = tmp_path / "pg_basebackup"
    cut.write_text('#!/bin/sh\npg_basebackup "$@" | head -c 5000000\n')
    cut.chmod(0o755)
    configure(system, server, PG_BASEBACKUP=str(cut))
    result = system.result()
    assert result["exit_code"] == 1
    assert "before its end" in json.dumps(result) or "has no end" in json.dumps(result)
    server.sql("ALTER ROLE ncbase NOREPLICATION")
    configure(system, server)
    result = system.result()
    assert result["exit_code"] == 1
    assert "REPLICATION" in json.dumps(result) or "replication" in json.dumps(result)
    assert "lacks REPLICATION" in system.run("-t").stderr
    configure(system, server, PORT="x")
    assert "PORT: 'x' is not a list of ports" in system.run("-r").stderr
    assert system.stored() == []


@pytest.mark.fault("a damaged base backup in the store", "exit 1, no folder appears")
def test_damage(tmp_path: Path, server: Postgres) -> None:
    system = System(tmp_path)
    configure(system, server)
    assert system.result()["exit_code"] == 0
    (path,) = system.store.rglob("*.age.000")
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    system.restore("--restore", "latest", "--destination", str(tmp_path / "out"), code=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "mode"), [(tarfile.REGTYPE, 0o4755), (tarfile.FIFOTYPE, 0o600)])
def test_what_no_server_has_is_refused(tmp_path: Path, kind: bytes, mode: int) -> None:
    """Issue 14: tar gave a forged base backup its set-user-ID files and device nodes."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        entry = tarfile.TarInfo("base/x")
        entry.type, entry.mode = kind, mode
        archive.addfile(entry)
    item = StoredItem("BASE", "5432", "postgres-base", ".tar", (), ())
    with pytest.raises(StoreError, match="base/x: unexpected type or mode"):
        base.restore_to_folder(item, lambda: iter([raw.getvalue()]), tmp_path, lambda: iter(()))
