"""Trees are removed at any depth; private folders outlive no process."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tools import filesystem_handling
from tools.base import project, removal, signals
from tools.base.errors import Cancelled


def deep(top: Path, levels: int) -> None:
    """A folder in a folder in a folder: its path is longer than any that the system takes."""
    here = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        child = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = child
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


@pytest.mark.slow
def test_a_tree_of_5000_levels_goes(tmp_path: Path) -> None:
    """Issue 11 A10: shutil.rmtree raised RecursionError at 3,000 levels, and left all of it."""
    top = tmp_path / "top"
    top.mkdir()
    deep(top, 5000)
    filesystem_handling.remove(top)
    assert not top.exists()


def test_links_are_removed_and_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "kept"
    outside.mkdir()
    (outside / "file").touch()
    top = tmp_path / "top"
    (top / "shut/in").mkdir(parents=True)
    (top / "link").symlink_to(outside)
    (top / "shut/in/link").symlink_to(outside / "file")
    (top / "shut").chmod(0)
    removal.tree(top)
    assert not top.exists()
    assert (outside / "file").exists()
    removal.tree(top)  # a missing one is no error
    (tmp_path / "link").symlink_to(outside)
    removal.tree(tmp_path / "link")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]


def test_a_closed_folder_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir(mode=0o500)
    (tmp_path / "link").symlink_to("other")
    (tmp_path / "closed").mkdir(mode=0o000)
    with removal.opened(tmp_path) as parent:
        removal._make_writable("closed", parent)
        with pytest.raises(NotADirectoryError):
            removal._make_writable("link", parent)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("other", "closed")]
    assert modes == [0o500, 0o700]


def test_a_private_folder_goes_at_the_end_and_is_not_swept_before(tmp_path: Path) -> None:
    with removal.private(tmp_path, "x-") as folder:
        (folder / "file").touch()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert removal.sweep(tmp_path, "x-") == []
        assert (folder / "file").exists()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    """Issue 11 A10: scratch folders of killed restores; nothing with another name or owner."""
    code = (
        f"import os, sys; sys.path.insert(0, {str(project.ROOT)!r}); from pathlib import Path; "
        "from tools.base import removal\n"
        f"with removal.private(Path({str(tmp_path)!r}), 'x-') as f:\n"
        "    (f / 'data').touch(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    (leftover,) = tmp_path.iterdir()
    assert (leftover / "data").exists()
    unlocked = tmp_path / f"x-{'1' * 16}.new"  # killed before it was locked
    unlocked.mkdir()
    for name in ("x-mine", f"y-{'0' * 16}", f"x-{'0' * 15}"):
        (tmp_path / name).mkdir()
    assert sorted(removal.sweep(tmp_path, "x-")) == sorted([leftover, unlocked])
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_that_is_swept_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 13: a sweep of the unlocked name must not fail the process that makes it."""
    swept: list[str] = []
    flock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        if not swept:
            swept.append("")
            swept[:] = map(str, removal.sweep(tmp_path, "x-"))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with removal.private(tmp_path, "x-") as folder:
        assert swept[0].endswith(".new")
        assert list(tmp_path.iterdir()) == [folder]
        assert removal.sweep(tmp_path, "x-") == []
    assert list(tmp_path.iterdir()) == []


def _signalled(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """Let a signal come as soon as this function of `removal` has done its work."""
    real = getattr(removal, function)

    def then_signal(*arguments: object) -> object:
        result = real(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(removal, function, then_signal)
    monkeypatch.setattr(signals, "_deferral", signals._Deferral())


@pytest.mark.parametrize("function", ["_locked", "_emptied"], ids=["made", "emptied"])
def test_a_signal_leaves_no_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """CI: a restore that was cancelled while it removed its staging folder left that folder."""
    _signalled(monkeypatch, function)
    before = {number: signal.getsignal(number) for number in signals._CAUGHT}
    signals.catch()
    try:
        with pytest.raises(Cancelled), removal.private(tmp_path, "x-") as folder:
            (folder / "below").mkdir()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert list(tmp_path.iterdir()) == []
