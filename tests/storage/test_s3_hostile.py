"""Answers of an S3 server that have no end, lead elsewhere, or are no values."""

from __future__ import annotations

import itertools
import socket
import types

import pytest

from storage import s3_http, s3_prefetch
from tests.storage.bad_s3 import Answer, BadS3
from tests.storage.s3_fault_kinds import LARGE, always
from tests.storage.s3_stores import NO_WAIT, opened
from tools.base.errors import StoreError, TransientError
from tools.catalog.catalog import Catalog
from tools.catalog.trust import Trust
from tools.flow import store
from tools.flow.retrying_store import Retrying


@pytest.mark.fault(
    "every call of S3 is redirected without a region, as by a login page",
    "an error at once that says so; nothing is sent to the other server",
)
@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirection_of_everything(bad: BadS3, status: int) -> None:
    other = {"Location": f"{bad.endpoint}/elsewhere"}
    bad.fault = lambda _server, _request, _count: Answer(status, b"", other)
    with pytest.raises(StoreError, match="sends to another server, which is not followed"):
        list(opened(bad).entries("srv"))
    with pytest.raises(StoreError, match="sends to another server, which is not followed"):
        list(opened(bad).get("srv/x"))
    assert set(bad.calls) == {"ListObjectsV2", "GetObject"}


