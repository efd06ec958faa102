"""What a fileset does not store is named in every run, streamed and staged."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from filesbackup import sample, tar_archive
from tests.system import System, execute

pytestmark = pytest.mark.slow


@pytest.fixture(params=["True", "False"], ids=["streamed", "staged"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> System:
    """A system whose runs are streamed, then one whose runs are staged."""
    system = System(tmp_path)
    system.general["STREAM"] = request.param
    return system


def configure(system: System, **parameters: Any) -> None:
    system.configure(system.short(FILESET=execute("filesbackup", **parameters)))


def item(system: System) -> dict[str, Any]:
    (only,) = system.manifest()["items"]
    return dict(only)


@pytest.mark.fault("a configured path is missing", "exit 3, named; the others are stored")
def test_a_missing_path_does_not_cost_the_others(both: System) -> None:
    """Issue 11 A7: the rest is stored, the path named, exit 3, and -t has a WARN."""
    (both.source / "file").write_text("x")
    loop, dead = both.folder / "loop", both.folder / "dead"
    loop.symlink_to(loop)
    dead.symlink_to(both.folder / "nowhere")
    below = both.source / "file/below"
    paths = [both.folder / "gone", loop, dead, below, Path("/" + "x" * 300)]
    configure(both, FILESET_INCLUDE=[str(path) for path in (*paths, both.source)])
    result = both.result()
    assert result["exit_code"] == 3, result
    for path, reason in zip(
        paths,
        ("no such file or directory", "too many levels of symbolic links",
         "no such file or directory", "not a directory", "file name too long"),
        strict=True,
    ):  # fmt: skip
        line = f"FILESET_INCLUDE: {path}: {reason}"
        assert line in item(both)["warnings"]
        assert line in result["stderr"] + json.dumps(result)
    tested = both.run("-t")
    assert tested.returncode == 0
    assert tested.stderr.count("WARN FILESET:") == 5
    configure(both, FILESET_INCLUDE=[str(path) for path in paths])
    assert both.run("-t").returncode == 1
    assert both.run("-r").returncode == 1


@pytest.mark.parametrize(
    ("exclude", "gone"),
    [
        ("{top}/*/cache", True),
        ("pr*j", True),
        ("/cache", False),
        ("[a-c]ache", True),
    ],
)
def test_a_configured_path_that_an_exclude_removes(both: System, exclude: str, gone: bool) -> None:
    """Issue 11 A6: also by a name above it; a warning, exit 3, and -t has a WARN."""
    inner, other = both.source / "p/cache/proj", both.source / "other"
    inner.mkdir(parents=True)
    other.mkdir()
    (inner / "f").write_text("x")
    (other / "f").write_text("x")
    pattern = exclude.format(top=both.source)
    configure(both, FILESET_INCLUDE=[str(inner), str(other)], FILESET_EXCLUDE=[pattern])
    tested = both.run("-t")
    result = both.result()
    line = f"FILESET_INCLUDE: {inner}: excluded by FILESET_EXCLUDE {pattern}"
    assert result["exit_code"] == (3 if gone else 0), result
    assert (line in item(both)["warnings"]) == gone
    assert (line in tested.stderr) == gone
    assert tested.returncode == 0


def test_an_exclude_may_remove_an_inner_path_or_a_link(both: System) -> None:
    """Issue 11 A6: a path inside another one counts, and so does a link that is configured."""
    inner = both.source / "keep/cache"
    inner.mkdir(parents=True)
    (both.source / "f").write_text("x")
    link = both.folder / "link"
    link.symlink_to(both.source / "f")
    names = [str(path) for path in (both.source, inner, link)]
    configure(both, FILESET_INCLUDE=names, FILESET_EXCLUDE=["cache", "link"])
    assert both.result()["exit_code"] == 3
    assert item(both)["warnings"][:2] == [
        f"FILESET_INCLUDE: {inner}: excluded by FILESET_EXCLUDE cache",
        f"FILESET_INCLUDE: {link}: excluded by FILESET_EXCLUDE link",
    ]


def test_sockets_flags_and_private_paths_are_notes(both: System) -> None:
    """Issue 11 A6: harmless omissions are notes of the item, in its manifest."""
    here = Path.cwd()
    opened = []
    os.chdir(both.source)
    for number in range(5):
        one = socket.socket(socket.AF_UNIX)
        one.bind(f"s{number}")
        opened.append(one)
    os.chdir(here)
    both.general["WORK_FOLDER"] = str(both.source / "work")
    both.work = both.source / "work"
    both.key = both.source / "key"
    configure(both, FILESET_INCLUDE=str(both.source))
    result = both.result()
    for one in opened:
        one.close()
    assert result["exit_code"] == 0, result
    notes = item(both)["notes"]
    assert any(line.startswith(f"5 sockets not stored: {both.source}/s") for line in notes)
    assert any(line.endswith(" and 2 more") for line in notes)
    assert "not stored: file flags (chattr) and birth times" in notes
    for path in (both.work, both.key):
        assert f"{path}: not stored: a work folder, store or key file of the backup" in notes


def test_a_configured_socket_is_a_warning(both: System) -> None:
    """Issue 11 A6: who names a socket expects it in the backup."""
    (both.source / "file").write_text("x")
    path = both.folder / "sock"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
        configure(both, FILESET_INCLUDE=[str(both.source), str(path)])
        assert both.result()["exit_code"] == 3
        line = f"FILESET_INCLUDE: {path}: is a socket, which tar does not store"
        assert line in item(both)["warnings"]
        assert line in both.run("-t").stderr


def test_a_default_path_that_is_missing_is_a_note() -> None:
    """Issue 11 A6: of the default paths not every machine has all."""
    from filesbackup import fileset_paths as module

    resolved = module.resolve(module.DEFAULTS, (), (), one_file_system=False)
    assert resolved.warnings == ()
    lines = [line for line in resolved.notes if "no such file" in line]
    assert len(lines) == len(module.DEFAULTS) - len(resolved.fileset.include)


@pytest.mark.needs("root")
def test_a_mount_point_that_is_not_entered_is_a_note(both: System) -> None:
    """Issue 11 A6: ONE_FILE_SYSTEM leaves out what is mounted, and says what."""
    mounted = both.source / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(mounted)], check=True)
    try:
        configure(both, FILESET_INCLUDE=str(both.source), ONE_FILE_SYSTEM="True")
        assert both.result()["exit_code"] == 0
        line = f"1 mount point not entered (ONE_FILE_SYSTEM): {mounted}"
        assert line in item(both)["notes"]
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_a_tar_command_without_attributes_says_so(both: System) -> None:
    (both.source / "f").write_text("x")
    configure(both, FILESET_INCLUDE=str(both.source), TAR_COMMAND="tar cf")
    assert both.result()["exit_code"] == 0
    assert any("--acls --xattrs" in line for line in item(both)["notes"])


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """This process with the rights of a user who may read little."""
    os.setegid(65534)
    os.seteuid(65534)
    yield
    os.seteuid(0)
    os.setegid(0)


def shut(tree: Path) -> Path:
    """A tree that others may read, but for three files and a folder; its log is excluded."""
    tree.mkdir(mode=0o755)
    for number in range(3):
        (tree / f"shut{number}").touch(mode=0o600)
    (tree / "shut.log").touch(mode=0o600)
    (tree / "open").touch(mode=0o644)
    (tree / "folder").mkdir(mode=0o700)
    (tree / "link").symlink_to("shut0")
    for folder in (tree, *tree.parents):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):  # noqa: S108  (where pytest works)
            folder.chmod(folder.stat().st_mode | 0o055)
    return tree


@pytest.mark.needs("root")
def test_unreadable_files_are_found_beforehand(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Issue 11 A11: -t looks at the files below the configured paths, excludes honoured."""
    tree = shut(tmp_path / "tree")
    fileset = tar_archive.Fileset((tree,), ("*.log",))
    assert sample.find_unreadable(fileset).unreadable == []
    request.getfixturevalue("as_nobody")
    looked = sample.find_unreadable(fileset)
    names = {f"{tree}/{name}" for name in ("shut0", "shut1", "shut2", "folder")}
    assert set(looked.unreadable) == names
    assert len(looked.unreadable) == 4
    assert (looked.checked, looked.whole) == (6, True)


def test_the_look_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 11 A11: bounded in number and time, each configured path with its share."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(300):
            (tmp_path / name / str(number)).touch()
    fileset = tar_archive.Fileset((tmp_path / "a", tmp_path / "b"))
    monkeypatch.setattr(sample, "_MOST", 200)
    looked = sample.find_unreadable(fileset)
    assert (looked.checked, looked.whole) == (200, False)
    slow = tmp_path / "bin/tar"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(sample, "_SECONDS", 0.2)
    monkeypatch.setattr(sample, "_MOMENT", 0.1)
    assert sample.find_unreadable(fileset).checked == 0
