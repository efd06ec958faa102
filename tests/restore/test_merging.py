"""What was restored takes its place among what is there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from restore import merging
from tools.base.errors import BackupError


def trees(tmp_path: Path) -> tuple[Path, Path]:
    source, goal = tmp_path / "source", tmp_path / "goal"
    source.mkdir()
    goal.mkdir()
    return source, goal


@pytest.mark.needs("root")
def test_folders_that_are_there_get_owner_mode_and_times(tmp_path: Path) -> None:
    """Trials 7 A1: root:root, mtime now and stale attributes stayed, exit 0."""
    source, goal = trees(tmp_path)
    for top in (source, goal):
        (top / "sub").mkdir()
    (source / "sub/file").write_text("new")
    (goal / "sub/file").write_text("old")
    (goal / "sub/other").write_text("kept")
    os.setxattr(goal / "sub", "user.stale", b"x")
    os.setxattr(source / "sub", "user.ours", b"x")
    (source / "sub").chmod(0o2751)
    os.chown(source / "sub", 777, 888)
    (source / "sub").chmod(0o2751)
    os.utime(source / "sub", (1_000_000_000, 1_000_000_000))
    assert merging.merge(source, goal, (), overwrite=True) == ()
    status = (goal / "sub").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (777, 888, 0o2751)
    assert status.st_mtime == 1_000_000_000
    assert os.listxattr(goal / "sub") == ["user.ours"]
    assert (goal / "sub/file").read_text() == "new"
    assert (goal / "sub/other").read_text() == "kept"


@pytest.mark.needs("root")
def test_folders_that_only_stand_in_paths_stay_as_they_are(tmp_path: Path) -> None:
    """Trials 7 A2: /srv became 0700 when only /srv/www/site was restored."""
    source, goal = trees(tmp_path)
    (source / "srv").mkdir(mode=0o700)
    (source / "srv/site").write_text("x")
    (goal / "srv").mkdir()
    (goal / "srv").chmod(0o1777)
    os.chown(goal / "srv", 33, 33)
    os.utime(goal / "srv", (5, 5))
    merging.merge(source, goal, {b"srv"}, overwrite=True)
    status = (goal / "srv").stat()
    assert (status.st_uid, status.st_mode & 0o7777, status.st_mtime) == (33, 0o1777, 5)
    assert (goal / "srv/site").exists()


def test_every_conflict_is_named_before_anything_is_moved(tmp_path: Path) -> None:
    """Trials 7 C2: what sorted before the first conflict was replaced, the rest was not."""
    source, goal = trees(tmp_path)
    for name in ("a", "b", "c", "d"):
        (source / name).write_text("new")
    (goal / "a").write_text("old")
    (goal / "b").mkdir()
    (goal / "c").mkdir()
    with pytest.raises(BackupError, match=r"goal/b, .*goal/c exists and is"):
        merging.merge(source, goal, (), overwrite=True)
    assert (goal / "a").read_text() == "old"
    assert not (goal / "d").exists()
    with pytest.raises(BackupError, match=r"goal/a, .*goal/b"):
        merging.merge(source, goal, (), overwrite=False)


def test_a_symbolic_link_in_the_place_of_a_folder_is_never_followed(tmp_path: Path) -> None:
    source, goal = trees(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (source / "sub").mkdir()
    (source / "sub/file").write_text("x")
    (goal / "sub").symlink_to(elsewhere)
    with pytest.raises(BackupError, match="goal/sub"):
        merging.merge(source, goal, (), overwrite=True)
    assert not list(elsewhere.iterdir())


def test_a_tree_of_2000_levels_is_merged(tmp_path: Path) -> None:
    """Trials 7 C3: RecursionError at about 1,000 levels, half moved."""
    source, goal = trees(tmp_path)
    for top, name in ((source, "new"), (goal, "old")):
        here = os.open(top, os.O_RDONLY)
        for _ in range(2000):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open(name, os.O_CREAT, dir_fd=here))
        os.close(here)
    merging.merge(source, goal, (), overwrite=True)
    here = os.open(goal, os.O_RDONLY)
    for _ in range(2000):
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    with os.scandir(here) as entries:
        assert sorted(entry.name for entry in entries) == ["new", "old"]
    os.close(here)
    from tools.base import removal  # pytest's own removal of tmp_path recurses

    removal.tree(source)
    removal.tree(goal)


@pytest.mark.needs("root")
def test_a_folder_that_is_closed_to_the_user_is_named() -> None:
    """Issue 11 A10: it was a bare "Permission denied: b'closed'"."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for name in ("source", "goal"):
            (Path(folder) / name / "closed").mkdir(parents=True)
            (Path(folder) / name / "closed").chmod(0)
        try:
            os.seteuid(54321)
            with pytest.raises(BackupError, match="goal/closed: cannot be merged") as found:
                merging.merge(Path(folder) / "source", Path(folder) / "goal", (), overwrite=True)
        finally:
            os.seteuid(0)
    assert "Restore as root" in found.value.hint
