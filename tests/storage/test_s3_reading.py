"""Reading, listing and removing where an S3 server or the network fails."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from tests.storage.bad_s3 import Answer, BadS3, Request, error
from tests.storage.s3_fault_kinds import DENIED, HTML, LARGE, SMALL, after, always, on
from tests.storage.s3_stores import NO_WAIT, opened
from tools.base.errors import StoreError, TransientError
from tools.flow import store
from tools.flow.retrying_store import Retrying

CONTENT = LARGE * 3
READS = {
    "500": on("GetObject", error(500, "InternalError"), 2),
    "503": on("GetObject", error(503, "SlowDown"), 2),
    "reset at once": on("GetObject", Answer(cut=0), 2),
    "reset in the headers": after("GetObject", cut=30, times=2),
    "closed in the headers": on("GetObject", Answer(cut=30, is_closed=True), 2),
    "reset in the body": after("GetObject", cut=1_500, times=3),
}


@pytest.mark.fault("a download breaks off", "it goes on where it stopped, of the same object")
@pytest.mark.parametrize("name", READS)
def test_reading_goes_on(bad: BadS3, name: str) -> None:
    bad.objects["store/srv/x"] = CONTENT
    bad.fault = READS[name]
    assert b"".join(Retrying(opened(bad), NO_WAIT).get("srv/x")) == CONTENT


def test_reading_goes_on_with_the_same_object_alone(bad: BadS3) -> None:
    bad.objects["store/srv/x"] = CONTENT

    def fault(server: BadS3, request: Request, count: int) -> Answer | None:
        if request.operation != "GetObject" or count > 1:
            return None
        answer = dataclasses.replace(server.good(request), cut=2_000)
        server.etags[request.key] = "of another object"
        return answer

    bad.fault = fault
    target = opened(bad)
    with pytest.raises(StoreError):
        list(target.get("srv/x"))
    with pytest.raises(StoreError, match="has changed while it was read"):
        list(target.get("srv/x", 100))


def test_a_server_that_ignores_ranges(bad: BadS3) -> None:
    bad.objects["store/srv/x"] = CONTENT
    bad.fault = always("GetObject", Answer(200, CONTENT))
    assert b"".join(opened(bad).get("srv/x", 100, 300)) == CONTENT[100:300]


@pytest.mark.fault("an object lies in a cold storage class", "the error says so at once")
def test_a_cold_object_is_named_at_once(bad: BadS3) -> None:
    bad.fault = always("GetObject", error(403, "InvalidObjectState"))
    with pytest.raises(StoreError, match=r"srv/x: .*must be thawed first"):
        list(Retrying(opened(bad), NO_WAIT).get("srv/x"))
    assert bad.calls["GetObject"] == 1


@pytest.mark.parametrize(
    "answer", [HTML, Answer(200, b"<html/>"), Answer(200, b"<?xml"), Answer(503), Answer(cut=0)]
)
def test_a_listing_that_is_none_is_no_empty_store(bad: BadS3, answer: Answer) -> None:
    bad.objects["store/srv/x"] = SMALL
    bad.fault = on("ListObjectsV2", answer)
    with pytest.raises(TransientError):
        list(opened(bad).entries("srv"))
    assert [entry.name for entry in opened(bad).entries("srv")] == ["srv/x"]
    bad.calls.clear()
    assert list(Retrying(opened(bad), NO_WAIT).folders()) == ["srv"]


def test_10001_objects_are_listed_in_pages(bad: BadS3) -> None:
    for number in range(10_001):
        bad.objects[f"store/srv/{number:05}"] = b""
    bad.objects["store/srv/folder/x"] = b""
    bad.objects["store-2/srv/other"] = b""
    bad.objects["store/srv/"] = b""  # as the console of AWS makes it
    assert len(list(opened(bad).entries("srv"))) == 10_001
    assert bad.calls["ListObjectsV2"] == 11


def test_a_page_that_leads_to_itself_is_an_error(bad: BadS3) -> None:
    text = "<IsTruncated>true</IsTruncated><NextContinuationToken>a</NextContinuationToken>"
    body = f"<ListBucketResult><Name>b</Name>{text}</ListBucketResult>".encode()
    bad.fault = always("ListObjectsV2", Answer(200, body))
    with pytest.raises(TransientError, match="no further page"):
        list(opened(bad).entries("srv"))


@pytest.mark.parametrize("answer", [DENIED, error(501, "NotImplemented")])
def test_uploads_that_cannot_be_listed_are_no_error(
    bad: BadS3,
    answer: Answer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("ncbackup"), "propagate", True)
    caplog.set_level(logging.INFO)
    bad.fault = always("ListMultipartUploads", answer)
    assert list(opened(bad).unfinished("srv")) == []
    assert "unfinished uploads are not listed" in caplog.text


def test_a_bucket_that_never_had_an_upload_may_answer_404(bad: BadS3) -> None:
    """The S3 server of rclone does."""
    bad.fault = always("ListMultipartUploads", error(404, "NoSuchUpload"))
    assert list(opened(bad).unfinished("srv")) == []


def test_ages_are_by_the_clock_of_the_server(bad: BadS3) -> None:
    bad.objects["store/srv/x"] = SMALL
    bad.date = lambda: 1_000_000_000.0
    (entry,) = opened(bad).entries("srv")
    assert entry.age == 0


@pytest.mark.fault("every removal is forbidden", "the removal alone fails, and names the right")
def test_a_forbidden_removal_is_an_error_of_its_own(bad: BadS3) -> None:
    bad.objects["store/srv/x"] = SMALL
    bad.fault = always("DeleteObject", DENIED)
    with pytest.raises(StoreError, match="DeleteObject: access denied") as caught:
        opened(bad).remove(["srv/x"])
    assert "s3:DeleteObject" in caught.value.hint


# --- create-only


@pytest.mark.fault(
    "a server of S3 ignores If-None-Match", "names are listed before, and the result says so"
)
@pytest.mark.parametrize("content", [SMALL, LARGE])
def test_a_server_that_replaces_objects(
    bad: BadS3,
    content: bytes,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("ncbackup"), "propagate", True)
    caplog.set_level(logging.INFO)
    bad.conditions = False
    bad.objects["store/srv/x"] = b"older"
    target = opened(bad)
    with pytest.raises(StoreError, match="different content"):
        store.store_object(target, "srv/x", [content])
    assert bad.objects["store/srv/x"] == b"older"
    store.store_object(target, "srv/y", [content])
    assert target.create_only is store.CreateOnly.LISTED
    assert "by our own listing only" in caplog.text
    assert "create-only by our own listing only" in store.note(Retrying(target))


@pytest.mark.parametrize("content", [SMALL, LARGE])
def test_a_server_that_keeps_objects_is_proven_once(bad: BadS3, content: bytes) -> None:
    target = opened(bad)
    assert target.create_only.value == "by our own listing only"  # nothing is proven yet
    for name in ("x", "y"):
        store.store_object(target, f"srv/{name}", [content])
    assert target.create_only is store.CreateOnly.PROBED
    assert "listing" not in store.note(target)
    probes = [key for key in bad.objects if "probe" in key]
    assert probes == ["store/nc-backup-py.store/create-only-probe"]


@pytest.mark.parametrize("content", [SMALL, LARGE])
def test_a_server_that_knows_no_condition(bad: BadS3, content: bytes) -> None:
    bad.knows_conditions = False
    target = opened(bad)
    store.store_object(target, "srv/x", [content])
    assert target.create_only is store.CreateOnly.LISTED
    assert bad.objects["store/srv/x"] == content
    assert not bad.uploads


# --- reading ahead


@pytest.mark.parametrize("fault", [Answer(503), Answer(cut=30, is_closed=True)])
def test_small_objects_are_read_ahead_once_each(bad: BadS3, fault: Answer) -> None:
    names = [f"srv/{number}" for number in range(20)]
    for name in names:
        bad.objects[f"store/{name}"] = name.encode()
    bad.fault = on("GetObject", fault, 5)
    target = Retrying(opened(bad), NO_WAIT)
    store.prefetch(target, [*names, "srv/none"])
    for name in names:
        assert b"".join(target.get(name)) == name.encode()
    with pytest.raises(StoreError, match="no such object"):
        list(target.get("srv/none"))
    count = bad.calls["GetObject"]
    assert b"".join(target.get(names[0])) == names[0].encode()
    assert bad.calls["GetObject"] == count + 1
