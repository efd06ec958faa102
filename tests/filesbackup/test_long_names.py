"""Paths that are longer than any that the system would take in one piece."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.system import System, execute


def deepen(folder: Path, *, name: str = "d" * 150, levels: int = 30) -> None:
    """Make folders in one another, and a file in the last, far beyond what a path may have."""
    here = Path.cwd()
    os.chdir(folder)
    for _ in range(levels):
        Path(name).mkdir()
        os.chdir(name)
    Path("bottom").write_text("deep")
    os.chdir(here)


@pytest.mark.slow
@pytest.mark.fault("a path has more than 4095 bytes", "exit 3, named; all others are stored")
@pytest.mark.parametrize(
    ("stream", "command"),
    [
        ("True", ""),
        ("False", ""),
        ("True", "tar czCf /"),
        ("False", "tar -C / -cf"),
        ("True", "tar --format=posix -cf"),
    ],
)
def test_a_path_too_long_to_be_restored_is_named(tmp_path: Path, stream: str, command: str) -> None:
    """Issue 11 A9, A10: what restore would have to leave out is a warning of the backup."""
    system = System(tmp_path)
    system.general["STREAM"] = stream
    (system.source / "file").write_text("x")
    deepen(system.source)
    parameters: dict[str, Any] = {"FILESET_INCLUDE": str(system.source)}
    parameters |= {"TAR_COMMAND": command} if command else {}
    system.configure(system.short(FILESET=execute("filesbackup", **parameters)))
    assert system.result()["exit_code"] == 3
    (item,) = system.manifest()["items"]
    lines = [line for line in item["warnings"] if "at most 4095 are allowed" in line]
    assert any("d/bottom: path too long to be restored: " in line for line in lines)
    assert all(line.startswith(f"{system.source}/d") for line in lines)
    assert lines == item["warnings"]
    system.configure(
        system.short(FILESET=execute("filesbackup", **parameters, FILESET_EXCLUDE=["d" * 150]))
    )
    assert system.result("--accept-shrink")["exit_code"] == 0


@pytest.mark.slow
def test_an_archive_among_the_files_is_no_long_path(tmp_path: Path) -> None:
    """Issue 11 A9: an archive that is backed up may hold what the fileset does not."""
    system = System(tmp_path)
    deep = tmp_path / "deep"
    deep.mkdir()
    deepen(deep)
    for number, form in enumerate(("posix", "gnu")):
        target = system.source / f"{number}.tar"
        tar = ["tar", f"--format={form}", "-cf", str(target), "-C", "/", str(deep)[1:]]
        subprocess.run(tar, check=True)
    include = str(system.source)
    system.configure(system.short(FILESET=execute("filesbackup", FILESET_INCLUDE=include)))
    assert system.result()["exit_code"] == 0
