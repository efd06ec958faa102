"""What a backup of a SQLite database needs of it, and what it leaves beside it: nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sqlite import integrity, snapshot
from tests.sqlite.test_sqlite import configure
from tests.system import System
from tools.flow import task

# Small WAL: it is moved into the database and begun anew all the time.
BUSY = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
db.execute(f"PRAGMA journal_mode={sys.argv[2]}")
db.execute("PRAGMA wal_autocheckpoint=8")
db.execute("PRAGMA synchronous=OFF")
db.execute("PRAGMA cache_size=5")
number = 0
while True:
    number += 1
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE t SET v = ?", (number,))
    db.execute("INSERT INTO t VALUES (?, ?, ?)", (None, number, b"x" * (number % 3000)))
    db.execute("DELETE FROM t WHERE k <= (SELECT MAX(k) FROM t) - 300")
    db.execute("COMMIT")
"""
HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.argv[2:]:
    db.execute(line)
print("ready", flush=True)
sys.stdin.read()
"""


def make_database(path: Path, *statements: str, mode: str = "delete") -> Path:
    """A database with one table and what else is wanted."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA journal_mode={mode}")
        db.create_collation(
            "LOCALIZED", lambda a, b: (a.lower() > b.lower()) - (a.lower() < b.lower())
        )
        db.create_function("norm", 1, str.lower, deterministic=True)
        db.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v INT, b BLOB)")
        db.execute("INSERT INTO t VALUES (1, 1, x'00')")
        for statement in statements:
            db.execute(statement)
    return path


@contextlib.contextmanager
def held(path: Path, *statements: str) -> Iterator[subprocess.Popen[str]]:
    """An application that has done this and goes on living."""
    argv = [sys.executable, "-c", HOLD, str(path), *statements]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def content(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """All that could change in a folder: i-nodes, owners, times of change, bytes."""
    return {
        path.name: (path.stat().st_ino, path.stat().st_uid, path.stat().st_mtime_ns,
                    path.read_bytes())
        for path in folder.iterdir()
    }  # fmt: skip


def copied(path: Path, tmp_path: Path) -> Any:
    """A copy of our own, checked."""
    copy = tmp_path / "copy"
    snapshot.copy(path, copy, 20.0)
    return integrity.check(copy, path)


def rows(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT COUNT(*) FROM t").fetchone()[0])


def stored(system: System, path: Path, code: int = 0) -> Path:
    return system.restored(code=code) / "SQLITE" / str(path).lstrip("/")


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_nothing_is_left_beside_an_idle_database(system: System, mode: str) -> None:
    """Issue 11 B, SQLite: nothing left beside the database [33]."""
    folder = system.folder / "app"
    folder.mkdir()
    path = make_database(folder / "app.db", mode=mode)
    before = content(folder)
    configure(system, DATABASES=str(path))
    assert system.result()["exit_code"] == 0
    assert system.run("-t").returncode == 0
    assert content(folder) == before
    assert rows(stored(system, path)) == 1


def test_the_wal_of_a_living_application_stays_as_it_is(system: System) -> None:
    """Issue 11 B, SQLite: its rows are stored, its WAL is neither moved nor removed [33]."""
    folder = system.folder / "app"
    folder.mkdir()
    path = make_database(folder / "app.db", mode="wal")
    configure(system, DATABASES=str(path))
    with held(path, "INSERT INTO t VALUES (2, 2, x'')"):
        before = content(folder)
        assert before["app.db-wal"][3]
        assert system.result()["exit_code"] == 0
        assert content(folder) == before
    assert content(folder) == before  # the application was killed
    assert rows(stored(system, path)) == 2
    (system.store / "srv-test").rename(system.folder / "first")
    assert system.result("--accept-rollback")["exit_code"] == 0
    assert content(folder) == before
    assert rows(stored(system, path)) == 2


@pytest.mark.needs("root")
def test_a_folder_that_cannot_be_written(system: System) -> None:
    """Issue 11 B, SQLite: an idle WAL database on a read-only mount [16]."""
    mount = system.folder / "mount"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(mount)], check=True)
    try:
        path = make_database(mount / "app.db", mode="wal")
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        configure(system, DATABASES=str(path))
        assert system.result()["exit_code"] == 0
        assert rows(stored(system, path)) == 1
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.fault("SQLite: a writer was killed (hot journal)", "stored as SQLite recovers it")
def test_a_hot_journal_is_rolled_back_in_the_copy(system: System) -> None:
    """Issue 11 B, SQLite: hot journals [16]; the journal itself is left to the application."""
    folder = system.folder / "app"
    folder.mkdir()
    path = make_database(
        folder / "x.db",
        "INSERT INTO t (v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL "
        "SELECT i + 1 FROM n WHERE i < 30000) SELECT i FROM n",
    )
    hot = folder / "hot.db"
    with held(path, "PRAGMA cache_size=5", "BEGIN", "UPDATE t SET v = -1"):
        for ending in ("", "-journal"):
            shutil.copyfile(f"{path}{ending}", f"{hot}{ending}")
    before = content(folder)
    configure(system, DATABASES=[str(hot)])
    assert system.result()["exit_code"] == 0
    assert content(folder) == before
    with contextlib.closing(sqlite3.connect(stored(system, hot))) as db:
        assert db.execute("SELECT COUNT(*), MIN(v) FROM t").fetchone() == (30001, 1)


