"""MariaDB backed up and restored by whole runs: a real server, every object and row compared."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mysql_backup import mysql_server
from tests.servers import MariaDB, MySQL, forwarded
from tests.system import System, wait_for

pytestmark = pytest.mark.needs("mariadbd", "mariadb-dump")

ODD = [
    "two words",
    "quote's\"",
    "pipe|",
    "-x",
    "$(id)",
    "line\nbreak",
    "ümläut",
    "back`tick",
    "a.b",
    "at@sign",
]
OBJECTS = """\
CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v TEXT, b BLOB, INDEX (v(10)));
INSERT INTO t (v, b) SELECT CONCAT('row ', seq, ' é\\n'), UNHEX(MD5(seq)) FROM seq_1_to_3000;
CREATE TABLE log (n INT);
CREATE TABLE aria (i INT) ENGINE=Aria; INSERT INTO aria VALUES (1), (2);
CREATE TABLE cache (k VARCHAR(9)); INSERT INTO cache VALUES ('a'), ('b');
CREATE TABLE secret (k INT); INSERT INTO secret VALUES (42);
CREATE VIEW v AS SELECT COUNT(*) AS n FROM t;
CREATE TRIGGER g AFTER INSERT ON t FOR EACH ROW INSERT INTO log VALUES (NEW.id);
CREATE FUNCTION f(i INT) RETURNS INT DETERMINISTIC RETURN i + 1;
CREATE PROCEDURE p() SELECT 'a procedure';
CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DELETE FROM log;
"""


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDB]:
    """One for all tests of this file; each makes its own databases."""
    started = MariaDB()
    yield started
    started.stop()


@pytest.fixture
def system(tmp_path: Path, server: MariaDB) -> Iterator[System]:
    yield System(tmp_path)
    keep = {"information_schema", "performance_schema", "sys", "mysql"}
    for name in databases(server) - keep:
        server.sql(f"DROP DATABASE {quoted(name)}")


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def databases(server: MySQL) -> set[str]:
    rows = server.sql("SELECT HEX(schema_name) FROM information_schema.schemata").split()
    return {bytes.fromhex(row).decode() for row in rows}


def shop(server: MySQL, name: str = "shop", myisam: bool = False) -> None:
    server.sql(f"CREATE DATABASE {quoted(name)} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    server.sql(OBJECTS, name)
    if myisam:
        server.sql("CREATE TABLE m (i INT) ENGINE=MyISAM; INSERT INTO m VALUES (7)", name)


def state(server: MySQL, name: str) -> dict[str, Any]:
    """Every object and row of a database, but for times of creation."""
    literal = f"0x{name.encode().hex()}"
    tables = server.sql(
        f"SELECT table_name FROM information_schema.tables WHERE table_schema = {literal}"
    ).split()
    facts: dict[str, Any] = {
        table: (
            server.sql(f"SHOW CREATE TABLE {quoted(table)}", name),
            server.sql(f"CHECKSUM TABLE {quoted(table)}", name).split()[-1],
        )
        for table in sorted(tables)
    }
    for object_name in ("PROCEDURE p", "FUNCTION f", "TRIGGER g", "EVENT e"):
        facts[object_name] = server.sql(f"SHOW CREATE {object_name}", name).split("\t")[:3]
    return facts


def mysql(server: MySQL, **parameters: Any) -> dict[str, Any]:
    """The documented section."""
    return {
        "ACTION": "execute",
        "NAME": "mysql_backup",
        "EXECUTABLE": "mysql_dump.py",
        "PARAMETERS": {
            "MY_INSTANCES": str(server.port),
            "CREDENTIAL_PATH": str(server.credentials),
            **parameters,
        },
    }


def configure(system: System, server: MySQL, stream: str = "True", **more: Any) -> None:
    sections = system.full_sections()
    del sections["FILESET"]
    system.configure({"MYSQL": mysql(server, **more), **sections}, STREAM=stream)


def to(server: MySQL, *more: str, host: str = "127.0.0.1") -> tuple[str, ...]:
    """The words of a restore into a server."""
    login = ("--to-credentials", str(server.root))
    return ("--to-host", host, "--to-port", str(server.port), *login, *more)


@pytest.mark.parametrize("stream", ["True", "False"])
def test_back_up_drop_restore_compare(system: System, server: MariaDB, stream: str) -> None:
    shop(server)
    shop(server, "mixed", myisam=True)
    before = {name: state(server, name) for name in ("shop", "mixed")}
    server.sql("CREATE USER eve@'%' IDENTIFIED BY 'x'; GRANT SELECT ON shop.* TO eve@'%'")
    configure(system, server, stream)
    result = system.result()
    assert result["exit_code"] == 0, result
    items = system.manifest()["items"]
    assert {item["kind"] for item in items} == {"mysql", "mysql-users", "mysql-binlogs"}
    facts = {item["name"].partition("/")[2]: item["facts"] for item in items}
    assert facts["shop"]["binlog_file"].startswith("binlog.")
    assert int(facts["shop"]["binlog_position"]) > 0
    assert facts["mixed"]["consistency"] == "locked"
    assert "mariadb" in facts["shop"]["server"].lower()
    server.sql("DROP DATABASE shop; DROP DATABASE mixed; DROP USER eve@'%'")
    text = system.restore("--restore", "latest", *to(server))
    assert "database shop: 5 tables, 3005 rows" in text
    assert {name: state(server, name) for name in ("shop", "mixed")} == before
    assert "SELECT" in server.sql("SHOW GRANTS FOR eve@'%'")
    server.sql("DROP USER eve@'%'")
    assert server.password not in system.log.read_text()


def test_under_another_name_beside_the_old_one(system: System, server: MariaDB) -> None:
    shop(server)
    configure(system, server)
    assert system.result()["exit_code"] == 0
    arguments = ("--restore", "latest", "--item", "shop")
    text = system.restore(*arguments, *to(server), code=1)
    assert "database shop is not empty" in text
    system.restore(*arguments, *to(server, "--to-database", "shop copy"))
    assert state(server, "shop copy")["t"][1] == state(server, "shop")["t"][1]
    server.sql("DELETE FROM t LIMIT 10", "shop copy")
    assert server.sql("SELECT n FROM v", "shop copy") == "2990\n"  # its own view
    assert server.sql("SELECT n FROM v", "shop") == "3000\n"
    server.sql("INSERT INTO t (v) VALUES ('new')", "shop copy")  # and its own trigger
    assert server.sql("SELECT COUNT(*) FROM log", "shop copy") == "1\n"
    assert server.sql("SELECT COUNT(*) FROM log", "shop") == "0\n"
    server.sql("DELETE FROM t", "shop")
    system.restore(*arguments, *to(server, "--overwrite"))
    assert server.sql("SELECT COUNT(*) FROM t", "shop") == "3000\n"
    out = system.restored("--item", "shop")
    assert "-- Dump completed" in (out / f"MYSQL/{server.port}/shop.sql").read_text()[-200:]


def test_databases_with_every_odd_name(system: System, server: MariaDB) -> None:
    for name in ODD:
        server.sql(f"CREATE DATABASE {quoted(name)}")
        server.sql("CREATE TABLE t (i INT); INSERT INTO t VALUES (1), (2)", name)
    configure(system, server)
    result = system.result()
    assert result["exit_code"] == 0, result
    for name in ODD:
        server.sql(f"DROP DATABASE {quoted(name)}")
    system.restore("--restore", "latest", *to(server))
    for name in ODD:
        assert server.sql("SELECT COUNT(*) FROM t", name) == "2\n", name
    arguments = ("--item", "at@sign", *to(server, "--to-database", "at@other"))
    system.restore("--restore", "latest", *arguments)
    assert server.sql("SELECT COUNT(*) FROM t", "at@other") == "2\n"


def test_what_is_left_out(system: System, server: MariaDB) -> None:
    shop(server)
    for name in ("not this", "test_1", "[x]"):
        server.sql(f"CREATE DATABASE {quoted(name)}")
    configure(
        system, server,
        EXCLUDE_DB=["not this", "test*", "[x]"],
        EXCLUDE_TABLE="shop.sec*", SCHEMA_ONLY_TABLE="shop.cach?",
    )  # fmt: skip
    assert system.result()["exit_code"] == 0
    items = {item["name"]: item for item in system.manifest()["items"]}
    port = server.port
    assert set(items) == {f"users@{port}", f"{port}/shop", f"binlogs@{port}"}
    assert items[f"{server.port}/shop"]["facts"]["excluded"] == ["secret"]
    system.restore("--restore", "latest", "--item", "shop", *to(server, "--to-database", "new"))
    assert "secret" not in server.sql("SHOW TABLES", "new").split()
    assert server.sql("SELECT COUNT(*) FROM cache", "new") == "0\n"
    assert server.sql("SELECT COUNT(*) FROM t", "new") == "3000\n"


def test_two_instances(system: System, server: MariaDB) -> None:
    second = MariaDB()
    try:
        shop(server, "one")
        shop(second, "two")
        both = " ".join(str(path) for path in (server.credentials, second.credentials))
        configure(system, server, MY_INSTANCES=f"{server.port},{second.port}", CREDENTIAL_PATH=both)
        assert system.result()["exit_code"] == 0
        names = {item["name"] for item in system.manifest()["items"]}
        assert names == {
            f"users@{server.port}", f"users@{second.port}",
            f"binlogs@{server.port}", f"binlogs@{second.port}",
            f"{server.port}/one", f"{second.port}/two",
        }  # fmt: skip
        text = system.restore("--restore", "latest", *to(second), code=2)
        assert "the selected items come from 2 servers (MYSQL " in text
        assert databases(second) == databases(server) - {"one"} | {"two"}
        arguments = ("--item", f"users@{server.port}", "--item", f"{server.port}/*")
        system.restore("--restore", "latest", *arguments, *to(second))
        assert state(second, "one") == state(server, "one")
    finally:
        second.stop()


def test_a_port_that_is_mapped_to_another(system: System, server: MariaDB) -> None:
    """As containers do: the server does not know by which port it is reached."""
    shop(server)
    with forwarded(server.port) as port:
        configure(system, server, MY_INSTANCES=str(port))
        assert system.result()["exit_code"] == 0
    assert f"{port}/shop" in {item["name"] for item in system.manifest()["items"]}


@pytest.mark.fault("a socket that leads to another instance", "exit 1, nothing is dumped")
def test_a_socket_of_another_instance(system: System, server: MariaDB) -> None:
    shop(server)
    path = server.option_file("socket.cnf", "ncbackup", server.password)
    path.write_text(path.read_text().replace("host=127.0.0.1", f"socket={server.folder}/socket"))
    configure(system, server, MY_INSTANCES="3399", CREDENTIAL_PATH=str(path))
    result = system.result()
    assert result["exit_code"] == 1
    assert f"has port {server.port}, not 3399" in result["sections"][0]["message"]
    configure(system, server, CREDENTIAL_PATH=str(path))
    assert system.result()["exit_code"] == 0


@pytest.mark.fault("a database server that is down", "exit 1 with the client's words")
def test_a_server_that_is_down(system: System, server: MariaDB) -> None:
    configure(system, server, MY_INSTANCES="1")
    result = system.result()
    assert result["exit_code"] == 1
    assert "Can't connect" in json.dumps(result)
    assert system.stored() == []


@pytest.mark.fault("the wrong password of a database", "exit 1, the password never shown")
def test_a_wrong_password(system: System, server: MariaDB) -> None:
    wrong = server.option_file("wrong.cnf", "ncbackup", "not the password")
    configure(system, server, CREDENTIAL_PATH=str(wrong))
    result = system.result()
    assert result["exit_code"] == 1
    assert "Access denied" in json.dumps(result)
    assert "not the password" not in json.dumps(result) + system.log.read_text()


@pytest.mark.fault("a broken view", "that database fails by name, the others are stored, exit 1")
@pytest.mark.parametrize("stream", ["True", "False"])
def test_a_broken_view_fails_its_database_alone(
    system: System, server: MariaDB, stream: str
) -> None:
    shop(server)
    server.sql("CREATE DATABASE broken; CREATE TABLE broken.t (i INT)")
    server.sql("CREATE VIEW v AS SELECT i FROM t; DROP TABLE t", "broken")
    configure(system, server, stream)
    result = system.result()
    assert result["exit_code"] == 1
    assert "broken" in result["sections"][0]["message"]
    assert f"{server.port}/shop" in {item["name"] for item in system.manifest()["items"]}
    assert f"{server.port}/broken" not in {item["name"] for item in system.manifest()["items"]}
    if stream == "True":
        assert f"MYSQL/{server.port}/broken" in system.manifest()["missing"]
    code = 3 if stream == "True" else 0  # what the manifest names as missing
    system.restore("--verify", system.manifest()["run_id"], code=code)


@pytest.mark.fault("a database user without a privilege", "exit 1 with the server's words")
def test_a_missing_privilege(system: System, server: MariaDB) -> None:
    shop(server)
    server.sql("CREATE USER few@localhost IDENTIFIED BY 'x'; GRANT SELECT ON *.* TO few@localhost")
    few = server.option_file("few.cnf", "few", "x")
    configure(system, server, CREDENTIAL_PATH=str(few))
    result = system.result()
    server.sql("DROP USER few@localhost")
    assert result["exit_code"] == 1
    assert "denied" in json.dumps(result)


@pytest.mark.fault("a server without any database", "exit 1: an empty result is not a backup")
def test_no_database_at_all(system: System, server: MariaDB) -> None:
    configure(system, server)
    result = system.result()
    assert result["exit_code"] == 1
    assert "no database" in result["sections"][0]["message"]


DOUBLE = """\
#!/bin/bash
[ "$1" = --version ] && exec {real} --version
{what}
"""


def double(system: System, script: str) -> str:
    """A dump program that misbehaves; REAL is the one that works."""
    real = subprocess.run(["which", "mariadb-dump"], capture_output=True, text=True, check=True)
    path = system.folder / "mysqldump"
    path.write_text(
        DOUBLE.format(real=real.stdout.strip(), what=script.replace("REAL", real.stdout.strip()))
    )
    path.chmod(0o755)
    return str(path)


@pytest.mark.fault("a dump that ends early with exit code 0", "exit 1, nothing of it visible")
def test_half_a_dump_with_exit_code_0(system: System, server: MariaDB) -> None:
    shop(server)
    program = double(system, 'REAL "$@" | head -c 20000; exit 0')
    configure(system, server, MYSQL_DUMP_BINARY=program)
    result = system.result()
    assert result["exit_code"] == 1
    assert "Dump completed" in json.dumps(result)
    assert not [name for name in system.stored() if "shop" in name]


@pytest.mark.fault("a dump that fails with its end mark", "exit 1: both must be good")
def test_an_end_mark_does_not_excuse_an_exit_code(system: System, server: MariaDB) -> None:
    shop(server)
    configure(system, server, MYSQL_DUMP_BINARY=double(system, 'REAL "$@"; exit 2'))
    assert system.result()["exit_code"] == 1


@pytest.mark.fault("a table altered while it is dumped", "a whole new dump, once")
def test_a_table_altered_while_it_is_dumped(system: System, server: MariaDB) -> None:
    shop(server)
    tried = system.folder / "tried"
    program = double(
        system,
        f'if [ ! -e {tried} ] && [[ "$*" == *shop ]]; then touch {tried}; '
        'REAL "$@" | head -c 9999; '
        "echo 'mysqldump: Error 1412: Table definition has changed' >&2; exit 3; fi; "
        'exec REAL "$@"',
    )
    configure(system, server, MYSQL_DUMP_BINARY=program)
    result = system.result()
    assert result["exit_code"] == 0, result
    assert "dumped anew" in system.log.read_text()
    assert "can be restored" in system.restore("--verify", "latest")


@pytest.mark.fault("damage in a dump that goes into a server", "the server hears nothing of it")
def test_damage_never_reaches_the_server(system: System, server: MariaDB) -> None:
    shop(server)
    configure(system, server)
    assert system.result()["exit_code"] == 0
    (part,) = (system.store / "srv-test").glob("*shop*.000")
    raw = bytearray(part.read_bytes())
    raw[-1] ^= 1
    part.write_bytes(raw)
    arguments = ("--restore", "latest", "--item", "shop", *to(server, "--to-database", "new"))
    assert "differs from what was stored" in system.restore(*arguments, code=1)
    assert "new" not in databases(server)


@pytest.mark.fault("a dump that the server refuses half-way", "the new database is gone again")
def test_a_refused_dump_leaves_no_database(system: System, server: MariaDB) -> None:
    rows = "INSERT INTO a VALUES (1, \\047a customer\\047);"
    text = f"printf 'CREATE TABLE a (i INT);\\n{rows}\\n-- Dump completed\\n'"
    program = double(system, text)
    server.sql("CREATE DATABASE bad; CREATE TABLE bad.t (i INT)")
    configure(system, server, MYSQL_DUMP_BINARY=program)
    assert system.result()["exit_code"] == 0
    arguments = ("--restore", "latest", "--item", "bad", *to(server, "--to-database", "new"))
    output = system.restore(*arguments, code=1)
    assert "ERROR 1136" in output
    assert "a customer" not in output
    assert "new" not in databases(server)


def test_a_server_that_ends_what_takes_long(server: MariaDB) -> None:
    connection = mysql_server.MySQLConnection("mariadb", server.credentials, server.port)
    server.sql("SET GLOBAL max_statement_time = 0.1")
    try:
        assert connection.query("SELECT SLEEP(0.3)") == [["0"]]
    finally:
        server.sql("SET GLOBAL max_statement_time = 0")


@pytest.mark.fault("events of MariaDB that are DISABLED", "exit 3, they are counted, the rest is")
def test_events_that_are_disabled(system: System) -> None:
    server = MariaDB()
    try:
        shop(server)
        server.sql("CREATE DATABASE none; CREATE TABLE none.t (i INT)")
        server.end()
        server.scheduler = "DISABLED"
        server.serve(server.data)
        configure(system, server)
        result = system.result()
        assert result["exit_code"] == 3
        assert "/shop: 1 event not dumped: event_scheduler is DISABLED" in result["stderr"]
        assert "none" not in result["stderr"]
        arguments = ("--restore", "latest", "--item", "shop", *to(server, "--to-database", "new"))
        system.restore(*arguments, code=3)  # as the backup was
        assert "not empty" in system.restore(*arguments, code=1)
        assert server.sql("SELECT COUNT(*) FROM t", "new") == "3000\n"
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"MY_INSTANCES": "x"}, "MY_INSTANCES: 'x' is not a list of ports"),
        ({"EXCLUDE_TABLE": "t"}, "EXCLUDE_TABLE: t: must be db.table"),
        ({"CREDENTIAL_PATH": "/does/not/exist"}, "CREDENTIAL_PATH: /does/not/exist: no such file"),
        ({"BINLOG_DAYS": "-1"}, "BINLOG_DAYS"),
        ({"BINLOG_PATH": "/a /b"}, "BINLOG_PATH: 2 paths for 1 ports"),
        ({"EXCLUDE_TABEL": "a.b"}, "EXCLUDE_TABLE"),
    ],
)
def test_bad_input(system: System, server: MariaDB, parameters: dict[str, str], says: str) -> None:
    configure(system, server, **parameters)
    done = system.run("-r")
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_credentials_that_others_can_read_are_refused(system: System, server: MariaDB) -> None:
    option_file = server.option_file("open.cnf", "ncbackup", server.password)
    option_file.chmod(0o644)
    configure(system, server, CREDENTIAL_PATH=str(option_file))
    assert "chmod 0600" in system.run("-r").stderr


def test_it_tests_without_a_change(system: System, server: MariaDB) -> None:
    shop(server)
    configure(system, server)
    done = system.run("-t")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"port {server.port}: 1\d\.\d+\.\d+-MariaDB", done.stdout)
    assert "1 database" in done.stdout


def test_files_and_databases_are_told_apart(system: System, server: MariaDB) -> None:
    shop(server)
    sections = system.full_sections()
    (system.source / "a").write_text("a")
    system.configure({"MYSQL": mysql(server), **sections}, STREAM="True", PARALLEL="2")
    assert system.result()["exit_code"] == 0
    arguments = ("--restore", "latest", *to(server))
    out = str(system.folder / "out")
    assert "no database is selected" in system.restore(*arguments, "--section", "FILESET", code=2)
    assert "cannot be combined with --destination or --path" in system.restore(
        *arguments, "--path", "/etc", code=2
    )
    assert "databases are selected" in system.restore(
        *arguments, "--section", "FILESET", "--to-database", "x", code=2
    )
    assert "requires --to-host" in system.restore(
        "--restore", "latest", "--to-port", "3306", "--destination", out, code=2
    )


def slow(system: System, server: MariaDB) -> tuple[Path, Path]:
    """A database whose dump waits in its first table; what shows that it does, what ends that."""
    server.sql("CREATE DATABASE shop")
    server.sql("CREATE TABLE a AS SELECT seq, REPEAT('x', 1000) AS v FROM seq_1_to_30000", "shop")
    server.sql("CREATE TABLE z (i INT); INSERT INTO z VALUES (1)", "shop")
    waits, go = system.folder / "waits", system.folder / "go"
    program = system.folder / "dump"
    program.write_text(
        '#!/bin/bash\nset -o pipefail\nmariadb-dump "$@" | (case "$*" in *users*|*--version*) ;; '
        f"*) head -c 500000; touch {waits}; until [ -e {go} ]; do sleep 0.05; done;; esac; cat)\n"
    )
    program.chmod(0o755)
    configure(system, server, MYSQL_DUMP_BINARY=str(program))
    return waits, go


@pytest.mark.fault("the connection of a dump is killed", "exit 1, nothing of it visible")
def test_a_connection_that_is_killed(system: System, server: MariaDB) -> None:
    waits, go = slow(system, server)
    run = subprocess.Popen(system.command("-r"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(waits)
    ids = server.sql("SELECT id FROM information_schema.processlist WHERE db = 'shop'").split()
    for number in ids:
        server.sql(f"KILL {number}")
    go.touch()
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 1, stderr
    assert b"Lost connection" in stderr or b"gone away" in stderr or b"2013" in stderr
    assert not [name for name in system.stored() if "shop" in name]


@pytest.mark.fault("a table dropped while it is dumped", "a whole new dump, once")
def test_a_table_that_is_dropped_meanwhile(system: System, server: MariaDB) -> None:
    waits, go = slow(system, server)
    run = subprocess.Popen(system.command("-r"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(waits)
    server.sql("DROP TABLE z", "shop")
    go.touch()
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 0, stderr
    assert "it is dumped anew" in system.log.read_text()
    system.restore("--restore", "latest", "--item", "shop", *to(server, "--to-database", "copy"))
    assert server.sql("SHOW TABLES", "copy").split() == ["a"]
    assert server.sql("SELECT COUNT(*) FROM a", "copy") == "30000\n"


def test_sequences_and_the_history_of_rows(system: System, server: MariaDB) -> None:
    server.sql("CREATE DATABASE shop; CREATE SEQUENCE shop.s; CREATE SEQUENCE shop.left_out")
    server.sql("SELECT NEXTVAL(s); CREATE TABLE h (i INT, n INT) WITH SYSTEM VERSIONING", "shop")
    server.sql("INSERT INTO h VALUES (1, 1), (2, 2); UPDATE h SET n = 3; DELETE FROM h", "shop")
    server.sql("CREATE VIEW gone AS SELECT i FROM h; CREATE VIEW broken AS SELECT n FROM h", "shop")
    server.sql("CREATE TABLE x (n INT); ALTER VIEW broken AS SELECT n FROM x; DROP TABLE x", "shop")
    query = "SELECT *, row_start, row_end FROM h FOR SYSTEM_TIME ALL ORDER BY row_start, i"
    before = server.sql(query, "shop")
    assert len(before.splitlines()) == 4
    configure(system, server, EXCLUDE_TABLE=["shop.left*", "shop.broken"])
    assert system.result()["exit_code"] == 0
    server.sql("DROP DATABASE shop")
    system.restore("--restore", "latest", *to(server))
    assert server.sql(query, "shop") == before
    assert server.sql("SHOW TABLES", "shop").split() == ["gone", "h", "s"]
    assert int(server.sql("SELECT NEXTVAL(s)", "shop")) > 1
    old_version = "{ echo 'mysqldump Ver 10.16 Distrib 10.5.1-MariaDB'; exit; }"
    path = Path(double(system, '[[ "$*" == *--dump-history* ]] && exit 7; exec REAL "$@"'))
    path.write_text(re.sub("exec .* --version", old_version, path.read_text()))
    configure(system, server, MYSQL_DUMP_BINARY=str(path), EXCLUDE_TABLE="shop.broken")
    result = system.result()
    assert result["exit_code"] == 3
    assert "history of h not dumped: mysqldump" in json.dumps(result)


@pytest.mark.fault("a trigger that names its database, under another name", "exit 1, refused")
def test_what_still_means_the_old_database(system: System, server: MariaDB) -> None:
    shop(server)
    server.sql("CREATE PROCEDURE q() SELECT COUNT(*) FROM shop.t", "shop")
    configure(system, server)
    assert system.result()["exit_code"] == 0
    arguments = ("--restore", "latest", "--item", "shop", *to(server, "--to-database", "new"))
    text = system.restore(*arguments, code=3)
    assert "still refers to database shop: SELECT COUNT(*) FROM shop.t" in text
    assert server.sql("SELECT COUNT(*) FROM t", "new") == "3000\n"
    server.sql("CREATE TRIGGER shop.r AFTER DELETE ON shop.t FOR EACH ROW SET @a = 1; ")
    assert system.result()["exit_code"] == 0
    server.sql("DROP DATABASE new; DROP TRIGGER shop.r")
    assert "a trigger refers to database shop" in system.restore(*arguments, code=1)
    assert "new" not in databases(server)
    assert server.sql("SHOW TRIGGERS LIKE 'r'", "shop") == ""
    system.restore(*arguments[:4], *to(server, "--overwrite"))
