from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system import module_output
from tools.base import project
from tools.base.errors import StageError
from tools.modules import loader

PROGRAM = str(project.ROOT / "compression/compression.py")
compression = loader.module("compression/compression.py")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    (folder / "files").mkdir(parents=True)
    (folder / "files/a.tar").write_bytes(b"plain " * 10_000)
    return folder


def run(work: Path, *arguments: object, code: int = 0, private: str = "[]") -> str:
    return module_output(
        "compression", "--WORK_FOLDER", work, *arguments, code=code, NC_BACKUP_PRIVATE=private
    )


def names(work: Path) -> list[str]:
    return sorted(path.name for path in (work / "compressed").iterdir())


@pytest.mark.needs("zstd", "gzip", "xz")
@pytest.mark.parametrize(
    ("arguments", "ending", "program"),
    [
        ((), ".zst", "zstd"),
        (("--ALGORITHM", "gzip", "--LEVEL", "1"), ".gz", "gzip"),
        (("--ALGORITHM", "xz", "--LEVEL", "0"), ".xz", "xz"),
        (("--TAR_COMMAND", "sudo /bin/tar czCf /"), ".gz", "gzip"),
    ],
)
def test_each_file_by_itself_and_the_source_is_removed(
    work: Path, arguments: tuple[str, ...], ending: str, program: str
) -> None:
    run(work, *arguments)
    assert names(work) == [f"a.tar{ending}"]
    compressed = work / "compressed" / f"a.tar{ending}"
    assert (
        subprocess.run([program, "-dc", str(compressed)], capture_output=True, check=True).stdout
        == b"plain " * 10_000
    )
    assert list((work / "files").iterdir()) == []


def test_what_is_compressed_already_passes_unchanged(work: Path) -> None:
    (work / "mydump").mkdir()
    dumps = {f"{n}.sql.gz": gzip.compress(os.urandom(5000)) for n in range(3)}
    for name, content in dumps.items():
        (work / "mydump" / name).write_bytes(content)
    run(work)
    assert names(work) == sorted([*dumps, "a.tar.zst"])
    assert {name: (work / "compressed" / name).read_bytes() for name in dumps} == dumps
    assert not list((work / "mydump").iterdir())


def test_sources_are_kept_when_told_and_when_anything_fails(work: Path) -> None:
    run(work, "--REMOVE_OBJECTIVES", "False")
    assert (work / "files/a.tar").exists()
    assert "no such file" in run(work, "--TARGETS", f"{work}/files {work}/none", code=1)
    assert (work / "files/a.tar").exists()


def contents_by_name(work: Path) -> dict[str, bytes]:
    """What was compressed, by name, decompressed where it is zstd."""
    return {
        path.name: subprocess.run(["zstd", "-dc", path], capture_output=True, check=True).stdout
        if path.suffix == ".zst"
        else path.read_bytes()
        for path in (work / "compressed").iterdir()
    }


def fill(work: Path, **files: bytes) -> None:
    for name, content in files.items():
        path = work / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.needs("zstd")
def test_equal_names_from_several_folders_are_all_there(work: Path) -> None:
    packed = subprocess.run(["zstd", "-c"], input=b"3", capture_output=True, check=True).stdout
    fill(work, one__x_sql=b"1", two__x_sql=b"2", three__x_sql_zst=packed)
    run(work)
    assert contents_by_name(work) == {
        "a.tar.zst": b"plain " * 10_000,
        "one.x.sql.zst": b"1",
        "two.x.sql.zst": b"2",
        "three.x.sql.zst": b"3",
    }


def test_equal_names_from_folders_of_one_name_are_all_there(work: Path) -> None:
    fill(work, p0__mydump__x_gz=gzip.compress(b"0"), p1__mydump__x_gz=gzip.compress(b"1"))
    run(work, "--TARGETS", f"{work}/p0/mydump {work}/p1/mydump")
    contents = {
        path.name: gzip.decompress(path.read_bytes()) for path in (work / "compressed").iterdir()
    }
    assert contents == {"p0.mydump.x.gz": b"0", "p1.mydump.x.gz": b"1"}


def test_overlapping_targets_are_taken_once(work: Path) -> None:
    run(work, "--TARGETS", f"{work}/files {work}/files/a.tar {work}/files/../files")
    assert names(work) == ["a.tar.zst"]


@pytest.mark.parametrize("algorithm", ["none", "zstd"])
@pytest.mark.parametrize("below", ["", "/deeper"])
def test_sources_in_the_destination_are_refused_and_stay(
    work: Path, algorithm: str, below: str
) -> None:
    folder = work / f"files{below}"
    folder.mkdir(exist_ok=True)
    (folder / "b.gz").write_bytes(gzip.compress(b"b"))
    arguments = ("--DESTINATION", f"{work}/files/../files", "--TARGETS", folder)
    assert "lies in DESTINATION" in run(work, *arguments, "--ALGORITHM", algorithm, code=2)
    assert gzip.decompress((folder / "b.gz").read_bytes()) == b"b"
    assert (work / "files/a.tar").exists()


