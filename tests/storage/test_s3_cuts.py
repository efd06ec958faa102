"""Connections that are cut at any byte, in either direction."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.cutting_proxy import DOWN, UP, CuttingProxy
from tests.storage.bad_s3 import BadS3
from tests.storage.s3_fault_kinds import LARGE, SMALL
from tests.storage.s3_stores import NO_WAIT, opened
from tools.flow import store
from tools.flow.retrying_store import Retrying

_BYTES = {UP: 24_000, DOWN: 9_000}  # about what the calls below send and receive
_SEED = 15


@pytest.fixture(scope="module")
def proxy(bad_server: BadS3) -> Iterator[CuttingProxy]:
    new = CuttingProxy(bad_server.port)
    yield new
    new.close()


@pytest.mark.fault("the connection is cut at any byte, in either direction", "all is stored whole")
@pytest.mark.parametrize("direction", [UP, DOWN])
def test_a_connection_that_is_cut(bad: BadS3, proxy: CuttingProxy, direction: str) -> None:
    """benchmarks/s3.py does the same at 100 places of a real server."""
    rng = random.Random(_SEED)
    before = proxy.cuts
    for number in range(10):
        bad.reset()
        target = Retrying(opened(bad, endpoint_url=proxy.endpoint), NO_WAIT)
        proxy.cut(direction, rng.randrange(1, _BYTES[direction]))
        for name, content in (("x", LARGE), ("y", SMALL)):
            store.store_object(target, f"srv/{name}", [content])
            assert b"".join(target.get(f"srv/{name}")) == content, number
        assert [entry.name for entry in target.entries("srv")] == ["srv/x", "srv/y"]
        # where the answer to CreateMultipartUpload was lost, nobody knows the new upload
        assert not any(upload.parts for upload in bad.uploads.values()), number
        assert sum(entry.size for entry in target.unfinished("srv")) == 0
    assert proxy.cuts - before >= 8
