"""What was restored takes its place among what is there."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from restore import file_status, merging
from tools import filesystem_handling
from tools.base import removal
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
    os.setxattr(goal / "srv", "user.kept", b"x")
    os.utime(goal / "srv", (5, 5))
    merging.merge(source, goal, {b"srv"}, overwrite=True)
    status = (goal / "srv").stat()
    assert (status.st_uid, status.st_mode & 0o7777, status.st_mtime) == (33, 0o1777, 5)
    assert os.getxattr(goal / "srv", "user.kept") == b"x"
    assert (goal / "srv/site").exists()


def test_every_conflict_is_named_before_anything_is_moved(tmp_path: Path) -> None:
    """Trials 7 C2: what sorted before the first conflict was replaced, the rest was not."""
    source, goal = trees(tmp_path)
    for name in ("a", "b", "c", "d"):
        (source / name).write_text("new")
    (goal / "a").write_text("old")
    (goal / "b").mkdir()
    (goal / "c").mkdir()
    with pytest.raises(BackupError, match=r"goal/b, .*goal/c: exists and is"):
        merging.merge(source, goal, (), overwrite=True)
    assert (goal / "a").read_text() == "old"
    assert not (goal / "d").exists()
    with pytest.raises(BackupError, match=r"goal/a: already exists; .*goal/b, "):
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


@pytest.mark.slow
def test_a_tree_of_2000_levels_is_merged(tmp_path: Path) -> None:
    """Trials 7 C3: RecursionError at about 1,000 levels, half moved."""
    source, goal = trees(tmp_path)
    for top, name in ((source, "new"), (goal, "old")):
        here = os.open(top, os.O_RDONLY)
        for _ in range(2000):
            os.mkdir("d", dir_fd=here)
            child = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = child
        os.close(os.open(name, os.O_CREAT, dir_fd=here))
        os.close(here)
    merging.merge(source, goal, (), overwrite=True)
    here = os.open(goal, os.O_RDONLY)
    for _ in range(2000):
        child = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = child
    with os.scandir(here) as entries:
        assert sorted(entry.name for entry in entries) == ["new", "old"]
    os.close(here)
    removal.tree(source)  # pytest's own removal of tmp_path recurses
    removal.tree(goal)


@contextlib.contextmanager
def ordinary_user() -> Iterator[Path]:
    """Give a folder that any user may write, and the rights of an ordinary user."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        try:
            os.seteuid(54321)
            yield Path(folder)
        finally:
            os.seteuid(0)


@pytest.mark.needs("root")
def test_a_folder_that_is_closed_to_the_user_is_named() -> None:
    """Issue 11 A10: it was a bare "Permission denied: b'closed'"."""
    with ordinary_user() as folder:
        source, goal = trees(folder)
        (source / "closed").mkdir()
        (source / "closed/file").touch()
        os.seteuid(0)
        (goal / "closed").mkdir(mode=0o755)
        (goal / "shut").mkdir(mode=0o700)
        os.seteuid(54321)
        (source / "shut").mkdir()
        for top in (source, goal):
            (top / "dark").mkdir()
            (top / "dark").chmod(0o400)
        with pytest.raises(
            BackupError, match=r"goal/closed, .*goal/dark, .*goal/shut: cannot be"
        ) as error:
            merging.merge(source, goal, (), overwrite=True)
    assert "Restore as root" in error.value.hint


@pytest.mark.needs("root")
def test_a_folder_that_its_owner_may_not_write_is_merged_and_moved() -> None:
    """Trials 7 C1: an ordinary user could not replace anything in a folder of mode 0555."""
    with ordinary_user() as folder:
        source, goal = trees(folder)
        for top in (source, goal):
            (top / "a/both").mkdir(parents=True)
            (top / "a/both/file").write_text(top.name)
        (source / "a/new").mkdir()
        (source / "a/new/file").touch()
        for name in ("a/both", "a/new", "a"):
            (source / name).chmod(0o555)
        (goal / "a/both").chmod(0o500)
        assert merging.merge(source, goal, (), overwrite=True) == ()
        assert (goal / "a/both/file").read_text() == "source"
        assert [(goal / name).stat().st_mode & 0o777 for name in ("a", "a/both", "a/new")] == [
            0o555
        ] * 3


