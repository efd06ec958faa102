"""The user's own tar."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.filesets import archives, listed, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("text", "ending"), [("tar czCf /", ".tar.gz"), ("tar cf", ".tar")])
def test_tar_command_is_honoured(tree: Path, tmp_path: Path, text: str, ending: str) -> None:
    arguments = ["--FILESET_INCLUDE", tree, "--FILESET_EXCLUDE", "*.log", "--TAR_COMMAND", text]
    (tree / "x.log").write_text("x")
    run(tmp_path, *arguments)
    (path,) = archives(tmp_path)
    assert path.name.endswith(ending)
    assert path.stat().st_mode & 0o777 == 0o600
    names = listed(tmp_path)
    assert os.fsencode(tree / "plain")[1:] in names
    assert os.fsencode(tree / "x.log")[1:] not in names


@pytest.mark.parametrize("text", ["true", "false", "no-such-tar cf", "sh -c 'exit 2'"])
def test_a_tar_command_that_does_nothing_is_a_failure(
    tree: Path, tmp_path: Path, text: str
) -> None:
    run(tmp_path, "--FILESET_INCLUDE", tree, "--TAR_COMMAND", text, code=1)
    assert archives(tmp_path) == []


@pytest.mark.parametrize(("end", "code"), [("", 0), (" | head -c 1536", 1)])
@pytest.mark.parametrize("pack", ["gzip", "bzip2", "xz", "zstd -q", "cat"])
def test_what_tar_command_wrote_is_read_to_its_end(
    tree: Path, tmp_path: Path, pack: str, end: str, code: int
) -> None:
    """Cut between members, tar itself would not notice."""
    if shutil.which(pack.removesuffix(" -q")) is None:
        pytest.skip(f"needs {pack}")
    other = tmp_path / "own-tar"
    other.write_text(f'#!/bin/bash\nout=$1; shift\n/bin/tar -cf - "$@"{end} | {pack} > "$out"\n')
    other.chmod(0o755)
    arguments = ["--FILESET_INCLUDE", tree, "--TAR_COMMAND", other]
    output = run(tmp_path, *arguments, code=code)
    assert len(archives(tmp_path)) == (code == 0)
    assert code == 0 or "stops before its end" in output


def test_changed_files_are_judged_for_tar_command_too(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "own-tar"
    says = "echo tar: x/a: file changed as we read it >&2; exit 1"
    other.write_text(f'#!/bin/bash\n/bin/tar -cf "$@"\n{says}\n')
    other.chmod(0o755)
    arguments = ["--FILESET_INCLUDE", tree, "--TAR_COMMAND", other, "--CHANGED_FILES"]
    assert "/x/a: file changed" in run(tmp_path, *arguments, "fail", code=1, NC_BACKUP_RUN_ID="1")
    assert archives(tmp_path) == []
    assert "1 file changed while" in run(tmp_path, *arguments, "log", NC_BACKUP_RUN_ID="2")


def test_sudo_never_asks(tree: Path, tmp_path: Path) -> None:
    sudo = tmp_path / "bin/sudo"
    sudo.parent.mkdir()
    sudo.write_text('#!/bin/sh\n[ "$1" = -n ] || exit 9\nshift\nexec "$@"\n')
    sudo.chmod(0o755)
    arguments = ["--FILESET_INCLUDE", tree, "--TAR_COMMAND", "sudo /bin/tar czCf /"]
    run(tmp_path, *arguments, PATH=f"{sudo.parent}:{os.environ['PATH']}")
    (path,) = archives(tmp_path)
    assert path.name.endswith(".tar.gz")
