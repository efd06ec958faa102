"""Fixtures of the tests of stores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.storage.bad_s3 import BadS3


@pytest.fixture(scope="session")
def bad_server() -> Iterator[BadS3]:
    """The one scripted server of this process."""
    server = BadS3()
    yield server
    server.close()


@pytest.fixture
def bad(bad_server: BadS3) -> BadS3:
    """The scripted S3 server, which has forgotten everything."""
    bad_server.reset()
    return bad_server


@pytest.fixture(autouse=True)
def no_instance_role(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new session asks for the role of an instance where it finds no other credentials."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
