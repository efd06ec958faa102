"""Whole runs into a bucket of Aliyun OSS, and restores from it."""

from __future__ import annotations

import json
import os

import pytest

from tests import oss_server
from tests.oss_bucket import Bucket
from tests.oss_server import KEY_ID, REGION, SECRET, OssServer
from tests.storage import oss_stores
from tests.storage.oss_cases import says
from tests.system import System, execute, next_second

pytestmark = pytest.mark.needs("oss2")
CONTENT = b"a file that is stored in a bucket\n"


@pytest.fixture
def oss() -> OssServer:
    """The server of this process."""
    return oss_stores.server()


def configured(system: System, oss: OssServer, *, streamed: bool) -> tuple[str, Bucket]:
    """Write the documented config, with the bucket in the credentials file alone."""
    name, bucket = oss.bucket()
    file = oss_server.credentials(system.folder, oss, name)
    keys = {"DESTINATION": "oss", "ALIYUN_CREDENTIALS": str(file), "PREFIX": "servers"}
    sections = system.short()
    del sections["STORAGE_LOCAL"]
    sections["STORAGE_OSS"] = execute("storage", **keys, REGION=REGION, RETRY_WAIT="0.01")
    system.configure(sections, STREAM=str(streamed))
    (system.source / "a").write_bytes(CONTENT)
    return name, bucket


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "staged"])
def test_a_run_and_a_restore_by_arguments_alone(
    system: System, oss: OssServer, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    """On a machine that has neither the config nor the credentials file."""
    name, bucket = configured(system, oss, streamed=streamed)
    oss.script("PutObject", says(503, "ServiceBusy"), times=2, skip=1)
    result = system.result()
    assert result["exit_code"] == 0, result
    names = {key.removeprefix("servers/") for key in bucket.objects}
    assert any(key.startswith("srv-test/") and key.endswith("manifest.json") for key in names)
    assert not any(key.endswith("UNFINISHED") for key in names)
    assert bucket.uploads == {}
    log = system.log.read_text()
    assert f"endpoint {oss.url}, region {REGION}" in log
    assert SECRET not in log
    (system.folder / "alioss.conf").unlink()
    monkeypatch.setenv("OSS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("OSS_ACCESS_KEY_SECRET", SECRET)
    into = system.folder / "restored"
    system.restore_bare(
        *("--store", f"oss://{name}/servers", "--endpoint", oss.url),
        *("--key-file", str(system.key), "--hostname", "srv-test"),
        *("--restore", "latest", "--destination", str(into)),
    )
    assert [path.read_bytes() for path in into.rglob("a")] == [CONTENT]


@pytest.mark.fault(
    "a bucket of OSS fails in the middle of a staged run, with another store",
    "exit 1; the other store is whole, the files stay, and the next run stores them in the bucket",
)
def test_a_staged_run_whose_bucket_fails(system: System, oss: OssServer) -> None:
    _, bucket = configured(system, oss, streamed=False)
    sections = {**json.loads(system.conf.read_text()), "LOCAL": execute("storage")}
    sections["LOCAL"]["PARAMETERS"]["DESTINATION"] = "local"
    system.conf.write_text(json.dumps(sections))
    content = os.urandom(3 << 20)  # three parts
    (system.source / "a").write_bytes(content)
    oss.script("PutObject", says(500, "InternalError"), times=100, skip=7)
    result = system.result()
    by_name = {one["name"]: one for one in result["sections"]}
    assert result["exit_code"] == 1
    assert (by_name["STORAGE_OSS"]["status"], by_name["LOCAL"]["status"]) == ("failed", "ok")
    assert "InternalError" in by_name["STORAGE_OSS"]["message"]
    first, run_id = names(bucket), result["run_id"]
    assert f"{run_id}.tar.zst.age.001" in first  # some of its parts were there
    assert f"{run_id}.manifest.json" not in first
    parts = sorted((system.folder / "work/encrypted").iterdir())
    assert {path.name for path in parts} == {f"{run_id}.tar.zst.age.{n:03}" for n in range(4)}
    (file,) = system.restored("--store", "LOCAL", run=run_id).rglob("a")
    assert file.read_bytes() == content
    oss.reset()
    (system.source / "a").write_bytes(os.urandom(3 << 20))
    next_second()
    result = system.result()
    assert result["exit_code"] == 0, result
    assert not list((system.folder / "work/encrypted").iterdir())
    item = ("--section", "EARLIER", "--item", f"{run_id}.tar")
    (file,) = system.restored("--store", "STORAGE_OSS", *item).rglob("a")
    assert file.read_bytes() == content


def test_what_is_wrong_is_said_before_a_run(system: System, oss: OssServer) -> None:
    """By `-t`, with one line; a run fails, stores nothing and masks the secret."""
    _, bucket = configured(system, oss, streamed=True)
    oss.secrets = {KEY_ID: f"{SECRET}-changed"}
    output = said_of(system)
    assert f"secret of the access key ...{KEY_ID[-4:]} is wrong" in output
    assert system.result()["exit_code"] == 1
    assert bucket.objects == {}
    assert SECRET not in system.log.read_text() + output
    path = system.folder / "alioss.conf"
    path.unlink()
    output = said_of(system)
    assert f"ALIYUN_CREDENTIALS: {path}: no such file" in output


def names(bucket: Bucket) -> set[str]:
    """Return the names of the objects of a bucket, without the folder of the host."""
    return {key.rpartition("/")[2] for key in bucket.objects}


def said_of(system: System) -> str:
    """Return what `-t` says of a store that cannot be used."""
    done = system.run("-t")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr
