"""setup.py test: the checks of the project, with this, the oldest and the newest Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tools.base import imports
from tools.setup import environment
from tools.setup.environment import ROOT

# What tests run, and the package of Debian that has it.
PROGRAMS = {
    "age": "age",
    "zstd": "zstd",
    "xz": "xz-utils",
    "gzip": "gzip",
    "openssl": "openssl",
    "tar": "tar",
    "setfacl": "acl",
    "setfattr": "attr",
    "chattr": "e2fsprogs",
    "faketime": "faketime",
    "mount": "mount",
    "rsync": "rsync",
    "strace": "strace",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "tcsh": "tcsh",
    "fish": "fish",
    "sudo": "sudo",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "setcap": "libcap2-bin",
    "perl": "perl",
    "mariadbd": "mariadb-server",
    "mariadb-dump": "mariadb-client",
    "mariabackup": "mariadb-backup",
    "initdb": "postgresql",
    "redis-server": "redis-server",
    "slapd": "slapd",
    "ldapadd": "ldap-utils",
}
_OLDEST = (3, 10)
# Of `dev`, what tests import.
_UNIT = ("hypothesis", "jsonschema", "pycryptodome>=4", "pytest", "pytest-xdist")


def test() -> int:
    """Run every check; a later one runs even when an earlier one failed."""
    _programs()
    python = environment.environment(
        imports.FOLDER, Path(sys.executable), *environment.requirements("dev")
    )
    workers = len(os.sched_getaffinity(0)) + 1  # one of them often waits: for a server, a second
    suite = ["-m", "pytest", "-q", "-rfEs", "--no-fold-skipped", "-n", str(workers)]
    suite += ["--dist", "worksteal"]
    failed = [
        name
        for name, words in (
            ("ruff check", ["-m", "ruff", "check", "."]),
            ("ruff format", ["-m", "ruff", "format", "--check", "."]),
            ("mypy", ["-m", "mypy"]),
            ("pytest", suite),
        )
        if not _passes(name, python, words)
    ]
    for version, other in _others(python):
        name = f"pytest, Python {version}"
        folder = ROOT / f".venv-{version}"
        inside = environment.environment(folder, other, *_unit_requirements())
        if not _passes(name, inside, [*suite, "-m", "unit and not slow"]):
            failed.append(name)
    print(f"failed: {'; '.join(failed)}" if failed else "all checks passed", flush=True)
    return 1 if failed else 0


def _unit_requirements() -> list[str]:
    return [name for name in environment.requirements("dev") if name in _UNIT]


def _passes(name: str, python: Path, words: list[str]) -> bool:
    print(f"== {name}", flush=True)
    began = time.monotonic()
    done = subprocess.run([python, *words], cwd=ROOT, stdin=subprocess.DEVNULL, check=False)
    print(f"== {name}: {time.monotonic() - began:.0f} s, exit {done.returncode}", flush=True)
    return done.returncode == 0


def _programs() -> None:
    """Install the programs that tests run; print a warning for those that are missing."""
    if missing := _missing():
        environment.install_packages([PROGRAMS[name] for name in missing])
    if missing := _missing():
        print(
            f"WARNING: {', '.join(missing)} not installed; the tests that need them are skipped "
            f"(listed below)\nhint: apt install {' '.join(PROGRAMS[name] for name in missing)}",
            flush=True,
        )


def _missing() -> list[str]:
    folders = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]
    folders += map(str, Path("/usr/lib/postgresql").glob("*/bin"))  # not on Debian's path
    path = ":".join(folders)
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


def _others(python: Path) -> list[tuple[str, Path]]:
    """Return the oldest and the newest Python from 3.10 on, other than the current one."""
    found = pythons(_candidates())
    ends = sorted({min(found), max(found)}) if found else []
    mine = _version(python)
    return [(f"{end[0]}.{end[1]}", found[end]) for end in ends if end != mine]


def _candidates() -> Iterable[Path]:
    """Give every python3.N on the path, of pyenv, and of the system."""
    folders = [Path(entry) for entry in os.environ.get("PATH", os.defpath).split(":") if entry]
    folders += [Path("/usr/local/bin"), Path("/usr/bin")]
    folders += sorted(Path.home().glob(".pyenv/versions/*/bin"))
    for folder in folders:
        for file in sorted(folder.glob("python3.*")):
            if re.fullmatch(r"python3\.\d+", file.name) and not file.is_relative_to(ROOT):
                yield file


def pythons(candidates: Iterable[Path]) -> dict[tuple[int, int], Path]:
    """Return the usable Pythons by their version: new enough, with venv."""
    found: dict[tuple[int, int], Path] = {}
    for file in candidates:
        version = _version(file)
        if version is not None and version >= _OLDEST:
            found.setdefault(version, file)
    return found


def _version(python: Path) -> tuple[int, int] | None:
    asked = "import ensurepip, sys, venv; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
    except OSError:
        return None
    numbers = done.stdout.split()
    return (int(numbers[0]), int(numbers[1])) if done.returncode == 0 else None
