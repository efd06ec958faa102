"""Removing objects of every store: what it is not allowed to, and the versions that stay."""

from __future__ import annotations

import dataclasses
import errno
import os
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from storage import bucket_keys
from storage.local_store import LocalStore
from storage.oss_blocks import OssBlocks
from storage.oss_client import Client
from storage.oss_store import OssStore
from storage.s3_blocks import S3Blocks
from storage.s3_store import S3Store
from tests import s3_servers
from tests.oss_bucket import Answer as OssAnswer
from tests.oss_bucket import Bucket
from tests.oss_server import OssServer
from tests.storage import oss_cases, oss_stores, s3_stores
from tests.storage.bad_s3 import Answer, BadS3, error
from tests.storage.s3_fault_kinds import DENIED, on
from tools.base.errors import DamagedError, ForbiddenError, StoreError, TakenError
from tools.flow import copies, form, store
from tools.flow.item_record import Part
from tools.flow.memory_store import MemoryStore
from tools.flow.retries import Retries
from tools.flow.retrying_store import Retrying
from tools.flow.store import Versioned
from tools.flow.store_wrappers import Limited

QUIET = Retries(0, say=lambda _line: None)
NAME, OTHER = "srv/20260101_000000.x.000", "srv/20260101_000000.x.0001"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
@pytest.mark.fault("a file of a local store may not be removed", "clean-up says so")
def test_a_file_that_may_not_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    target = LocalStore(tmp_path)
    store.store_object(target, NAME, [b"content"])

    def unlink(name: str, dir_fd: int | None = None) -> None:
        raise OSError(number, "as the system says", name, dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(ForbiddenError, match=r"x\.000: "):
        Limited(Retrying(target, QUIET), 2).remove([NAME])
    number = errno.EIO
    with pytest.raises(OSError, match="as the system says"):
        target.remove([NAME])


def test_what_is_forbidden_is_not_tried_again() -> None:
    calls = 0

    def fault(call: str, _name: str) -> None:
        nonlocal calls
        if call == "remove":
            calls += 1
            raise ForbiddenError("no")

    with pytest.raises(ForbiddenError):
        Retrying(MemoryStore(fault), QUIET).remove([NAME])
    assert calls == 1


# --- S3


@pytest.mark.parametrize(
    ("answer", "is_forbidden"),
    [
        (DENIED, True),
        (
            error(403, "AccessDenied", "object protected by object lock"),
            True,
        ),
        (error(405, "MethodNotAllowed", "The specified method is not allowed"), True),
        (error(400, "InvalidRequest", "Object is WORM protected and cannot be overwritten"), True),
        (error(409, "ObjectLockedByBucketPolicy", "The object is locked"), True),
        (error(403, "RetentionPolicyNotMet", "subject to the bucket's retention policy"), True),
        (error(403, "SignatureDoesNotMatch"), False),
        (error(403, "InvalidAccessKeyId"), False),
        (error(503, "SlowDown"), False),
        (error(409, "OperationAborted"), False),
    ],
    ids=lambda value: value.body[13:40].decode() if isinstance(value, Answer) else str(value),
)
@pytest.mark.fault("S3 does not let an object be removed", "clean-up says so, after one attempt")
def test_an_object_that_may_not_be_removed(bad: BadS3, answer: Answer, is_forbidden: bool) -> None:
    target = s3_stores.opened(bad)
    store.store_object(target, NAME, [b"content"])
    bad.fault = on("DeleteObject", answer, times=9)
    with pytest.raises(StoreError) as raised:
        Retrying(target, QUIET).remove([NAME])
    assert isinstance(raised.value, ForbiddenError) is is_forbidden
    assert not is_forbidden or bad.calls["DeleteObject"] == 1


def test_an_upload_that_may_not_be_aborted(bad: BadS3) -> None:
    target = s3_stores.opened(bad)
    target.put(NAME, [bytes(3 * target.backend.block_size)])
    (leftover,) = s3_stores.opened(bad).unfinished("srv")
    bad.fault = on("AbortMultipartUpload", DENIED)
    with pytest.raises(ForbiddenError):
        s3_stores.opened(bad).remove([leftover.name])


def several(bad: BadS3) -> tuple[S3Store, list[str]]:
    """Return a store with three objects."""
    target = s3_stores.opened(bad)
    names = [f"srv/{number}" for number in range(3)]
    for name in names:
        store.store_object(target, name, [b"content"])
    return target, names


def answer_of(code: str) -> Answer:
    """Answer 200, and that one of three objects is still there."""
    deleted = "".join(f"<Deleted><Key>store/srv/{number}</Key></Deleted>" for number in (0, 2))
    error = f"<Error><Key>store/srv/1</Key><Code>{code}</Code><Message>why</Message></Error>"
    return Answer(200, f"<DeleteResult>{deleted}{error}</DeleteResult>".encode())


def test_many_objects_are_removed_with_one_call(bad: BadS3) -> None:
    target, names = several(bad)
    target.remove(names)
    assert not list(target.entries("srv"))
    assert (bad.calls["DeleteObjects"], bad.calls.get("DeleteObject", 0)) == (1, 0)


@pytest.mark.fault("200 for a list of objects, of which one was not removed", "it is named")
def test_an_answer_is_read_for_each_object(bad: BadS3) -> None:
    target, names = several(bad)
    bad.fault = on("DeleteObjects", answer_of("AccessDenied"))
    with pytest.raises(ForbiddenError, match="srv/1"):
        target.remove(names)
    bad.calls.clear()
    bad.fault = on("DeleteObjects", answer_of("InternalError"))
    Retrying(target, QUIET).remove(names)  # again
    assert bad.calls["DeleteObjects"] == 2
    assert not list(target.entries("srv"))


@pytest.mark.parametrize(
    "answer",
    [
        error(501, "NotImplemented"),
        error(400, "InvalidRequest", "Missing required header for this request: x"),
        Answer(200, b"<DeleteResult></DeleteResult>"),
    ],
)
def test_a_server_that_removes_only_one_at_a_time(bad: BadS3, answer: Answer) -> None:
    target, names = several(bad)
    bad.fault = on("DeleteObjects", answer)
    target.remove(names)
    assert not list(target.entries("srv"))
    assert bad.calls["DeleteObject"] == len(names)


def versioned(**keys: Any) -> tuple[S3Store, Any, str]:
    """Return a store in a new bucket of a real server that keeps versions; its client; its name."""
    server = s3_servers.seaweedfs()
    bucket, client = f"versions-{uuid.uuid4().hex}", server.client()
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket="object_lock_mode" in keys)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    of_bucket = s3_stores.client(server, bucket_name=bucket, **keys)
    return S3Store(S3Blocks(of_bucket, s3_stores.PART), s3_stores.NO_WAIT), client, bucket


