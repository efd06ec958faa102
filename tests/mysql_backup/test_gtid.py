"""GTIDs of both brands: what is one, what is within, and where a replay ends."""

from __future__ import annotations

import pytest

from mysql_backup import gtid
from tools.base.errors import StoreError

A = "62eef09c-e79a-11f1-af79-02fc00000001"
B = "72EEF09C-e79a-11f1-af79-02fc00000001"


@pytest.mark.parametrize(
    ("text", "one"),
    [
        ("0-1-789", True),
        (f"{A}:7", True),
        (f"{B}:tag_1:7", True),
        (f"{A}:1-7", False),
        (f"{A}", False),
        ("0-1", False),
        ("yesterday", False),
        ("", False),
    ],
)
def test_what_is_one(text: str, one: bool) -> None:
    assert gtid.is_gtid(text) is one


@pytest.mark.parametrize(
    ("text", "executed", "there"),
    [
        ("0-1-9", "0-1-9", True),
        ("0-2-8", "0-1-9,1-1-3", True),
        ("0-1-10", "0-1-9", False),
        ("1-1-4", "0-1-9,1-1-3", False),
        ("0-1-1", "", False),
        (f"{A}:5", f"{A}:1-5", True),
        (f"{A.upper()}:5", f"{A}:1-5", True),
        (f"{A}:6", f"{A}:1-5", False),
        (f"{A}:6", f"{A}:1-5:7-9", False),
        (f"{A}:8", f"{B}:1, {A}:1-5:7-9", True),
        (f"{A}:1", f"{B}:1", False),
        (f"{A}:2", f"{A}:1:tag:1-3", False),
        (f"{A}:tag:2", f"{A}:1:tag:1-3:other:9", True),
        (f"{A}:1", "", False),
    ],
)
def test_what_a_server_has(text: str, executed: str, there: bool) -> None:
    assert gtid.contains(text, executed) is there


def events() -> bytes:
    statement = b"SET @@SESSION.GTID_NEXT= '%s:%d'/*!*/;\nINSERT %d;\n"
    return (
        b"".join(statement % (A.encode(), number, number) for number in (1, 2, 3))
        + b"DELIMITER ;\n"
    )


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_replay_ends_behind_it(size: int) -> None:
    log = events()
    chunks = [log[at : at + size] for at in range(0, len(log), size)]
    replayed = b"".join(gtid.events_until(chunks, f"{A.upper()}:2"))
    assert replayed.endswith(b"INSERT 2;\n")
    assert b"".join(gtid.events_until(chunks, f"{A}:3")) == log


def test_one_that_is_not_met() -> None:
    with pytest.raises(StoreError, match="is not in the binary logs after the dump"):
        list(gtid.events_until([events()], f"{A}:4"))
