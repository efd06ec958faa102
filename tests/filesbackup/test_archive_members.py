"""The members of an archive are counted, and long paths found, while it passes."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from filesbackup.archive_members import ArchiveMembers
from tools.base.fixed_tar import FORMAT

CHUNKS = (1, 511, 513, 10_240, 1 << 20)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what archives may hold."""
    top = tmp_path_factory.mktemp("tree")
    draw = random.Random(1)
    for number in range(30):
        (top / f"file{number}").write_bytes(b"\0ustar\0" * draw.randrange(3000))
    (top / ("long" * 50)).write_bytes(b"x")
    (top / f"{'x' * 100}\n18 size=99999999\n").write_bytes(b"x")  # a record in a name is none
    (top / "sparse").touch()
    with (top / "sparse").open("r+b") as file:
        for at in range(40):
            file.seek(at << 20)
            file.write(b"data")
        file.truncate(100 << 20)
    (top / "link").symlink_to("a" * 150)
    os.link(top / "file1", top / "file2-again")
    os.mkfifo(top / "fifo")
    (top / "empty").mkdir()
    return top


def counted(archive: bytes, step: int) -> int | None:
    count = ArchiveMembers()
    for at in range(0, len(archive), step):
        count.add_chunk(archive[at : at + step])
    return count.count


@pytest.mark.parametrize("options", [FORMAT, ["-cSC/", "--format=gnu"], ["-cC/", "--format=ustar"]])
def test_it_is_the_number_that_another_reader_finds(
    tree: Path, options: list[str], tmp_path: Path
) -> None:
    ustar = "--format=ustar" in options  # has no room for the long name
    names = sorted(one.name for one in tree.iterdir() if not (ustar and len(one.name) > 100))
    ours = [f"{str(tree)[1:]}/{name}" for name in names if not (ustar and name == "link")]
    archive = subprocess.run(
        ["tar", *options, "--file=-", *ours], stdout=subprocess.PIPE, check=True
    ).stdout
    path = tmp_path / "archive.tar"
    path.write_bytes(archive)
    with tarfile.open(path) as read:
        expected = len(read.getmembers())
    assert expected == len(ours)
    for step in CHUNKS[step_of(archive) :]:
        assert counted(archive, step) == expected


def step_of(archive: bytes) -> int:
    """Return from which width of chunks on a large archive is read: single bytes take long."""
    return 0 if len(archive) < 1 << 18 else 1


def test_a_file_above_8_gib() -> None:
    """POSIX.1-2001: its size stands in an extended header."""
    large = tarfile.TarInfo("large")
    large.size = 9 << 30
    count = ArchiveMembers()
    count.add_chunk(large.tobuf(tarfile.PAX_FORMAT))
    content = b"x" * (64 << 20)
    for _ in range(large.size // len(content)):
        count.add_chunk(content)
    count.add_chunk(tarfile.TarInfo("next").tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    assert count.count == 2
    gnu = ArchiveMembers()
    gnu.add_chunk(large.tobuf(tarfile.GNU_FORMAT))
    gnu.add_chunk(content)
    assert gnu.count == 1


def spoiled() -> Iterator[bytes]:
    good = tarfile.TarInfo("a").tobuf(tarfile.PAX_FORMAT)
    yield b"no archive" * 100
    yield good + b"x" * 512
    yield good[:124] + b"not a size! " + good[136:]
    yield good[:124] + b"-0000001000\0" + good[136:]  # would lead back to this header


@pytest.mark.parametrize(
    "archive", list(spoiled()), ids=["text", "text after it", "no size", "negative"]
)
def test_what_is_no_archive_has_no_number(archive: bytes) -> None:
    assert counted(archive, 1000) is None


def test_it_costs_little() -> None:
    """A million small files cost a few seconds at most; tar itself takes longer."""
    small = tarfile.TarInfo("a")
    small.mtime = 1.5
    archive = small.tobuf(tarfile.PAX_FORMAT) * 20_000
    began = time.process_time()
    assert counted(archive, 1 << 16) == 20_000
    assert time.process_time() - began < 0.2


def record(name: str, form: Literal[1, 2]) -> bytes:
    """One member of an archive."""
    member = tarfile.TarInfo(name)
    return member.tobuf(form)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_long_path_is_found_wherever_it_stands(form: Literal[1, 2]) -> None:
    """Issue 11 A9: at any place in the archive, however it is cut into chunks."""
    chance = random.Random(11)
    for _ in range(150):
        width = chance.choice((1, 20, 255))
        length = chance.randint(4096, 20_000)
        name = (("n" * width + "/") * (length // (width + 1) + 2))[:length].rstrip("/") + "x"
        short = name[:4095].rstrip("/")
        fill = chance.randrange(40) * 512 + chance.choice((0, 1 << 16))
        data = io.BytesIO(record(short, form) + bytes(fill) + record(name, form) + bytes(1024))
        looked = ArchiveMembers()
        while chunk := data.read(chance.choice((1, 700, 5000, 1 << 16, 1 << 20))):
            looked.add_chunk(chunk)
        assert list(looked.long) == [name.encode()], (width, length, fill)