def held(client: Any, bucket: str) -> list[str]:
    """Return the key of every version and marker that a bucket holds."""
    page = client.list_object_versions(Bucket=bucket)
    entries = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
    return sorted(one["Key"] for one in entries if one["Key"].startswith("srv/"))


def test_removing_frees_nothing_where_versions_are_kept() -> None:
    target, client, bucket = versioned()
    for name in (NAME, OTHER, "srv/y"):
        store.store_object(target, name, [b"content"])
    client.put_object(Bucket=bucket, Key=NAME, Body=b"another one")
    able = store.ability(Retrying(target, QUIET), Versioned)  # type: ignore[type-abstract]
    assert able is not None
    assert able.versioning()
    target.remove([NAME])
    assert [entry.name for entry in target.entries("srv")] == [OTHER, "srv/y"]
    assert held(client, bucket).count(NAME) == 3
    assert able.remove_versions([NAME]) == len(b"content") + len(b"another one")
    assert held(client, bucket) == [OTHER, "srv/y"]
    assert able.remove_versions([OTHER, "srv/y", "srv/none"]) == 2 * len(b"content")
    assert held(client, bucket) == []


@pytest.mark.fault("a version is locked", "clean-up names the end of the lock and hides nothing")
def test_a_locked_version_is_not_removed_before_its_time() -> None:
    target, client, bucket = versioned(object_lock_mode="COMPLIANCE", object_lock_days=2)
    for name in (NAME, OTHER):
        store.store_object(target, name, [b"content"])
    day = (datetime.now(timezone.utc) + timedelta(days=2)).strftime("%Y-%m-%d")
    for names in ([NAME], [NAME, OTHER]):
        with pytest.raises(ForbiddenError, match=rf"locked until {day}.*COMPLIANCE"):
            target.remove_versions(names)
    assert held(client, bucket) == [NAME, OTHER]
    assert len(list(target.entries("srv"))) == 2


@pytest.mark.needs("versitygw")
def test_a_locked_bucket_without_versions() -> None:
    """There a locked object answers 403 where its name is published again."""
    server, bucket = s3_servers.strict(), f"locked-{uuid.uuid4().hex}"
    client = server.client()
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    client.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    of_bucket = s3_stores.client(server, bucket_name=bucket)
    target = S3Store(S3Blocks(of_bucket, s3_stores.PART), s3_stores.NO_WAIT)
    for content in (b"small", bytes(s3_stores.PART + 5)):
        name = f"srv/{len(content)}"
        store.store_object(target, name, [content])
        store.store_object(target, name, [content])  # once more: it is there
        with pytest.raises(TakenError):
            store.store_object(target, name, [content[:-1] + b"x"])
        with pytest.raises(ForbiddenError, match="protected by object lock"):
            target.remove([name, "srv/none"])


def test_one_list_serves_a_run_or_a_folder() -> None:
    of_run = [NAME, OTHER]
    assert bucket_keys.groups([*of_run, "srv/x"]) == {
        "srv/20260101_000000": of_run,
        "srv/x": ["srv/x"],
    }
    many = [f"srv/202601{day:02}_000000.manifest.json" for day in range(1, 30)]
    assert bucket_keys.groups(many) == {"srv/": many}


