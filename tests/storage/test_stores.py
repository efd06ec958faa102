"""One suite for every store: what the contract says, held by each implementation."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage import local
from tools.base.errors import StoreError
from tools.flow import store

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


def names(made: store.Store, folder: str = "srv") -> list[str]:
    return [entry.name for entry in made.entries(folder)]


def test_what_is_put_is_invisible_until_it_is_published(made: store.Store) -> None:
    made.put("srv/x.000", [b"ab"])
    made.put("srv/y.000", [b"cde"])
    assert names(made) == []
    (x, y) = made.unfinished("srv")
    assert {x.size, y.size} == {2, 3}
    made.publish(["srv/y.000"])
    made.discard(["srv/x.000", "srv/never"])
    assert names(made) == ["srv/y.000"]
    assert list(made.unfinished("srv")) == []
    made.discard(["srv/y.000"])
    assert [entry.size for entry in made.entries("srv")] == [3]


def test_what_never_was_published_can_be_removed_by_another_process(made: store.Store) -> None:
    made.put("srv/x.000", [b"ab"])
    (left,) = made.unfinished("srv")
    assert "x.000" in left.name
    made.remove(left.name)
    made.remove(left.name)
    assert list(made.unfinished("srv")) == []


def test_what_two_put_at_once_only_one_publishes(made: store.Store) -> None:
    made.put("srv/x", [b"first"])
    first = next(iter(made.unfinished("srv")))
    made.publish(["srv/x"])
    assert first.name not in names(made)
    with pytest.raises(StoreError, match="another content"):
        store.keep(made, "srv/x", [b"second"])
    assert b"".join(made.get("srv/x")) == b"first"


def test_the_folders_are_the_hosts(made: store.Store) -> None:
    assert list(made.folders()) == []
    store.keep(made, "srv-2/x", [b""])
    store.keep(made, "srv-1/x", [b""])
    assert list(made.folders()) == ["srv-1", "srv-2"]


def test_what_is_put_is_confirmed_listed_and_given_back(made: store.Store) -> None:
    stored = store.keep(made, "srv/x.000", [b"ab", b"", b"c"])
    assert (stored.size, stored.sha256) == (3, hashlib.sha256(b"abc").hexdigest())
    assert b"".join(made.get("srv/x.000")) == b"abc"
    assert names(made) == ["srv/x.000"]
    assert names(made, "other") == []


@pytest.mark.parametrize("name", ODD)
def test_odd_names(made: store.Store, name: str) -> None:
    store.keep(made, name, [b"x"])
    assert names(made) == [name]
    assert b"".join(made.get(name)) == b"x"


def test_nothing_is_ever_overwritten(made: store.Store) -> None:
    store.keep(made, "srv/x", [b"first"])
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
    assert names(made) == []
    assert list(made.unfinished("srv")) == []


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../x", "a//b", "a/.", "a\0b"])
def test_a_name_leads_nowhere_else(made: store.Store, name: str) -> None:
    with pytest.raises(StoreError, match="cannot be the name"):
        made.put(name, [b"x"])


def test_what_is_not_there_is_said(made: store.Store) -> None:
    with pytest.raises(StoreError, match="not in the store"):
        list(made.get("srv/none"))


def test_an_empty_part_is_a_part(made: store.Store) -> None:
    assert store.keep(made, "srv/x", []).size == 0
    assert b"".join(made.get("srv/x")) == b""
