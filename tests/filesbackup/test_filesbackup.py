"""The fileset: real GNU tar on a tree with everything."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.filesets import archives, facts, run
from tools.base.errors import SourceError


def test_a_tree_with_everything_comes_back_equal(tree: Path, tmp_path: Path) -> None:
    subprocess.run(["setfattr", "-n", "user.note", "-v", "kept", str(tree / "plain")], check=False)
    subprocess.run(["setfacl", "-m", "u:1:r", str(tree / "plain")], check=False)
    if os.geteuid() == 0:
        os.chown(tree / "link", 1234, 5678, follow_symlinks=False)
    before = facts(tree)
    run(tmp_path, "--FILESET_INCLUDE", tree)
    (path,) = archives(tmp_path)
    assert path.stat().st_size < 4 << 20, "the hole of a sparse file was stored"
    out = tmp_path / "out"
    out.mkdir()
    tar_options = [
        "--acls",
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "--same-permissions",
    ]
    subprocess.run(["tar", "xf", str(path), "-C", str(out), *tar_options], check=True)
    back = out / str(tree).lstrip("/")
    assert facts(back) == before
    assert (back / "plain").stat().st_ino == (back / "hard").stat().st_ino
    assert (back / "sparse").stat().st_blocks < 1000


def test_names_of_sections(tree: Path, tmp_path: Path) -> None:
    run(tmp_path, "--FILESET_INCLUDE", tree, NC_BACKUP_RUN_ID="20261123_030000")
    run(
        tmp_path,
        "--FILESET_INCLUDE",
        tree,
        NC_BACKUP_RUN_ID="20261123_030000",
        NC_BACKUP_SECTION="HOME",
    )
    assert [path.name for path in archives(tmp_path)] == [
        "20261123_030000.HOME.tar",
        "20261123_030000.tar",
    ]


def test_an_empty_folder_is_a_warning_unless_allowed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    arguments = ["--FILESET_INCLUDE", tmp_path / "empty"]
    assert "empty folder" in run(tmp_path, *arguments, code=3, NC_BACKUP_RUN_ID="1")
    run(tmp_path, *arguments, "--ALLOW_EMPTY", "True", NC_BACKUP_RUN_ID="2")


def test_a_full_work_folder_is_named(tree: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    (tree / "big").write_bytes(os.urandom(200_000))
    work = tmp_path / "work"
    work.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(work)], check=True)
    try:
        output = run(tmp_path, "--FILESET_INCLUDE", tree, code=1)
        assert "no space left on device" in output.lower()
        assert str(work) in output
        assert archives(tmp_path) == []
    finally:
        subprocess.run(["umount", str(work)], check=True)


def test_root_is_refused_unless_allowed(tree: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    arguments = ["--FILESET_INCLUDE", tree, "--ALLOW_ROOT", "False"]
    assert "must not run as root" in run(tmp_path, *arguments, code=2)


def test_the_test_of_the_section_changes_nothing(tree: Path, tmp_path: Path) -> None:
    from filesbackup import filesbackup as loaded

    fields: dict[str, Any] = {"allow_root": True, "work_folder": tmp_path / "work"}
    good = loaded.test(loaded.Options(fileset_include=(tree,), **fields))
    assert "GNU tar" in str(good[0])
    assert f"{tree} exists" in good
    with pytest.raises(SourceError, match="no such file"):
        loaded.test(loaded.Options(fileset_include=(tree / "none",), **fields))
    assert not (tmp_path / "work").exists()
