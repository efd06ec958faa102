"""A throwaway root in which a real systemd runs as its first process, in about a second.

So units are tried as they will run: their sandbox, capabilities, timers. No unit of this machine
is started in it. Ends with the test, with all that was started.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.throwaway_root import ThrowawayRoot
from tools.base import project

_PATIENCE = 30.0  # seconds until systemd answers
# $1 a folder for the mounts, $2 the checkout. systemd takes over the process; its log is console.
_BOOT = r"""
set -eu
mount -t tmpfs -o mode=0755 booted "$1"
mkdir "$1/upper" "$1/work" "$1/root"
root=$1/root
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" booted "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=0755 booted "$root/dev"
for name in null zero full random urandom tty; do
    touch "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
for name in dev/shm tmp var/tmp; do
    mkdir -p "$root/$name"
    mount -t tmpfs -o mode=1777 booted "$root/$name"
done
mount -t tmpfs -o mode=0755 booted "$root/run"
ln -s /proc/self/fd "$root/dev/fd"
rm -rf "$root/opt/backup" "$root"/etc/systemd/system/* "$root"/etc/sudoers.d/*
mkdir -p "$root/$2" "$root/before"
mount --bind "$2" "$root/$2"
for linked in "$2"/.venv*; do
    real=$(realpath -e "$linked") || continue
    [ -d "$root/$real" ] || { mkdir -p "$root/$real" && mount --bind "$real" "$root/$real"; }
done
printf '%s\n' '[Unit]' AllowIsolate=yes Requires=basic.target After=basic.target \
    > "$root/etc/systemd/system/empty.target"
touch "$root/dev/console"
cd "$root"
pivot_root . before
cd /
umount -l /before
mount --make-rshared /
exec env -i container=throwaway PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd \
    --unit=empty.target --log-target=console --show-status=0
"""


@contextlib.contextmanager
def opened() -> Iterator[ThrowawayRoot]:
    """Give a root with a running systemd. Skip the test where this machine does not allow it."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="booted-root-")))
        group = _group(stack, folder.name)
        spaces = ["--mount", "--propagation=private", "--pid", "--cgroup", "--uts", "--ipc"]
        command = ["unshare", *spaces, "--fork", "--kill-child", "sh", "-c", _BOOT, "sh"]
        # the shell moves itself before its namespace begins: systemd sees this group as the top
        moved = ["sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', str(group)]
        process = subprocess.Popen(
            [*moved, *command, str(folder), str(project.ROOT)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        stack.callback(process.wait)
        stack.callback(process.send_signal, signal.SIGKILL)
        yield _answering(process)


def _group(stack: contextlib.ExitStack, name: str) -> Path:
    """Return a new control group (version 2), removed at the end."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    tops = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"]
    if not tops:
        pytest.skip("no control groups of version 2")
    group = tops[0] / name
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error.strerror}")
    stack.callback(_remove_group, group)
    return group


def _remove_group(group: Path) -> None:
    until = time.monotonic() + _PATIENCE
    while group.exists() and time.monotonic() < until:
        for folder in sorted(group.rglob("*"), reverse=True):
            if folder.is_dir():
                with contextlib.suppress(OSError):
                    folder.rmdir()
        with contextlib.suppress(OSError):
            group.rmdir()
        time.sleep(0.02)


def _answering(process: subprocess.Popen[bytes]) -> ThrowawayRoot:
    """Return the root when systemd answers; skip the test if it cannot start."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
        with contextlib.suppress(FileNotFoundError):
            for child in children.read_text().split():
                root = ThrowawayRoot(int(child))
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{child}/comm").read_text() == "systemd\n" and (
                        root.run("systemctl", "is-system-running", code=None).stdout
                        in ("running\n", "degraded\n")
                    ):
                        return root
    reason = process.stderr.read().decode() if process.poll() is not None and process.stderr else ""
    pytest.skip(f"systemd does not start here: {reason.strip()}")
