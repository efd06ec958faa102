"""Stores of S3 for tests: each in a folder of its own in the one bucket."""

from __future__ import annotations

import dataclasses
import functools
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from storage import s3_client
from storage.s3_blocks import S3Blocks
from storage.s3_client import Client, Connection
from storage.s3_options import Options
from storage.s3_store import S3Store
from tests import s3_servers
from tests.s3_servers import S3Server
from tests.storage.bad_s3 import BadS3
from tests.storage.s3_fault_kinds import PART as SMALL_PART
from tools.flow.retries import Retries

PART = 5 << 20  # the smallest that S3 allows
NO_WAIT = Retries(0, say=lambda _line: None)


def options(server: S3Server, **keys: Any) -> Options:
    """Return the options of a section."""
    defaults = {
        "hostname": "srv",
        "bucket_name": s3_servers.BUCKET,
        "endpoint_url": server.endpoint,
    }
    return Options(**{**defaults, **keys})


@functools.cache
def connection(server: S3Server) -> Connection:
    """Return the one connection of all tests: a session takes 0.2 s to make."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        return s3_client.connected(options(server))


def client(server: S3Server, **keys: Any) -> Client:
    """Return a client that shares the connection."""
    return Client(options(server, **keys), lambda _options: connection(server))


def seaweedfs(memory: int | None = None) -> Callable[[], S3Store]:
    """Return what opens one more process of a store in a new folder of SeaweedFS."""
    return on(s3_servers.seaweedfs(), memory)


def reopened(target: S3Store) -> S3Store:
    """Return a store of another process."""
    return S3Store(S3Blocks(target.backend.client, PART), NO_WAIT)


def versitygw(memory: int | None = None) -> Callable[[], S3Store]:
    """The same of versitygw."""
    return on(s3_servers.strict(), memory)


def rclone(memory: int | None = None) -> Callable[[], S3Store]:
    """The same of rclone's S3 server."""
    return on(s3_servers.lenient(), memory)


def on(server: S3Server, memory: int | None = None) -> Callable[[], S3Store]:
    """Return what opens one more process of a store in a new folder of a server."""
    prefix = f"{uuid.uuid4().hex}/store"

    def new_store() -> S3Store:
        return S3Store(S3Blocks(client(server, prefix=prefix), PART), NO_WAIT, memory=memory)

    return new_store


# --- stores of the scripted server


_connections: dict[tuple[Any, ...], Connection] = {}


def opened(bad: BadS3, **keys: Any) -> S3Store:
    """A store in the folder `store`; sessions are made once for each time limit."""
    defaults = {"hostname": "srv", "bucket_name": "backups", "prefix": "store"}
    options = Options(**{**defaults, "endpoint_url": bad.endpoint, **keys})
    sessions = 0

    def connect(options: Options) -> Connection:
        nonlocal sessions
        sessions += 1
        key = (options.endpoint_url, options.read_timeout)
        if key not in _connections:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
                patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
                _connections[key] = s3_client.connected(options)
        return dataclasses.replace(_connections[key], secret=(str(sessions),))

    return S3Store(
        S3Blocks(Client(options, connect), SMALL_PART), Retries(0, say=lambda _line: None)
    )
