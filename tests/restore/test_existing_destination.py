"""A restore into folders that exist: what is equal to the backup, and what is never touched."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.filesets import difficult
from tests.system import System, execute


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    """A system with one run of a difficult tree; its folder `site` is stored, `site/..` is not."""
    new_system = System(tmp_path_factory.mktemp("made"))
    (new_system.source / "www").mkdir()
    tree = difficult(new_system.source / "www/site")
    os.setxattr(tree / "plain", "user.note", b"x")
    subprocess.run(["setfacl", "-m", "u:12:rx,d:u:34:rwx", str(tree / "empty")], check=True)
    if os.geteuid() == 0:
        os.chown(tree / "empty", 777, 888)
        os.chown(tree / "plain", 33, 33)
        os.setxattr(tree / "plain", "security.capability", bytes.fromhex("01000002" + "00" * 16))
    (tree / "empty").chmod(0o2751)
    os.utime(tree / "empty", (1_000_000_000, 1_000_000_000))
    os.utime(tree, (1_000_000_000, 1_000_000_000))
    (new_system.source / "www").chmod(0o711)
    sections = new_system.full_sections(FILESET=execute("filesbackup", FILESET_INCLUDE=str(tree)))
    new_system.configure(sections, STREAM="True")
    assert new_system.result()["exit_code"] == 0
    return new_system


def differences(tree: Path, restored: Path) -> str:
    """What rsync would change in the restored tree to make it equal."""
    return subprocess.run(
        ["rsync", "-aHAXS", "--checksum", "--delete", "--dry-run", "--itemize-changes",
         f"{tree}/", f"{restored}/"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


def statuses(folder: Path) -> list[tuple[int, ...]]:
    """Owner, mode and modification time of a folder and of those below the destination."""
    folders = [folder, *folder.parents]
    results = [one.stat() for one in folders if "out" in one.parts]
    return [(s.st_uid, s.st_gid, s.st_mode, s.st_mtime_ns) for s in results]


@pytest.mark.needs("root", "rsync", "setfacl")
def test_a_restore_by_root_is_equal_by_rsync_also_where_folders_exist(
    system: System, tmp_path: Path
) -> None:
    """Trials 7 A1, A2: owners, times and ACLs of existing folders; folders above became 0700."""
    tree, out = system.source / "www/site", tmp_path / "out"
    arguments = ("--restore", "latest", "--destination", str(out))
    system.restore(*arguments)
    site = out / "FILESET" / tree.relative_to("/")
    assert differences(tree, site) == ""
    parents = [folder for folder in site.parents if folder.is_relative_to(out / "FILESET")]
    assert {folder.stat().st_mode & 0o7777 for folder in parents} == {0o755}
    os.setxattr(site.parent, "user.kept", b"x")
    for number, folder in enumerate((out, *parents)):
        os.chown(folder, 10 + number, 20 + number)
        folder.chmod(0o1700 + number)
        os.utime(folder, (number, number))
    for folder in (site, site / "empty"):
        os.setxattr(folder, "user.stale", b"x")
        os.chown(folder, 1, 1)
        folder.chmod(0o777)
    subprocess.run(["setfacl", "-m", "d:u:99:rwx", str(site)], check=True)
    before = statuses(site.parent)
    system.restore(*arguments, "--overwrite")
    assert differences(tree, site) == ""
    assert statuses(site.parent) == before
    assert os.getxattr(site.parent, "user.kept") == b"x"
    assert sorted(path.name for path in out.iterdir()) == ["FILESET"]


@pytest.mark.fault("a destination has conflicts", "exit 1, all named; nothing is replaced")
def test_a_conflict_leaves_everything_as_it_was(system: System, tmp_path: Path) -> None:
    tree, out = system.source / "www/site", tmp_path / "out"
    site = out / "FILESET" / tree.relative_to("/")
    (site / "plain").mkdir(parents=True)
    (site / "empty").touch()
    (site / "a b").write_text("old")
    arguments = ("--restore", "latest", "--destination", str(out), "--overwrite")
    text = system.restore(*arguments, code=1)
    assert f"{site}/empty, {site}/plain: exists and is of another type" in text
    assert "hint: Nothing was replaced. Move it" in text
    assert (site / "a b").read_text() == "old"
    assert sorted(path.name for path in site.iterdir()) == ["a b", "empty", "plain"]


@pytest.mark.needs("root")
def test_a_destination_that_cannot_be_written_is_one_line(system: System, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(out)], check=True)
    try:
        text = system.restore("--restore", "latest", "--destination", str(out), code=2)
    finally:
        subprocess.run(["umount", str(out)], check=True)
    assert f"error: DESTINATION: {out}: read-only file system" in text
    assert "hint: Mount it read-write" in text
