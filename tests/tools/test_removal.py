"""Trees are removed at any depth; private folders outlive no process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tools import filesystem_handling
from tools.base import project, removal


def deep(top: Path, levels: int) -> None:
    """A folder in a folder in a folder: its path is longer than any that the system takes."""
    here = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def test_a_tree_of_5000_levels_goes(tmp_path: Path) -> None:
    """Issue 11 A10: shutil.rmtree raised RecursionError at 3,000 levels, and left all of it."""
    top = tmp_path / "top"
    top.mkdir()
    deep(top, 5000)
    filesystem_handling.remove(top)
    assert not top.exists()


def test_links_are_removed_and_never_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    top = tmp_path / "top"
    (top / "shut/in").mkdir(parents=True)
    (top / "link").symlink_to(kept)
    (top / "shut/in/link").symlink_to(kept / "file")
    (top / "shut").chmod(0)
    removal.tree(top)
    assert not top.exists()
    assert (kept / "file").exists()
    removal.tree(top)  # a missing one is no error
    (tmp_path / "link").symlink_to(kept)
    removal.tree(tmp_path / "link")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]


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
    (left,) = tmp_path.iterdir()
    assert (left / "data").exists()
    for name in ("x-mine", f"y-{'0' * 16}", f"x-{'0' * 15}"):
        (tmp_path / name).mkdir()
    assert removal.sweep(tmp_path, "x-") == [left]
    assert len(list(tmp_path.iterdir())) == 3
