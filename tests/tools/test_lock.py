from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.base import lock
from tools.base.errors import LockedError
from tools.base.project import ROOT

MOUNTS = b"/dev/sda / ext4 rw 0 0\nsrv:/x /mnt/nfs\\040share nfs4 rw 0 0\ntmpfs /mnt tmpfs rw 0 0\n"
ODD_MOUNTS = [
    b"/mnt/caf\xe9",
    "/mnt/donn\xe9es".encode(),
    "/mnt/a\u2028b".encode(),
    b"/mnt/a\x0bb\x0c\x1c\r",
]


def test_the_second_one_is_told_who_holds_it(tmp_path: Path) -> None:
    with lock.hold(tmp_path / "lock"), pytest.raises(LockedError, match=r"process \d+, since"):  # noqa: SIM117
        with lock.hold(tmp_path / "lock"):
            pass
    with lock.hold(tmp_path / "lock"):
        pass


def test_of_many_at_once_exactly_one_gets_it(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from tools.base import lock
from tools.base.errors import LockedError
from tools.base.project import ROOT
try:
    with lock.hold(Path(sys.argv[1])):
        print("got", flush=True)
        sys.stdin.read()
except LockedError:
    print("busy", flush=True)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) for _ in range(12)
    ]
    answers = [process.stdout.readline().strip() for process in started if process.stdout]
    for process in started:
        process.communicate()
    assert sorted(answers) == ["busy"] * 11 + ["got"]


def test_a_link_in_place_of_the_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="lock"), lock.hold(tmp_path / "lock"):
        pass
    assert not (tmp_path / "victim").exists()


def test_network_file_systems_are_known() -> None:
    assert lock.file_system(Path("/mnt/nfs share/a"), MOUNTS) == "nfs4"
    assert lock.file_system(Path("/mnt/other"), MOUNTS) == "tmpfs"
    assert lock.file_system(Path("/opt"), MOUNTS) == "ext4"


@pytest.mark.parametrize("name", ODD_MOUNTS)
def test_mounts_with_any_bytes_in_their_names(name: bytes) -> None:
    mounts = MOUNTS + b"srv:/y " + name + b" nfs4 rw 0 0\nshort\n"
    assert lock.file_system(Path(os.fsdecode(name), "work"), mounts) == "nfs4"
    assert lock.file_system(Path("/opt"), mounts) == "ext4"
