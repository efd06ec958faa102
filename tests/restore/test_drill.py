"""The drill: good, with planted damage that it must find, and on its schedule."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.servers import MariaDB, Postgres
from tests.system import System


def drill(**parameters: Any) -> dict[str, Any]:
    section = {"ACTION": "execute", "NAME": "restore", "EXECUTABLE": "drill.py"}
    return {**section, "PARAMETERS": parameters}


def section(result: dict[str, Any], name: str = "DRILL") -> dict[str, Any]:
    entry: dict[str, Any] = next(one for one in result["sections"] if one["name"] == name)
    return entry


def prepared(tmp_path: Path, stream: str = "True", **parameters: Any) -> System:
    """A run with files and a SQLite database is stored; the drill stands in the config."""
    system = System(tmp_path)
    (system.source / "etc").mkdir()
    (system.source / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (system.source / "etc/empty").touch()
    (system.source / "etc/outside").symlink_to("/etc")
    with sqlite3.connect(tmp_path / "app.db") as db:
        db.execute("CREATE TABLE t (n INT)")
        db.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(10)])
    sqlite = {"ACTION": "load", "FROM": "sqlite", "FILENAME": "sqlite", "CLASS": "SQLiteBackup"}
    sqlite["PARAMETERS"] = {"DATABASES": str(tmp_path / "app.db")}  # type: ignore[assignment]
    system.configure({"SQLITE": sqlite, **system.full_sections()}, STREAM=stream)
    assert system.result()["exit_code"] == 0
    system.configure(
        {"SQLITE": sqlite, **system.full_sections(), "DRILL": drill(**parameters)}, STREAM=stream
    )
    return system


def names(tmp_path: Path) -> tuple[str, str]:
    """What the two items are called."""
    return "FILESET", f"SQLITE{tmp_path}/app.db"


@pytest.mark.parametrize("stream", ["True", "False"])
def test_files_and_sqlite(tmp_path: Path, stream: str) -> None:
    files, sqlite = names(tmp_path)
    good = {
        files: [f"{tmp_path}/source/etc/hosts", "**/etc/ho*"],
        sqlite: ["SELECT COUNT(*) >= 10 FROM t", "SELECT MAX(n) FROM t"],
    }
    system = prepared(tmp_path, stream, ASSERTIONS=good)
    result = system.result("--only", "DRILL")
    entry = section(result)
    assert entry["status"] == "ok", entry
    assert "restore drill passed at 20" in entry["message"]
    assert "2 items, 4 assertions" in entry["message"]
    again = section(system.result("--only", "DRILL"))
    assert "restore tested 0.0 s ago" in again["message"] or " s ago" in again["message"]
    assert "2 items" in system.run("-t").stdout
    config = json.loads(system.conf.read_text())
    config["DRILL"]["PARAMETERS"]["ASSERTIONS"][files] = "**/etc/hosts"
    system.conf.write_text(json.dumps(config))
    assert "3 assertions" in section(system.result("--only", "DRILL"))["message"]
    assert not list(system.work.glob(".dump-*"))


@pytest.mark.parametrize(
    ("index", "assertion", "says"),
    [
        (0, "**/etc/no-such-file", "returned nothing"),
        (0, "**/etc/[eo]*", "returned nothing"),
        (1, "SELECT COUNT(*) > 1000 FROM t", "returned '0'"),
        (1, "SELECT n FROM t WHERE n = 99", "returned nothing"),
        (1, "SELECT x FROM nowhere", "no such table"),
    ],
)
def test_what_is_not_true_is_found(tmp_path: Path, index: int, assertion: str, says: str) -> None:
    name = names(tmp_path)[index]
    system = prepared(tmp_path, ASSERTIONS={name: assertion})
    result = system.result("--only", "DRILL")
    entry = section(result)
    assert result["exit_code"] == 1
    assert "restore drill FAILED" in entry["message"]
    assert says in entry["message"]
    assert "drill FAILED" in section(system.result("--only", "DRILL"))["message"]  # tried again


@pytest.mark.fault("a stored backup that is damaged", "the drill fails, exit 1, names the item")
def test_planted_damage_is_found(tmp_path: Path) -> None:
    system = prepared(tmp_path, EVERY="0s")
    assert section(system.result("--only", "DRILL"))["status"] == "ok"
    newest = sorted((system.store / "srv-test").glob("*SQLITE*age.000"))[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    entry = section(system.result("--only", "DRILL"))
    assert entry["status"] == "failed"
    assert "app.db" in entry["message"]
    assert newest.name in entry["message"]


@pytest.mark.fault(
    "a forged run in the store, not signed or by another signer", "the drill fails, exit 1"
)
@pytest.mark.parametrize(("signed", "says"), [(False, "not signed"), (True, "an unknown key")])
def test_a_forged_run_proves_nothing(tmp_path: Path, signed: bool, says: str) -> None:
    """Issue 14: an attacker with write access to the store cannot make a drill pass."""
    system = prepared(tmp_path, EVERY="0s")
    system.forge(signed=signed)
    result = system.result("--only", "DRILL")
    entry = section(result)
    assert result["exit_code"] == 1
    assert entry["status"] == "failed"
    assert says in entry["message"], entry


def test_the_first_run_of_all_has_nothing_to_prove(tmp_path: Path) -> None:
    system = System(tmp_path)
    system.configure({**system.full_sections(), "DRILL": drill()}, STREAM="True")
    assert section(system.result())["message"].startswith("no run in the store yet")


def test_in_a_whole_run(tmp_path: Path) -> None:
    system = prepared(tmp_path)
    result = system.result()
    assert result["exit_code"] == 0, result
    assert section(result)["status"] == "ok"


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"ITEMS": "NOTHING"}, "no item matches NOTHING"),
        ({"ASSERTIONS": {"OTHER": "x"}}, "ASSERTIONS: OTHER is not among the restored items"),
        ({"ASSERTIONS": "text"}, "is not an object of lists of texts"),
        ({"ASSERTIONS": {"FILESET": [1]}}, "is not an object of lists of texts"),
        ({"RUN": "20200101_000000"}, "no run 20200101_000000"),
        ({"EVERY": "often"}, "is not a duration"),
    ],
)
def test_bad_input(tmp_path: Path, parameters: dict[str, Any], says: str) -> None:
    system = prepared(tmp_path, **parameters)
    done = system.run("-r", "--only", "DRILL")
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def fill(maria: MariaDB, postgres: Postgres, apart: Path) -> None:
    """Databases with a table in another folder, and a view that asks who calls it."""
    maria.sql("CREATE DATABASE shop; CREATE TABLE shop.t (n INT, at DATETIME)")
    maria.sql("INSERT INTO shop.t VALUES (1, NOW()), (2, NOW()); CREATE DATABASE other")
    maria.sql(
        "CREATE TABLE other.u (i INT); CREATE VIEW shop.v AS SELECT * FROM other.u; "
        "CREATE EVENT shop.e ON SCHEDULE EVERY 1 DAY DO SELECT 1"
    )
    apart.mkdir()
    apart.chmod(0o777)
    maria.sql(f"CREATE TABLE shop.far (i INT) DATA DIRECTORY='{apart}'")
    postgres.sql("CREATE DATABASE app; CREATE ROLE clerk; REVOKE ALL ON DATABASE app FROM PUBLIC")
    postgres.sql("CREATE TABLE t AS SELECT 1 AS n; GRANT SELECT ON t TO clerk", "app")
    power = "SELECT n > 0 AND current_setting(''is_superuser'') = ''off'' FROM t"
    postgres.sql(f"CREATE FUNCTION ok() RETURNS bool LANGUAGE sql AS '{power}'", "app")
    postgres.sql("CREATE VIEW v AS SELECT ok() AS ok", "app")


@pytest.mark.needs("mariadbd", "mariadb-dump", "initdb")
def test_databases_into_throwaway_servers(tmp_path: Path) -> None:
    system = System(tmp_path)
    maria, postgres = MariaDB(), Postgres()
    try:
        apart = maria.folder / "apart"
        fill(maria, postgres, apart)
        mysql = {"ACTION": "execute", "NAME": "mysql_backup", "EXECUTABLE": "mysql_dump.py"}
        login = {
            "EXCLUDE_DB": "oth*",
            "MY_INSTANCES": str(maria.port),
            "CREDENTIAL_PATH": str(maria.credentials),
        }
        pg = {"ACTION": "load", "FROM": "postgres", "FILENAME": "postgres"}
        where = {"HOST": "127.0.0.1", "PORT": str(postgres.port), "USER": "postgres"}
        where["PASSFILE"] = str(postgres.pgpass)
        others = system.full_sections()
        del others["FILESET"]
        shop, app = f"MYSQL/{maria.port}/shop", f"POSTGRES/{postgres.port}/app"
        asserted = {
            shop: ["SELECT COUNT(*) = 2 FROM t", "SELECT MAX(at) > NOW() - INTERVAL 1 DAY FROM t"],
            app: ["SELECT ok FROM v", "SELECT 1 FROM pg_roles WHERE rolname = 'clerk'"],
        }
        sections = {
            "MYSQL": {**mysql, "PARAMETERS": login},
            "POSTGRES": {**pg, "CLASS": "PostgresBackup", "PARAMETERS": where},
            **others,
        }
        system.configure(sections, STREAM="True")
        assert system.result()["exit_code"] == 0
    finally:
        maria.stop()
        postgres.stop()
    before = sorted(apart.rglob("*"))
    system.configure({**sections, "DRILL": drill(ASSERTIONS=asserted, EVERY="0s")}, STREAM="True")
    entry = section(system.result("--only", "DRILL"))
    assert sorted(apart.rglob("*")) == before
    assert entry["status"] == "incomplete", entry
    assert "4 assertions, 1 warning" in entry["message"]
    assert "view v was not created: ERROR 1146" in entry["warnings"][0]
    asserted[app].append("SELECT count(*) FROM t WHERE n > 1")
    system.configure({**sections, "DRILL": drill(ASSERTIONS=asserted, EVERY="0s")}, STREAM="True")
    entry = section(system.result("--only", "DRILL"))
    assert "SELECT count(*) FROM t WHERE n > 1: returned '0'" in entry["message"]
    newest = sorted((system.store / "srv-test").glob("*shop*age.000"))[-1]
    data = bytearray(newest.read_bytes())
    data[-20] ^= 1
    newest.write_bytes(data)
    result = system.result("--only", "DRILL")
    assert shop in json.dumps(section(result))
    assert result["exit_code"] == 1


def test_a_run_that_is_incomplete_is_proven_as_such(tmp_path: Path) -> None:
    """Issue 11 A8: what was never in the run is said by the drill as well: exit 3."""
    system = prepared(tmp_path)
    (path,) = (system.store / "srv-test").glob("*.manifest.json")
    document = json.loads(path.read_text())
    fileset = next(item for item in document["items"] if item["section"] == "FILESET")
    fileset["warnings"] = ["/etc/shadow: permission denied"]
    system.sign(path, json.dumps({**document, "status": "incomplete"}))
    result = system.result("--only", "DRILL")
    entry = section(result)
    assert result["exit_code"] == 3
    assert entry["status"] == "incomplete"
    assert "/etc/shadow: permission denied" in json.dumps(entry["warnings"])
