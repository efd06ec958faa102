"""A path on a mount that does not answer: a real one, of a FUSE daemon that is silent."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import System, execute

_MNT_DETACH = 2  # umount2(2)


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[Path]:
    """A folder in which every look-up waits for ever; it needs root and /dev/fuse."""
    folder = tmp_path / "hung"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        daemon = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"/dev/fuse: {error.strerror}")
    options = f"fd={daemon},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        if libc.mount(b"hung", os.fsencode(folder), b"fuse", 0, options):
            pytest.skip(f"mount: {os.strerror(ctypes.get_errno())}")
        yield folder
        libc.umount2(os.fsencode(folder), _MNT_DETACH)
    finally:
        os.close(daemon)


@pytest.mark.fault(
    "a path of a source on a mount that does not answer (run and -t)",
    "its section fails after TIMEOUT, the others are stored",
)
def test_a_path_on_a_hung_mount(tmp_path: Path, hung: Path) -> None:
    (tmp_path / "system").mkdir()
    system = System(tmp_path / "system")
    (system.source / "file").write_text("content")
    source = {**execute("filesbackup", FILESET_INCLUDE=str(hung / "data")), "TIMEOUT": "1s"}
    system.configure({"HUNG": source, **system.whole()}, STREAM="True")
    tested = system.run("-t")
    assert tested.returncode == 1
    assert "HUNG took longer than its TIMEOUT of 1 s" in tested.stderr
    assert "STORAGE_LOCAL" in tested.stdout
    result = system.result()
    assert result["exit_code"] == 1
    assert "its TIMEOUT of 1 s" in result["sections"][0]["message"]
    assert [item["section"] for item in system.manifest()["items"]] == ["FILESET"]
