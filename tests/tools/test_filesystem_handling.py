from __future__ import annotations

import errno
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tools import filesystem_handling
from tools.base import removal
from tools.base.errors import BackupError, ConfigError
from tools.config.paths import check_folder

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(RuntimeError), filesystem_handling.create(path) as write:  # noqa: PT012
        write(b"half")
        assert not path.exists()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with filesystem_handling.create(path) as write:
        write(b"whole")
    assert path.read_bytes() == b"whole"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_name_that_cannot_be_looked_up_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without hard links, on a failing disk: a rename would replace what is there."""
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"first")
    other.write_bytes(b"second")

    def fails(number: int) -> Callable[..., NoReturn]:
        def fail(*_arguments: object, **_options: object) -> NoReturn:
            raise OSError(number, os.strerror(number))

        return fail

    with monkeypatch.context() as changed:
        changed.setattr(os, "link", fails(errno.EPERM))
        changed.setattr(os, "stat", fails(errno.EIO))
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            filesystem_handling.publish(other, path)
    assert path.read_bytes() == b"first"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"first")
    with pytest.raises(FileExistsError, match="nothing is overwritten"):  # noqa: SIM117
        with filesystem_handling.create(path) as write:
            write(b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


@root
def test_a_full_disk_is_named_and_leaves_nothing(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught:  # noqa: SIM117
        with filesystem_handling.create(small_disk / "file") as write:
            write(b"x" * 100_000)
    assert caught.value.filename == str(small_disk / "file")
    assert list(small_disk.iterdir()) == []


def test_remove_refuses_what_can_only_be_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="too near to /"):
        filesystem_handling.remove(Path("/etc"))
    link = tmp_path / "link"
    (tmp_path / "kept").mkdir()
    link.symlink_to(tmp_path / "kept")
    filesystem_handling.remove(link)
    assert (tmp_path / "kept").exists()


def test_insecure_names_the_place_and_the_mend(tmp_path: Path) -> None:
    path = tmp_path / "conf.json"
    path.write_text("{}")
    path.chmod(0o600)
    assert filesystem_handling.insecure(path) == ""
    path.chmod(0o602)
    assert (
        filesystem_handling.insecure(path) == f"{path} is writable by everybody: chmod o-w {path}"
    )


def test_files_below_skips_hidden_ones_and_links(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x").write_text("")
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "link").symlink_to("b/x")
    assert list(filesystem_handling.files_below(tmp_path)) == [tmp_path / "b/x"]


@pytest.mark.slow
def test_walks_do_not_recurse(tmp_path: Path) -> None:
    """A folder tree deeper than Python's recursion limit is listed whole, and once."""
    deepest = tmp_path / "top"
    deepest.mkdir()
    for _ in range(1500):
        deepest /= "d"
        deepest.mkdir()
    (deepest / "file").write_text("x")
    (tmp_path / "top/link").symlink_to(tmp_path)
    try:
        names = [entry.name for entry in filesystem_handling.entries_below(tmp_path / "top")]
        assert Counter(names) == {"d": 1500, "file": 1, "link": 1}
        assert list(filesystem_handling.files_below(tmp_path / "top")) == [deepest / "file"]
        none = filesystem_handling.entries_below(tmp_path / "top", enter=lambda _folder: False)
        assert sorted(entry.name for entry in none) == ["d", "link"]
    finally:
        removal.tree(tmp_path / "top")


def test_why_a_folder_is_missing(tmp_path: Path) -> None:
    """Issue 13 C6: "mkdir -p" was the hint where a file is in the way."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    missing = filesystem_handling.missing_folder
    folder = tmp_path / "a b/c"
    assert missing(folder) == (f"{folder}: no such directory", f"Create it: mkdir -p '{folder}'")
    for path in (tmp_path / "file", tmp_path / "file/a/b"):
        problem, hint = missing(path)
        assert problem == f"{tmp_path}/file: not a directory"
        assert hint == "Choose another path."
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for path in (tmp_path / "a", tmp_path / "a/w"):
        assert missing(path)[0] == f"{tmp_path}/a: is a symbolic link that leads to itself"
        with pytest.raises(ConfigError, match=r"WORK_FOLDER: .*/a: is a symbolic link that leads"):
            check_folder(path, "WORK_FOLDER")
    assert missing(tmp_path / "broken/a")[0] == f"{tmp_path}/broken: is a broken symbolic link"
    assert "too long" in missing(tmp_path / ("x" * 300))[0]
