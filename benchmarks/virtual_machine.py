"""A machine of qemu that boots a Debian root of debootstrap with its own kernel and systemd.

Its root and the disk for backups are images of ext4, made without mounting anything (mke2fs -d).
A small program in it, started by its systemd, runs the commands of the trial: they arrive through
a port of virtio, so no network is needed. Where /dev/kvm cannot be opened, qemu emulates (slowly).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from tools.base.errors import BackupError

PACKAGES = (
    *("ca-certificates", "git", "python3", "python3-venv", "sudo"),  # of the quick start
    *("linux-image-cloud-amd64", "systemd-sysv", "udev", "kmod", "dbus", "iproute2"),
)
_SIZES = {"root": "4G", "disk": "2G"}  # of the images, which are sparse
_ROOT_LABEL, _DISK_LABEL = "root", "backup-disk"
_FSTAB = f"""LABEL={_ROOT_LABEL} / ext4 defaults 0 1
LABEL={_DISK_LABEL} /mnt/backup-disk ext4 nofail,x-systemd.device-timeout=300s 0 2
"""
_PORT = "/dev/virtio-ports/trial"
_AGENT_UNIT = """[Unit]
Description=Runs the commands of the trial
[Service]
ExecStart=/usr/bin/python3 /usr/local/sbin/trial-agent
[Install]
WantedBy=multi-user.target
"""
_AGENT = f"""import json, os, subprocess, time
while not os.path.exists({_PORT!r}):
    time.sleep(0.1)
