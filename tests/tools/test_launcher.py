"""How commands go on in the private environment, and what is said without it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.base import project
from tools.setup import environment, project_checks


def test_a_broken_environment_is_left_alone(tmp_path: Path) -> None:
    """Without pyvenv.cfg its python is the system's own: going on there would never end."""
    (tmp_path / "tools/base").mkdir(parents=True)
    for name in ("launcher.py", "errors.py"):
        shutil.copy(project.ROOT / "tools/base" / name, tmp_path / "tools/base" / name)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    base = Path(sys.base_prefix) / "bin/python3"
    (tmp_path / ".venv/bin/python").symlink_to(base)
    code = "from tools.base import launcher; launcher.enter(); print('here')"
    for configured in (False, True):
        if configured:
            (tmp_path / ".venv/pyvenv.cfg").write_text("")
        done = subprocess.run(
            [str(base), "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.stdout == "here\n", done.stderr


@pytest.mark.needs("root", "setpriv", "/usr/bin/python3")
def test_an_environment_out_of_reach_is_no_traceback(tmp_path: Path) -> None:
    """Issue 11 A3 (trials A13): root had made .venv with a Python that only root can reach."""
    (tmp_path / "tools/base").mkdir(parents=True)
    for name in ("launcher.py", "errors.py"):
        shutil.copy(project.ROOT / "tools/base" / name, tmp_path / "tools/base" / name)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "python").symlink_to("/usr/bin/python3")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/pyvenv.cfg").write_text("")
    (tmp_path / ".venv/bin/python").symlink_to(hidden / "python")
    for place in (tmp_path, *tmp_path.parents, *tmp_path.rglob("*")):
        if not place.is_symlink():
            place.chmod(place.stat().st_mode | 0o055)
    hidden.chmod(0o700)
    code = (
        "from tools.base import launcher\nlauncher.enter()\ntry:\n with launcher.packages():\n"
        "  import cryptography\nexcept launcher.ConfigError as error: print(error)\n"
        "else: print('there')"
    )
    argv = [
        "setpriv",
        "--reuid",
        "65534",
        "--clear-groups",
        "/usr/bin/python3",
        "-S",
        "-B",
        "-c",
        code,
    ]
    done = subprocess.run(
        argv,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Python packages cryptography" in done.stdout
    assert ".venv/bin/python cannot be started by this user" in done.stdout


def test_the_packages_of_unit_tests_are_those_of_dev() -> None:
    """Each is named as in pyproject.toml, or the tests under other Pythons would lack it."""
    assert set(project_checks._UNIT) <= set(environment.requirements("dev"))
