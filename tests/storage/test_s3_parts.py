"""The pieces of the S3 store that need no server: keys, checksums, options, memory."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import s3_checksums, s3_client, s3_store
from storage.bucket_keys import Keys, is_public_plaintext, is_record
from storage.keys import Address
from storage.s3_checksums import Part
from storage.s3_client import Client, Connection
from storage.s3_options import Options
from tests.storage.bad_s3 import Answer, BadS3, Request
from tests.storage.s3_fault_kinds import LARGE, PART, SMALL
from tests.storage.s3_stores import opened
from tools.base.errors import ConfigError, StoreError, TransientError
from tools.flow import store
from tools.flow.block_store import BlockStore
from tools.flow.memory_store import MemoryBlocks
from tools.flow.retries import Retries

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)


@given(st.one_of(NAMES, st.binary(min_size=1).map(os.fsdecode)), st.sampled_from(["", "a", "a/b"]))
def test_every_name_has_a_key_of_its_own(name: str, prefix: str) -> None:
    keys = Keys(prefix)
    key = keys.of(f"srv/{name}")
    assert keys.name(key) == f"srv/{name}"
    assert key.startswith(prefix)
    assert key.encode() == key.encode("utf-8", "strict")
    assert not any(character < " " or character == "\x7f" for character in key)


@pytest.mark.parametrize("name", ["srv/20260101_000000.a b.tar.zst.age.000", "srv-100%/ü", "a/%zz"])
def test_usual_names_are_their_keys(name: str) -> None:
    assert Keys("").of(name) == name


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("srv/20260101_000000.manifest.json", True),
        ("srv/20260101_000000.manifest.json.sig", True),
        ("srv/20260101_000000.RECOVERY.txt", True),
        ("srv/20260101_000000.UNFINISHED", True),
        ("srv/20260101T000000Z.signer.json", True),
        (f"{store.OWN_FOLDER}/id.json", True),
        ("srv/20260101_000000.etc.tar.zst.age.000", False),
        ("srv/x.manifest.json.file", False),
    ],
)
def test_records_are_told_from_parts(name: str, record: bool) -> None:
    assert is_record(name) is record


def test_storage_class_and_tags_are_those_of_parts_alone(bad: BadS3) -> None:
    keys: dict[str, Any] = {
        "storage_class": "GLACIER_IR",
        "tags": ("team=ops & co", "empty="),
        "sse": "AES256",
        "object_lock_mode": "GOVERNANCE",
        "object_lock_days": 3,
    }
    target = opened(bad, **keys)
    for name in ("x.age.000", "20260101_000000.manifest.json"):
        store.store_object(target, f"srv/{name}", [SMALL])
    store.store_object(target, "srv/large.age.000", [LARGE])
    sent = {one.key.rpartition("/")[2]: one.headers for one in bad.seen if not one.number}
    assert sent["x.age.000"]["x-amz-storage-class"] == "GLACIER_IR"
    assert "x-amz-storage-class" not in sent["20260101_000000.manifest.json"]
    for headers in sent.values():
        assert headers.get("x-amz-tagging", "team=ops+%26+co&empty=") == "team=ops+%26+co&empty="
    created = [one.headers for one in bad.seen if one.operation == "CreateMultipartUpload"]
    assert created[0]["x-amz-server-side-encryption"] == "AES256"
    assert created[0]["x-amz-object-lock-mode"] == "GOVERNANCE"
    assert created[0]["x-amz-checksum-type"] == "FULL_OBJECT"


def test_no_body_is_chunked_and_each_has_a_checksum(bad: BadS3) -> None:
    target = opened(bad)
    store.store_object(target, "srv/x", [LARGE])
    store.store_object(target, "srv/y", [SMALL])
    for one in bad.seen:
        if one.operation in ("PutObject", "UploadPart"):
            assert int(one.headers["content-length"]) == len(one.body)
            assert "aws-chunked" not in one.headers.get("content-encoding", "")
            assert {"x-amz-checksum-sha256", "x-amz-checksum-crc32"} & set(one.headers)
    (completed,) = [one for one in bad.seen if one.operation == "CompleteMultipartUpload"]
    assert completed.headers["x-amz-mp-object-size"] == str(len(LARGE))
    assert completed.headers["if-none-match"] == "*"


def test_after_a_refusal_no_later_part_is_tried_in_vain(bad: BadS3) -> None:
    def fault(_server: BadS3, request: Request, _count: int) -> Answer | None:
        if any(name.startswith("x-amz-checksum") for name in request.headers):
            text = b"<Error><Code>NotImplemented</Code><Message>aws-chunked</Message></Error>"
            return Answer(501, text)
        return None

    bad.fault = fault
    target = opened(bad)
    for name in ("x", "y"):
        store.store_object(target, f"srv/{name}", [LARGE])
    assert bad.calls["CreateMultipartUpload"] == 3
    assert bad.calls["UploadPart"] == 26


@given(st.lists(st.binary(), max_size=5))
def test_the_crc_of_the_whole_follows_from_those_of_the_parts(pieces: list[bytes]) -> None:
    parts = [Part("x", zlib.crc32(piece), len(piece), True) for piece in pieces]
    assert s3_checksums.whole_crc32(parts) == zlib.crc32(b"".join(pieces))
    assert [Part.of(str(part)) for part in parts] == parts


def test_an_etag_of_parts_is_the_md5_of_their_md5s() -> None:
    pieces = (b"one", b"two")
    digests = [hashlib.md5(piece, usedforsecurity=False) for piece in pieces]
    parts = [Part(digest.hexdigest(), 0, 3, True) for digest in digests]
    digest_of_all = hashlib.md5(b"".join(one.digest() for one in digests), usedforsecurity=False)
    assert s3_checksums.etag_of(parts) == f"{digest_of_all.hexdigest()}-2"
    assert s3_checksums.etag_of([dataclasses.replace(parts[0], etag="v1")]) == ""


# --- options

GOOD: dict[str, Any] = {"hostname": "srv", "bucket_name": "backups"}


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"bucket_name": ""}, "BUCKET_NAME is required"),
        ({"bucket_name": "s3://backups"}, "not the name of a bucket"),
        ({"bucket_name": "a/b"}, "not the name of a bucket"),
        ({"endpoint_url": "s3.example.org"}, "not the URL of a server"),
        ({"endpoint_url": "s3.example.org:9000"}, "not the URL of a server"),
        ({"endpoint_url": "ftp://s3.example.org"}, "not the URL of a server"),
        ({"endpoint_url": "https://s3.example.org:99999"}, "not the URL of a server"),
        ({"endpoint_url": "https://s3.example.org\n"}, "not the URL of a server"),
        ({"endpoint_url": "https://me:pw@s3.example.org"}, "without user, password"),
        ({"endpoint_url": "https://oss-cn-hangzhou.aliyuncs.com"}, "Aliyun OSS"),
        ({"sse": "AES128"}, "SSE: 'AES128': invalid value"),
        ({"kms_key": "x"}, "KMS_KEY is used with SSE aws:kms alone"),
        ({"object_lock_mode": "GOVERNANCE"}, "belong together"),
        ({"object_lock_days": 3}, "belong together"),
        ({"tags": ("team",)}, "TAGS: 'team': not NAME=VALUE"),
        ({"prefix": "a/../b"}, "PREFIX"),
        ({"upload_command": "aws 's3"}, "UPLOAD_COMMAND"),
        ({"part_size": 1024}, "PART_SIZE"),
        ({"read_timeout": 0}, "READ_TIMEOUT"),
    ],
)
def test_bad_options_are_named(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Options(**{**GOOD, **keys})
    assert caught.value.hint


def test_the_oss_endpoint_names_the_other_store() -> None:
    with pytest.raises(ConfigError) as caught:
        Options(**GOOD, endpoint_url="https://oss-cn-hangzhou.aliyuncs.com")
    assert "DESTINATION to oss" in caught.value.hint


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("http://s3.example.org", True),
        ("http://8.8.8.8:9000", True),
        ("http://10.0.0.5:9000", False),
        ("http://127.0.0.1:9000", False),
        ("http://[::1]:9000", False),
        ("http://localhost:9000", False),
        ("http://minio:9000", False),
        ("http://minio.internal", False),
        ("https://s3.example.org", False),
    ],
)
def test_plain_http_to_a_public_host(url: str, public: bool) -> None:
    assert is_public_plaintext(url) is public


def test_the_keys_of_an_address() -> None:
    address = Address.parse("backups/servers/a", "https://s3.example.org")
    assert s3_store.keys_of(address) == {
        "BUCKET_NAME": "backups",
        "PREFIX": "servers/a",
        "ENDPOINT_URL": "https://s3.example.org",
    }
    for text in ("", "me@backups/x", "backups:9000/x"):
        with pytest.raises(ConfigError, match="needs a bucket"):
            s3_store.keys_of(Address.parse(text))


# --- sessions


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without credentials and without a config of AWS."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def keyed(patch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    patch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return patch


def connect(**keys: Any) -> Connection:
    return s3_client.connected(Options(**{**GOOD, **keys}))


def test_the_endpoint_that_is_really_used_is_named(plain: pytest.MonkeyPatch) -> None:
    keyed(plain).setenv("AWS_ENDPOINT_URL", "https://s3.example.org")
    target = connect()
    assert target.about() == (
        "endpoint https://s3.example.org, region us-east-1, access key ...TEST (from env)"
    )
    plain.setenv("AWS_ENDPOINT_URL", "https://oss-cn-hangzhou.aliyuncs.com")
    with pytest.raises(ConfigError, match="Aliyun OSS"):
        connect()


def test_the_proxy_is_named_without_its_password(plain: pytest.MonkeyPatch) -> None:
    keyed(plain).setenv("HTTPS_PROXY", "http://me:hidden@proxy.example.org:3128")
    target = connect(endpoint_url="https://s3.example.org")
    assert "proxy http://***:***@proxy.example.org:3128" in target.about()
    plain.setenv("NO_PROXY", "s3.example.org")
    assert "proxy" not in target.about()


def test_a_profile_names_region_and_source(plain: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile ours]\nregion = eu-central-1\n")
    (tmp_path / "credentials").write_text(
        "[ours]\naws_access_key_id = AKIDOURS\naws_secret_access_key = x\n"
    )
    about = connect(profile="ours").about()
    assert "region eu-central-1, access key ...OURS (from shared-credentials-file)" in about
    assert connect(profile="ours", region="eu-west-3").region == "eu-west-3"


@pytest.mark.fault("the metadata service of an instance does not answer", "one line names it")
def test_a_metadata_service_that_hangs(plain: pytest.MonkeyPatch) -> None:
    """In a container the answer to the token does not pass its hop limit."""
    bad = BadS3()
    bad.fault = lambda _server, _request, _count: Answer(delay=5)
    plain.delenv("AWS_EC2_METADATA_DISABLED")
    plain.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", bad.endpoint)
    with pytest.raises(StoreError, match="no credentials") as caught:
        connect()
    bad.close()
    assert "instance role" in caught.value.hint
    assert "hop limit" in caught.value.hint


def test_a_plain_proxy_is_used_and_no_proxy_goes_directly(
    plain: pytest.MonkeyPatch, bad: BadS3
) -> None:
    """The direct way is closed: the host does not exist."""
    keyed(plain).setenv("HTTP_PROXY", bad.endpoint)
    client = Client(Options(**GOOD, endpoint_url="http://s3.no-such-host.test"))
    bad.fault = lambda _server, _request, _count: Answer(204)
    client.call("delete_object", "x", Key="x")
    (seen,) = bad.seen
    assert seen.headers["host"] == "s3.no-such-host.test"
    plain.setenv("NO_PROXY", "no-such-host.test")
    with pytest.raises(StoreError, match="no-such-host"):
        Client(client.options).call("delete_object", "x", Key="x")


def test_a_proxy_that_asks_for_a_password_is_named(plain: pytest.MonkeyPatch, bad: BadS3) -> None:
    keyed(plain).setenv("HTTPS_PROXY", bad.endpoint)
    client = Client(Options(**GOOD, endpoint_url="https://s3.no-such-host.test"))
    with pytest.raises(StoreError, match="407: it asks for a user") as caught:
        client.call("delete_object", "x", Key="x")
    assert not isinstance(caught.value, TransientError)


def test_a_certificate_that_is_not_trusted_is_named(plain: pytest.MonkeyPatch) -> None:
    """Any answer that is not TLS is taken for one by the library."""
    keyed(plain)
    bad = BadS3()
    client = Client(Options(**GOOD, endpoint_url=bad.endpoint.replace("http", "https")))
    with pytest.raises(StoreError, match="SSL") as caught:
        client.call("delete_object", "x", Key="x")
    bad.close()
    assert "CA_BUNDLE" in caught.value.hint
    assert not isinstance(caught.value, TransientError)


def test_new_credentials_are_read_once_for_each_call(plain: pytest.MonkeyPatch, bad: BadS3) -> None:
    """The file has changed meanwhile; client and session keep the old key."""
    keyed(plain)
    client = Client(Options(**GOOD, endpoint_url=bad.endpoint))
    expired = b"<Error><Code>ExpiredToken</Code></Error>"

    def fault(_server: BadS3, request: Request, _count: int) -> Answer | None:
        return Answer(400, expired) if "AKIDTEST" in request.headers["authorization"] else None

    bad.fault = fault
    with pytest.raises(StoreError, match=r"credentials expired .*\.\.\.TEST"):
        client.call("delete_object", "x", Key="x")
    plain.setenv("AWS_ACCESS_KEY_ID", "AKIDNEW")
    client.call("delete_object", "x", Key="x")
    assert "AKIDNEW" in bad.seen[-1].headers["authorization"]


def test_an_object_ends_at_9000_parts(bad: BadS3) -> None:
    assert store.max_object_size(opened(bad)) == 9_000 * PART


# --- memory


def test_the_blocks_of_one_store_are_bounded_together() -> None:
    """Each put fills one block and may send one; further ones are sent while there is memory."""
    lock = threading.Lock()
    sending = most = 0
    go_on = threading.Event()

    def fault(call: str, _name: str) -> None:
        nonlocal sending, most
        if call.startswith("block"):
            with lock:
                sending += 1
                most = max(most, sending)
            go_on.wait(0.05)
            with lock:
                sending -= 1

    target = BlockStore(MemoryBlocks(100, fault), Retries(0), parallel=9, total=400)
    puts = [
        threading.Thread(target=store.store_object, args=(target, f"srv/{number}", [LARGE]))
        for number in range(2)
    ]
    for one in puts:
        one.start()
    for one in puts:
        one.join()
    assert 0 < most <= 3  # nine would be sent at a time without the limit
    assert [b"".join(target.get(f"srv/{number}")) for number in range(2)] == [LARGE, LARGE]


@pytest.mark.parametrize("kind", ["missing", "FIFO", "folder"])
def test_authorities_that_are_no_file(tmp_path: Path, kind: str) -> None:
    """OpenSSL would wait for a FIFO, and names no file."""
    path = tmp_path / kind
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    options = Options(hostname="srv", bucket_name="bucket", ca_bundle=path)
    with pytest.raises(ConfigError, match=f"CA_BUNDLE: {path}: (no such file|not a regular file)"):
        s3_client.connected(options)
