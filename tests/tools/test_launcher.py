"""How commands go on in the private environment, and what is said without it."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools.base import entry, environments, project
from tools.setup import environment, project_checks

ROOT = project.ROOT
PYENV = Path.home() / ".pyenv/versions"
START = "launcher.start("
EXECUTABLES = sorted(
    file
    for file in (*ROOT.glob("*.py"), *ROOT.glob("*/*.py"), *ROOT.glob("tools/*/*.py"))
    if file.parts[len(ROOT.parts)] not in ("tests", "docs") and START in file.read_text("utf-8")
)


# Runs executables as if each were started by its path, and prints the exit code of each.
RUN = """
import runpy, sys
for path in sys.argv[1:]:
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        print(end.code)
"""


def python(version: str) -> Path:
    """Return an old Python of pyenv; the test is skipped without it."""
    programs = sorted(PYENV.glob(f"{version}.*/bin/python"))
    if not programs:
        pytest.skip(f"no Python {version} in ~/.pyenv/versions")
    return programs[-1]


def copied(folder: Path) -> Path:
    """Return a copy of what an executable needs before its own code begins, without .venv."""
    names: tuple[str, ...] = ("__init__", "launcher", "environments", "rebuilding", "capability")
    names += ("last_report", "last_config", "bounded_smtp", "release_lock")
    files = [ROOT / "tools/__init__.py", *(ROOT / f"tools/base/{name}.py" for name in names)]
    for file in (*files, *EXECUTABLES):
        target = folder / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    return folder


def started(*command: str | Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("file", EXECUTABLES, ids=lambda file: str(file.relative_to(ROOT)))
def test_old_pythons_can_read_an_executable(file: Path) -> None:
    """Issue 13 A7: they compile all of it before they run the line that goes on in .venv."""
    tree = ast.parse(file.read_text("utf-8"), feature_version=(3, 6))
    futures = [
        n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "__future__"
    ]
    assert not futures, "Python 3.6 does not know annotations of __future__"


def test_python_2_can_read_the_documented_commands(tmp_path: Path) -> None:
    """Issue 13 A7: the documented cron line begins with `python`."""
    folder = copied(tmp_path)
    for name in ("backup.py", "restore/restore.py", "encryption/encryption.py"):
        done = started(python("2.7"), name, "--help", folder=folder)
        assert done.stderr.startswith("error: nc-backup-py needs Python 3.10 or later, and this is")
        assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("version", ["3.6", "3.9"])
@pytest.mark.fault("a Python older than 3.10", "goes on in .venv, or exit 2 in one line")
def test_an_old_python_says_which_one_is_needed(version: str, tmp_path: Path) -> None:
    """Issue 13 A7: sys.orig_argv does not exist before 3.10; one line and a hint."""
    folder = copied(tmp_path)
    files = [folder / file.relative_to(ROOT) for file in EXECUTABLES]
    done = started(python(version), "-c", RUN, *files, folder=folder)
    assert done.stdout.split() == ["2"] * len(files), done.stderr
    lines = done.stderr.splitlines()
    error = f"error: nc-backup-py needs Python 3.10 or later, and this is {version}"
    assert lines[::2] == [error] * len(files)
    assert all(line.startswith("hint: Run setup.py env with a newer one") for line in lines[1::2])


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.9"])
def test_an_old_python_goes_on_in_the_environment(version: str, tmp_path: Path) -> None:
    """Issue 13 A7: with every word of the command line."""
    old, folder = python(version), copied(tmp_path)
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/pyvenv.cfg").write_text("")
    inner = folder / ".venv/bin/python"
    inner.write_text('#!/bin/sh\necho "$@"\n')
    inner.chmod(0o755)
    done = started(old, "backup.py", "-r", "-c", "a b", folder=folder)
    assert (done.stdout, done.stderr) == ("backup.py -r -c a b\n", "")
    inner.write_bytes(b"\x7fELF")  # it can be executed, and is no program
    done = started(old, "backup.py", "-r", folder=folder)
    assert done.stderr.startswith(f"warning: {inner}: Exec format error\n")
    assert "\nerror: nc-backup-py needs Python 3.10 or later" in done.stderr
    assert done.returncode == 2


def test_a_broken_environment_is_left_alone(tmp_path: Path) -> None:
    """Without pyvenv.cfg its python is the system's own: going on there would never end."""
    folder = copied(tmp_path)
    (folder / ".venv/bin").mkdir(parents=True)
    base = Path(sys.base_prefix) / "bin/python3"
    (folder / ".venv/bin/python").symlink_to(base)
    code = "from tools.base import launcher; launcher.enter('.venv'); print('here')"
    for configured in (False, True):
        if configured:
            (folder / ".venv/pyvenv.cfg").write_text("")
        done = started(base, "-c", code.replace(".venv", str(folder / ".venv")), folder=folder)
        assert done.stdout == "here\n", done.stderr


