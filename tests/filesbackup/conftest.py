"""Trees to back up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ODD = ("a b", "quo'te\"", "new\nline", "-rf", "$(id)`id`;|&*?[x]\\n", "\\", "ü" * 100, "x" * 255)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "plain").write_text("plain\n")
    (folder / "plain").chmod(0o640)
    os.utime(folder / "plain", ns=(1_600_000_000_123_456_789,) * 2)
    os.link(folder / "plain", folder / "hard")
    (folder / "link").symlink_to("plain")
    (folder / "dangling").symlink_to("/not/there")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "fifo")
    with (folder / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"middle")
    for name in (*ODD, os.fsdecode(b"\xff\xfe not utf-8")):
        (folder / name).write_text(f"{len(name)}")
    deep = folder
    for _ in range(12):
        deep /= "d" * 200
        deep.mkdir()
    (deep / "bottom").write_text("deep")
    return folder


@pytest.fixture
def linked(tree: Path, tmp_path: Path) -> Path:
    """The tree, reached over a link among its parents, with a key in it."""
    (tree / "keys").mkdir()
    (tree / "keys/key [1]\\*").write_text("secret")
    (tmp_path / "way").symlink_to(tmp_path)
    return tmp_path / "way" / tree.name