port = os.open({_PORT!r}, os.O_RDWR)
environment = {{
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}}
waiting = b""
while True:
    data = os.read(port, 65536)
    if not data:  # nobody is connected
        time.sleep(0.1)
    waiting += data
    while b"\\n" in waiting:
        line, _, waiting = waiting.partition(b"\\n")
        done = subprocess.run(
            json.loads(line), cwd="/", env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        texts = [text.decode(errors="backslashreplace") for text in (done.stdout, done.stderr)]
        answer = json.dumps([done.returncode, *texts]).encode() + b"\\n"
        while answer:
            answer = answer[os.write(port, answer):]
"""


def write_guest_files(root: Path) -> None:
    """Give a base root what the machine needs beside its packages: fstab, names, the agent."""
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (root / "mnt/backup-disk").mkdir(exist_ok=True)
    for name, text in {
        "etc/fstab": _FSTAB,
        "etc/hostname": "booted\n",
        "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 booted\n",
        "usr/local/sbin/trial-agent": _AGENT,
        "etc/systemd/system/trial-agent.service": _AGENT_UNIT,
    }.items():
        (root / name).write_text(text, encoding="utf-8")
    with contextlib.suppress(FileExistsError):
        (wants / "trial-agent.service").symlink_to("/etc/systemd/system/trial-agent.service")


class Machine:
    """A machine that is off until boot(); its images are in a folder.

    patience: seconds that a boot, and a command in the machine, may take; emulate: without KVM
    """

    def __init__(self, folder: Path, root: Path, *, patience: float, emulate: bool) -> None:
        self.accelerated = not emulate and os.access("/dev/kvm", os.R_OK | os.W_OK)
        self.boots: list[float] = []  # seconds until a command could be run
        self._folder = folder
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None
        self._connection = socket.socket()
        (self._kernel,) = root.glob("boot/vmlinuz-*")
        (self._initrd,) = root.glob("boot/initrd.img-*")
        self._make_image("root", _ROOT_LABEL, "-d", str(root))
        self._make_image("disk", _DISK_LABEL)

    @property
    def kind(self) -> str:
        """Return how its processor works."""
        return "KVM" if self.accelerated else "emulated (TCG)"

    def _make_image(self, name: str, label: str, *arguments: str) -> None:
        command = ["mke2fs", "-q", "-t", "ext4", "-L", label, *arguments]
        subprocess.run([*command, self._image(name), _SIZES[name]], check=True)

    def _image(self, name: str) -> str:
        return str(self._folder / f"{name}.ext4")

    def boot(self, clock: datetime, *, disk: bool = True) -> None:
        """Switch it on; return when it runs commands.

        clock: the time of its hardware clock, in UTC; disk: whether the backup disk is plugged in
        """
        began = time.monotonic()
        port = self._folder / "port"
        port.unlink(missing_ok=True)
        self._process = subprocess.Popen(self._command(clock, port, disk=disk))
        self._connection = self._connected(port, began)
        self.run("true")
        self.boots.append(time.monotonic() - began)

    def _command(self, clock: datetime, port: Path, *, disk: bool) -> list[str]:
        images = ("root", "disk") if disk else ("root",)
        drives = [f"file={self._image(name)},format=raw,if=virtio" for name in images]
        return [
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
            *("-m", "1024", "-smp", "1", "-no-reboot"),
            *(("-accel", "kvm", "-cpu", "host") if self.accelerated else ("-accel", "tcg")),
            *("-rtc", f"base={clock:%Y-%m-%dT%H:%M:%S}"),
            *("-kernel", str(self._kernel), "-initrd", str(self._initrd)),
            *("-append", "root=/dev/vda rw console=ttyS0 no_timer_check loglevel=4"),
            *("-serial", f"file:{self._folder}/console.log"),
            *(word for drive in drives for word in ("-drive", drive)),
            *("-nic", "user,model=virtio-net-pci"),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *("-chardev", f"socket,path={port},server=on,wait=off,id=trial"),
            *("-device", "virtserialport,chardev=trial,name=trial"),
        ]

    def _connected(self, port: Path, began: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(self._patience)
        while True:
            try:
                connection.connect(str(port))
            except (FileNotFoundError, ConnectionRefusedError):
                if self._ended() or time.monotonic() - began > self._patience:
                    raise BackupError("qemu: it does not start", "Try --tcg.") from None
                time.sleep(0.05)
            else:
                return connection

    def run(self, *command: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a command in it as root; return what it printed.

        Raises BackupError with the end of the console if the machine does not answer, and if the
        command ends with another exit code than this. Any exit code if it is None.
        """
        try:
            self._connection.sendall(json.dumps(command).encode() + b"\n")
            returncode, stdout, stderr = json.loads(b"".join(self._answer()))
        except (OSError, ValueError) as error:
            raise BackupError(f"{command}: the machine: {error}", self._console()) from error
        if code is not None and returncode != code:
            raise BackupError(f"{command}: exit code {returncode}", stdout + stderr)
        return subprocess.CompletedProcess(command, returncode, stdout, stderr)

    def _answer(self) -> Iterator[bytes]:
        data = b""
        while not data.endswith(b"\n"):
            data = self._connection.recv(1 << 16)
            if not data:
                raise ConnectionError("it is off")
            yield data

    def _console(self) -> str:
        text = Path(self._folder, "console.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-30:])

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def power_off(self) -> None:
        """Shut it down as its operator does."""
        self.run("systemctl", "poweroff", "--no-block")
        self._wait()

    def cut_power(self) -> None:
        """End it at once: what its kernel has not written to its disks is lost."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._wait()

    def _wait(self) -> None:
        if self._process is not None:
            try:
                self._process.wait(self._patience)
            except subprocess.TimeoutExpired:
                raise BackupError("the machine does not power off", self._console()) from None
        self._connection.close()


@contextlib.contextmanager
def opened(folder: Path, root: Path, *, patience: float, emulate: bool) -> Iterator[Machine]:
    """Give a machine whose images are in a new folder; both are gone afterwards."""
    folder.mkdir(parents=True)
    try:
        machine = Machine(folder, root, patience=patience, emulate=emulate)
        try:
            yield machine
        finally:
            machine.cut_power()
    finally:
        shutil.rmtree(folder)


def missing_programs() -> Sequence[str]:
    """Return what must be installed here first."""
    needed = ("qemu-system-x86_64", "debootstrap", "mke2fs")
    return [name for name in needed if shutil.which(name, path=os.environ["PATH"]) is None]