@pytest.mark.needs("root", "setpriv", "/usr/bin/python3")
def test_an_environment_out_of_reach_is_no_traceback(tmp_path: Path) -> None:
    """Issue 11 A3 (trials A13): root had made .venv with a Python that only root can reach."""
    folder = copied(tmp_path)
    for name in ("imports.py", "errors.py", "foreign.py", "masking.py", "project.py"):
        shutil.copy(ROOT / "tools/base" / name, folder / "tools/base" / name)
    hidden = folder / "hidden"
    hidden.mkdir()
    (hidden / "python").symlink_to("/usr/bin/python3")
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/pyvenv.cfg").write_text("")
    (folder / ".venv/bin/python").symlink_to(hidden / "python")
    for path in (folder, *folder.parents, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o055)
    hidden.chmod(0o700)
    code = (
        "from tools.base import imports, launcher\n"
        f"launcher.enter({str(folder / '.venv')!r})\n"
        "try:\n with imports.packages():\n"
        "  import cryptography\nexcept imports.ConfigError as error: print(error, error.hint)\n"
        "else: print('there')"
    )
    user = ["setpriv", "--reuid", "65534", "--clear-groups"]
    done = started(*user, "/usr/bin/python3", "-S", "-B", "-c", code, folder=folder)
    assert done.returncode == 0, done.stderr
    assert "Python packages boto3, cryptography" in done.stdout
    assert ".venv/bin/python cannot be started by this user" in done.stdout
    assert "/setup.py env makes .venv with all of them" in done.stdout
    assert "RECOVERY.txt" in done.stdout


def test_the_packages_are_those_of_the_project() -> None:
    """A missing one is named with the command that installs it."""
    names = {name.partition(">")[0] for name in environment.requirements("dependencies")}
    assert names == set(environments.PACKAGES)


def test_the_packages_of_unit_tests_are_those_of_dev() -> None:
    """Each is named as in pyproject.toml, or the tests under other Pythons would lack it."""
    assert set(project_checks._UNIT) <= set(environment.requirements("dev"))


def test_the_project_is_compiled_for_whoever_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("backup.py", "tools/log.py", ".venv/lib/left.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "_installed", lambda *_arguments: Path(sys.executable))
    os.umask(0o077)
    environment.environment(tmp_path / ".venv", Path(sys.executable))
    compiled = sorted(tmp_path.rglob("*.pyc"))
    assert [file.name.partition(".")[0] for file in compiled] == ["backup", "log"]
    assert all(file.parent.stat().st_mode & 0o055 == 0o055 for file in compiled)


def test_a_python_that_others_cannot_start_is_named(tmp_path: Path) -> None:
    """An environment that the demo made with a Python below /root is kept by `setup.py env`."""
    tmp_path.chmod(0o700)
    (tmp_path / "real").touch()
    (tmp_path / "python").symlink_to(tmp_path / "real")
    closed = environment.closed_folder(tmp_path / "python")
    assert closed is not None
    assert tmp_path.is_relative_to(closed)
    assert environment.closed_folder(Path("/usr/bin/env")) is None


def test_the_text_of_an_exit_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_arguments: Sequence[str]) -> int:
        sys.exit("the pipe ended with exit code 141")

    monkeypatch.setattr(entry, "_loaded", lambda _name, _repair: SimpleNamespace(main=main))
    assert entry._exit_code("benchmarks.any", [], lambda _why: None) == 1
    assert capsys.readouterr().err == "the pipe ended with exit code 141\n"