def test_a_journal_whose_writer_lives_is_not_rolled_back(tmp_path: Path) -> None:
    path = make_database(tmp_path / "x.db")
    with held(path, "BEGIN", "UPDATE t SET v = 2"):
        assert (tmp_path / "x.db-journal").exists()
        assert copied(path, tmp_path).complaints == ()
        assert not (tmp_path / "copy-journal").exists()
    assert rows(tmp_path / "copy") == 1


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["wal", "delete", "truncate", "persist"])
def test_copies_under_a_busy_writer_are_of_one_moment(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every transaction writes all rows: a copy never holds two numbers."""
    monkeypatch.setattr(snapshot, "_POLL", 0.001)  # it rarely leaves the database unlocked
    path = make_database(tmp_path / "app.db", mode="wal" if mode == "wal" else "delete")
    writer = subprocess.Popen([sys.executable, "-c", BUSY, str(path), mode])
    try:
        numbers = []
        for _ in range(40):
            time.sleep(0.02)
            assert copied(path, tmp_path).complaints == ()
            with contextlib.closing(sqlite3.connect(tmp_path / "copy")) as db:
                rows = db.execute("SELECT DISTINCT v FROM t ORDER BY k DESC LIMIT 9").fetchall()
            numbers.append(rows[0][0])
            assert len(rows) == 1
        assert writer.poll() is None
        assert len(set(numbers)) > 5
    finally:
        writer.kill()
        writer.wait()


@pytest.mark.fault("SQLite: locked longer than LOCK_TIMEOUT", "exit 1, named; others are stored")
def test_an_exclusive_lock(system: System) -> None:
    """Issue 11 B, SQLite: TIMEOUT has no say in SQLite's own waiting; ours ends by itself."""
    free = make_database(system.folder / "free.db")
    path = make_database(system.folder / "app.db")
    configure(system, DATABASES=[str(path), str(free)], LOCK_TIMEOUT="1s")
    with held(path, "BEGIN EXCLUSIVE"):
        tested = system.run("-t")
        assert (tested.returncode, "WARN" in tested.stderr) == (0, True), tested.stderr
        result = system.result()
    assert result["exit_code"] == 1
    assert f"{path}: database is locked (waited 1 seconds)" in json.dumps(result)
    assert [item["name"] for item in system.manifest()["items"]] == [str(free).lstrip("/")]


@pytest.mark.fault("SQLite: a time limit while a lock is waited for", "the wait ends at once")
def test_a_wait_for_a_lock_ends_with_its_task(tmp_path: Path) -> None:
    path = make_database(tmp_path / "app.db")
    with held(path, "BEGIN EXCLUSIVE"), task.entered(task.Task()) as work:
        threading.Timer(0.1, work.stop, ("its time is over",)).start()
        with pytest.raises(task.StoppedError, match="its time is over"):
            snapshot.copy(path, tmp_path / "copy", 3600.0)


def test_a_long_check_is_no_stall_and_ends_with_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_database(tmp_path / "app.db")
    monkeypatch.setattr(integrity, "_INSTRUCTIONS", 1)
    with task.entered(task.Task()) as work:
        work.moved = 0.0
        integrity.check(path, path)
        assert work.moved > 0
        work.stop("its time is over")
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            integrity.check(path, path)


@pytest.mark.parametrize(
    ("statements", "undefined"),
    [
        (("CREATE TABLE c (a TEXT COLLATE LOCALIZED)", "CREATE INDEX i ON c(a)",
          "INSERT INTO c VALUES ('x'), ('Y')"), "collation LOCALIZED"),
        (("CREATE TABLE c (a TEXT)", "CREATE INDEX i ON c(norm(a))",
          "INSERT INTO c VALUES ('X')"), "function norm"),
        (("CREATE TABLE c (a TEXT, b TEXT AS (norm(a)) STORED, CHECK (norm(a) <> ''))",
          "INSERT INTO c(a) VALUES ('X')"), "function norm"),
        (("CREATE TABLE c (a TEXT COLLATE LOCALIZED PRIMARY KEY) WITHOUT ROWID",
          "INSERT INTO c VALUES ('x'), ('Y')"), "collation LOCALIZED"),
        (("CREATE TABLE c (a TEXT, b TEXT NOT NULL AS (norm(a)) VIRTUAL)",
          "INSERT INTO c(a) VALUES ('X')"), "function norm"),
        (("CREATE TABLE c (a TEXT COLLATE LOCALIZED)", "CREATE INDEX i ON c(norm(a))",
          "INSERT INTO c VALUES ('X')"), "function norm"),
    ],
)  # fmt: skip
def test_definitions_of_an_application(
    system: System, statements: tuple[str, ...], undefined: str
) -> None:
    """Issue 11 B, SQLite: a database whose collations only the application has is sound [14]."""
    path = make_database(system.folder / "app.db", *statements)
    configure(system, DATABASES=str(path))
    result = system.result()
    assert result["exit_code"] == 0, result
    (item,) = system.manifest()["items"]
    assert any(undefined in note for note in item["notes"])
    assert stored(system, path).read_bytes() == path.read_bytes()


@pytest.mark.fault("SQLite: rows that break the database's own rules", "stored, exit 3, named")
@pytest.mark.parametrize(
    ("statements", "complaint"),
    [
        (("CREATE TABLE c (a INT CHECK (a > 0))", "PRAGMA ignore_check_constraints=ON",
          "INSERT INTO c VALUES (-1)"), "CHECK constraint failed in c"),
        (("CREATE TABLE c (a INT)", "INSERT INTO c VALUES (NULL)", "PRAGMA writable_schema=ON",
          "UPDATE sqlite_master SET sql='CREATE TABLE c (a INT NOT NULL)' WHERE name='c'"),
         "NULL value in c.a"),
        (("CREATE TABLE c (a INT)", "INSERT INTO c VALUES (5)", "CREATE INDEX i ON c(a)",
          "CREATE INDEX j ON c(a) WHERE a > 9", "PRAGMA writable_schema=ON",
          "UPDATE sqlite_master SET sql='CREATE INDEX j ON c(a)' WHERE name='j'"),
         "missing from index j"),
    ],
)  # fmt: skip
def test_rows_that_break_a_rule(
    system: System, statements: tuple[str, ...], complaint: str
) -> None:
    """Issue 11 B, SQLite: what the check says of rows is no corruption: stored, exit 3."""
    path = make_database(system.folder / "app.db", *statements)
    configure(system, DATABASES=str(path))
    result = system.result()
    assert result["exit_code"] == 3, result
    assert complaint in json.dumps(result)
    assert stored(system, path, code=3).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("stream", ["True", "False"])
def test_names_and_kinds_of_files(system: System, stream: str) -> None:
    """Issue 11: odd names, links, an empty file; what goes with a database is not one."""
    folder = system.folder / "app"
    folder.mkdir()
    names = ["a?b#c%20.db", "sp ace.db", "ü'\".db", "new\nline.db"]
    for name in names:
        make_database(folder / name)
    (folder / "link.db").symlink_to(folder / names[1])
    (folder / "empty.db").touch()
    (folder / f"{names[1]}-journal").touch()
    configure(system, stream, DATABASES=[str(folder / "*")])
    result = system.result()
    assert result["exit_code"] == 0, result
    items = {item["name"].rpartition("/")[2]: item for item in system.manifest()["items"]}
    assert set(items) == {*names, "link.db", "empty.db"}
    assert any("0 bytes" in note for note in items["empty.db"]["notes"])
    out = system.restored() / "SQLITE" / str(folder).lstrip("/")
    assert rows(out / "link.db") == rows(out / names[0]) == 1
    assert (out / "empty.db").stat().st_size == 0


@pytest.mark.fault("SQLite: one of several is missing or no file", "exit 1, named; others stored")
def test_one_that_is_missing_does_not_cost_the_others(system: System) -> None:
    """Issue 11 A7's kin: a missing name, a folder, a FIFO, a link to nothing, a lone -wal."""
    good = make_database(system.folder / "good.db")
    bad = [system.folder / name for name in ("gone.db", "folder.db", "fifo.db", "dead.db", "x-wal")]
    bad[1].mkdir()
    os.mkfifo(bad[2])
    bad[3].symlink_to(bad[0])
    bad[4].write_bytes(b"7\x7f\x06\x82" + bytes(28))
    configure(system, DATABASES=[*map(str, bad), str(good), str(system.folder / "none*.db")])
    tested = system.run("-t")
    assert tested.returncode == 1
    assert f"{good}: " in tested.stdout + tested.stderr
    result = system.result()
    assert result["exit_code"] == 1
    text = json.dumps(result)
    for path, reason in zip(
        (*bad, system.folder / "none*.db"),
        ("no such file", "not a regular file", "not a regular file", "no such file",
         "file is not a database", "no such file"),
        strict=True,
    ):  # fmt: skip
        assert f"{path}: {reason}" in text
        assert f"{path}: {reason}" in tested.stdout + tested.stderr
    assert [item["name"] for item in system.manifest()["items"]] == [str(good).lstrip("/")]
