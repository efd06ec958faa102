"""The disk space of replaced files is freed by other threads than the one that moves files."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

import pytest

from restore import merging, replaced_files
from tools.base import lock
from tools.base.errors import StoreError

COUNT = 100


def trees(tmp_path: Path) -> tuple[Path, Path]:
    """Return a folder that was restored and one with the same names, and one more in it."""
    source, goal = tmp_path / "source", tmp_path / "goal"
    for top in (source, goal):
        (top / "sub").mkdir(parents=True)
        for number in range(COUNT):
            (top / "sub" / f"{number:03}").write_text(f"{top.name} {number}")
    (source / "new").write_text("new")
    (goal / "link").symlink_to("nowhere")
    os.mkfifo(goal / "fifo")
    for name in ("link", "fifo"):
        (source / name).write_text("file")
    return source, goal


def open_descriptors() -> list[int]:
    return sorted(int(path.name) for path in Path("/proc/self/fd").iterdir())


def check_merged(goal: Path) -> None:
    assert [(goal / "sub" / f"{n:03}").read_text() for n in range(COUNT)] == [
        f"source {n}" for n in range(COUNT)
    ]
    assert {name: (goal / name).read_text() for name in ("new", "link", "fifo")} == {
        "new": "new",
        "link": "file",
        "fifo": "file",
    }


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first file tell that replacing files takes long."""
    monkeypatch.setattr(replaced_files, "_WINDOW", 1)
    monkeypatch.setattr(replaced_files, "_SLOW", 0)


@pytest.fixture
def freed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list that gets, for each file without a name that is closed, whether we did it."""
    closed: list[bool] = []
    close = os.close

    def watch(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name.endswith(" (deleted)"):
            closed.append(threading.current_thread() is threading.main_thread())
        close(descriptor)

    monkeypatch.setattr(os, "close", watch)
    return closed


def test_nothing_is_held_where_replacing_is_fast(
    tmp_path: Path, freed: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaced_files, "_SLOW", 60)
    source, goal = trees(tmp_path)
    merging.merge(source, goal, (), overwrite=True)
    assert freed == []
    check_merged(goal)


@pytest.mark.usefixtures("slow")
def test_replaced_files_are_freed_by_other_threads(tmp_path: Path, freed: list[bool]) -> None:
    source, goal = trees(tmp_path)
    before = open_descriptors()
    merging.merge(source, goal, (), overwrite=True)
    assert open_descriptors() == before
    assert len(freed) == COUNT + 1  # all but the first
    assert sum(freed) <= 8  # the last ones
    check_merged(goal)


@pytest.mark.usefixtures("slow")
def test_nothing_is_held_on_a_network_file_system(
    tmp_path: Path, freed: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS gives a held file another name, which stays if the machine crashes."""
    monkeypatch.setattr(lock, "_NETWORK", (lock._file_system_of(tmp_path),))
    source, goal = trees(tmp_path)
    merging.merge(source, goal, (), overwrite=True)
    assert freed == []
    check_merged(goal)


@pytest.mark.usefixtures("slow")
def test_nothing_is_held_where_few_descriptors_are_allowed(
    tmp_path: Path, freed: list[bool]
) -> None:
    source, goal = trees(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_descriptors()) + 10, limits[1]))
    try:
        merging.merge(source, goal, (), overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert freed == []
    check_merged(goal)


@pytest.mark.usefixtures("slow")
def test_an_error_on_the_way_leaves_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, goal = trees(tmp_path)
    before = open_descriptors()
    rename = os.rename

    def fail(name: bytes, new: bytes, **folders: int) -> None:
        if name == b"050":
            raise PermissionError(1, "Operation not permitted")
        rename(name, new, **folders)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(StoreError, match="050: cannot be replaced"):
        merging.merge(source, goal, (), overwrite=True)
    assert open_descriptors() == before
    assert (goal / "sub/049").read_text() == "source 49"
    assert (goal / "sub/050").read_text() == "goal 50"
