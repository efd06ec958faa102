"""Stores on the test server of Aliyun OSS, each in a bucket of its own."""

from __future__ import annotations

import atexit
import contextlib
import functools
from collections.abc import Callable
from pathlib import Path

from storage.oss_blocks import OssBlocks
from storage.oss_client import Client
from storage.oss_store import Options, OssStore
from tests import oss_server
from tests.oss_server import OssServer
from tools.flow.retries import Retries
from tools.flow.store import Store

_stack = contextlib.ExitStack()
atexit.register(_stack.close)


@functools.cache
def server() -> OssServer:
    """Return the server of this process; it ends with it."""
    return _stack.enter_context(oss_server.running())


def options(folder: Path, bucket: str, **more: str) -> Options:
    """Return the keys of a section for a bucket of the server."""
    from tools.modules.options import fill

    file = oss_server.credentials(folder, server(), bucket)
    defaults = {"HOSTNAME": "srv", "DESTINATION": "oss", "ALIYUN_CREDENTIALS": str(file)}
    return fill(Options, {**defaults, "REGION": oss_server.REGION, **more})


def blocks(size: int, page: int, **settings: int) -> Callable[[Path], Callable[[], Store]]:
    """Return what opens a store with so small blocks. page: the most that the server lists."""

    def make(folder: Path) -> Callable[[], Store]:
        bucket, _ = server().bucket(min_part=1, page=page)
        filled = options(folder, bucket, PREFIX="backup/of all")

        def opened() -> Store:
            client = Client(filled, lambda account: filled.url(account.bucket))
            backend = OssBlocks(client, prefix=filled.prefix, block_size=size)
            return OssStore(backend, Retries(0), **settings)

        return opened

    return make
