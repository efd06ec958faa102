"""The S3 store as a user has it: whole runs to a real server, and what `-t` and the log say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from storage.s3_blocks import S3Blocks
from storage.s3_options import ChecksumMode
from storage.s3_store import S3Store
from tests import s3_servers
from tests.s3_servers import BUCKET, S3Server
from tests.storage import s3_stores
from tests.storage.bad_s3 import Answer, BadS3, Request
from tests.storage.s3_fault_kinds import DENIED
from tests.system import System, execute
from tools.base import project
from tools.flow import store

PUT = """\
import sys, os, boto3
file, url = sys.argv[-2:]
bucket, _, key = url.removeprefix("s3://").partition("/")
boto3.client("s3").upload_file(file, bucket, key)
open({log!r}, "a").write(url + "\\n")
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """SeaweedFS, with the credentials in the environment."""
    running = s3_servers.seaweedfs()
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    return running


def section(server: S3Server, **more: Any) -> dict[str, Any]:
    """A section that stores in a new folder of the bucket."""
    keys = {"DESTINATION": "s3", "BUCKET_NAME": BUCKET, "ENDPOINT_URL": server.endpoint}
    return execute("storage", PREFIX=f"runs 100%25/{uuid.uuid4().hex}", **{**keys, **more})


def keys_below(server: S3Server, prefix: str) -> list[str]:
    entries = server.client().list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())
    return [entry["Key"] for entry in entries]


@pytest.mark.parametrize("stream", ["False", "True"])
def test_a_run_and_a_restore_with_arguments_alone(
    system: System, server: S3Server, stream: str
) -> None:
    (system.source / "file").write_bytes(b"content" * 1000)
    stored = section(server)
    sections = system.short(STORAGE=stored)
    del sections["STORAGE_LOCAL"]
    system.configure(sections, STREAM=stream)
    checked = system.run("-t").stdout
    assert f"endpoint {server.endpoint}, region us-east-1, access key ...TEST" in checked
    assert "the first run proves it" in checked
    result = system.result("-l", "info")
    assert result["exit_code"] == 0, result
    assert f"at {server.endpoint}" in json.dumps(result)
    log = system.log.read_text()
    assert f"endpoint {server.endpoint}" in log
    assert "create-only (PutObject): by the store, as a probe has proven" in log
    assert s3_servers.SECRET not in log
    assert "create-only by the store, as a probe has proven" in system.run("-t").stdout
    prefix = stored["PARAMETERS"]["PREFIX"]
    location = ["--store", f"s3://{BUCKET}/{prefix}", "--endpoint", server.endpoint]
    assert "srv-test" in system.restore_bare("--list", *location)
    key = ["--key-file", str(system.key)]
    system.restore_bare("--verify", "latest", *location, *key)
    out = system.folder / "out"
    system.restore_bare("--restore", "latest", "--destination", str(out), *location, *key)
    (path,) = out.rglob("file")
    assert path.read_bytes() == b"content" * 1000
    assert not list(system.work.rglob("*.age*"))


@pytest.mark.parametrize("stream", ["False", "True"])
def test_a_program_uploads_the_parts(system: System, server: S3Server, stream: str) -> None:
    """UPLOAD_COMMAND, called as COMMAND FILE s3://BUCKET/HOSTNAME/FILE (MANUAL)."""
    (system.source / "file").write_bytes(bytes(3 << 20))
    program, log = system.folder / "put it.py", system.folder / "uploaded"
    program.write_text(PUT.format(log=str(log)))
    stored = section(server, UPLOAD_COMMAND=f"{sys.executable} '{program}' --quiet")
    sections = system.short(STORAGE=stored)
    del sections["STORAGE_LOCAL"]
    system.configure(sections, STREAM=stream)
    result = system.result()
    assert result["exit_code"] == 0, result
    prefix = stored["PARAMETERS"]["PREFIX"]
    urls = log.read_text().splitlines()
    parts = [key for key in keys_below(server, prefix) if ".age." in key]
    assert [f"s3://{BUCKET}/{key}" for key in parts] == sorted(urls)
    assert all(key.startswith(f"{prefix}/srv-test/") for key in parts)
    assert not [path for path in system.work.rglob("*") if path.is_file() and ".age." in path.name]
    (restored,) = system.restored().rglob("file")
    assert restored.read_bytes() == bytes(3 << 20)
    program.write_text("import sys; sys.exit('disk quota')")
    stored["PARAMETERS"]["RETRY_WAIT"] = "0"
    system.configure(sections, STREAM=stream)
    failed = system.result()
    assert failed["exit_code"] == 1
    assert "ended with exit code 1" in json.dumps(failed)
    program.write_text("")
    failed = system.result()
    assert "the server holds no such object" in json.dumps(failed)


