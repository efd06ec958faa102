"""SQLite databases backed up while they are written, and restored row by row."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from restore import drill
from sqlite import integrity
from tests.system import System
from tools.base.errors import BackupError
from tools.flow.item_record import StoredItem

WRITER = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], timeout=30)
number = 0
while True:
    with db:
        db.executemany("INSERT INTO pairs VALUES (?, ?)", [(number, "a"), (number, "b")])
    number += 1
"""


def configure(system: System, stream: str = "True", **parameters: Any) -> None:
    sections = system.full_sections()
    del sections["FILESET"]
    section = {"ACTION": "load", "FROM": "sqlite", "FILENAME": "sqlite", "CLASS": "SQLiteBackup"}
    section["PARAMETERS"] = parameters  # type: ignore[assignment]
    system.configure({"SQLITE": section, **sections}, STREAM=stream)


def make_database(path: Path, wal: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA journal_mode={'wal' if wal else 'delete'}")
        db.execute("CREATE TABLE pairs (n INT, half TEXT)")
        db.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB)")
        db.executemany("INSERT INTO t (v) VALUES (?)", [(os.urandom(200),) for _ in range(5000)])
        db.execute("CREATE INDEX i ON t (v)")
        db.execute("CREATE VIEW w AS SELECT COUNT(*) AS n FROM t")
    db.close()
    return path


def dump(path: Path) -> list[str]:
    with sqlite3.connect(path) as db:
        return list(db.iterdump())


@pytest.mark.parametrize("stream", ["True", "False"])
def test_back_up_drop_restore_compare(tmp_path: Path, stream: str) -> None:
    system = System(tmp_path)
    first = make_database(tmp_path / "app/fïrst one.db")
    second = make_database(tmp_path / "app/second.db", wal=False)
    before = dump(first), dump(second)
    configure(system, stream, DATABASES=[str(tmp_path / "app/*.db")])
    result = system.result()
    assert result["exit_code"] == 0, result
    first.unlink()
    second.unlink()
    out = system.restored() / "SQLITE" / str(tmp_path / "app").lstrip("/")
    assert dump(out / first.name) == before[0]
    assert dump(out / second.name) == before[1]
    kinds = {item["kind"] for item in system.manifest()["items"]}
    assert kinds == {"sqlite"}
    assert not list(system.work.glob(".dump-*"))


@pytest.mark.slow
@pytest.mark.parametrize("wal", [True, False])
def test_a_database_that_is_written_meanwhile(tmp_path: Path, wal: bool) -> None:
    """Each transaction writes two rows: a copy of one moment never holds half a pair."""
    system = System(tmp_path)
    path = make_database(tmp_path / "app.db", wal=wal)
    configure(system, DATABASES=str(path))
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
    try:
        time.sleep(0.5)
        assert system.result()["exit_code"] == 0
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()
    out = system.restored() / "SQLITE" / str(path).lstrip("/")
    with sqlite3.connect(out) as db:
        ((rows, pairs),) = db.execute("SELECT COUNT(*), COUNT(DISTINCT n) FROM pairs")
        assert list(db.execute("PRAGMA integrity_check")) == [("ok",)]
    assert rows == 2 * pairs > 0


@pytest.mark.fault("a damaged SQLite database, or none", "exit 1, named; the others are stored")
def test_what_is_no_database(tmp_path: Path) -> None:
    system = System(tmp_path)
    good = make_database(tmp_path / "good.db")
    damaged = make_database(tmp_path / "damaged.db", wal=False)
    data = bytearray(damaged.read_bytes())
    data[8192:12288] = bytes(4096)
    damaged.write_bytes(data)
    other = tmp_path / "other.db"
    other.write_text("this is no database, and long enough to be looked at")
    configure(system, DATABASES=[str(good), str(damaged), str(other)])
    result = system.result()
    assert result["exit_code"] == 1
    text = json.dumps(result)
    assert "damaged.db: database is corrupt: " in text
    assert "other.db: file is not a database" in text
    assert f"{str(other)[1:]}: {other}" not in text
    assert [item["name"] for item in system.manifest()["items"]] == [str(good).lstrip("/")]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("app.db", "not an absolute path"),
        ("/does/not/exist.db", "no such file"),
        ("/does/not/*.db", "no such file"),
        ("", "DATABASES"),
    ],
)
def test_bad_input(tmp_path: Path, names: str, says: str) -> None:
    system = System(tmp_path)
    configure(system, DATABASES=names)
    done = system.run("-r")
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert system.stored() == []


def test_what_a_test_says(tmp_path: Path) -> None:
    system = System(tmp_path)
    configure(system, DATABASES=str(make_database(tmp_path / "app.db")))
    done = system.run("-t")
    assert done.returncode == 0, done.stderr
    assert "app.db: " in done.stdout


@pytest.mark.parametrize("check", ["backup", "drill"])
def test_functions_of_the_schema_are_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    """Issue 14 C: a view or constraint calls no function with effects outside of the database."""
    calls: list[int] = []
    path = tmp_path / "hostile.db"
    connect = sqlite3.connect

    def with_function(*arguments: Any, **named: Any) -> sqlite3.Connection:
        database: sqlite3.Connection = connect(*arguments, **named)
        database.create_function("effect", 0, lambda: calls.append(1), deterministic=True)
        return database

    monkeypatch.setattr(sqlite3, "connect", with_function)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t (a, b AS (effect()) CHECK (b IS NULL))")
        database.execute("INSERT INTO t VALUES (1)")
        calls.clear()
        database.execute("CREATE VIEW v AS SELECT effect()")
        database.commit()
    item = StoredItem("SQLITE", "hostile.db", "sqlite", "", (), ())
    checks: dict[str, Callable[[], object]] = {
        "drill": lambda: drill._evaluate(path, item, "SELECT * FROM v"),
        "backup": lambda: integrity.check(path, path),
    }
    with pytest.raises((sqlite3.Error, BackupError), match="unsafe use of effect"):
        checks[check]()
    assert not calls
