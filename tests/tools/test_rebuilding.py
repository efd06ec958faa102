"""An environment that an upgrade of Python has left dead is made again, or the run is reported."""

from __future__ import annotations

import base64
import ensurepip
import hashlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import threading
import time
import timeit
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.brt import ReportServer
from tools.base import environments, project, rebuilding

ROOT = project.ROOT
BASE = Path(sys.base_prefix) / "bin/python3"
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
FILES = {
    "boto3": ["boto3/__init__.py"],
    "cryptography": [f"cryptography/{name}__init__.py" for name in ("", "hazmat/")]
    + ["cryptography/hazmat/bindings/__init__.py", "cryptography/hazmat/bindings/_rust.py"],
    "requests": ["requests/__init__.py"],
    "rich": ["rich/__init__.py"],
    "zstandard": ["zstandard/__init__.py"],
}


def wheel(folder: Path, name: str, files: Sequence[str]) -> str:
    """Make a small wheel (PEP 427), and return its line of a lock file."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    texts = dict.fromkeys(files, "")
    texts[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    texts[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = ""
    for file, text in texts.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        record += f"{file},sha256={digest.decode()},{len(text)}\n"
    texts[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in texts.items():
            archive.writestr(file, text)
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lock file and the wheels that belong to it, with pip."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "wheels").mkdir()
    lines = [wheel(folder / "wheels", name, files) for name, files in FILES.items()]
    (folder / "requirements.lock").write_text("".join(lines))
    bundled = next((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    shutil.copy(bundled, folder / "wheels")
    return folder


@pytest.fixture
def release(tmp_path: Path, wheels: Path) -> Path:
    """A release with the code, wheels and lock file, whose environment is dead."""
    folder = tmp_path / "release"
    folder.mkdir()
    shutil.copy(ROOT / "backup.py", folder)
    shutil.copytree(ROOT / "tools", folder / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "compression", folder / "compression")
    for name in ("pyproject.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(wheels, folder, dirs_exist_ok=True)
    dead(folder)
    return folder


def dead(folder: Path, version: str = "3.9") -> None:
    """An environment as an upgrade of Python leaves it: for another minor version."""
    environment = folder / ".venv"
    (environment / "bin").mkdir(parents=True)
    (environment / f"lib/python{version}/site-packages").mkdir(parents=True)
    (environment / "bin/python").symlink_to(BASE)
    (environment / "pyvenv.cfg").write_text(f"home = {BASE.parent}\n")


def started(folder: Path, *arguments: str, python: Path = BASE) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/nonexistent", "HOME": "/nonexistent", "PIP_INDEX_URL": "http://127.0.0.1:9/"}
    return subprocess.run(
        [str(python), str(folder / "backup.py"), *arguments],
        cwd="/",
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.fault("Python replaced by another version", "the environment is made again")
def test_a_dead_environment_is_made_again(release: Path) -> None:
    """C33: the Python below .venv is another one. Two commands at once make one environment."""
    leftover = release / ".environment-left"  # of a process that was killed
    leftover.mkdir()
    packages = release / ".venv/lib/python3.9/site-packages"
    for name in ("apprise-2.3.0", "rich-1.0", "PyYAML-6"):  # two of them are in no lock file
        (packages / f"{name}.dist-info").mkdir()
    for name in ("apprise-2.3.0", "rich-1.0"):  # PyYAML is what apprise needs
        (packages / f"{name}.dist-info/REQUESTED").touch()
    other = threading.Thread(target=lambda: results.append(started(release, "--version")))
    results: list[subprocess.CompletedProcess[str]] = []
    other.start()
    results.append(started(release, "--version"))
    other.join()
    text = "".join(done.stderr for done in results)
    assert [done.returncode for done in results] == [0, 0], text
    assert all(done.stdout.startswith("nc-backup-py ") for done in results)
    why = f"warning: {release}/.venv was made for another version of Python than {HERE}; "
    assert text.count(why) == text.count(f".venv: made with Python {HERE} in ") == 1
    lacks = f"warning: {release}/.venv lacks what was added to it by hand: apprise\n"
    assert (
        f"{lacks}hint: Install it again: {release}/.venv/bin/python -m pip install apprise" in text
    )
    assert (release / ".venv").stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in release.glob(".environment*")) == [".environment.lock"]
    assert started(release, "--version").stderr == ""


def broken_link(environment: Path) -> None:
    (environment / "bin/python").unlink()
    (environment / "bin/python").symlink_to("/nonexistent/python3.11")


def half_written(environment: Path) -> None:
    (environment / "pyvenv.cfg").unlink()


def removed(environment: Path) -> None:
    shutil.rmtree(environment)


@pytest.mark.parametrize("fault", [broken_link, half_written, removed])
def test_an_environment_that_cannot_be_entered(
    release: Path, fault: Callable[[Path], None]
) -> None:
    """It is seen from the Python of the system."""
    fault(release / ".venv")
    code = "from tools.base import environments as e; print(e.state(e.ROOT + '/.venv'))"
    done = subprocess.run(
        [BASE, "-c", code], cwd=release, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() in ("cannot be started by this user", "does not exist")


def inside(monkeypatch: pytest.MonkeyPatch, release: Path) -> Path:
    """Pretend that this process runs in the environment; return its packages, all of them."""
    environment = release / ".venv"
    packages = environment / f"lib/python{HERE}/site-packages"
    for files in FILES.values():
        (packages / files[0]).parent.mkdir(parents=True)
        (packages / files[0]).touch()
    monkeypatch.setattr(sys, "prefix", str(environment))
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    assert environments.state(str(environment)) == ""
    return packages


def test_a_missing_package_is_seen_at_the_start(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = inside(monkeypatch, release)
    (packages / "urllib3").mkdir()
    environments.seal(sys.prefix)
    assert environments.state(sys.prefix) == ""
    (packages / "urllib3").rmdir()
    assert environments.state(sys.prefix) == "lacks urllib3"
    shutil.rmtree(packages / "rich")
    assert environments.state(sys.prefix) == "lacks rich, urllib3"


def test_packages_are_tried_once_after_each_change_of_python(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Native modules of another ABI: an update of Python need not change its version."""
    packages = inside(monkeypatch, release)
    environments.seal(sys.prefix)
    monkeypatch.setattr(environments, "fingerprint", lambda: "a later build")
    tried: list[str] = []
    problems = ["cannot load its packages: undefined symbol", ""]

    def import_problem(python: str) -> str:
        tried.append(python)
        return problems.pop(0)

    monkeypatch.setattr(environments, "import_problem", import_problem)
    assert environments.state(sys.prefix) == "cannot load its packages: undefined symbol"
    assert environments.state(sys.prefix) == environments.state(sys.prefix) == ""
    assert len(tried) == 2
    monkeypatch.undo()
    (packages / "rich/__init__.py").write_text("raise ImportError('undefined symbol')")
    (packages / "cryptography/hazmat/bindings").mkdir(parents=True)
    (packages / "cryptography/hazmat/bindings/_rust.py").touch()
    problem = environments.import_problem(str(release / ".venv/bin/python"))
    assert problem == "cannot load its packages: ImportError: undefined symbol"


