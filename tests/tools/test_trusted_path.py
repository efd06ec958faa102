"""Root in folders of another user, who puts links in the place of what root opens."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.local_store import LocalStore
from tools.base import trusted_path
from tools.base.errors import StoreError

pytestmark = pytest.mark.needs("root")
NOBODY = 65534
RUN = "srv/20260101_000000.manifest.json"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder of another user; beside it what only root may change."""
    store_folder, private = tmp_path / "store", tmp_path / "private"
    for folder in (store_folder, private, private / "srv"):
        folder.mkdir()
    (private / RUN).write_text("{}")
    os.chown(store_folder, NOBODY, NOBODY)
    return store_folder


def link(path: Path, target: str | Path, owner: int = NOBODY) -> None:
    path.symlink_to(target)
    os.lchown(path, owner, owner)


@pytest.mark.parametrize("target", ["private/srv", "other"])
@pytest.mark.parametrize("link_name", ["srv", "top"])
def test_root_does_nothing_where_a_link_of_another_user_leads(
    tmp_path: Path, store: Path, link_name: str, target: str
) -> None:
    if link_name == "srv":
        link(store / "srv", tmp_path / target)
    else:  # the folder of the store itself
        link(store / "link", (tmp_path / target).parent if target != "other" else "../other")
    local = LocalStore(store if link_name == "srv" else store / "link")
    before = sorted(tmp_path.rglob("*"))
    problems = [
        *map(
            _problem,
            (
                lambda: local.remove([RUN]),
                lambda: local.put("srv/new", [b"x"]),
                lambda: list(local.get(RUN)),
                lambda: local.may_remove("srv"),
                lambda: list(local.entries("srv")),
            ),
        )
    ]
    if target != "other":  # it leads somewhere
        assert all("nobody has made a symbolic link" in one for one in problems)
    assert sorted(tmp_path.rglob("*")) == before


def _problem(act: Callable[[], object]) -> str:
    try:
        act()
    except (OSError, StoreError) as error:
        return str(error)
    return ""


def test_links_that_give_nobody_power_are_followed(tmp_path: Path, store: Path) -> None:
    elsewhere = tmp_path / "disk"
    elsewhere.mkdir()
    link(store / "srv", elsewhere, owner=0)
    local = LocalStore(store)
    local.put("srv/a", [b"content"])
    local.publish(["srv/a"])
    (store / "srv").unlink()
    link(store / "srv", "../disk")
    with pytest.raises(OSError, match="nobody has made a symbolic link"):
        local.remove(["srv/a"])
    os.chown(elsewhere, NOBODY, NOBODY)  # what is theirs they can change themselves
    assert b"".join(local.get("srv/a")) == b"content"
    local.remove(["srv/a"])
    assert not any(elsewhere.iterdir())


@pytest.mark.parametrize("target", ["/etc/shadow", "/dev/null", "loop", "nowhere"])
def test_no_file_of_others_is_read_through_a_link(store: Path, target: str) -> None:
    (store / "srv").mkdir()
    link(store / "srv/note", target)
    link(store / "srv/loop", "loop")
    with pytest.raises((OSError, StoreError)):
        list(LocalStore(store).get("srv/note"))
    with pytest.raises(OSError, match=str(store)):
        trusted_path.file(store / "srv/note", os.O_RDONLY)


def test_a_fifo_is_not_waited_for(store: Path) -> None:
    os.mkfifo(store / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        trusted_path.file(store / "pipe", os.O_RDONLY)


_SWAP = 'echo; while mv -T "$1" "$2" && ln -s "$3" "$1" && rm "$1" && mv -T "$2" "$1"; do :; done'


@pytest.fixture
def swapping(tmp_path: Path, store: Path) -> Iterator[None]:
    """Another user swaps the folder of the host for a link, again and again."""
    (store / "srv").mkdir()
    os.chown(store / "srv", NOBODY, NOBODY)
    modes = {one: stat.S_IMODE(one.stat().st_mode) for one in (tmp_path, *tmp_path.parents)}
    for one, mode in modes.items():
        one.chmod(mode | 0o011)
    paths = store / "srv", store / "aside", tmp_path / "private/srv"
    with subprocess.Popen(
        ["/bin/sh", "-c", _SWAP, "swap", *paths],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        stdout=subprocess.PIPE,
    ) as swapper:
        assert swapper.stdout is not None
        assert swapper.stdout.readline() == b"\n"
        yield
        assert swapper.poll() is None
        swapper.kill()
    for one, mode in modes.items():
        one.chmod(mode)


@pytest.mark.usefixtures("swapping")
def test_a_race_wins_nothing(tmp_path: Path, store: Path) -> None:
    kept = tmp_path / "private" / RUN
    local, rejected, deadline = LocalStore(store), 0, time.monotonic() + 60
    while rejected < 10 and time.monotonic() < deadline:
        problem = _problem(lambda: local.remove([RUN])) + _problem(lambda: local.may_remove("srv"))
        rejected += "nobody has made" in problem
    assert rejected
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
