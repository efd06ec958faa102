"""The demo of setup.py, which compares what it restores, and what standard programs restore."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from tools.setup import demo


@pytest.mark.slow
@pytest.mark.needs("age", "zstd", "tar")
def test_the_demo_runs_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert demo.demo(Path(sys.executable)) == 0
    output = capsys.readouterr().out
    assert "links and sparse files are identical" in output
    assert "the same files, all identical" in output
