from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tools import size_calculation
from tools.base.errors import SourceError
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


def test_a_missing_target_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SourceError, match="none does not exist"):
        measured(TARGETS=str(tmp_path / "none"))
    assert "none does not exist" in caplog.text


def test_files_that_vanish_meanwhile_count_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stays").write_bytes(b"x" * 7)
    paths = [tmp_path / "gone", tmp_path / "stays"]
    monkeypatch.setattr(size_calculation, "_files", lambda _target: iter(paths))
    assert size_calculation.size((tmp_path,)) == 7


def test_links_and_unfinished_files_count_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"x" * 9)
    (tmp_path / "folder/link").symlink_to(tmp_path / "file")
    (tmp_path / "folder/dangling").symlink_to("nowhere")
    (tmp_path / "folder/.a.part-12345678").write_bytes(b"x")
    os.mkfifo(tmp_path / "folder/fifo")
    (tmp_path / "to").symlink_to(tmp_path / "file")
    assert measured(TARGETS=str(tmp_path / "folder")) == 0
    assert measured(TARGETS=[str(tmp_path / "to")]) == 9
