"""What `backup.py -t` finds about a bucket."""

from __future__ import annotations

from typing import Any

import pytest

from storage import s3_checks
from storage.s3_blocks import S3Blocks
from tests.storage.bad_s3 import Answer, BadS3, error
from tests.storage.s3_fault_kinds import DENIED, SMALL, always
from tests.storage.s3_stores import opened
from tools.base.errors import StoreError
from tools.base.finding import Finding, Level
from tools.flow import store


def rules(*texts: str) -> Answer:
    """A lifecycle of these rules, each enabled."""
    body = "".join(f"<Rule><ID>r</ID><Status>Enabled</Status>{text}</Rule>" for text in texts)
    return Answer(200, f"<LifecycleConfiguration>{body}</LifecycleConfiguration>".encode())


def findings_of(bad: BadS3, answer: Answer) -> list[Finding]:
    bad.fault = always("GetBucketLifecycleConfiguration", answer)
    return [one for one in s3_checks.tested(blocks(bad)) if one.level is not Level.OK]


def blocks(bad: BadS3) -> S3Blocks:
    return opened(bad).backend


def prefix(text: str) -> str:
    return f"<Filter><Prefix>{text}</Prefix></Filter>"


EXPIRE = "<Expiration><Days>30</Days></Expiration>"
COLD = "<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>"
ABORT = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>{}</DaysAfterInitiation>"
ABORT += "</AbortIncompleteMultipartUpload>"


@pytest.mark.fault("a lifecycle rule of a bucket removes backups", "`-t` is an error")
@pytest.mark.parametrize(
    ("rule", "level", "says"),
    [
        (prefix("") + EXPIRE, Level.BAD, "removes backups after 30 days, whatever the KEEP rules"),
        (prefix("store/") + EXPIRE, Level.BAD, "removes backups"),
        (prefix("store/srv/2026") + EXPIRE, Level.BAD, "removes backups"),
        ("<Prefix>store</Prefix>" + EXPIRE, Level.BAD, "removes backups"),
        (prefix("logs/") + EXPIRE, None, ""),
        (prefix("") + COLD, Level.BAD, "moves backups to GLACIER"),
        (prefix("") + COLD.replace("GLACIER", "STANDARD_IA"), None, ""),
        (prefix("") + ABORT.format(3), Level.WARN, "aborts uploads after 3 days"),
        (prefix("") + ABORT.format(7), None, ""),
        (prefix("") + "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker>"
         "</Expiration>", None, ""),
    ],
)  # fmt: skip
def test_lifecycle_rules(bad: BadS3, rule: str, level: Level | None, says: str) -> None:
    findings = findings_of(bad, rules(rule))
    assert [one.level for one in findings] == ([level] if level else [])
    assert all(says in one.text and one.hint for one in findings)


@pytest.mark.parametrize(
    "answer", [DENIED, error(404, "NoSuchLifecycleConfiguration"), error(501, "NotImplemented")]
)
def test_a_lifecycle_that_cannot_be_read_is_no_finding(bad: BadS3, answer: Answer) -> None:
    assert findings_of(bad, answer) == []


def test_nothing_is_changed(bad: BadS3) -> None:
    s3_checks.tested(blocks(bad))
    assert bad.objects == {}
    assert not list(blocks(bad).uploads("srv"))
    operations = {one.operation for one in bad.seen}
    assert not operations & {"PutObject", "CompleteMultipartUpload", "DeleteObjects"}
    assert {one.key for one in bad.seen if one.key} == {"store/srv/nc-backup-py.store.test"}


def locked(retention: str) -> Answer:
    """A bucket with Object Lock, and what it locks by default."""
    rule = f"<Rule><DefaultRetention>{retention}</DefaultRetention></Rule>" * bool(retention)
    text = f"<ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}"
    return Answer(200, f"<ObjectLockConfiguration>{text}</ObjectLockConfiguration>".encode())


KEYS = {"object_lock_mode": "GOVERNANCE", "object_lock_days": 30}
COMPLIANCE = "<Mode>COMPLIANCE</Mode><{0}>{1}</{0}>"
MISSING = error(404, "ObjectLockConfigurationNotFoundError")


@pytest.mark.parametrize(
    ("keys", "answer", "level", "says"),
    [
        ({}, MISSING, None, ""),
        ({}, DENIED, None, ""),
        ({}, locked(""), None, ""),
        ({}, locked(COMPLIANCE.format("Days", 7)), Level.OK, "nobody can destroy a run within 7 "),
        ({}, locked(COMPLIANCE.format("Years", 1)), Level.OK, "older than 365 days"),
        (KEYS, locked(""), Level.OK, "nobody without the right to bypass it"),
        (KEYS, locked(COMPLIANCE.format("Days", 7)), Level.OK, "30 days of daily change are paid"),
        (KEYS, MISSING, Level.BAD, "the bucket has no Object Lock"),
        (KEYS, DENIED, Level.WARN, "whether the bucket has Object Lock is not known"),
    ],
)
def test_what_a_lock_means(
    bad: BadS3, keys: dict[str, Any], answer: Answer, level: Level | None, says: str
) -> None:
    bad.fault = always("GetObjectLockConfiguration", answer)
    findings = list(s3_checks.lock(opened(bad, **keys).backend))
    assert bool(findings) is (level is not None)
    assert not level or (findings[0].level is level and says in findings[0].text)


def test_what_passes_is_not_locked(bad: BadS3) -> None:
    target = opened(bad, **KEYS)
    run = "srv/20260101_000000"
    endings = ("x.000", "manifest.json", "UNFINISHED", "PINNED", "cleaned-1.json")
    for ending in endings:
        store.store_object(target, f"{run}.{ending}", [SMALL])
    stored = [one for one in bad.seen if one.operation == "PutObject"]
    with_lock = [one.key for one in stored if "x-amz-object-lock-mode" in one.headers]
    assert with_lock == [f"store/{run}.x.000", f"store/{run}.manifest.json"]


def test_a_server_that_replaces_objects_is_a_warning(bad: BadS3) -> None:
    store.store_object(opened(bad), "srv/x", [SMALL])
    texts = [one.text for one in s3_checks.tested(blocks(bad))]
    assert any("create-only by the store, as a probe has proven" in text for text in texts)
    before = dict(bad.objects)
    bad.conditions = False
    (finding,) = [one for one in s3_checks.tested(blocks(bad)) if one.level is Level.WARN]
    assert "create-only by our own listing only" in finding.text
    assert "Append-only is not possible" in finding.hint
    assert bad.objects == before


def test_credentials_without_rights_are_an_error_at_once(bad: BadS3) -> None:
    bad.fault = always("ListObjectsV2", DENIED)
    with pytest.raises(StoreError, match=r"access denied for the access key \.\.\.TEST") as caught:
        s3_checks.tested(blocks(bad))
    assert "s3:ListBucket" in caught.value.hint
    assert bad.calls["ListObjectsV2"] == 1
