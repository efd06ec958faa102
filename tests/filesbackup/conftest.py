"""Trees to back up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.filesets import difficult


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return difficult(tmp_path / "tree")


@pytest.fixture
def linked(tree: Path, tmp_path: Path) -> Path:
    """The tree, reached over a link among its parents, with a key in it."""
    (tree / "keys").mkdir()
    (tree / "keys/key [1]\\*").write_text("secret")
    (tmp_path / "way").symlink_to(tmp_path)
    return tmp_path / "way" / tree.name
