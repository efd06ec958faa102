"""What a new user and an operator meet at the command line: messages and exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.system import System
from tools.base import project

PROGRAM = project.ROOT / "backup.py"


def backup_output(system: System, *arguments: str, code: int) -> str:
    """backup.py with these words; it must end with this code. What it printed."""
    command = [sys.executable, str(PROGRAM), "-c", str(system.conf), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done
    return done.stdout + done.stderr


def onto_full_disk(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run backup.py with its output onto a full disk."""
    command = [sys.executable, str(PROGRAM), "-c", str(system.conf), *arguments]
    with Path("/dev/full").open("w") as full:
        return subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)


@pytest.mark.parametrize("arguments", [("-n",), ("-t", "--json"), ("-r", "--json")])
def test_output_onto_a_full_disk_is_an_error(system: System, arguments: tuple[str, ...]) -> None:
    """Issue 11 (trials 4, item 24): the output was lost, exit 0, not a word."""
    (system.source / "file").write_text("x")
    system.configure(system.full_sections(), STREAM="True")
    done = onto_full_disk(system, *arguments)
    assert done.returncode == 1
    assert done.stderr.count("error: standard output: no space left on device") == 1


def test_a_migrated_config_onto_a_full_disk_is_an_error(system: System) -> None:
    """Issue 11: the new config was lost; the message has no number of an error."""
    system.configure(system.full_sections(), STREAM="True")
    done = onto_full_disk(system, "--migrate", str(system.conf))
    assert done.returncode == 1
    assert done.stderr.count("error: standard output: no space left on device") == 1
    assert "Errno" not in done.stderr


def test_staged_encryption_before_compression_is_refused(system: System) -> None:
    """Issue 11 A7: -t said ok, and -r failed every night; the plaintext stayed."""
    sections = system.full_sections()
    names = ["FILESET", "ENCRYPTION", "COMPRESSION"]
    names += [name for name in sections if name not in names]
    system.configure({name: sections[name] for name in names}, STREAM="False")
    text = backup_output(system, "-t", code=2)
    assert "COMPRESSION: follows ENCRYPTION" in text
    assert "hint: Move COMPRESSION before ENCRYPTION." in text


@pytest.mark.parametrize("include", ["/My Documents", "/nowhere,/neither", '"/nowhere"'])
def test_paths_that_a_string_cannot_hold_have_a_hint(system: System, include: str) -> None:
    """Issue 11 D: a path with a space, a comma or quotes; the hint was to mount a disk."""
    sections = system.full_sections()
    sections["FILESET"]["PARAMETERS"]["FILESET_INCLUDE"] = include
    system.configure(sections, STREAM="True")
    assert 'JSON list: "FILESET_INCLUDE": ["/a b", "/c"]' in backup_output(system, "-t", code=1)


def test_a_store_that_is_a_file_has_a_hint(system: System, tmp_path: Path) -> None:
    """Issue 11 D: [Errno 20] of the marker below it, without a hint."""
    (tmp_path / "file").write_text("x")
    (system.source / "file").write_text("x")
    system.configure(system.full_sections(), STREAM="True", LOCAL_BACKUP=str(tmp_path / "file"))
    text = backup_output(system, "-r", code=1)
    assert f"{tmp_path}/file: is not a directory" in text
    assert "hint: Set LOCAL_BACKUP to a directory." in text
    assert "Errno" not in text
