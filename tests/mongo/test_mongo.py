"""MongoDB by doubles of its tools that check what they are given and speak the archive format."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from mongo import dump_archive, mongo
from tests.mongo import doubles
from tests.system import System
from tools.base.errors import SourceError, StoreError
from tools.flow.facts import Json
from tools.flow.item_record import StoredItem
from tools.modules.contracts import Server

PASSWORD = 'p "w: #'
DATA: dict[str, dict[str, Any]] = {
    "shop": {
        "goods": [{"_id": n, "name": f"thing {n}", "new": n % 2 == 0} for n in range(500)],
        "empty": [],
        "view_of_goods": [],
    },
    "ümläut": {"c": [{"_id": 1, "text": "x" * 70_000}]},
    "admin": {"system.version": [{"_id": 1, "v": 7}]},
}


class Mongo:
    """A folder with the doubles and the file that is their server."""

    def __init__(self, folder: Path, databases: dict[str, Any]) -> None:
        self.folder = folder / "bin"
        self.folder.mkdir()
        source = Path(doubles.__file__)
        for name in ("mongodump", "mongorestore"):
            program = self.folder / name
            program.write_text(f"#!{sys.executable}\n{source.read_text()}")
            program.chmod(0o755)
        self.state_file = self.folder / "server.json"
        self.set(user="bk", password=PASSWORD, databases=databases)

    def set(self, **facts: Any) -> None:
        old = json.loads(self.state_file.read_text()) if self.state_file.exists() else {}
        self.state_file.write_text(json.dumps({**old, **facts}))

    @property
    def databases(self) -> dict[str, Any]:
        databases: dict[str, Any] = json.loads(self.state_file.read_text())["databases"]
        return databases


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mongo:
    mongo = Mongo(tmp_path, DATA)
    monkeypatch.setenv("PATH", f"{mongo.folder}:{os.environ['PATH']}")
    return mongo


def configure(system: System, server: Mongo, stream: str = "True", **parameters: Any) -> None:
    sections = system.full_sections()
    del sections["FILESET"]
    secret = system.folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o600)
    section = {"ACTION": "load", "FROM": "mongo", "FILENAME": "mongo", "CLASS": "MongoBackup"}
    options = {"MONGO_USER": "bk", "MONGO_PWD": f"file:{secret}"} | parameters
    options["MONGODUMP_BIN"] = str(server.folder / "mongodump")
    system.configure({"MONGODB": {**section, "PARAMETERS": options}, **sections}, STREAM=stream)


def to(system: System, *more: str) -> tuple[str, ...]:
    secret = str(system.folder / "password")
    return ("--to-host", "127.0.0.1", "--to-user", "bk", "--to-credentials", secret, *more)


@pytest.mark.parametrize("stream", ["True", "False"])
def test_back_up_drop_restore_compare(system: System, server: Mongo, stream: str) -> None:
    configure(system, server, stream)
    result = system.result()
    assert result["exit_code"] == 0, result
    (item,) = system.manifest()["items"]
    assert item["facts"]["documents"] == 502
    assert item["facts"]["databases"] == ["admin", "shop", "ümläut"]
    server.set(databases={"admin": DATA["admin"]})
    text = system.restore("--restore", "latest", *to(system), code=1)
    assert "failed" in text  # admin is there already: its documents are twice the same
    server.set(databases={})
    text = system.restore("--restore", "latest", *to(system))
    assert "502 documents" in text
    assert server.databases == DATA
    text = system.restore("--restore", "latest", *to(system), code=1)
    assert "database shop is not empty" in text
    system.restore("--restore", "latest", *to(system, "--overwrite"))
    assert server.databases == DATA
    out = system.restored() / "MONGODB/27017.archive"
    assert doubles.read(out.read_bytes()) == DATA
    assert PASSWORD not in system.log.read_text()


def test_under_another_name(system: System, server: Mongo) -> None:
    configure(system, server)
    assert system.result()["exit_code"] == 0
    arguments = ("--restore", "latest", *to(system, "--to-database", "copy"))
    assert "the archive contains 2 databases (shop, ümläut)" in system.restore(*arguments, code=1)
    one = {"shop": DATA["shop"], "admin": DATA["admin"]}
    server.set(databases=one)
    (path,) = (system.store / "srv-test").glob("*.manifest.json")
    path.unlink()
    assert system.result("--accept-rollback")["exit_code"] == 0
    system.restore(*arguments)
    assert server.databases == {**one, "copy": DATA["shop"]}


@pytest.mark.fault("an archive of mongodump that is cut anywhere", "exit 1, nothing is stored")
@pytest.mark.parametrize("cut", [0, 3, 60, 4000, -4, -100])
def test_a_cut_archive(system: System, server: Mongo, cut: int) -> None:
    server.set(cut=cut or 1)
    configure(system, server)
    result = system.result()
    assert result["exit_code"] == 1
    assert "archive" in result["sections"][0]["message"]
    assert system.stored() == []


def test_every_cut_is_noticed_and_every_way_to_chop_works() -> None:
    small = {"a": {"x": [{"_id": 1}, {"_id": 2}], "y": []}, "b": {"view": [], "z": [{"_id": 3}]}}
    data = doubles.archive(small)
    for size in (1, 7, 64, len(data)):
        checker = dump_archive.ArchiveChecker()
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert b"".join(dump_archive.check_complete(pieces, checker)) == data
        assert checker.documents == 3
        assert checker.databases == ("a", "b")
    for end in range(len(data)):
        with pytest.raises(SourceError):
            list(dump_archive.check_complete([data[:end]], dump_archive.ArchiveChecker()))
    with pytest.raises(SourceError):
        list(dump_archive.check_complete([data, data[4:8]], dump_archive.ArchiveChecker()))


@pytest.mark.fault("an archive of MongoDB with another database", "exit 1, nothing is sent")
@pytest.mark.parametrize("named", [("shop", ""), ("shop", "copy"), ("shop.x", "")])
def test_what_is_outside_of_the_databases(server: Mongo, named: tuple[str, str]) -> None:
    """Issue 14 C: an archive holds the databases that its manifest names, and nothing else."""
    server.set(databases={})
    facts: dict[str, Json] = {"databases": [named[0], "admin"], "collections": 4}
    item = StoredItem("MONGODB", "27017", "mongo", ".archive", (), (), facts=facts)
    data = doubles.archive({**DATA, "shop.x": {"c": []}})
    target = Server("x", database=named[1], overwrite=True)
    steps = mongo.restore_to_server(item, lambda: iter([data]), target)
    with pytest.raises(StoreError, match="outside of the databases that were backed up"):
        list(steps)
    assert server.databases == {}


def test_patterns_of_mongorestore() -> None:
    """A database with an asterisk in its name stands for itself."""
    assert dump_archive.pattern("a*b\\c") == "a\\*b\\\\c.*"


@pytest.mark.fault("MongoDB: the wrong password, no tool, no replica set", "exit 1, named")
def test_what_cannot_be_dumped(system: System, server: Mongo) -> None:
    configure(system, server, MONGO_PWD="wrong words")
    result = system.result()
    assert result["exit_code"] == 1
    assert "AuthenticationFailed" in json.dumps(result)
    assert "wrong words" not in json.dumps(result) + system.log.read_text()
    configure(system, server, OPLOG="True")
    assert "not a replica set member" in json.dumps(system.result())
    server.set(replica=True)
    configure(system, server, MONGO_HOST="rs0/127.0.0.1:27017")
    assert system.result()["exit_code"] == 0
    assert system.manifest()["items"][0]["facts"]["consistency"] == "oplog"
    configure(system, server, OPLOG="perhaps")
    assert "OPLOG" in system.run("-r").stderr
    configure(system, server)
    assert "databases admin, shop" in system.run("-t").stdout


def test_a_uri_with_a_password_is_never_an_argument(system: System, server: Mongo) -> None:
    server.set(password="pw")
    secret = system.folder / "uri"
    secret.write_text("mongodb://bk:pw@127.0.0.1:27017/?authSource=admin")
    secret.chmod(0o600)
    configure(system, server, MONGO_USER="", MONGO_PWD="", MONGO_URI=f"file:{secret}")
    assert system.result()["exit_code"] == 0  # the double takes no URI in its arguments
    assert "bk:pw" not in system.log.read_text()


@pytest.mark.parametrize("stream", ["True", "False"])
def test_an_archive_with_oplog(system: System, server: Mongo, stream: str) -> None:
    """Issue 11 B, MongoDB: mongorestore refuses --oplogReplay together with another name."""
    entry = {"_id": 777, "db": "shop", "collection": "goods"}
    shop: dict[str, Any] = DATA["shop"]
    server.set(databases={"shop": shop}, replica=True, oplog=[entry])
    configure(system, server, stream, OPLOG="True")
    result = system.result()
    assert result["exit_code"] == 0, result
    arguments = ("--restore", "latest", *to(system))
    text = system.restore(*arguments, "--to-database", "copy", code=3)
    assert "restored without the oplog" in text
    assert server.databases["copy"] == shop
    server.set(databases={})
    system.restore(*arguments)
    assert server.databases["shop"]["goods"] == [*shop["goods"], {"_id": 777}]


@pytest.mark.parametrize("password", ["p🐍", "\x7f\x85\u2028ü\\\"'", "日本 #: x", "\tx"])
def test_any_password(system: System, server: Mongo, password: str) -> None:
    """Issue 11 B, MongoDB: characters outside the BMP, and those that YAML does not print."""
    configure(system, server)
    server.set(password=password)
    (system.folder / "password").write_text(password, encoding="utf-8")
    assert system.result()["exit_code"] == 0
    server.set(databases={})
    system.restore("--restore", "latest", *to(system))
    assert server.databases == DATA


def test_only_the_reason_is_shown(system: System, server: Mongo) -> None:
    """Issue 11 B, MongoDB: 20 lines of progress are not the reason of a failure."""
    server.set(fail="error writing data for collection: connection closed", progress=20)
    configure(system, server)
    done = system.run("-r")
    assert done.returncode == 1
    assert "Failed: error writing data for collection: connection closed" in done.stderr
    assert "done dumping" not in done.stderr


def test_time_series_are_named(system: System, server: Mongo) -> None:
    server.set(databases={"shop": {"series": [{"_id": 1}], "c": []}})
    configure(system, server)
    assert system.result()["exit_code"] == 0
    assert any("shop.series" in note for note in system.manifest()["items"][0]["notes"])


def test_the_tool_sees_no_secrets_of_others(system: System, server: Mongo) -> None:
    """Issue 11 C: mongodump gets an allow-listed environment, and what ENVIRONMENT names."""
    configure(system, server)
    assert system.result(OTHER_SECRET="hunter22")["exit_code"] == 0
    environment = json.loads((server.folder / "environment.json").read_text())
    assert "PATH" in environment
    assert "OTHER_SECRET" not in environment
