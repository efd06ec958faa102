from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tools.errors import SourceError
from tools.size_calculation import SizeCalculation


def measured(**parameters: object) -> int:
    plug = SizeCalculation(parameters, logging.getLogger("size"))
    plug.config_plugin()
    plug.works_execution()
    return plug.output()


def test_all_files_below_the_targets_count(tmp_path: Path) -> None:
    (tmp_path / "encrypted/sub").mkdir(parents=True)
    (tmp_path / "encrypted/a").write_bytes(b"x" * 10)
    (tmp_path / "encrypted/sub/b").write_bytes(b"x" * 5)
    (tmp_path / "c d").write_bytes(b"x" * 3)
    assert measured(WORK_FOLDER=str(tmp_path)) == 15
    assert measured(TARGETS=[str(tmp_path / "encrypted/sub"), str(tmp_path / "c d")]) == 8
    assert measured(OBJECTIVES=str(tmp_path / "encrypted/a")) == 10


def test_a_missing_target_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="none does not exist"):
        measured(TARGETS=str(tmp_path / "none"))
