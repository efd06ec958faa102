"""What S3 servers, proxies and networks do wrong, each with its verdict."""

from __future__ import annotations

import logging
import re

import pytest

from tests.storage.bad_s3 import BadS3
from tests.storage.s3_cases import CASES, Case
from tests.storage.s3_fault_kinds import STORED
from tests.storage.s3_stores import opened
from tools.base.errors import StoreError
from tools.flow import store


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.fault(
    "a server of S3, a proxy or the network fails or lies, in each of 124 ways",
    "the object is stored whole, or the error says what is wrong and nothing is left",
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_server(
    bad: BadS3, case: Case, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("ncbackup"), "propagate", True)
    caplog.set_level(logging.INFO)
    for name, value in case.rules.items():
        setattr(bad, name, value)
    bad.fault = case.fault
    target = opened(bad, **case.keys)
    if case.verdict == STORED:
        store.store_object(target, "srv/x", [case.content])
        assert bad.objects["store/srv/x"] == case.content
        assert re.search(case.says, caplog.text)
    else:
        with pytest.raises((StoreError, OSError), match=case.says):
            store.store_object(target, "srv/x", [case.content])
        assert ("store/srv/x" in bad.objects) is case.present
    assert not bad.uploads
    for operation, most in case.calls.items():
        assert bad.calls[operation] <= most, operation
