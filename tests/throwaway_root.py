"""A whole Linux root that a test may change for real, and that is gone afterwards.

Everything of this machine's root is in it, in an overlay: users can be added, /etc and /var/lib can
be written, capabilities can be set, and a cron daemon can be started. Nothing of that reaches the
machine. It costs about 0.1 s. A test says what it needs, and is slow:

    @pytest.mark.slow
    @pytest.mark.needs("root", "unshare", "nsenter")
    def test_something(root: ThrowawayRoot) -> None:
        root.run("useradd", "--system", "ncbackup")
        assert "ncbackup" in root.path("/etc/passwd").read_text()

The fixture `root` is that of tests/setup/conftest.py; elsewhere import it from here.

/tmp, /run, /opt/backup and /var/tmp are empty in it. The checkout of this project is there, under
its path, and cannot be written. Other mounts of the machine are not there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tools.base import project

_SIZE = "4g"  # the most that a root may hold in memory
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
_KEPT = ("http_proxy", "https_proxy", "no_proxy", "PIP_", "SSL_CERT_FILE")  # to reach a network
# $1 a folder for the mounts, $2 the checkout, $3 a size, $4 the root below. It says "ready", and
# lives until its standard input ends; then all that was started in its process namespace ends.
_HOLDER = r"""
set -eu
mount -t tmpfs -o "size=$3,mode=0755" throwaway "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=$4,upperdir=$1/upper,workdir=$1/work" throwaway "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
for empty in tmp var/tmp run; do
    mount -t tmpfs -o mode=1777 throwaway "$empty"
done
chmod 0755 run
rm -rf opt/backup
mkdir -p "./$2"
mount --bind "$2" "./$2"
mount -o remount,bind,ro "./$2"
for linked in "$2"/.venv*; do
    real=$(realpath -e "$linked") || continue
    [ -d "./$real" ] || { mkdir -p "./$real" && mount --bind "$real" "./$real"; }
done
exec chroot . sh -c 'echo ready; read -r end || exit 0'
"""


class ThrowawayRoot:
    """A root file system of its own, with its own processes."""

    def __init__(self, holder: int) -> None:
        self._holder = holder  # the process in it that lives as long as it

    def path(self, inside: str) -> Path:
        """Return a path of it as this process reaches it. Absolute links inside lead out of it."""
        return Path(f"/proc/{self._holder}/root/{inside.lstrip('/')}")

    def run(
        self,
        *command: str | Path,
        code: int | None = 0,
        user: str = "",
        network: bool = True,
        text: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it, from its /; return what it printed.

        code: the exit code that it must have; None: any
        user: the user that runs it, if not root
        network: whether it may reach a network, the loopback of this machine included
        text: its standard input
        environment: variables beside PATH, HOME, LANG and those of proxies and pip
        """
        done = subprocess.run(
            [*self._enter(user, network), *map(str, command)],
            env={**_environment(), **(environment or {})},
            input=text,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
        )
        assert code is None or done.returncode == code, done
        return done

    def start(self, *command: str | Path, user: str = "") -> subprocess.Popen[bytes]:
        """Start a command in it, such as a daemon; it ends with the root at the latest."""
        return subprocess.Popen([*self._enter(user, True), *map(str, command)], env=_environment())

    def _enter(self, user: str, network: bool) -> list[str]:
        command = ["nsenter", f"--target={self._holder}", "--mount", "--pid", "--root"]
        command += [f"--wd={self.path('')}"]
        command += [] if network else ["unshare", "--net"]
        return command + (["runuser", "-u", user, "--"] if user else [])


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith(_KEPT)}
    return {**kept, **_ENVIRONMENT}


@contextlib.contextmanager
def opened(size: str = _SIZE, below: Path = Path("/")) -> Iterator[ThrowawayRoot]:
    """Give a throwaway root. Skip the test where this machine does not let root mount one.

    size: the most it may hold, as the option of tmpfs: a small one is a full disk
    below: the root file system that it begins with
    """
    folder = Path(tempfile.mkdtemp(prefix="throwaway-root-"))
    unshare = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child"]
    process = subprocess.Popen(
        [*unshare, "sh", "-c", _HOLDER, "sh", str(folder), str(project.ROOT), size, str(below)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            _output, errors = process.communicate()
            pytest.skip(f"no throwaway root: {errors.strip()}")
        yield ThrowawayRoot(_child(process.pid))
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.communicate()
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        shutil.rmtree(folder)


def _child(parent: int) -> int:
    """Return the process ID of the one child of unshare: the first process of its namespace."""
    return int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])


@pytest.fixture
def root() -> Iterator[ThrowawayRoot]:
    """A throwaway root for one test."""
    with opened() as mounted:
        yield mounted