@pytest.mark.needs("root")
def test_a_folder_of_another_user_keeps_its_owner_and_is_named() -> None:
    """What an ordinary user cannot set is named, and everything else is set."""
    with ordinary_user() as folder:
        source, goal = trees(folder)
        for name in ("implied", "stored"):
            (source / name).mkdir()
            (source / name / "file").touch()
        os.seteuid(0)
        for name in ("implied", "stored"):
            (goal / name).mkdir()
            (goal / name).chmod(0o777)
            os.utime(goal / name, (5, 5))
        os.seteuid(54321)
        lines = merging.merge(source, goal, {b"implied"}, overwrite=True)
        assert (goal / "stored/file").exists()
        status = (goal / "stored").stat()
        assert (status.st_uid, status.st_mode & 0o777) == (0, 0o777)
    assert [line.split(": ")[:3] for line in lines] == [
        ["stored", "differs from the backup", "mode"],
        ["stored", "differs from the backup", "times"],
    ]


@contextlib.contextmanager
def mounted(*arguments: str | Path) -> Iterator[None]:
    subprocess.run(["mount", *map(str, arguments)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(arguments[-1])], check=True)


@pytest.mark.needs("root")
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_what_belongs_below_a_mount_point_is_copied(tmp_path: Path, kind: str) -> None:
    """Trials 7 C2: EXDEV half-way, with two raw paths."""
    source, goal = trees(tmp_path)
    other = tmp_path / "other"
    for folder in (source / "a/mnt/sub", goal / "a/mnt/sub", other / "sub"):
        folder.mkdir(parents=True)
    (source / "a/mnt/sub/file").write_text("new")
    (source / "a/mnt/sub").chmod(0o2750)
    (source / "a/mnt").chmod(0o711)
    for name in ("a/mnt/second", "outside"):
        os.link(source / "a/mnt/sub/file", source / name)
    os.chown(source / "a/mnt/second", 12, 34)
    os.utime(source / "a/mnt/sub", (1_000_000_000, 1_000_000_000))
    options = ["-t", "tmpfs", "tmpfs"] if kind == "tmpfs" else ["--bind", other]
    with mounted(*options, goal / "a/mnt"):
        (goal / "a/mnt/sub").mkdir(exist_ok=True)
        (goal / "a/mnt/sub/file").write_text("old")
        (goal / "a/mnt/kept").write_text("kept")
        lines = merging.merge(source, goal, (), overwrite=True)
        file, second = goal / "a/mnt/sub/file", goal / "a/mnt/second"
        assert (file.read_text(), file.stat().st_uid, file.stat().st_gid) == ("new", 12, 34)
        assert second.stat().st_ino == file.stat().st_ino
        assert (goal / "a/mnt/sub").stat().st_mode & 0o7777 == 0o2750
        assert (goal / "a/mnt/sub").stat().st_mtime == 1_000_000_000
        assert (goal / "a/mnt").stat().st_mode & 0o7777 == 0o711
        assert sorted(path.name for path in (goal / "a/mnt").iterdir()) == ["kept", "second", "sub"]
    assert (goal / "outside").read_text() == "new"
    assert len(lines) == 1
    assert lines[0].endswith("a hard link cannot lead to another file system")


@pytest.mark.needs("root")
def test_mount_points_and_read_only_mounts_are_conflicts(tmp_path: Path) -> None:
    """Trials 7 C2: EBUSY and EROFS half-way; with the conflicts of other kinds in one message."""
    source, goal = trees(tmp_path)
    (source / "ro").mkdir()
    for name in ("a", "file", "ro/x", "ro/y"):
        (source / name).write_text("new")
    for name in ("a", "file"):
        (goal / name).write_text("old")
    (goal / "ro").mkdir()
    with (
        mounted("-t", "tmpfs", "-o", "ro", "tmpfs", goal / "ro"),
        mounted("--bind", source / "file", goal / "file"),
        pytest.raises(BackupError) as error,
    ):
        merging.merge(source, goal, (), overwrite=True)
    text = str(error.value).replace(str(goal), "GOAL")
    assert text == (
        "DESTINATION: GOAL/file: is a mount point; GOAL/ro: is on a read-only file system"
    )
    assert "umount" in error.value.hint
    assert "remount,rw" in error.value.hint
    assert (goal / "a").read_text() == "old"


