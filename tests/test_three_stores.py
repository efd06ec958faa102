"""Files and a database into a bucket of S3, one of OSS and an account by ssh, in one run."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import oss_server, s3_servers
from tests.cutting_proxy import UP, CuttingProxy
from tests.oss_bucket import Bucket
from tests.oss_server import REGION, OssServer
from tests.s3_servers import BUCKET, S3Server
from tests.servers import Postgres
from tests.sshd import Sshd, sshd
from tests.storage import oss_stores
from tests.storage.oss_cases import says
from tests.system import System, execute, next_second

pytestmark = pytest.mark.needs("initdb", "postgres", "pg_dump", "sshd", "oss2")
STORES = ("S3", "OSS", "OFFSITE")
SIZE = 6 << 20  # bytes of the file: more than a part of each bucket, and than the quota of sshd


@dataclass
class Stores:
    """A system whose runs go to three servers."""

    system: System
    seaweed: S3Server
    prefix: str
    proxy: CuttingProxy
    oss: OssServer
    oss_name: str
    bucket: Bucket
    ssh: Sshd
    server: Postgres

    @property
    def folder(self) -> Path:
        """Of the ssh store."""
        return self.system.folder / "remote"

    def sections(self, kind: str = "login shell") -> dict[str, dict[str, str]]:
        """The keys of the three. kind: of the account by ssh"""
        account = oss_server.credentials(self.system.folder, self.oss, self.oss_name)
        s3 = {"BUCKET_NAME": BUCKET, "ENDPOINT_URL": self.proxy.endpoint, "PREFIX": self.prefix}
        oss = {"ALIYUN_CREDENTIALS": str(account), "REGION": REGION}
        return {
            "S3": {"DESTINATION": "s3", "PART_SIZE": "5", **s3},
            "OSS": {"DESTINATION": "oss", "PART_SIZE": "5", **oss},
            "OFFSITE": {**self.ssh.keys(kind), "REMOTE_DIR": str(self.folder)},
        }

    def run(self, kind: str = "login shell", optional: str = "") -> dict[str, Any]:
        """Run once; return the result. optional: the store that is not REQUIRED"""
        login = {"HOST": "127.0.0.1", "USER": "postgres", "PASSFILE": str(self.server.pgpass)}
        ports = {"PORT": str(self.server.port), "EXCLUDE_DB": "postgres"}
        database = {
            "ACTION": "load", "FROM": "postgres", "FILENAME": "postgres",
            "CLASS": "PostgresBackup", "PARAMETERS": {**login, **ports},
        }  # fmt: skip
        sections = {"DB": database, **self.system.short()}
        del sections["STORAGE_LOCAL"]
        sections["ENCRYPTION"]["PARAMETERS"]["FILE_SIZE"] = "20"
        for name, keys in self.sections(kind).items():
            sections[name] = execute("storage", RETRY_WAIT="0.004", **keys)
            sections[name]["REQUIRED"] = str(name != optional)
        self.system.configure(sections, STREAM="True")
        next_second()
        return self.system.result()

    def kept(self, run_id: str) -> dict[str, Any]:
        """What each store holds of a run: its manifest, or None, and no part that is not in it."""
        client = self.seaweed.client()
        listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{self.prefix}/srv-test/")

        def of_s3(key: str) -> bytes:
            return bytes(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

        return {
            "S3": _contents([entry["Key"] for entry in listed.get("Contents", ())], run_id, of_s3),
            "OSS": _contents(self.bucket.objects, run_id, lambda k: self.bucket.objects[k].content),
            "OFFSITE": _contents(
                [str(path) for path in self.folder.glob("srv-test/*")],
                run_id,
                lambda path: Path(path).read_bytes(),
            ),
        }


def _contents(
    paths: Collection[str], run_id: str, read: Callable[[str], bytes]
) -> dict[str, Any] | None:
    """Return the manifest of a run, all of whose parts are there; None where there is none."""
    by_name = {path.rpartition("/")[2].replace("%25", "%"): path for path in paths}
    path = by_name.get(f"{run_id}.manifest.json")
    if path is None:
        return None
    run: dict[str, Any] = json.loads(read(path))
    parts = {part["name"] for item in run["items"] for part in item["parts"]}
    records = {
        f"{run_id}{end}" for end in (".manifest.json", ".manifest.json.sig", ".RECOVERY.txt")
    }
    assert {name for name in by_name if name.startswith(run_id)} == parts | records
    return run


@pytest.fixture
def stores(system: System, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    """The servers of other tests, with folders of their own, and a database."""
    seaweed, oss = s3_servers.seaweedfs(), oss_stores.server()
    for variable, value in seaweed.environment.items():
        monkeypatch.setenv(variable, value)
    proxy = CuttingProxy(int(seaweed.endpoint.rpartition(":")[2]))
    server = Postgres()
    server.sql("CREATE DATABASE shop")
    (system.source / "file").write_bytes(os.urandom(SIZE))
    name, bucket = oss.bucket()
    prefix = uuid.uuid4().hex
    yield Stores(system, seaweed, prefix, proxy, oss, name, bucket, sshd(), server)
    server.stop()
    proxy.close()


@pytest.mark.fault(
    "one of three stores (S3, OSS, ssh) fails in the middle of an item",
    "exit 1, or 3 if it is not REQUIRED; the others are whole, its own manifest says what it lacks",
)
def test_each_of_three_stores_fails_in_turn(stores: Stores) -> None:
    """What failed is whole in the next run, and each store alone is enough for a restore."""
    items = {f"DB/roles@{stores.server.port}", f"DB/{stores.server.port}/shop", "FILESET"}

    def check(result: dict[str, Any], failed: str, status: str, says: str) -> None:
        by_name = {one["name"]: one for one in result["sections"]}
        assert {name: by_name[name]["status"] for name in STORES} == {
            name: status if name == failed else "ok" for name in STORES
        }, result
        assert says in by_name[failed]["message"]
        assert by_name[failed]["hint"]
        assert by_name["FILESET"]["status"] == by_name["DB"]["status"] == "ok"
        for name, manifest in stores.kept(result["run_id"]).items():
            if name == failed:
                assert manifest is None or manifest["missing"] == ["FILESET"]
            else:
                assert manifest["missing"] == []
                assert {
                    f"{one['section']}/{one['name']}".rstrip("/") for one in manifest["items"]
                } == items

    stores.proxy.cut(UP, 2 << 20, for_good=True)
    result = stores.run()
    assert result["exit_code"] == 1
    check(result, "S3", "failed", "Could not connect")
    stores.proxy.reopen()
    before = result = stores.run(kind="quota")
    assert result["exit_code"] == 1
    check(result, "OFFSITE", "failed", "FILESET")
    stores.oss.script("UploadPart", says(500, "InternalError"), times=100, skip=1)
    result = stores.run(optional="OSS")
    assert result["exit_code"] == 3
    check(result, "OSS", "incomplete", "not required, and failed: oss://")
    system = stores.system
    for name, run in (("S3", result), ("OSS", before), ("OFFSITE", result)):
        out = system.restored("--store", name, "--item", "FILESET", run=run["run_id"])
        (file,) = out.rglob("file")
        assert file.read_bytes() == (system.source / "file").read_bytes()