def test_a_bucket_without_versions(bad: BadS3) -> None:
    target = s3_stores.opened(bad)
    assert not target.versioning()  # 501 of a server that has none
    bad.fault = on("GetBucketVersioning", DENIED, times=9)
    with pytest.raises(ForbiddenError):
        target.versioning()


# --- Aliyun OSS


@pytest.fixture
def oss(tmp_path: Path) -> tuple[OssServer, OssStore, Bucket]:
    """The test server, and a store in a new bucket with two objects."""
    server = oss_stores.server()
    name, bucket = server.bucket()
    options = oss_stores.options(tmp_path, name)
    client = Client(options, lambda account: options.url(account.bucket))
    target = OssStore(OssBlocks(client, prefix="", block_size=1_000), QUIET)
    for one in (NAME, OTHER):
        store.store_object(target, one, [b"content"])
    return server, target, bucket


@pytest.mark.parametrize("code", ["AccessDenied", "FileImmutable"])
@pytest.mark.fault("OSS does not let an object be removed", "clean-up says so, after one attempt")
def test_an_object_of_oss_that_may_not_be_removed(
    oss: tuple[OssServer, OssStore, Bucket], code: str
) -> None:
    server, target, bucket = oss
    refusal = oss_cases.says(403 if code == "AccessDenied" else 409, code)
    server.script("DeleteMultipleObjects", refusal)
    with pytest.raises(ForbiddenError) as raised:
        Retrying(target, QUIET).remove([NAME])
    assert raised.value.hint
    none = OssAnswer(200, b"<DeleteResult></DeleteResult>")
    server.script("DeleteMultipleObjects", oss_cases.answers(none))
    server.script("DeleteObject", refusal)
    with pytest.raises(ForbiddenError, match=NAME):
        Retrying(target, QUIET).remove([NAME])
    assert {NAME, OTHER} <= set(bucket.objects)


def test_versions_of_oss_are_removed(oss: tuple[OssServer, OssStore, Bucket]) -> None:
    server, target, bucket = oss
    assert not target.versioning()
    bucket.versioning = "Enabled"
    assert target.versioning()
    store.store_object(target, "srv/z", [b"longer content"])
    target.remove([NAME])
    assert NAME not in bucket.objects
    assert target.remove_versions([NAME]) == len(b"content")
    keys = {one.key for one in bucket.versions.entries}
    assert keys >= {OTHER, "srv/z"}
    assert NAME not in keys
    server.script("DeleteMultipleObjects", oss_cases.says(409, "FileImmutable"), times=9)
    with pytest.raises(ForbiddenError):
        target.remove_versions([OTHER, "srv/z"])
    assert OTHER in bucket.objects


@pytest.mark.fault(
    "an object of a bucket with versioning is replaced",
    "a restore reads the version that the manifest names, and says so",
)
@pytest.mark.parametrize("size", [len(b"content"), 3])
def test_a_part_that_was_replaced_is_read_from_its_older_version(
    caplog: pytest.LogCaptureFixture, size: int
) -> None:
    target, client, bucket = versioned()
    names = (NAME, "srv/20260101_000000.y.000")
    stored = [store.store_object(target, name, [b"content"]) for name in names]
    for content in (b"another", b"content"[:size], b"changed"):
        client.put_object(Bucket=bucket, Key=NAME, Body=content)
    fresh = s3_stores.reopened(target)
    wrapped = Limited(Retrying(fresh, QUIET), 2)
    parts = [Part(one.name.removeprefix("srv/"), one.size, one.sha256) for one in stored]
    assert [b"".join(form.read_object(wrapped, "srv", part)) for part in parts] == [b"content"] * 2
    assert caplog.text.count("was replaced: its version of") == 1
    assert copies.holds(wrapped, stored[0], 99)
    assert not copies.holds(wrapped, dataclasses.replace(stored[0], size=98), 99)
    lost = dataclasses.replace(parts[0], sha256="0" * 64)
    with pytest.raises(DamagedError, match="SHA-256 mismatch"):
        b"".join(form.read_object(s3_stores.reopened(target), "srv", lost))


def test_credentials_that_may_not_list_versions_read_the_newest() -> None:
    target, calls = s3_stores.seaweedfs()(), list[str]()
    stored = store.store_object(target, NAME, [b"content"])

    def refused(_prefix: str) -> None:
        calls.append("pages")
        raise ForbiddenError("denied")

    target.backend.removal.versioning = lambda: True  # type: ignore[method-assign]
    target.backend.removal.pages = refused  # type: ignore[method-assign, assignment]
    for _ in range(2):
        copies.choose(target, stored)
    assert (calls, copies.holds(target, stored, 99)) == (["pages"], False)
    assert b"".join(target.get(NAME)) == b"content"
