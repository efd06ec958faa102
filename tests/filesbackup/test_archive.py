"""What tar says and how it ends, with a double for what cannot be forced."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from filesbackup import tar_archive
from tests.filesets import archives, double, run
from tools.base.errors import SourceError
from tools.flow import tar


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
    output = run(
        tmp_path, "--FILESET_INCLUDE", tree, code=3, PATH=f"{double.parent}:{os.environ['PATH']}"
    )
    assert f"warning: {tree}/shut: permission denied" in output
    assert len(archives(tmp_path)) == 1


@pytest.mark.parametrize(
    ("says", "tar_code", "arguments", "code"),
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
        ("tar: x/a: Unknown file type; file ignored", 2, (), 3),
        ("tar: x/a: Warning: Cannot llistxattrat: Operation not supported", 0, (), 3),
        ("tar: POSIX ACL support is not available", 0, (), 3),
        ("tar: x/a: file changed as we read it", 2, (), 1),
        ("tar: Exiting with failure status due to previous errors", 2, (), 1),
        ("", 1, (), 1),
        ("", 2, (), 1),
        ("", 64, (), 1),
        ("", -9, (), 1),
    ],
)
def test_what_tar_says_decides(
    tree: Path, tmp_path: Path, says: str, tar_code: int, arguments: tuple[str, ...], code: int
) -> None:
    path = double(tmp_path, says, tar_code)
    output = run(tmp_path, "--FILESET_INCLUDE", tree, *arguments, code=code, PATH=path)
    assert len(archives(tmp_path)) == (0 if code == 1 else 1)
    if "x/a" in says and code != 1:
        assert "/x/a" in output
    if tar_code == -9:
        assert "SIGKILL" in output


def test_half_an_archive_with_exit_code_0_is_a_failure(tree: Path, tmp_path: Path) -> None:
    path = double(tmp_path, "", 0, end=False)
    assert "stops before its end" in run(tmp_path, "--FILESET_INCLUDE", tree, code=1, PATH=path)
    assert archives(tmp_path) == []


def test_an_archive_cut_between_members_is_noticed() -> None:
    first = b"x".ljust(257, b"\0") + b"ustar" + bytes(250)
    blocks = [first, *[b"x" * 512] * 3]
    with pytest.raises(SourceError, match="stops before its end"):
        list(tar.whole(blocks))
    assert list(tar.whole([*blocks, bytes(512), bytes(512)]))


@pytest.mark.parametrize("blocks", [[], [b""], [bytes(10240)], [bytes(512)] * 4, [bytes(100)]])
def test_an_archive_that_holds_nothing_is_a_failure(blocks: list[bytes]) -> None:
    with pytest.raises(SourceError, match=r"holds nothing|before its end"):
        list(tar.whole(blocks))


def test_a_configured_path_that_vanishes_is_missing(tree: Path, tmp_path: Path) -> None:
    says = f"tar: {str(tree)[1:]}: Cannot stat: No such file or directory"
    output = run(tmp_path, "--FILESET_INCLUDE", tree, code=3, PATH=double(tmp_path, says, 2))
    assert f"warning: {tree}: no such file or directory" in output


@pytest.mark.parametrize(
    "name",
    [b"a b", b"new\nline", b"back\\slash\\n", b"\xff\xfe", "ü€".encode(), b"\x01\x1b[31m", b"\t\r"],
)
def test_names_in_messages_are_exact(tmp_path: Path, name: bytes) -> None:
    """tar's own way of writing a name is read back to the very bytes."""
    missing = os.fsencode(tmp_path) + b"/" + name
    argv = [b"tar", b"cf", b"/dev/null", b"--no-unquote", b"--quoting-style=escape", b"--", missing]
    stderr = subprocess.run(argv, capture_output=True, env={"LC_ALL": "C"}, check=False).stderr
    findings = tar_archive.TarMessages()
    for line in stderr.decode("ascii").splitlines():
        findings.add_line(line)
    assert findings.unknown == []
    line = tar_archive.printable_name(missing)
    assert line.isprintable()
    assert findings.unreadable == [f"{line}: no such file or directory"]


def test_a_shown_name_stands_for_one_name_only() -> None:
    names = (b"a\nb", b"a\\nb", b"\xff", b"\\xff", "ü".encode(), b"\\xfc", b" ")
    printable = [tar_archive.printable_name(name) for name in names]
    assert printable == ["a\\nb", "a\\\\nb", "\\xff", "\\\\xff", "ü", "\\\\xfc", " "]


def test_a_tar_that_is_not_gnu_is_named(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "bin/tar"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\necho bsdtar 3.7.2\n")
    other.chmod(0o755)
    path = f"{other.parent}:{os.environ['PATH']}"
    assert "is not GNU tar" in run(tmp_path, "--FILESET_INCLUDE", tree, code=2, PATH=path)


def test_warnings_are_bounded() -> None:
    names = tar_archive.summarize_names([str(number) for number in range(1500)])
    assert len(names) == 1001
    assert names[-1] == "and 500 more"
    assert tar_archive.summarize_names(["a"] * 1500, 4000)[-1] == "and 4500 more"


def test_messages_of_many_files_are_counted_and_not_kept() -> None:
    """Memory must not grow with the number of files that are unreadable, changed or sockets."""
    messages = tar_archive.TarMessages()
    for number in range(5000):
        messages.add_line(f"tar: srv/{number}: Cannot open: Permission denied")
        messages.add_line(f"tar: srv/{number}: file changed as we read it")
        messages.add_line(f"tar: srv/{number}: socket ignored")
    assert {len(messages.unreadable), len(messages.changed), len(messages.sockets)} == {1000}
    assert messages.changed.total == 5000
    assert messages.left_out() == ("5000 sockets not stored: /srv/0, /srv/1, /srv/2 and 4997 more",)
