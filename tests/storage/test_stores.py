"""One suite for every store: what the contract says, held by each implementation."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tools import plugin
from tools.errors import StoreError

if TYPE_CHECKING:
    from storage import store
local = plugin.load("storage/local.py")

ODD = (
    "srv/a b",
    "srv/new\nline",
    "srv/-rf",
    "srv/quo'te\"",
    os.fsdecode(b"srv/\xff\xfe"),
    "srv/$(id)",
)


@pytest.fixture(params=["local"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> store.Store:
    makers: dict[str, Callable[[], store.Store]] = {
        "local": lambda: local.LocalStore(tmp_path / "store")
    }
    return makers[request.param]()


def test_what_is_put_is_confirmed_listed_and_given_back(made: store.Store) -> None:
    stored = made.put("srv/x.000", [b"ab", b"", b"c"])
    assert (stored.size, stored.sha256) == (3, hashlib.sha256(b"abc").hexdigest())
    assert b"".join(made.get("srv/x.000")) == b"abc"
    assert list(made.names("srv")) == ["srv/x.000"]
    assert list(made.names("other")) == []


@pytest.mark.parametrize("name", ODD)
def test_odd_names(made: store.Store, name: str) -> None:
    made.put(name, [b"x"])
    assert list(made.names("srv")) == [name]
    assert b"".join(made.get(name)) == b"x"


def test_nothing_is_ever_overwritten(made: store.Store) -> None:
    made.put("srv/x", [b"first"])
    assert made.put("srv/x", [b"fir", b"st"]).size == 5
    with pytest.raises(StoreError, match="another content"):
        made.put("srv/x", [b"second"])
    assert b"".join(made.get("srv/x")) == b"first"


def test_a_source_that_raises_leaves_nothing(made: store.Store) -> None:
    def failing() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        made.put("srv/x", failing())
    assert list(made.names("srv")) == []


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../x", "a//b", "a/.", "a\0b"])
def test_a_name_leads_nowhere_else(made: store.Store, name: str) -> None:
    with pytest.raises(StoreError, match="cannot be the name"):
        made.put(name, [b"x"])


def test_what_is_not_there_is_said(made: store.Store) -> None:
    with pytest.raises(StoreError, match="not in the store"):
        list(made.get("srv/none"))


def test_an_empty_part_is_a_part(made: store.Store) -> None:
    assert made.put("srv/x", []).size == 0
    assert b"".join(made.get("srv/x")) == b""
