"""The Python packages of requirements.lock: downloaded once, checked by hash, installed from there.

A release keeps its wheels, so that its environment can be made again without a network.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from pathlib import Path

from tools.base import environments
from tools.base.errors import BackupError
from tools.setup import environment, later_wheels, programs
from tools.setup.installation import Installation

LOCK = environment.LOCK
WHEELS = "wheels"
_ENVIRONMENT = ".venv"
# pip in this environment alone, whatever pip.conf says of other ones; proxies and indexes count
_PIP = {"PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
_BRIEF = ("--retries=0", "--timeout=10")  # for what can be done without
_COMMON = ("--quiet", "--no-deps", *environment.LOCKED)
# Under the Python of the environment: the record by which commands know that it is whole.
_SEAL = (
    "import sys; sys.path.insert(0, sys.argv[1]); from tools.base import environments; "
    "environments.seal(sys.prefix)"
)
# Each is found, and one that a later Python cannot load is loaded.
_LOOK = (
    "import importlib.util, sys, zstandard, cryptography.hazmat.bindings._rust\n"
    f"sys.exit(not all(map(importlib.util.find_spec, {environments.PACKAGES!r})))"
)


def works(release: Path) -> bool:
    """Return whether the environment of a release has all packages, and its Python loads them."""
    python = release / _ENVIRONMENT / "bin/python"
    try:
        command = [str(python), "-I", "-c", _LOOK]
        return subprocess.run(command, capture_output=True, cwd="/", check=False).returncode == 0
    except OSError:
        return False


def install(installation: Installation, release: Path, final: str, before: Path | None) -> None:
    """Make the environment of a release, with the packages of its lock file.

    final: the path that the release will have, for what has its path inside; before: the current
    release, whose wheels are used again if they are the same. Raises BackupError.
    """
    with environment.naming_full_disk(release):
        _install(installation, release, final, before)


def _install(installation: Installation, release: Path, final: str, before: Path | None) -> None:
    lock, wheels, folder = release / LOCK, release / WHEELS, release / _ENVIRONMENT
    environment.make(folder, installation.python)
    python = str(folder / "bin/python")
    wheels.mkdir()
    _fetch(installation, python, lock, wheels, before)
    pip = [python, environment.ISOLATED, "-m", "pip"]
    local = ["--no-index", "--find-links", str(wheels), "--no-compile", "-r", str(lock)]
    programs.run([*pip, "install", *_COMMON, *local], "the packages cannot be installed", _PIP)
    if not installation.wheels:
        _fetch_later(installation, python, lock, wheels, before)
    _move(folder, str(release), final)
    programs.run([python, "-I", "-c", _SEAL, str(release)], "the environment does not start")
    # what cannot be compiled are templates in packages, which nobody imports
    paths = ["-s", str(release), "-p", final, str(release)]
    command = [python, environment.ISOLATED, "-m", "compileall", "-q", "-j0", *paths]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd="/")


def _fetch(
    installation: Installation, python: str, lock: Path, wheels: Path, before: Path | None
) -> None:
    """Put the packages of a lock file into a folder. Raises BackupError."""
    pip = (python, environment.ISOLATED, "-m", "pip", "download")

    def download(folder: Path | None) -> None:
        source = ["--no-index", "--find-links", str(folder)] if folder else []
        command = [*pip, *_COMMON, *source, "-d", str(wheels), "-r", str(lock)]
        programs.run(command, "the Python packages could not be fetched", _PIP)

    if not installation.wheels and before is not None and _same(lock, before / LOCK):
        with contextlib.suppress(BackupError):  # of another Python, or damaged: fetched again
            return download(before / WHEELS)
    try:
        download(installation.wheels)
    except BackupError as error:
        raise BackupError(str(error), _explained(error.hint, installation, python)) from None


def _fetch_later(
    installation: Installation, python: str, lock: Path, wheels: Path, before: Path | None
) -> None:
    """Fetch the packages that later versions of Python need; a line is printed if it fails."""
    pip = (python, environment.ISOLATED, "-m", "pip", "download")
    command = [*pip, *_COMMON, "-d", str(wheels)]
    earlier_wheels = before / WHEELS if before is not None and _same(lock, before / LOCK) else None

    def download(requirements: str, options: list[str]) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(requirements)
            file.flush()
            pip = [*command, *options, "-r", file.name]
            if earlier_wheels is not None:
                with contextlib.suppress(BackupError):  # an earlier version did not keep them
                    programs.run(
                        [*pip, "--no-index", "--find-links", str(earlier_wheels)], "", _PIP
                    )
                    return
            programs.run([*pip, *_BRIEF], "pip download failed", _PIP)

    text = lock.read_text(encoding="utf-8", errors="replace")
    if line := later_wheels.fetch(environment.version(Path(python)), text, wheels, download):
        installation.notice(line)


def _same(file: Path, other: Path) -> bool:
    return other.is_file() and file.read_bytes() == other.read_bytes()


def _explained(last_lines: str, installation: Installation, python: str) -> str:
    """Return the hint for packages that could not be fetched."""
    if installation.wheels:
        version = environment.version(Path(python))
        return (
            f"{installation.wheels} must have the packages of {LOCK} for this Python ({version}) "
            f"and processor: python{version} -m pip download {' '.join(environment.LOCKED)} "
            f"-r {LOCK} -d DIR | {last_lines}"
        )
    return (
        "Check network and proxy (https_proxy; sudo drops it: sudo -E). Without a network: "
        f"--wheels DIR | {last_lines}"
    )


def _move(folder: Path, before: str, after: str) -> None:
    """Replace the path of a release in the scripts of its environment, such as pip."""
    for path in (folder / "bin").iterdir():
        if path.is_file() and not path.is_symlink():
            raw = path.read_bytes()
            path.write_bytes(raw.replace(before.encode(), after.encode()))
