"""The private environment, and the Debian packages that the project needs.

Stands on the standard library alone: it runs before anything is installed.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools import filesystem_handling
from tools.base import foreign, removal
from tools.base.errors import BackupError, in_words

ROOT = Path(__file__).resolve().parents[2]
LOCK = "requirements.lock"  # every package, with its version and hashes
# Options of a Python that root starts: the current folder may be anybody's, and `-c` and `-m`
# import from it; so they do from PYTHONPATH.
ISOLATED = "-I"
# Options of pip: a source distribution would be built with packages that no hash protects.
LOCKED = ("--require-hashes", "--only-binary=:all:")
_TAIL = 5  # lines of a failed program that are shown
_LOCK_WAIT = ("-o", "DPkg::Lock::Timeout=600")  # seconds: another apt-get is at work


def say(line: str, hint: str = "") -> None:
    """Print a line and a hint to standard error."""
    text = line + "\n" + (f"hint: {hint}\n" if hint else "")
    sys.stderr.write(foreign.printable(text, keep="\n"))


def requirements(*groups: str) -> list[str]:
    """Return requirements of pyproject.toml: `dependencies`, or a dependency group such as `dev`.

    Python 3.10 has no tomllib; a list of plain strings reads the same in Python as in TOML.
    """
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    names: list[str] = []
    for group in groups:
        written = re.search(rf"^{group} = (\[.*?\])$", text, re.M | re.S)
        if written is None:
            raise BackupError(f"pyproject.toml: no list {group}")
        names += ast.literal_eval(written[1])
    return names


def environment(folder: Path, python: Path, *more: str) -> Path:
    """Return the Python of a private environment with all dependencies and `more`.

    It is created if it is missing, and the project is compiled for it. Raises BackupError with
    the last output of venv or pip.
    """
    with naming_full_disk(folder):
        inside = _installed(folder, python, *more)
    _compile(inside)
    return inside


def _installed(folder: Path, python: Path, *more: str) -> Path:
    """Return the Python of the environment; a file in the folder lists what was installed."""
    lock = ROOT / LOCK
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    content = "\n".join([f"# {LOCK}: {digest}", *sorted(more)]) + "\n"
    inside = folder / "bin/python"
    stamp = folder / "requirements.txt"
    if not _runs(inside):
        say(f"creating {display_path(folder)} with {python}")
        make(folder, python)
    elif stamp.exists() and set(content.split("\n")) <= set(stamp.read_text("utf-8").split("\n")):
        return inside
    say(f"installing {', '.join((LOCK, *more))} into {display_path(folder)}")
    pip = [str(inside), ISOLATED, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _call([*pip, *LOCKED, "--requirement", str(lock)], "pip install failed")
    if more:
        _call([*pip, *more], "pip install failed")
    stamp.write_text(content, encoding="utf-8")
    return inside


def _compile(python: Path) -> None:
    """Compile the project: the user of the backup may not write beside the code.

    Without that, each start of a program compiles all that it imports. Folders that cannot be
    written here either cost that time, and nothing else.
    """
    code = [path for path in ROOT.iterdir() if not path.name.startswith(".")]  # not .venv, not .git
    command = [str(python), ISOLATED, "-m", "compileall", "-q", *map(str, code)]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, umask=0o022)


def display_path(folder: Path) -> str:
    """Return a folder as messages name it: relative to the root of the project if it is inside."""
    return str(folder.relative_to(ROOT)) if folder.is_relative_to(ROOT) else str(folder)


def closed_folder(python: Path) -> Path | None:
    """Return the folder that keeps other users from starting a Python; None where all can."""
    folders = python.resolve().parents
    return next((one for one in reversed(folders) if not one.stat().st_mode & 0o001), None)


def _runs(python: Path) -> bool:
    """Return whether an environment can be used: a link to a removed Python cannot."""
    try:
        if not python.exists():
            return False
    except PermissionError:
        raise BackupError(
            f"{python}: permission denied: it was created with a Python of another user",
            hint=f"Remove {python.parent.parent}, then run this again with a Python that every "
            "user can start, for example /usr/bin/python3.",
        ) from None
    return _succeeds([str(python), ISOLATED, "-m", "pip", "--version"])


def make(folder: Path, python: Path) -> None:
    """Make an empty environment with pip. Raises BackupError; then there is none."""
    able = [str(python), ISOLATED, "-c", "import ensurepip, venv"]
    package = _venv_package(python)
    if not _succeeds(able) and not (install_packages([package]) and _succeeds(able)):
        raise BackupError(
            f"{python}: no module ensurepip or venv",
            hint=f"Install it (Debian, Ubuntu: apt install {package}).",
        )
    try:
        making = [str(python), ISOLATED, "-m", "venv", "--clear", str(folder)]
        with naming_full_disk(folder):  # before what fills it is removed
            _call(making, f"{folder} could not be created")
    except BackupError:
        # backup.py uses .venv as soon as it exists: none is better than half of one
        with contextlib.suppress(OSError):
            removal.tree(folder)
        raise


@contextlib.contextmanager
def naming_full_disk(folder: Path) -> Iterator[None]:
    """Give another error for a failure in the block where the disk of a folder, or of temporary
    files, is full: venv only says that pip failed, and pip shows where in its code."""
    try:
        yield
    except BackupError as error:
        full = os.strerror(errno.ENOSPC)
        places = [folder]
        with contextlib.suppress(FileNotFoundError):  # nothing can be written to any of them
            places.append(Path(tempfile.gettempdir()))
        places = [*filter(filesystem_handling.is_full, places)]
        if not places and full in error.hint:
            places = [folder]  # what did not fit was removed
        if not places:
            raise
        raise BackupError(*in_words(OSError(errno.ENOSPC, full, str(places[0])))) from None


def _venv_package(python: Path) -> str:
    """Return the package in which Debian has the modules of a Python that make environments."""
    usual = Path("/usr/bin/python3")
    if usual.exists() and python.resolve() == usual.resolve():
        return "python3-venv"
    return f"python{version(python)}-venv"


def version(python: Path) -> str:
    """Return the version of a Python, as 3.11; "3" if it does not start."""
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [python, ISOLATED, "-c", program], capture_output=True, text=True, check=False
        )
    except OSError:
        return "3"
    return done.stdout.strip() or "3"


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _call(command: Sequence[str], failure: str) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise BackupError(failure, hint=" | ".join(foreign.lines(done.stdout.strip())[-_TAIL:]))


def install_packages(names: Sequence[str]) -> bool:
    """Install Debian packages; return False if that is impossible (no root, no apt, no network)."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return False
    say(f"installing {' '.join(names)} with apt-get")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = [apt, "install", "-qq", "-y", "--no-install-recommends", *_LOCK_WAIT, *names]
    with _no_services():
        for command in (install, [apt, "update", "-qq"], install):
            done = subprocess.run(
                command, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, check=False
            )
            if command is install and done.returncode == 0:
                return True
    return False


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Keep packages from starting services while they are installed (policy-rc.d)."""
    policy = Path("/usr/sbin/policy-rc.d")
    is_free = not policy.exists() and policy.parent.is_dir()
    if is_free:
        policy.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
        policy.chmod(0o755)
    try:
        yield
    finally:
        if is_free:
            policy.unlink(missing_ok=True)
