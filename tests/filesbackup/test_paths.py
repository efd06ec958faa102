"""What goes into an archive and what stays out, however it is spelt."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.filesets import archives, listed, run


def test_excludes_have_an_effect(tree: Path, tmp_path: Path) -> None:
    for name in ("cache/x", "sub/cache/y", "sub/a.log", "b.log", "sub/keep"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x")
    excluded = f"{tree}/cache/ *.log /not/there"
    run(tmp_path, "--FILESET_INCLUDE", tree, "--FILESET_EXCLUDE", excluded)
    names = {
        name.decode("utf-8", "replace").removeprefix(str(tree)[1:] + "/")
        for name in listed(tmp_path)
    }
    assert "sub/keep" in names
    assert "sub/cache/y" in names, "an absolute exclude is anchored"
    assert not {"cache/", "cache/x", "sub/a.log", "b.log"} & names


def test_the_works_own_paths_stay_out(tree: Path, tmp_path: Path) -> None:
    odd = tree / "key [1]*"
    odd.write_text("secret")
    other = tree / "key 1"
    other.write_text("public")
    work = tree / "work"
    arguments = ["--FILESET_INCLUDE", tree, "--WORK_FOLDER", work]
    run(tmp_path, *arguments, NC_BACKUP_PRIVATE=json.dumps([str(odd)]))
    (path,) = (work / "files").iterdir()
    names = subprocess.run(
        ["tar", "tf", str(path)], capture_output=True, check=True, text=True
    ).stdout
    assert "key 1\n" in names
    assert "key [1]" not in names
    assert "/work/" not in names


@pytest.mark.parametrize(
    ("include", "code", "says"),
    [
        ("/", 2, "/ is not allowed"),
        ("/etc/..", 2, "/ is not allowed"),
        ("//", 2, "/ is not allowed"),
        ("/.", 2, "/ is not allowed"),
        ("///", 2, "/ is not allowed"),
        (".", 2, "/ is not allowed"),
        ("..", 2, "/ is not allowed"),
        ("[]", 2, "empty value"),
        ("[broken", 2, "is not paths"),
        ("/not/there", 1, "FILESET_INCLUDE: /not/there: no such file or directory"),
    ],
)
def test_bad_paths_are_named_before_anything_is_written(
    tmp_path: Path, include: str, code: int, says: str
) -> None:
    assert says in run(tmp_path, "--FILESET_INCLUDE", include, code=code)
    assert archives(tmp_path) == []


def test_a_fileset_in_the_work_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "work/inside").mkdir(parents=True)
    output = run(tmp_path, "--FILESET_INCLUDE", tmp_path / "work/inside", code=2)
    assert "never backed up" in output


def test_the_inner_of_two_paths_is_stored_once(tree: Path, tmp_path: Path) -> None:
    run(tmp_path, "--FILESET_INCLUDE", json.dumps([str(tree), str(tree / "plain"), str(tree)]))
    argv = ["tar", "tf", str(archives(tmp_path)[0])]
    names = subprocess.run(argv, capture_output=True, check=True, text=True).stdout.splitlines()
    assert names.count(f"{str(tree)[1:]}/plain") == 1


def test_a_link_that_is_configured_is_stored_with_what_it_leads_to(
    tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tree)
    run(tmp_path, "--FILESET_INCLUDE", tmp_path / "link")
    names = listed(tmp_path)
    assert os.fsencode(tmp_path / "link")[1:] in names
    assert os.fsencode(tree / "plain")[1:] in names


def test_a_fileset_all_of_which_is_excluded_is_a_failure(tree: Path, tmp_path: Path) -> None:
    arguments = ["--FILESET_INCLUDE", tree, "--FILESET_EXCLUDE", tree]
    assert "holds nothing" in run(tmp_path, *arguments, code=1)
    assert archives(tmp_path) == []


def test_a_link_to_the_top_is_the_top(tmp_path: Path) -> None:
    (tmp_path / "top").symlink_to("/")
    output = run(tmp_path, "--FILESET_INCLUDE", tmp_path / "top", code=2)
    assert "/ is not allowed" in output


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("TAR_COMMAND", "tar 'cf", "TAR_COMMAND: no closing quotation"),
        ("TAR_COMMAND", "  ", "TAR_COMMAND: empty value"),
        ("FILESET_EXCLUDE", "/", "FILESET_EXCLUDE: '/': invalid pattern"),
        ("FILESET_EXCLUDE", '["", "x"]', "FILESET_EXCLUDE: '': invalid pattern"),
        ("CHANGED_FILES", "maybe", "is not one of log, warn, fail"),
    ],
)
def test_a_value_that_means_nothing_is_refused(
    tree: Path, tmp_path: Path, key: str, value: str, says: str
) -> None:
    assert says in run(tmp_path, "--FILESET_INCLUDE", tree, f"--{key}", value, code=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tar", "key_by_link"),
    [("", False), ("", True), ("tar cf", True), ("tar czf", False), ("tar czCf /", True)],
)
def test_a_key_stays_out_however_it_is_spelt(
    linked: Path, tree: Path, tmp_path: Path, tar: str, key_by_link: bool
) -> None:
    key = (linked if key_by_link else tree) / "keys/key [1]\\*"
    arguments = ["--FILESET_INCLUDE", linked, "--TAR_COMMAND", tar]
    run(tmp_path, *arguments, NC_BACKUP_PRIVATE=json.dumps([str(key)]))
    names = b"\n".join(listed(tmp_path))
    assert b"/keys/" in names
    assert b"key [1]" not in names
    assert os.fsencode(tmp_path / "way")[1:] in names.split(b"\n"), "the link is stored as a link"
    assert os.fsencode(tree / "plain")[1:] in names.split(b"\n")


@pytest.mark.slow
@pytest.mark.parametrize("tar", ["", "tar cf", "tar czCf /"])
def test_an_exclude_over_a_link_has_an_effect(linked: Path, tmp_path: Path, tar: str) -> None:
    for name in ("cache", "a/cache", "a/b/cache"):
        (linked / name).mkdir(parents=True)
        (linked / name / "x").write_text("x")
    excluded = f"{linked}//cache {linked}/*/cache {linked}/keys/./"
    arguments = ["--FILESET_INCLUDE", linked, "--FILESET_EXCLUDE", excluded, "--TAR_COMMAND", tar]
    run(tmp_path, *arguments)
    names = b"\n".join(listed(tmp_path))
    assert b"/a/b/cache/x" in names, "a * stays within one folder"
    assert b"tree/cache" not in names
    assert b"tree/a/cache" not in names
    assert b"tree/keys" not in names


@pytest.mark.slow
def test_one_folder_by_two_ways_is_stored_once(linked: Path, tree: Path, tmp_path: Path) -> None:
    run(tmp_path, "--FILESET_INCLUDE", json.dumps([str(linked), str(tree)]))
    argv = ["tar", "tf", str(archives(tmp_path)[0])]
    names = subprocess.run(argv, capture_output=True, check=True, text=True).stdout.splitlines()
    assert len([name for name in names if name.endswith("/plain")]) == 1


def test_a_dangling_link_that_is_configured_is_missing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    output = run(tmp_path, "--FILESET_INCLUDE", tmp_path / "link", code=1)
    assert f"{tmp_path}/link: no such file or directory" in output


@pytest.mark.needs("root")
def test_another_file_system_within_is_kept_where_it_is_named(tree: Path, tmp_path: Path) -> None:
    mounted = tree / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(mounted)], check=True)
    try:
        (mounted / "file").write_text("x")
        arguments = ["--ONE_FILE_SYSTEM", "True", "--FILESET_INCLUDE"]
        run(tmp_path, *arguments, tree, NC_BACKUP_RUN_ID="1")
        assert not [name for name in listed(tmp_path) if name.endswith(b"mounted/file")]
        (tmp_path / "work/files/1.tar").unlink()
        run(tmp_path, *arguments, f"{tree} {mounted}", NC_BACKUP_RUN_ID="2")
        assert [name for name in listed(tmp_path) if name.endswith(b"mounted/file")]
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_a_folder_whose_name_is_not_utf8_is_told_of(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    (folder / "x").write_text("x")
    assert "\\xff" in run(tmp_path, "--FILESET_INCLUDE", folder)


@pytest.mark.parametrize("tar", ["", "tar cf", "tar czCf /"])
def test_a_configured_name_is_taken_by_the_letter(tmp_path: Path, tar: str) -> None:
    folder = tmp_path / "-a\\nb\\101 [x]*?"
    folder.mkdir()
    (folder / "file").write_text("x")
    include = json.dumps([str(folder)])
    run(tmp_path, "--FILESET_INCLUDE", include, "--TAR_COMMAND", tar)
    assert os.fsencode(folder / "file")[1:] in listed(tmp_path)
