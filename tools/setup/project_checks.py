"""setup.py test: the checks of the project, with this, the oldest and the newest Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Check:
    """What is run under one Python."""

    name: str
    python: Path
    arguments: tuple[str, ...]


def test() -> int:
    """Run every check; a later one runs even when an earlier one failed.

    What the tests need is installed while what needs less is checked: a machine with two
    processors waits for neither the network nor mypy.
    """
    dev = environment.requirements("dev")
    with ThreadPoolExecutor() as pool:
        programs = pool.submit(_programs)
        python = environment.environment(imports.FOLDER, Path(sys.executable), *dev)
        units = [pool.submit(_unit, version, other) for version, other in _others(python)]
        failed = _failed(_texts(python))
        programs.result()
        tests = [_Check("pytest", python, _suite(waiting=2)), *(unit.result() for unit in units)]
    failed += _failed(tests)
    print(f"failed: {'; '.join(failed)}" if failed else "all checks passed", flush=True)
    return 1 if failed else 0


def _failed(checks: Iterable[_Check]) -> list[str]:
    """Run checks, one after the other; return the names of those that failed."""
    return [check.name for check in checks if not _passes(check)]


def _texts(python: Path) -> list[_Check]:
    """Return the checks that read the project and run nothing of it."""
    return [
        _Check("ruff check", python, ("-m", "ruff", "check", ".")),
        _Check("ruff format", python, ("-m", "ruff", "format", "--check", ".")),
        _Check("mypy", python, ("-m", "mypy")),
    ]


def _suite(*more: str, waiting: int = 0) -> tuple[str, ...]:
    """Return the words that run the tests in parallel.

    waiting: workers beside those that keep the processors busy, for tests that often wait
    """
    workers = len(os.sched_getaffinity(0)) + waiting
    suite = ("-m", "pytest", "-q", "-rfEs", "--no-fold-skipped", "-n", str(workers))
    return (*suite, "--dist", "worksteal", *more)


def _unit(version: str, python: Path) -> _Check:
    """Return the unit tests under another Python, whose environment is made.

    Their asserts are not rewritten: each worker would take 10 s for that, in a fresh clone.
    """
    requirements = [name for name in environment.requirements("dev") if name in _UNIT]
    inside = environment.environment(ROOT / f".venv-{version}", python, *requirements)
    return _Check(
        f"pytest, Python {version}",
        inside,
        _suite("-m", "unit and not slow", "--assert=plain", waiting=1),
    )


def _passes(check: _Check) -> bool:
    print(f"== {check.name}", flush=True)
    began = time.monotonic()
    command = [str(check.python), *check.arguments]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False)
    took = time.monotonic() - began
    print(f"== {check.name}: {took:.0f} s, exit {done.returncode}", flush=True)
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
    by_version = pythons(_candidates())
    ends = sorted({min(by_version), max(by_version)}) if by_version else []
    current = _version(python)
    return [(f"{end[0]}.{end[1]}", by_version[end]) for end in ends if end != current]


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
    by_version: dict[tuple[int, int], Path] = {}
    for file in candidates:
        version = _version(file)
        if version is not None and version >= _OLDEST:
            by_version.setdefault(version, file)
    return by_version


def _version(python: Path) -> tuple[int, int] | None:
    program = "import ensurepip, sys, venv; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    except OSError:
        return None
    numbers = done.stdout.split()
    return (int(numbers[0]), int(numbers[1])) if done.returncode == 0 else None