def test_a_healthy_start_costs_next_to_nothing(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 5 ms: it reads a folder and a file, and starts nothing."""
    inside(monkeypatch, release)
    environments.seal(sys.prefix)
    monkeypatch.setattr(subprocess, "Popen", None)
    fastest = min(timeit.repeat(lambda: environments.state(sys.prefix), number=1, repeat=20))
    assert fastest < 0.005


# --- the place of the new environment


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home directory of a user who may not write beside the code."""
    folder = tmp_path / "home"
    folder.mkdir()
    entry = pwd.getpwuid(os.geteuid())
    fields = [*entry[:5], str(folder), entry[6]]
    monkeypatch.setattr(pwd, "getpwuid", lambda _number: pwd.struct_passwd(fields))
    monkeypatch.setattr(os, "access", lambda _path, mode: mode == os.R_OK)
    monkeypatch.setattr(environments, "LOCK", str(tmp_path / "requirements.lock"))
    (tmp_path / "requirements.lock").write_text("boto3==1.0\n")
    return folder


def test_who_cannot_write_beside_the_code_gets_a_private_place(home: Path) -> None:
    target = Path(rebuilding._target("/usr/share/nc-backup-py/.venv"))
    assert target.parent == home / ".nc-backup-py"
    assert target.name.startswith("environment-")
    assert target.parent.stat().st_mode & 0o777 == 0o700
    assert rebuilding._target("/usr/share/nc-backup-py/.venv") == str(target)
    (home.parent / "requirements.lock").write_text("boto3==2.0\n")
    assert rebuilding._target("/usr/share/nc-backup-py/.venv") != str(target)


def others_may_write(home: Path) -> None:
    home.chmod(0o777)


def others_may_read(home: Path) -> None:
    (home / ".nc-backup-py").mkdir(mode=0o755)


def another_owner(home: Path) -> None:
    (home / ".nc-backup-py").mkdir(mode=0o700)
    os.chown(home / ".nc-backup-py", 65534, 65534)


def a_link(home: Path) -> None:
    (home.parent / "elsewhere").mkdir(mode=0o700)
    (home / ".nc-backup-py").symlink_to(home.parent / "elsewhere")


@pytest.mark.needs("root")
@pytest.mark.parametrize("trap", [others_may_write, others_may_read, another_owner, a_link])
def test_no_environment_where_others_could_write(home: Path, trap: Callable[[Path], None]) -> None:
    """What lies there would be run as this user."""
    trap(home)
    assert environments.own_folder() == ""
    with pytest.raises(OSError, match=r"writable by everybody|must be a folder of this user"):
        rebuilding._target("/usr/share/nc-backup-py/.venv")


@pytest.mark.parametrize("path", ["requirements.lock", "wheels", "wheels/pip-*.whl"])
def test_nothing_is_installed_that_others_could_change(
    release: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "ROOT", str(release))
    monkeypatch.setattr(environments, "LOCK", str(release / "requirements.lock"))
    monkeypatch.setattr(environments, "WHEELS", str(release / "wheels"))
    next(release.glob(path)).chmod(0o777)
    with pytest.raises(rebuilding.RebuildError, match="is writable by everybody"):
        rebuilding._available(str(release / ".venv"), "lacks rich", False)


def test_a_program_that_hangs_is_stopped(tmp_path: Path) -> None:
    program = tmp_path / "pip"
    program.write_text("#!/bin/sh\nsleep 60 &\nsleep 60\n")
    program.chmod(0o755)
    with pytest.raises(rebuilding.RebuildError, match="pip took too long"):
        rebuilding._run([str(program)], time.monotonic() + 0.3)


def test_output_of_pip_is_shown_without_passwords(tmp_path: Path) -> None:
    program = tmp_path / "pip"
    program.write_text("#!/bin/sh\nprintf 'at https://me:s3cret@mirror/\\033[31m'\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(rebuilding.RebuildError) as caught:
        rebuilding._run([str(program)], time.monotonic() + 20)
    assert str(caught.value) == "at https://***@mirror/?[31m"


# --- the last report


def config(folder: Path, **more: object) -> Path:
    path = folder / "conf.json"
    general = {"HOSTNAME": "srv-x1", "WORK_FOLDER": str(folder)}
    path.write_text(json.dumps({"GENERAL": general, **more}))
    return path


@pytest.mark.fault("Python replaced, no network", "report to BRT and channels, exit 1")
def test_a_run_that_cannot_start_is_reported(release: Path, server: ReportServer) -> None:
    """C33: nothing to make the environment from. Other commands say it, and go on."""
    (release / "requirements.lock").unlink()
    broken_link(release / ".venv")
    conf = config(release)
    table = json.loads(conf.read_text())
    table["GENERAL"]["MESSAGE_CONFIG_COMMAND"] = server.url
    conf.write_text(json.dumps(table))
    done = started(release, "-r", "-c", str(conf), python=bare_python(release))
    problem = (
        f"{release}/.venv cannot be started by this user, and there is no requirements.lock to "
        "make it again"
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines() == [
        f"error: {problem}",
        f"hint: Make it again: python3 {release}/setup.py env",
        "report: report server: delivered",
    ]
    form = server.accepted[0]
    assert (form["srvname"], form["result"], form["error"]) == ("srv-x1", "1", problem)
    listed = started(release, "--version", python=bare_python(release))
    assert listed.returncode == 0
    assert listed.stderr.startswith(f"warning: {problem}")
    assert len(server.forms) == 1


def bare_python(folder: Path) -> Path:
    """Return a Python that has no packages, as that of a server."""
    program = folder / "bare"
    if not program.exists():
        program.write_text(f'#!/bin/sh\nexec {BASE} -S "$@"\n')
        program.chmod(0o755)
    return program