@pytest.mark.needs("root", "chattr")
def test_immutable_files_and_folders_are_conflicts(tmp_path: Path) -> None:
    """Trials 7 C2: EPERM half-way."""
    source, goal = trees(tmp_path)
    for top in (source, goal):
        (top / "folder").mkdir()
        for name in ("a", "append", "file", "folder/x"):
            (top / name).write_text(top.name)
    flags = (("append", "a"), ("file", "i"), ("folder", "i"))
    try:
        for name, flag in flags:
            command = ["chattr", f"+{flag}", str(goal / name)]
            if subprocess.run(command, check=False, capture_output=True).returncode:
                pytest.skip("this file system has no chattr +i")
        with pytest.raises(BackupError, match="immutable") as error:
            merging.merge(source, goal, (), overwrite=True)
    finally:
        for name, flag in flags:
            subprocess.run(["chattr", f"-{flag}", str(goal / name)], check=False)
    for name, _ in flags:
        assert f"{goal}/{name}" in str(error.value)
    assert "chattr -i" in error.value.hint
    assert (goal / "a").read_text() == "goal"


@pytest.mark.needs("root")
def test_the_file_of_another_user_in_a_sticky_folder_is_a_conflict() -> None:
    """The kernel lets nobody else replace it: /tmp."""
    with ordinary_user() as folder:
        source, goal = trees(folder)
        (source / "sticky").mkdir()
        (source / "sticky/file").touch()
        os.seteuid(0)
        (goal / "sticky").mkdir()
        (goal / "sticky").chmod(0o1777)
        (goal / "sticky/file").touch()
        os.seteuid(54321)
        with pytest.raises(BackupError, match="file: belongs to another user"):
            merging.merge(source, goal, (), overwrite=True)


def test_of_many_conflicts_the_first_are_named_and_all_are_counted(tmp_path: Path) -> None:
    source, goal = trees(tmp_path)
    for number in range(50):
        (source / f"{number:02}").touch()
        (goal / f"{number:02}").mkdir()
    with pytest.raises(BackupError, match=r"goal/19: exists .*; and 30 more$"):
        merging.merge(source, goal, (), overwrite=True)


def test_the_status_of_a_name_without_statx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old C library: lstat(2) gives the same for what it knows."""
    (tmp_path / "file").touch()
    with removal.opened(tmp_path) as folder:
        modern = [file_status.status(name, folder) for name in (b"file", b"none")]
        monkeypatch.setattr(file_status, "_statx", None)
        assert [file_status.status(name, folder) for name in (b"file", b"none")] == modern
    assert modern[1] is None


@pytest.mark.parametrize("there", [True, False])
def test_what_replaces_files_is_on_the_disk_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """A power cut must not leave a file of zeros in the place of one that was whole."""
    source, goal = trees(tmp_path)
    (source / "a").write_text("new")
    (goal / ("a" if there else "b")).write_text("old")
    synced: list[Path] = []

    def sync(folder: Path) -> None:
        assert (goal / "a").read_text() == "old"
        synced.append(folder)
        filesystem_handling.sync_folder(folder)

    monkeypatch.setattr(filesystem_handling, "sync_file_system", sync)
    merging.merge(source, goal, (), overwrite=True)
    assert synced == ([source] if there else [])
    assert (goal / "a").read_text() == "new"


def test_a_sync_that_fails_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, goal = trees(tmp_path)
    for top in (source, goal):
        (top / "a").write_text(top.name)
    monkeypatch.setattr(filesystem_handling._libc, "syncfs", lambda _descriptor: -1)
    with pytest.raises(OSError, match=re.escape(str(source))):
        merging.merge(source, goal, (), overwrite=True)
    assert (goal / "a").read_text() == "goal"


def test_a_folder_that_is_replaced_by_a_link_changes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner of the destination put a link where a folder of mode 0077 had just come."""
    source, goal = trees(tmp_path)
    (source / "sub").mkdir()
    (source / "sub").chmod(0o077)
    victim = tmp_path / "victim"
    victim.touch(0o600)
    rename = os.rename

    def attacked(old: bytes, new: bytes, **folders: int) -> None:
        rename(old, new, **folders)
        rename(goal / "sub", tmp_path / "away")
        (goal / "sub").symlink_to(victim)

    monkeypatch.setattr(os, "rename", attacked)
    merging.merge(source, goal, (), overwrite=True)
    assert victim.stat().st_mode & 0o7777 == 0o600
    assert (tmp_path / "away").stat().st_mode & 0o7777 == 0o077
