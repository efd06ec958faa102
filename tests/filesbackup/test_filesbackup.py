"""The fileset: real GNU tar on a tree with everything, and a double for what cannot be forced."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tools import plugin
from tools.errors import SourceError

PROGRAM = str(plugin.ROOT / "filesbackup/filesbackup.py")
archive = plugin.load("filesbackup/archive.py")
ODD = ("a b", "quo'te\"", "new\nline", "-rf", "$(id)`id`;|&*?[x]\\n", "\\", "ü" * 100, "x" * 255)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "plain").write_text("plain\n")
    (folder / "plain").chmod(0o640)
    os.utime(folder / "plain", ns=(1_600_000_000_123_456_789,) * 2)
    os.link(folder / "plain", folder / "hard")
    (folder / "link").symlink_to("plain")
    (folder / "dangling").symlink_to("/not/there")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "fifo")
    with (folder / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"middle")
    for name in (*ODD, os.fsdecode(b"\xff\xfe not utf-8")):
        (folder / name).write_text(f"{len(name)}")
    deep = folder
    for _ in range(12):
        deep /= "d" * 200
        deep.mkdir()
    (deep / "bottom").write_text("deep")
    return folder


def run(tmp_path: Path, *words: object, code: int = 0, **environment: str) -> str:
    argv = ["--WORK_FOLDER", tmp_path / "work", "--ALLOW_ROOT", "True", "--GREASE", "--x", *words]
    done = subprocess.run(
        [sys.executable, PROGRAM, *map(str, argv)],
        cwd="/",
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
    said = (done.stdout + done.stderr).decode("utf-8", "surrogateescape")
    assert done.returncode == code, said
    assert "Traceback" not in said
    return said


def made(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "work/files"
    return sorted(folder.iterdir()) if folder.exists() else []


def listed(tmp_path: Path) -> set[bytes]:
    argv = ["tar", "tf", str(made(tmp_path)[0]), "--quoting-style=literal", "--null"]
    names = subprocess.run(argv, capture_output=True, check=True).stdout
    return set(names.split(b"\n"))


def facts(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything about a tree that a backup must bring back."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = (path.read_bytes(), status.st_mtime_ns, status.st_nlink)
        elif stat.S_ISLNK(status.st_mode):
            content = path.readlink()
        attributes = {
            n: os.getxattr(path, n, follow_symlinks=False)
            for n in os.listxattr(path, follow_symlinks=False)
        }
        mode = stat.S_IMODE(status.st_mode)
        found[str(path.relative_to(folder))] = (
            kind,
            mode,
            status.st_uid,
            status.st_gid,
            content,
            attributes,
        )
    return found


def test_a_tree_with_everything_comes_back_equal(tree: Path, tmp_path: Path) -> None:
    subprocess.run(["setfattr", "-n", "user.note", "-v", "kept", str(tree / "plain")], check=False)
    subprocess.run(["setfacl", "-m", "u:1:r", str(tree / "plain")], check=False)
    if os.geteuid() == 0:
        os.chown(tree / "link", 1234, 5678, follow_symlinks=False)
    before = facts(tree)
    run(tmp_path, "--FILESET_INCLUDE", tree)
    (path,) = made(tmp_path)
    assert path.stat().st_size < 4 << 20, "the hole of a sparse file was stored"
    out = tmp_path / "out"
    out.mkdir()
    words = ["--acls", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-permissions"]
    subprocess.run(["tar", "xf", str(path), "-C", str(out), *words], check=True)
    back = out / str(tree).lstrip("/")
    assert facts(back) == before
    assert (back / "plain").stat().st_ino == (back / "hard").stat().st_ino
    assert (back / "sparse").stat().st_blocks < 1000


def test_a_socket_is_passed_over_and_no_warning(tree: Path, tmp_path: Path) -> None:
    short = Path(os.path.relpath(tree / "socket"))
    with socket.socket(socket.AF_UNIX) as opened:
        here = Path.cwd()
        os.chdir(tree)
        opened.bind("socket")
        os.chdir(here)
        run(tmp_path, "--FILESET_INCLUDE", tree)
    assert short.name == "socket"


def test_names_of_sections(tree: Path, tmp_path: Path) -> None:
    run(tmp_path, "--FILESET_INCLUDE", tree, NC_BACKUP_RUN_ID="20261123_030000")
    run(
        tmp_path,
        "--FILESET_INCLUDE",
        tree,
        NC_BACKUP_RUN_ID="20261123_030000",
        NC_BACKUP_SECTION="HOME",
    )
    assert [path.name for path in made(tmp_path)] == [
        "20261123_030000.HOME.tar",
        "20261123_030000.tar",
    ]


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
    words = ["--FILESET_INCLUDE", tree, "--WORK_FOLDER", work]
    run(tmp_path, *words, NC_BACKUP_PRIVATE=json.dumps([str(odd)]))
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
        ("/", 2, "/ cannot be a fileset"),
        ("/etc/..", 2, "/ cannot be a fileset"),
        ("//", 2, "/ cannot be a fileset"),
        ("/etc/hostname /not/there", 1, "/not/there does not exist"),
    ],
)
def test_bad_paths_are_named_before_anything_is_written(
    tmp_path: Path, include: str, code: int, says: str
) -> None:
    assert says in run(tmp_path, "--FILESET_INCLUDE", include, code=code)
    assert made(tmp_path) == []


def test_a_fileset_in_the_work_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "work/inside").mkdir(parents=True)
    said = run(tmp_path, "--FILESET_INCLUDE", tmp_path / "work/inside", code=2)
    assert "never backed up" in said


def test_an_empty_folder_is_a_warning_unless_allowed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    words = ["--FILESET_INCLUDE", tmp_path / "empty"]
    assert "is empty" in run(tmp_path, *words, code=3, NC_BACKUP_RUN_ID="1")
    run(tmp_path, *words, "--ALLOW_EMPTY", "True", NC_BACKUP_RUN_ID="2")


def test_the_inner_of_two_paths_is_stored_once(tree: Path, tmp_path: Path) -> None:
    run(tmp_path, "--FILESET_INCLUDE", json.dumps([str(tree), str(tree / "plain"), str(tree)]))
    argv = ["tar", "tf", str(made(tmp_path)[0])]
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


@pytest.mark.needs("root", "setpriv")
def test_unreadable_files_are_listed_by_name(tree: Path, tmp_path: Path) -> None:
    """As root cannot fail to read, a tar without root's power does the reading."""
    (tree / "shut").write_text("x")
    (tree / "shut").chmod(0)
    double = tmp_path / "bin/tar"
    double.parent.mkdir()
    drop = "setpriv --inh-caps=-all --bounding-set=-all --reuid=65534 --regid=65534 --clear-groups"
    double.write_text(f'#!/bin/sh\nexec {drop} /bin/tar "$@"\n')
    double.chmod(0o755)
    for folder in (tree, *tree.parents):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):  # noqa: S108  (where pytest works)
            folder.chmod(folder.stat().st_mode | 0o055)
    said = run(
        tmp_path, "--FILESET_INCLUDE", tree, code=3, PATH=f"{double.parent}:{os.environ['PATH']}"
    )
    assert f"warning: {tree}/shut: permission denied" in said
    assert len(made(tmp_path)) == 1


