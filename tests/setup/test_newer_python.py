"""setup.py with an old `python3`: it goes on with a newer one, or says what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.base import project
from tools.setup import newer_python

PYENV = Path.home() / ".pyenv/versions"
ALONE = """
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, {root!r})
from tools.setup import newer_python
newer_python.candidates = lambda: []
newer_python.go_on(["setup.py"])
"""


def old(version: str) -> str:
    """Return an old Python of pyenv; the test is skipped without it."""
    pythons = sorted(PYENV.glob(f"{version}.*/bin/python"))
    if not pythons:
        pytest.skip(f"no Python {version} in ~/.pyenv/versions")
    return str(pythons[-1])


@pytest.mark.slow
@pytest.mark.parametrize("version", ["2.7", "3.6", "3.9"])
def test_an_old_python_goes_on_or_says_what_to_install(version: str, tmp_path: Path) -> None:
    # one of pyenv that only says that its version is not there, and the Python of this test
    (tmp_path / "python3.14").write_text("#!/bin/sh\nexit 127\n")
    (tmp_path / "python3.14").chmod(0o755)
    (tmp_path / "python3.13").symlink_to(sys.executable)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [old(version), str(project.ROOT / "setup.py"), "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, f"going on with {tmp_path}/python3.13\n")
    assert done.stdout.startswith("usage: python3 setup.py")
    command = [old(version), "-c", ALONE.format(root=str(project.ROOT))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    error, hint = done.stderr.splitlines()
    assert error == f"error: nc-backup-py needs Python 3.10 or later, and this is {version}"
    assert "apt install python3.11 python3.11-venv" in hint
    assert (done.returncode, done.stdout) == (2, "")


def test_the_newest_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("python3.9", "python3.10", "python3.13", "python3.99"):
        (tmp_path / name).symlink_to(sys.executable)
    (tmp_path / "python3.12").write_text("")  # cannot be executed
    monkeypatch.setattr(newer_python, "_FOLDERS", ())
    monkeypatch.setenv("PATH", f"relative:{tmp_path}::{tmp_path}")
    assert newer_python.candidates() == [f"{tmp_path}/python3.13", f"{tmp_path}/python3.10"]