def test_a_destination_a_store_or_a_key_inside_a_target_is_no_source(work: Path) -> None:
    fill(work, compressed__old_zst=b"old", encrypted__x_age_000=b"x", deep__store__s=b"s", key=b"k")
    run(work, "--TARGETS", work, private=f'["{work}", "{work}/deep/store", "{work}/key"]')
    assert names(work) == ["a.tar.zst", "old.zst"]
    for kept in ("compressed/old.zst", "encrypted/x.age.000", "deep/store/s", "key"):
        assert (work / kept).exists()


def test_alone_the_folders_must_be_named(work: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NC_BACKUP")}
    done = subprocess.run(
        [sys.executable, PROGRAM, "--WORK_FOLDER", str(work)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "TARGETS: is required" in done.stderr
    assert (work / "files/a.tar").exists()


@pytest.mark.needs("zstd")
def test_what_a_run_that_died_has_made_is_kept_and_its_source_removed(work: Path) -> None:
    run(work, "--REMOVE_TARGETS", "False")
    compressed = work / "compressed/a.tar.zst"
    before = compressed.stat()
    run(work)
    assert (compressed.stat().st_ino, compressed.stat().st_mtime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
    )
    assert names(work) == ["a.tar.zst"]
    assert list((work / "files").iterdir()) == []


@pytest.mark.needs("zstd")
@pytest.mark.parametrize("damaged", [False, True])
def test_another_content_under_the_name_is_kept_beside_the_new_one(
    work: Path, damaged: bool
) -> None:
    run(work)
    if damaged:
        (work / "compressed/a.tar.zst").write_bytes(b"no zstd at all")
    older = (work / "compressed/a.tar.zst").read_bytes()
    fill(work, files__a_tar=b"the next day")
    run(work)
    assert (work / "compressed/a.tar.zst").read_bytes() == older
    newer = next(name for name in names(work) if name != "a.tar.zst")
    assert newer.endswith(".a.tar.zst")
    content = subprocess.run(
        ["zstd", "-dc", work / "compressed" / newer], capture_output=True, check=True
    )
    assert content.stdout == b"the next day"


def test_one_compressed_file_is_linked_where_its_source_goes_and_copied_where_it_stays(
    work: Path,
) -> None:
    fill(work, files__b_gz=gzip.compress(b"b"), files__a_tar=b"x")
    node = (work / "files/b.gz").stat().st_ino
    run(work, "--REMOVE_TARGETS", "False")
    assert (work / "compressed/b.gz").stat().st_ino != node
    (work / "compressed/b.gz").unlink()
    run(work)
    assert (work / "compressed/b.gz").stat().st_ino == node
    assert gzip.decompress((work / "compressed/b.gz").read_bytes()) == b"b"


@pytest.mark.parametrize("name", [b"a b", b"new\nline", b"-rf", b"quo'te\"", b"\xff\xfe", b"$(id)"])
def test_odd_names(work: Path, name: bytes) -> None:
    odd = os.fsdecode(name)
    (work / "files" / odd).write_text("plain")
    (work / "files" / f"{odd}2").write_bytes(gzip.compress(b"x"))
    run(work, "--THREADS", "1")
    assert names(work) == sorted([f"{odd}.zst", f"{odd}2", "a.tar.zst"])


@pytest.mark.parametrize(
    ("command", "chosen"),
    [
        ("", "zstd"),
        ("sudo /bin/tar czCf /", "gzip"),
        ("tar -czf", "gzip"),
        ("/usr/bin/gtar cJf", "xz"),
        ("sudo -n tar --xz -cf", "xz"),
        ("tar cjf", "zstd"),
        ("sudo zebra", "zstd"),
        ("tar 'czf", "gzip"),
    ],
)
def test_the_documented_tar_command_says_only_the_algorithm(command: str, chosen: str) -> None:
    options = compression.Options(tar_command=command)
    assert options.chosen().value == chosen
    named = compression.Options(tar_command=command, algorithm=compression.Algorithm.ZSTD)
    assert named.chosen().value == "zstd"


@pytest.mark.needs("root")
def test_what_is_tried_before_a_run(work: Path) -> None:
    assert "is writable" in "".join(compression.test(compression.Options(work_folder=work)))
    proc = compression.Options(destination=Path("/proc/self/status/x"))
    with pytest.raises(StageError, match=r"DESTINATION: .* is not writable"):
        compression.test(proc)


def test_private_folders_are_no_sources(work: Path) -> None:
    for name in ("encrypted", "local", ".nc-backup-py"):
        (work / name).mkdir()
        (work / name / "precious").write_text("x")
    run(work, private=f'["{work}/local"]')
    assert names(work) == ["a.tar.zst"]
    assert (work / "local/precious").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--LEVEL", "20"), 2, "LEVEL: 20 is not a level of zstd"),
        (("--LEVEL", "0", "--ALGORITHM", "gzip"), 2, "Choose 1 to 9"),
        (("--ALGORITHM", "rar"), 2, "one of zstd, gzip, xz, none"),
        (("--TARGETS", "/not/there"), 1, "TARGETS: /not/there: no such file or directory"),
    ],
)
def test_bad_input_is_named(work: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    assert says in run(work, *arguments, code=code)
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
        output = run(work, code=1)
        assert "no space left" in output
        assert str(small / "a.tar.zst") in output
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert (work / "files/a.tar").exists()