def double(tmp_path: Path, says: str, code: int, *, end: bool = True) -> str:
    """A tar that checks its arguments, writes a real archive (or half of it) and complains."""
    place = tmp_path / "bin/tar"
    place.parent.mkdir(exist_ok=True)
    cut = "" if end else " | head -c 700"
    place.write_text(
        f"#!/bin/bash\n[[ $* == *--null*--files-from=-* && $LC_ALL == C ]] || exit 9\n"
        f'/bin/tar "$@"{cut}\n'
        f"printf '%s\\n' {says!r} >&2\n" + (f"kill -{-code} $$\n" if code < 0 else f"exit {code}\n")
    )
    place.chmod(0o755)
    return f"{place.parent}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("says", "tar_code", "words", "code"),
    [
        ("tar: x/a: file changed as we read it", 1, (), 0),
        ("tar: x/a: file changed as we read it", 1, ("--CHANGED_FILES", "warn"), 3),
        ("tar: x/a: file changed as we read it", 1, ("--CHANGED_FILES", "fail"), 1),
        ("tar: x/a: File removed before we read it", 1, (), 3),
        ("tar: x/a: Cannot stat: No such file or directory", 2, (), 3),
        ("tar: x/a: Cannot open: Permission denied", 2, (), 3),
        ("tar: x/a: File shrank by 10 bytes; padding with zeros", 1, (), 3),
        ("tar: x/a: Read error at byte 0, while reading 512 bytes: Input/output error", 2, (), 3),
        ("tar: x/s: socket ignored", 0, (), 0),
        ("tar: the sky is falling", 2, (), 1),
        ("tar: the sky is falling", 0, (), 1),
        ("", 64, (), 1),
        ("", -9, (), 1),
    ],
)
def test_what_tar_says_decides(
    tree: Path, tmp_path: Path, says: str, tar_code: int, words: tuple[str, ...], code: int
) -> None:
    path = double(tmp_path, says, tar_code)
    said = run(tmp_path, "--FILESET_INCLUDE", tree, *words, code=code, PATH=path)
    assert len(made(tmp_path)) == (0 if code == 1 else 1)
    if "x/a" in says:
        assert "/x/a" in said
    if tar_code == -9:
        assert "SIGKILL" in said


def test_half_an_archive_with_exit_code_0_is_a_failure(tree: Path, tmp_path: Path) -> None:
    path = double(tmp_path, "", 0, end=False)
    assert "stops before its end" in run(tmp_path, "--FILESET_INCLUDE", tree, code=1, PATH=path)
    assert made(tmp_path) == []


@pytest.mark.parametrize(("text", "ending"), [("tar czCf /", ".tar.gz"), ("tar cf", ".tar")])
def test_tar_command_is_honoured(tree: Path, tmp_path: Path, text: str, ending: str) -> None:
    words = ["--FILESET_INCLUDE", tree, "--FILESET_EXCLUDE", "*.log", "--TAR_COMMAND", text]
    (tree / "x.log").write_text("x")
    run(tmp_path, *words)
    (path,) = made(tmp_path)
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
    assert made(tmp_path) == []


def test_a_full_work_folder_is_named(tree: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    (tree / "big").write_bytes(os.urandom(200_000))
    work = tmp_path / "work"
    work.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(work)], check=True)
    try:
        said = run(tmp_path, "--FILESET_INCLUDE", tree, code=1)
        assert "No space left" in said
        assert str(work) in said
        assert made(tmp_path) == []
    finally:
        subprocess.run(["umount", str(work)], check=True)


def test_an_archive_cut_between_members_is_noticed() -> None:
    blocks = [b"x" * 512] * 4
    with pytest.raises(SourceError, match="stops before its end"):
        list(archive.whole(blocks))
    assert list(archive.whole([*blocks, bytes(512), bytes(512)]))