def test_a_run_without_s3_does_not_import_boto3(system: System) -> None:
    (system.source / "file").write_text("content")
    system.configure(system.short(), STREAM="True")
    code = (
        "import sys; sys.argv[0] = 'backup.py'\n"
        "from tools.commands import backup\n"
        "code = backup.main(sys.argv[1:])\n"
        "loaded = {'boto3', 'botocore'} & set(sys.modules)\n"
        "sys.exit(f'imported: {loaded}' if loaded or code else 0)"
    )
    command = [sys.executable, "-c", code, "-r", "-c", str(system.conf)]
    done = subprocess.run(command, cwd=project.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_credentials_reach_the_program_that_stores_and_no_other(
    system: System, server: S3Server
) -> None:
    """Also the proxies of the network; a source gets no key of the bucket."""
    (system.source / "file").write_text("content")
    seen = system.folder / "seen"
    look = system.script("look", f"env > {seen}\n")
    sections = {"LOOK": look, **system.short(STORAGE=section(server))}
    del sections["STORAGE_LOCAL"]
    system.configure(sections)
    result = system.result(HTTPS_PROXY="http://127.0.0.1:1")
    assert result["exit_code"] == 0, result
    assert "AWS_" not in seen.read_text()


@pytest.mark.parametrize(
    ("keys", "environment", "says"),
    [
        ({"BUCKET_NAME": "no-such-bucket"}, {}, "no such bucket"),
        ({}, {"AWS_ACCESS_KEY_ID": "AKIDOTHER"}, "access key ...THER"),
        (
            {},
            {"AWS_SECRET_ACCESS_KEY": "another-secret-of-tests"},
            "secret key of the access key ...TEST is wrong",
        ),
        ({}, {"AWS_SECRET_ACCESS_KEY": "secret\n"}, "contains a line break"),
        ({"PROFILE": "none"}, {}, "PROFILE: none: no such profile"),
        ({"ENDPOINT_URL": "http://127.0.0.1:1"}, {}, "127.0.0.1:1"),
    ],
)
def test_what_is_wrong_is_named_at_once(
    system: System, server: S3Server, keys: dict[str, str], environment: dict[str, str], says: str
) -> None:
    sections = system.short(STORAGE=section(server, RETRY_WAIT="0", **keys))
    del sections["STORAGE_LOCAL"]
    system.configure(sections, STREAM="True")
    tested = system.run("-t", **environment)
    assert tested.returncode != 0
    assert says in tested.stdout + tested.stderr
    result = system.result(**environment)
    assert result["exit_code"] == 1
    assert says in json.dumps(result, ensure_ascii=False)


def test_credentials_that_may_only_read_are_named(system: System, server: S3Server) -> None:
    sections = system.short(STORAGE=section(server, RETRY_WAIT="0"))
    del sections["STORAGE_LOCAL"]
    system.configure(sections, STREAM="True")
    result = system.result(AWS_ACCESS_KEY_ID="AKIDREADER")
    assert result["exit_code"] == 1
    assert "access denied for the access key ...ADER" in json.dumps(result)


def test_a_bucket_in_which_a_name_has_dots(server: S3Server, tmp_path: Path) -> None:
    bucket = f"with.dots.{uuid.uuid4().hex}"
    server.client().create_bucket(Bucket=bucket)
    file = tmp_path / "targets" / "x.age.000"
    file.parent.mkdir()
    file.write_bytes(b"content")
    command = [sys.executable, str(project.ROOT / "storage/storage.py"), "--HOSTNAME", "srv"]
    keys = {"DESTINATION": "s3", "BUCKET_NAME": bucket, "ENDPOINT_URL": server.endpoint}
    keys |= {"TARGETS": str(file.parent), "WORK_FOLDER": str(tmp_path)}
    for key, value in keys.items():
        command += [f"--{key}", value]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"in s3://{bucket}/srv, at {server.endpoint}" in done.stdout
    assert server.client().get_object(Bucket=bucket, Key="srv/x.age.000")["Body"].read()


def test_a_bucket_with_object_lock_and_default_retention(server: S3Server) -> None:
    """Its server demands a checksum of every object and part."""
    bucket = f"locked-{uuid.uuid4().hex}"
    client = server.client()
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    client.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    for mode in ChecksumMode:
        keys = {"bucket_name": bucket, "prefix": mode.value, "checksum_mode": mode}
        client_of = s3_stores.client(server, **keys)
        target = S3Store(S3Blocks(client_of, s3_stores.PART), s3_stores.NO_WAIT)
        for name, content in (("x", b"small"), ("y", bytes(s3_stores.PART + 5))):
            store.store_object(target, f"srv/{name}", [content])
            assert b"".join(target.get(f"srv/{name}")) == content
        assert [entry.name for entry in target.entries("srv")] == ["srv/x", "srv/y"]


@pytest.mark.fault("Object Lock, by the config and by default of the bucket", "runs are good")
def test_runs_into_a_locked_bucket(system: System, server: S3Server) -> None:
    (system.source / "file").write_bytes(b"content")
    bucket, client = f"locked-{uuid.uuid4().hex}", server.client()
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    client.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    lock = {"OBJECT_LOCK_MODE": "COMPLIANCE", "OBJECT_LOCK_DAYS": "2"}
    sections = system.short(STORAGE=section(server, BUCKET_NAME=bucket, **lock))
    del sections["STORAGE_LOCAL"]
    system.configure(sections, STREAM="True")
    assert "runs older than 2 days are not protected" in system.run("-t").stdout
    for _ in range(2):
        result = system.result()
        assert result["exit_code"] == 0, result
    page = client.list_object_versions(Bucket=bucket)
    assert {one["Key"].rpartition(".")[2] for one in page["DeleteMarkers"]} == {"UNFINISHED"}
    (part,) = [one for one in page["Versions"] if one["Key"].endswith(".age.000")][:1]
    held = client.head_object(Bucket=bucket, Key=part["Key"], VersionId=part["VersionId"])
    assert held["ObjectLockMode"] == "COMPLIANCE"


@pytest.mark.fault("credentials may not remove, abort, or ask by HeadObject", "the run is good")
def test_a_run_with_fewer_rights(system: System, bad: BadS3) -> None:
    (system.source / "file").write_bytes(os.urandom(6 << 20))
    refused = ("DeleteObject", "DeleteObjects", "AbortMultipartUpload", "HeadObject")
    bad.fault = lambda _server, request, _count: DENIED if request.operation in refused else None
    sections = system.short(STORAGE=section(S3Server(bad.endpoint), PART_SIZE="5"))
    del sections["STORAGE_LOCAL"]
    system.configure(sections, STREAM="True")
    result = system.result(**S3Server(bad.endpoint).environment)
    assert result["exit_code"] == 0, result
    assert system.log.read_text().count("run marker not removed") == 1
    assert bad.calls["CompleteMultipartUpload"]


@pytest.mark.fault("the answer to the last call of an upload is lost in a run", "the run is good")
def test_a_run_whose_network_fails(system: System, bad: BadS3) -> None:
    (system.source / "file").write_bytes(os.urandom(6 << 20))

    def fault(server: BadS3, request: Request, count: int) -> Answer | None:
        if request.operation == "UploadPart" and count == 1:
            return Answer(503)
        if request.operation != "CompleteMultipartUpload":
            return None
        server.good(request)
        return Answer(cut=0)

    bad.fault = fault
    stored = section(S3Server(bad.endpoint), PART_SIZE="5", RETRY_WAIT="0")
    sections = system.short(STORAGE=stored)
    del sections["STORAGE_LOCAL"]
    sections["ENCRYPTION"]["PARAMETERS"]["FILE_SIZE"] = "100"
    system.configure(sections, STREAM="True")
    result = system.result(**S3Server(bad.endpoint).environment)
    assert result["exit_code"] == 0, result
    assert not bad.uploads
    assert bad.calls["CompleteMultipartUpload"]
