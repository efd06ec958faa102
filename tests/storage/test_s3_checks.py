"""What `backup.py -t` finds about a bucket."""

from __future__ import annotations

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


def found(bad: BadS3, answer: Answer) -> list[Finding]:
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
        (prefix("") + EXPIRE, Level.BAD, "removes backups by their age"),
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
    findings = found(bad, rules(rule))
    assert [one.level for one in findings] == ([level] if level else [])
    assert all(says in one.text and one.hint for one in findings)


@pytest.mark.parametrize(
    "answer", [DENIED, error(404, "NoSuchLifecycleConfiguration"), error(501, "NotImplemented")]
)
def test_a_lifecycle_that_cannot_be_read_is_no_finding(bad: BadS3, answer: Answer) -> None:
    assert found(bad, answer) == []


def test_nothing_is_changed(bad: BadS3) -> None:
    s3_checks.tested(blocks(bad))
    assert bad.objects == {}
    assert {one.operation for one in bad.seen} == {
        "ListObjectsV2", "GetBucketLifecycleConfiguration",
    }  # fmt: skip


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
