from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import plugin

PROGRAM = str(plugin.ROOT / "compression/compression.py")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    (folder / "files").mkdir(parents=True)
    (folder / "files/a.tar").write_bytes(b"plain " * 10_000)
    return folder


def run(work: Path, *words: object, code: int = 0, private: str = "[]") -> str:
    done = subprocess.run(
        [sys.executable, PROGRAM, "--WORK_FOLDER", str(work), "--GREASE", "--x", *map(str, words)],
        cwd="/",
        env={**os.environ, "NC_BACKUP_PRIVATE": private},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def names(work: Path) -> list[str]:
    return sorted(path.name for path in (work / "compressed").iterdir())


@pytest.mark.needs("zstd", "gzip", "xz")
@pytest.mark.parametrize(
    ("words", "ending", "program"),
    [
        ((), ".zst", "zstd"),
        (("--ALGORITHM", "gzip", "--LEVEL", "1"), ".gz", "gzip"),
        (("--ALGORITHM", "xz", "--LEVEL", "0"), ".xz", "xz"),
        (("--TAR_COMMAND", "sudo /bin/tar czCf /"), ".gz", "gzip"),
    ],
)
def test_each_file_by_itself_and_the_source_is_removed(
    work: Path, words: tuple[str, ...], ending: str, program: str
) -> None:
    run(work, *words)
    assert names(work) == [f"a.tar{ending}"]
    made = work / "compressed" / f"a.tar{ending}"
    assert (
        subprocess.run([program, "-dc", str(made)], capture_output=True, check=True).stdout
        == b"plain " * 10_000
    )
    assert list((work / "files").iterdir()) == []


def test_what_is_compressed_already_is_bundled_and_not_compressed_again(work: Path) -> None:
    (work / "mydump").mkdir()
    dumps = {f"{n}.sql.gz": gzip.compress(os.urandom(5000)) for n in range(3)}
    for name, content in dumps.items():
        (work / "mydump" / name).write_bytes(content)
    (work / "single").mkdir()
    (work / "single/one.gz").write_bytes(gzip.compress(b"one"))
    run(work)
    bundle = next(name for name in names(work) if name.endswith(".mydump.tar"))
    assert names(work) == sorted([bundle, "a.tar.zst", "one.gz"])
    out = work / "out"
    out.mkdir()
    subprocess.run(["tar", "xf", str(work / "compressed" / bundle), "-C", str(out)], check=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == dumps
    assert not list((work / "mydump").iterdir())


def test_sources_are_kept_when_told_and_when_anything_fails(work: Path) -> None:
    run(work, "--REMOVE_OBJECTIVES", "False")
    assert (work / "files/a.tar").exists()
    (work / "files/b").mkdir()
    (work / "files/b/a.tar").write_text("same name")
    assert "called a.tar" in run(work, code=1)
    assert (work / "files/a.tar").exists()


def test_private_folders_are_no_sources(work: Path) -> None:
    for name in ("encrypted", "local", ".nc-backup-py"):
        (work / name).mkdir()
        (work / name / "precious").write_text("x")
    run(work, private=f'["{work}/local"]')
    assert names(work) == ["a.tar.zst"]
    assert (work / "local/precious").exists()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--LEVEL", "20"), 2, "LEVEL: 20 is no level of zstd"),
        (("--LEVEL", "0", "--ALGORITHM", "gzip"), 2, "It has 1 to 9"),
        (("--ALGORITHM", "rar"), 2, "one of zstd, gzip, xz, none"),
        (("--TARGETS", "/not/there"), 1, "TARGETS: /not/there does not exist"),
    ],
)
def test_bad_input_is_named(work: Path, words: tuple[str, ...], code: int, says: str) -> None:
    assert says in run(work, *words, code=code)
    assert (work / "files/a.tar").exists()


def test_nothing_to_do_is_a_failure(work: Path) -> None:
    (work / "files/a.tar").unlink()
    assert "nothing to compress" in run(work, code=1)


@pytest.mark.needs("root")
def test_a_full_disk_leaves_nothing_and_keeps_the_source(work: Path) -> None:
    (work / "files/a.tar").write_bytes(os.urandom(300_000))
    small = work / "compressed"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=True)
    try:
        said = run(work, code=1)
        assert "No space left" in said
        assert str(small / "a.tar.zst") in said
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert (work / "files/a.tar").exists()
