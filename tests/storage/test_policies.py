"""The policies of conf/policies: by a server that enforces them, and as their reference says."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from storage.s3_blocks import S3Blocks
from storage.s3_store import S3Store
from tests import policy_evaluator, s3_servers
from tests.s3_servers import BUCKET, GUARDED
from tests.storage import s3_stores
from tests.system import System, execute
from tools.base import project
from tools.base.errors import ForbiddenError, StoreError
from tools.flow import store

POLICIES = project.ROOT / "conf/policies"
RULES = {"Rules": [{"ID": "x", "Status": "Enabled", "Filter": {}, "Expiration": {"Days": 1}}]}


def opened(name: str) -> S3Store:
    """The store of who has a policy."""
    client = s3_stores.client(s3_servers.guarded(name), prefix=GUARDED, hostname="srv-test")
    return S3Store(S3Blocks(client, s3_stores.PART), s3_stores.NO_WAIT)


def denied(call: Callable[..., Any], **keys: Any) -> bool:
    """Return whether a call of boto3 is denied."""
    try:
        answer = call(Bucket=BUCKET, **keys)
    except ClientError as error:
        return bool(error.response["Error"]["Code"] == "AccessDenied")
    return bool(answer.get("Errors")) and answer["Errors"][0]["Code"] == "AccessDenied"


def test_who_may_add_can_do_nothing_else() -> None:
    target, name = opened("add-only"), f"srv-test/{uuid.uuid4().hex}"
    store.store_object(target, f"{name}.000", [b"content"])
    store.store_object(target, f"{name}.001", [bytes(s3_stores.PART + 5)])
    assert b"".join(target.get(f"{name}.000")) == b"content"
    assert "srv-test" in list(target.folders())
    assert target.create_only is store.CreateOnly.PROBED
    target.put(f"{name}.002", [bytes(2 * s3_stores.PART)])
    assert any(f"{name}.002".partition("/")[2] in one.name for one in target.unfinished("srv-test"))
    target.discard([f"{name}.002"])
    for names in ([f"{name}.000"], [f"{name}.000", f"{name}.001"]):
        with pytest.raises(ForbiddenError):
            target.remove(names)
    with pytest.raises(ForbiddenError):
        target.remove_versions([f"{name}.000"])
    api, key = s3_servers.guarded("add-only").client(), f"{GUARDED}/{name}.000"
    customer_key = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": b"k" * 32, "Body": b""}
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": "2099-01-01T00:00:00Z"}
    other = f"{GUARDED}/other"
    attempts: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "delete": (api.delete_object, {"Key": key}),
        "delete many": (api.delete_objects, {"Delete": {"Objects": [{"Key": key}]}}),
        "delete a version": (api.delete_object, {"Key": key, "VersionId": "null"}),
        "put beside": (api.put_object, {"Key": f"{other}/x", "Body": b"", "IfNoneMatch": "*"}),
        "get beside": (api.get_object, {"Key": f"{other}/x"}),
        "list beside": (api.list_objects_v2, {"Prefix": f"{other}/"}),
        "list all": (api.list_objects_v2, {}),
        "list all hosts": (api.list_objects_v2, {"Prefix": f"{GUARDED}/"}),
        "a key of its own": (api.put_object, {"Key": f"{key}.2", **customer_key}),
        "lifecycle": (
            *(api.put_bucket_lifecycle_configuration, {"LifecycleConfiguration": RULES}),
        ),
        "versioning": (
            *(api.put_bucket_versioning, {"VersioningConfiguration": {"Status": "Suspended"}}),
        ),
        "policy": (api.put_bucket_policy, {"Policy": "{}"}),
        "retention": (api.put_object_retention, {"Key": key, "Retention": retention}),
        "rights": (api.put_object_acl, {"Key": key, "ACL": "public-read"}),
        "the bucket": (api.delete_bucket, {}),
    }
    assert [name for name, (call, keys) in attempts.items() if not denied(call, **keys)] == []
    assert b"".join(target.get(f"{name}.000")) == b"content"


def test_who_cleans_up_removes_and_adds_only_notes() -> None:
    adding, target = opened("add-only"), opened("clean-up")
    name = f"srv-test/20260101_000000.{uuid.uuid4().hex}"
    store.store_object(adding, f"{name}.000", [b"content"])
    store.store_object(target, f"{name}.cleaned-1.json", [b"{}"])
    store.store_object(target, f"{name}.PINNED", [b""])
    with pytest.raises(StoreError, match="access denied"):
        store.store_object(target, f"{name}.001", [b"content"])
    assert not target.versioning()
    target.remove([f"{name}.000", f"{name}.cleaned-1.json"])
    assert target.remove_versions([f"{name}.PINNED"]) == 0
    assert not [one for one in target.entries("srv-test") if one.name.startswith(name)]


def test_who_restores_only_reads() -> None:
    adding, target = opened("add-only"), opened("restore")
    name = f"srv-test/{uuid.uuid4().hex}"
    store.store_object(adding, name, [b"content"])
    assert b"".join(target.get(name)) == b"content"
    assert name in {one.name for one in target.entries("srv-test")}
    with pytest.raises(ForbiddenError):
        target.remove([name])
    with pytest.raises(StoreError, match="access denied"):
        store.store_object(target, f"{name}.2", [b"content"])


@pytest.mark.parametrize("name", ["add-only", "clean-up", "restore"])
def test_nothing_goes_without_tls(name: str) -> None:
    api = s3_servers.guarded(f"{name}-tls").client()
    assert denied(api.list_objects_v2, Prefix=f"{GUARDED}/srv-test/", Delimiter="/")
    assert denied(api.get_object, Key=f"{GUARDED}/srv-test/x")


@pytest.mark.fault("credentials may only add (conf/policies)", "runs are good, one line says so")
def test_runs_by_who_may_only_add(system: System) -> None:
    (system.source / "file").write_bytes(os.urandom(1 << 20))
    adding = s3_servers.guarded("add-only")
    keys = {"DESTINATION": "s3", "BUCKET_NAME": BUCKET, "ENDPOINT_URL": adding.endpoint}
    sections = system.short(STORAGE=execute("storage", **keys, PREFIX=GUARDED))
    del sections["STORAGE_LOCAL"]
    system.configure(sections, STREAM="True")
    for number in (1, 2):
        result = system.result(**adding.environment)
        assert result["exit_code"] == 0, result
        assert system.log.read_text().count("run marker not removed") == number
    warnings = [line for line in system.log.read_text().splitlines() if "WARNING" in line]
    assert all("running as root" in line for line in warnings), warnings
    system.configure({**sections, "CLEANUP": execute("cleanup", KEEP_DAILY="7")}, STREAM="True")
    tested = system.run("-t", **adding.environment)
    assert tested.returncode == 0
    assert "append-only: this account cannot remove objects" in tested.stdout
    assert "CLEANUP: " in tested.stderr
    assert "STORAGE: this store keeps everything: its credentials may not delete" in tested.stderr


# --- as the reference of AWS and of Aliyun says: what no server here enforces as well


def case(action: str, path: str = "", **context: str) -> tuple[str, str, dict[str, str]]:
    """Return a request. path: below the bucket, which it is about without"""
    keys = {f"s3:{key.replace('_', '-')}": value for key, value in context.items()}
    return action, f"BUCKET/{path}" if path else "BUCKET", keys


HOST = "PREFIX/HOSTNAME/"
CREATES = {"s3:ObjectCreationOperation": "true"}
ALLOWED = [
    (*case("PutObject", f"{HOST}x", if_none_match="*"), CREATES),
    (*case("PutObject", f"{HOST}x"), {"s3:ObjectCreationOperation": "false"}),  # a part
    (*case("PutObject", "PREFIX/nc-backup-py.store/x", if_none_match="*"), CREATES),
    (*case("GetObject", f"{HOST}x"), {}),
    (*case("AbortMultipartUpload", f"{HOST}x"), {}),
    (*case("ListMultipartUploadParts", f"{HOST}x"), {}),
    (*case("ListBucket", prefix=f"{HOST}x"), {}),
    (*case("ListBucket", prefix="PREFIX/", delimiter="/"), {}),
    (*case("ListBucketMultipartUploads"), {}),
]
DENIED = [
    (*case("PutObject", f"{HOST}x"), CREATES),  # over another object
    (*case("PutObject", "PREFIX/other/x", if_none_match="*"), CREATES),
    (
        *case("PutObject", f"{HOST}x", if_none_match="*"),
        {**CREATES, "aws:SecureTransport": "false"},
    ),
    (
        *case("PutObject", f"{HOST}x", if_none_match="*"),
        {**CREATES, "s3:x-amz-server-side-encryption-customer-algorithm": "AES256"},
    ),
    (*case("GetObject", "PREFIX/other/x"), {}),
    (*case("ListBucket"), {}),
    (*case("ListBucket", prefix="PREFIX/"), {}),
    (*case("ListBucket", prefix="PREFIX/other/"), {}),
    *(
        (*case(action, f"{HOST}x"), {})
        for action in (
            *("DeleteObject", "DeleteObjectVersion", "DeleteObjectTagging", "PutObjectAcl"),
            *("PutObjectRetention", "PutObjectLegalHold", "BypassGovernanceRetention"),
            *("RestoreObject", "ReplicateDelete", "GetObjectAcl"),
        )
    ),
    *(
        (*case(action), {})
        for action in (
            *("PutLifecycleConfiguration", "PutBucketPolicy", "DeleteBucketPolicy"),
            *("PutBucketVersioning", "PutBucketObjectLockConfiguration", "DeleteBucket"),
            *("PutReplicationConfiguration", "PutEncryptionConfiguration", "PutBucketAcl"),
        )
    ),
]


def wrong(name: str, requests: list[Any], expected: bool) -> list[Any]:
    """Return the requests that a policy of AWS does not judge as expected."""
    policy = json.loads((POLICIES / name).read_text(encoding="utf-8"))
    return [
        (action, resource, context, more)
        for action, resource, context, more in requests
        if policy_evaluator.allows(
            policy,
            f"s3:{action}",
            f"arn:aws:s3:::{resource}",
            {"aws:SecureTransport": "true", **context, **more},
        )
        is not expected
    ]


def test_what_aws_makes_of_the_policies() -> None:
    assert wrong("aws-s3-add-only.json", ALLOWED, True) == []
    assert wrong("aws-s3-add-only.json", DENIED, False) == []
    weakening = [one for one in DENIED if not one[0].startswith(("Get", "List", "Delete"))]
    assert wrong("aws-s3-clean-up.json", weakening, False) == []
    removing = ("DeleteObject", "DeleteObjectVersion", "GetObject")
    assert (
        wrong("aws-s3-clean-up.json", [(*case(one, f"{HOST}x"), {}) for one in removing], True)
        == []
    )
    writing = [one for one in ALLOWED if one[0] in ("PutObject", "AbortMultipartUpload")]
    assert wrong("aws-s3-restore.json", [*writing, *weakening], False) == []


OSS_ALLOWED = [
    ("oss:PutObject", f"/{HOST}x", {}),
    ("oss:GetObject", f"/{HOST}x", {}),
    ("oss:AbortMultipartUpload", f"/{HOST}x", {}),
    ("oss:ListObjects", "", {"oss:Prefix": HOST}),
    ("oss:ListObjects", "", {"oss:Prefix": "PREFIX/", "oss:Delimiter": "/"}),
    ("oss:GetBucketVersioning", "", {}),
]
OSS_DENIED = [
    *((f"oss:{one}", f"/{HOST}x", {}) for one in ("DeleteObject", "DeleteObjectVersion")),
    *((f"oss:{one}", f"/{HOST}x", {}) for one in ("DeleteObjectTagging", "PutObjectAcl")),
    ("oss:PutObject", "/PREFIX/other/x", {}),
    ("oss:PutObject", f"/{HOST}x", {"acs:SecureTransport": "false"}),
    ("oss:GetObject", "/PREFIX/other/x", {}),
    ("oss:ListObjects", "", {"oss:Prefix": "PREFIX/"}),
    ("oss:ListObjects", "", {}),
    *(
        (f"oss:{one}", "", {})
        for one in (
            *("PutBucketLifecycle", "PutBucketVersioning", "PutBucketPolicy", "DeleteBucketPolicy"),
            *("AbortBucketWorm", "ExtendBucketWorm", "PutBucketOverwriteConfig", "DeleteBucket"),
        )
    ),
]


@pytest.mark.parametrize(
    ("name", "allowed", "forbidden"),
    [
        ("oss-add-only.json", OSS_ALLOWED, OSS_DENIED),
        ("oss-clean-up.json", [OSS_DENIED[0], OSS_DENIED[1], OSS_ALLOWED[1]], OSS_DENIED[9:]),
        ("oss-restore.json", [OSS_ALLOWED[1]], [OSS_ALLOWED[0], OSS_ALLOWED[2], *OSS_DENIED[:6]]),
    ],
)
def test_what_aliyun_makes_of_the_policies(
    name: str, allowed: list[Any], forbidden: list[Any]
) -> None:
    policy = json.loads((POLICIES / name).read_text(encoding="utf-8"))

    def judged(action: str, path: str, context: dict[str, str]) -> bool:
        whole = {"acs:SecureTransport": "true", **context}
        return policy_evaluator.allows(policy, action, f"acs:oss:*:*:BUCKET{path}", whole)

    assert [one for one in allowed if not judged(*one)] == []
    assert [one for one in forbidden if judged(*one)] == []