@pytest.mark.fault("an answer of S3 that has no end", "read up to a limit, then an error")
@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_without_end(bad: BadS3, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    target = opened(bad)
    session = target.backend.client.connection.api._endpoint.http_session
    assert isinstance(session, s3_http.Bounded)
    monkeypatch.setattr(session, "_longest", 1 << 20)
    bad.fault = always("ListObjectsV2", Answer(status, b"<" * (2 << 20)))
    with pytest.raises(TransientError, match="the answer does not end"):
        list(target.entries("srv"))


@pytest.mark.fault("S3 names a region that is a URL or an escape code", "it is left out")
@pytest.mark.parametrize("region", ["127.0.0.1:1/#", "x@127.0.0.1:1", "us\x1b[31m", "a" * 5_000])
def test_a_region_that_is_none(bad: BadS3, region: str) -> None:
    error = f"<Error><Code>AuthorizationHeaderMalformed</Code><Region>{region}</Region></Error>"
    for answer in (
        Answer(301, b"", {"x-amz-bucket-region": region}),
        Answer(400, error.replace("\x1b", "").encode()),
    ):
        bad.fault = always("ListObjectsV2", answer)
        with pytest.raises(StoreError, match="sends to another server") as raised:
            list(opened(bad).entries("srv"))
        assert raised.value.hint == "Set ENDPOINT_URL and REGION to those of the bucket."


@pytest.mark.fault("S3 answers 404, 409, 412 or 416 to a call that cannot have it", "it is named")
@pytest.mark.parametrize("status", [404, 409, 412, 416])
def test_statuses_that_do_not_fit(bad: BadS3, status: int) -> None:
    bad.fault = lambda _server, _request, _count: Answer(status)
    with pytest.raises(StoreError, match=rf"store: ListObjectsV2: .*{status}"):
        list(opened(bad).entries("srv"))
    with pytest.raises(StoreError, match="srv/x"):  # an object that is not there is not empty
        list(opened(bad).get("srv/x"))


def page(token: int, size: str = "1", time: str = "2026-01-01T00:00:00.000Z") -> Answer:
    """A page of one object, and the token of a next one."""
    entry = f"<Key>store/srv/{token}</Key><LastModified>{time}</LastModified><Size>{size}</Size>"
    following = f"<NextContinuationToken>{token}</NextContinuationToken>"
    body = f"<IsTruncated>true</IsTruncated>{following}<Contents>{entry}</Contents>"
    return Answer(200, f"<ListBucketResult>{body}</ListBucketResult>".encode())


def listing(text: str) -> Answer:
    """A whole listing."""
    document = f"<ListBucketResult><IsTruncated>false</IsTruncated>{text}</ListBucketResult>"
    return Answer(200, document.encode())


@pytest.mark.fault("a listing of a bucket that has no end", "an error after 5,000 pages")
def test_a_listing_without_end(bad: BadS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.limited, "__defaults__", (20,))
    numbers = itertools.count()
    bad.fault = lambda _server, _request, _count: page(next(numbers))
    for listed in (opened(bad).folders, lambda: opened(bad).entries("srv")):
        with pytest.raises(StoreError, match="the listing does not end"):
            list(listed())


@pytest.mark.fault("sizes and times in a listing that are none", "an error of the store")
@pytest.mark.parametrize(
    "answer",
    [
        *(page(1, size) for size in ("12x", "", "-5", "9" * 5000, "9" * 400)),
        *(
            page(1, "1", time)
            for time in ("yesterday", "1e300", "inf", "2026-01-01T00:00:00+99:99")
        ),
        *(page(1, "1", time) for time in ("", "9" * 20, "2026-01-01 " * 1000)),
        *(listing(f"<{name}></{name}>") for name in ("Contents", "CommonPrefixes")),
        Answer(200, b"<!DOCTYPE html><html></html>"),
    ],
)
def test_values_that_are_none(bad: BadS3, answer: Answer) -> None:
    bad.fault = always("ListObjectsV2", answer)
    listed = opened(bad).folders if b"CommonPrefixes" in answer.body else opened(bad).entries
    with pytest.raises(StoreError, match="s3://backups/store: "):
        list(listed(*() if b"CommonPrefixes" in answer.body else ("srv",)))


@pytest.mark.fault("times in a listing without a zone, and a Date of the year 9999", "ages")
def test_times_that_are_odd(bad: BadS3) -> None:
    listed = page(1, "1", "2026-01-01T00:00:00").body.replace(b">true<", b">false<")
    date = {"Date": "Fri, 31 Dec 9999 23:59:59 GMT"}
    bad.fault = always("ListObjectsV2", Answer(200, listed, date))
    target = opened(bad)
    (entry,) = target.entries("srv")
    assert entry.age > 7000 * 366 * 86_400
    assert Catalog(target, "srv", Trust()).time_of("1").year < 1990


@pytest.mark.fault("a list of uploads, parts or versions without their values", "an error")
def test_lists_without_their_values(bad: BadS3) -> None:
    backend = opened(bad).backend
    bad.fault = always("ListMultipartUploads", Answer(200, b"<R><Upload></Upload></R>"))
    with pytest.raises(StoreError, match="store: the server lists Uploads without Key"):
        list(backend.uploads("srv"))
    bad.fault = always("ListObjectVersions", Answer(200, b"<R><Version></Version></R>"))
    with pytest.raises(StoreError, match="store: the server lists Versions without Key"):
        backend.removal.remove_versions(["srv/x"], lambda call: call())


@pytest.mark.fault("a connection that ends within an interim answer (100 Continue)", "an error")
@pytest.mark.parametrize("line", [b"HTTP/1.1 100 Continue\r\n", b"A" * 20_000, b"A: b\r\n" * 200])
def test_an_interim_answer_without_end(line: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(line)
        theirs.shutdown(socket.SHUT_WR)
        connection = types.SimpleNamespace(sock=ours)
        read: list[bytes] = []

        def expects(self: types.SimpleNamespace, _body: object) -> None:
            file = self.sock.makefile("rb", 0)
            while True:
                read.append(file.readline())

        setattr(connection, s3_http._EXPECT, types.MethodType(expects, connection))
        with pytest.raises(ConnectionError, match="is cut, or does not end"):
            s3_http._expect(connection, None)
        assert connection.sock is ours
        assert len(read) < 100


@pytest.mark.fault("a huge object under the name of a manifest", "it is not read ahead")
def test_only_small_objects_are_read_ahead(bad: BadS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_prefetch, "_LARGEST", len(LARGE) - 1)
    bad.objects |= {"store/srv/large": LARGE, "store/srv/small": b"small"}
    target = opened(bad)
    target.prefetch(["srv/large", "srv/small"])
    held = [target._prefetcher._coming[f"srv/{name}"].result() for name in ("large", "small")]
    assert held == [None, b"small"]
    assert store.content(Retrying(target, NO_WAIT), "srv/large", len(LARGE)) == LARGE
    assert store.content(Retrying(target, NO_WAIT), "srv/small", 5) == b"small"
