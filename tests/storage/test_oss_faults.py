"""The store of Aliyun OSS on a server that fails and lies."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from storage.oss_blocks import OssBlocks
from storage.oss_client import Client
from storage.oss_store import OssStore
from tests.oss_bucket import Bucket
from tests.oss_server import SECRET, OssServer
from tests.storage import oss_stores
from tests.storage.oss_cases import (
    BLOCK,
    CASES,
    LARGE,
    SMALL,
    STORED,
    Case,
    cut,
    done_and,
    reset,
)
from tools.base.errors import StoreError
from tools.flow import store
from tools.flow.retries import Retries
from tools.flow.retrying_store import Retrying

pytestmark = pytest.mark.needs("oss2")
QUIET = Retries(0, say=lambda _line: None)
NAME = "srv/20260101_000000.x.000"


@pytest.fixture
def oss() -> OssServer:
    """The server of this process."""
    return oss_stores.server()


def opened(folder: Path, bucket: str) -> Retrying:
    """Return a store whose calls of both kinds that publish have been proven."""
    options = oss_stores.options(folder, bucket, READ_TIMEOUT="0.4")
    client = Client(options, lambda account: options.url(account.bucket))
    target = OssStore(OssBlocks(client, prefix="", block_size=BLOCK), QUIET)
    store.store_object(target, "before/small", [SMALL])
    store.store_object(target, "before/large", [LARGE])
    return Retrying(target, QUIET)


def act(case: Case, target: Retrying) -> bytes:
    """Do what a case is about; return the content that there must be."""
    if case.action in ("small", "large"):
        content = SMALL if case.action == "small" else LARGE
        store.store_object(target, NAME, [content])
        return content
    if case.action in ("read", "range"):
        extent = (700, 2_500) if case.action == "range" else (0, None)
        assert b"".join(target.get("before/large", *extent)) == LARGE[slice(*extent)]
    elif case.action == "list":
        assert [one.name for one in target.entries("before")] == ["before/large", "before/small"]
    elif case.action == "unfinished":
        assert list(target.unfinished("before")) == []
    else:
        target.remove(["before/small"])
    return b""


@pytest.mark.fault(
    f"a server of Aliyun OSS, a proxy or the network fails or lies, in each of {len(CASES)} ways",
    "the object is stored whole, or the error says what is wrong and nothing is left",
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_server(case: Case, oss: OssServer, tmp_path: Path) -> None:
    name, bucket = oss.bucket(min_part=1)
    target = opened(tmp_path, name)
    oss.requests.clear()
    case.setting(oss, bucket)
    if case.fault is not None:
        oss.script(case.operation, case.fault, times=case.times, skip=case.skip)
    if case.verdict == STORED:
        content = act(case, target)
        assert not content or bucket.objects[NAME].content == content
    else:
        with pytest.raises(StoreError, match=case.verdict) as caught:
            act(case, target)
        assert case.hint in caught.value.hint
        check_message(str(caught.value))
        check_nothing_is_left(bucket, case)
    for operation, count in case.calls.items():
        assert oss.requests.count(operation) == count


def check_message(text: str) -> None:
    assert SECRET not in text
    assert text.isprintable()
    assert len(text) < 1_000


def check_nothing_is_left(bucket: Bucket, case: Case) -> None:
    """Uploads are gone too, but where the server has rejected all that was asked."""
    held = bucket.objects.get(NAME)
    assert (held.content if held else None) == case.kept
    assert bucket.uploads == {}


@pytest.mark.fault(
    "the connection to Aliyun OSS is cut at random bytes, in either direction",
    "every object is stored whole",
)
def test_cuts_at_random_bytes(oss: OssServer, tmp_path: Path) -> None:
    name, bucket = oss.bucket(min_part=1)
    target = opened(tmp_path, name)
    chosen = random.Random(15)
    operations = ("PutObject", "InitiateMultipartUpload", "UploadPart", "CompleteMultipartUpload")
    for number in range(25):
        oss.reset()
        for _ in range(4):  # of five attempts
            at = chosen.randrange(BLOCK)
            fault = chosen.choice((reset(at), cut(at), done_and(None)))
            oss.script(chosen.choice(operations), fault)
        content = LARGE[: chosen.randrange(len(LARGE))]
        store.store_object(target, f"srv/{number}", [content])
        oss.script("GetObject", cut(chosen.randrange(BLOCK)), times=2)
        assert b"".join(target.get(f"srv/{number}")) == content
        assert bucket.objects[f"srv/{number}"].content == content


@pytest.mark.parametrize("_time", range(2))
def test_what_one_test_has_scripted_is_gone_in_the_next(oss: OssServer, _time: int) -> None:
    """CI: nine rejected removals were scripted, and the next tests of the process got the rest."""
    assert oss.fault("PutObject") is None
    oss.script("PutObject", cut(1), times=9)
