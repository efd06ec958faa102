from __future__ import annotations

import lzma
import os
import random
import subprocess
import sys
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.system import peak
from tools.base.errors import StageError
from tools.flow import codecs

PACKED = [name for name in codecs.CODECS if name != "none"]
LEVEL = {"zstd": 3, "gzip": 6, "xz": 0, "none": 0}


def packed(name: str, *chunks: bytes) -> bytes:
    return b"".join(codecs.CODECS[name].pack(chunks, LEVEL[name], 2))


def unpacked(name: str, *chunks: bytes) -> bytes:
    return b"".join(codecs.CODECS[name].unpack(chunks))


@pytest.mark.parametrize("name", codecs.CODECS)
@given(chunks=st.lists(st.binary(max_size=3000)), width=st.integers(1, 500))
@settings(max_examples=25, deadline=None)
def test_any_chunking_comes_back(name: str, chunks: list[bytes], width: int) -> None:
    file = packed(name, *chunks)
    pieces = [file[at : at + width] for at in range(0, len(file), width)]
    assert unpacked(name, *pieces) == b"".join(chunks)


@pytest.mark.needs("zstd", "gzip", "xz")
@pytest.mark.parametrize("name", PACKED)
def test_both_ways_with_the_systems_own_program(name: str) -> None:
    plain = random.Random(3).randbytes(100_000) + bytes(3_000_000) + b"end"
    theirs = subprocess.run(
        [name, "-d", "-c"], input=packed(name, plain), capture_output=True, check=True
    )
    assert theirs.stdout == plain
    given_file = subprocess.run([name, "-c"], input=plain, capture_output=True, check=True).stdout
    assert unpacked(name, given_file) == plain
    assert unpacked(name, given_file, given_file) == plain * 2


@pytest.mark.parametrize("name", PACKED)
def test_cut_damaged_or_followed_by_something_else(name: str) -> None:
    plain = random.Random(4).randbytes(200_000)
    file = packed(name, plain)
    for size in (0, 1, 5, len(file) // 2, len(file) - 1):
        with pytest.raises(StageError):
            unpacked(name, file[:size])
    middle = len(file) // 2
    with pytest.raises(StageError):
        unpacked(name, file[:middle] + bytes([file[middle] ^ 255]) + file[middle + 1 :])
    with pytest.raises(StageError):
        unpacked(name, file + b"garbage garbage garbage")
    with pytest.raises(StageError):
        unpacked(name, plain)


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("content_size", [False, True])
def test_a_zstd_frame_that_is_cut_anywhere_is_not_whole(checksum: bool, content_size: bool) -> None:
    """Bytes of the mark behind the end must not pass for missing ones, as raw content could."""
    packer = zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=content_size)
    for size in (50, 300, 140_000):
        plain = random.Random(size).randbytes(size) + bytes(1000)
        frame = packer.compress(plain)
        skipped = b"\x50\x2a\x4d\x18" + (7).to_bytes(4, "little") + b"skipped"
        for width in (3, 10_000):
            frames = frame + skipped + frame
            pieces = (frames[at : at + width] for at in range(0, len(frames), width))
            assert b"".join(codecs.CODECS["zstd"].unpack(pieces)) == plain * 2
        near_ends = (*range(1, 40), *range(131_000, 131_100), *range(len(frame) - 40, len(frame)))
        for end in filter(range(1, len(frame)).__contains__, near_ends):
            for before in (b"", frame, frame + skipped[: end % 15]):
                with pytest.raises(StageError):
                    unpacked("zstd", before, frame[:end])


@pytest.mark.parametrize("name", PACKED)
def test_what_is_compressed_is_recognised(name: str) -> None:
    assert codecs.is_compressed(packed(name, b"x"))
    assert not codecs.is_compressed(b"-- MySQL dump 10.13")


def test_compressors_at_work_share_threads_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 12, Speed: PARALLEL 4 must not mean four times the threads and the memory."""
    used: list[int] = []
    real = codecs.zstd_threads

    def counted(level: int, threads: int, sharing: int = 1) -> int:
        used.append(real(level, threads, sharing))
        return used[-1]

    monkeypatch.setattr(codecs, "zstd_threads", counted)
    running = [codecs.CODECS["zstd"].pack([os.urandom(9 << 20)], 3, 8) for _ in range(4)]
    for packed in running:
        next(packed)
    assert used == [8, 4, 2, 2]
    for packed in running[1:]:
        packed.close()  # type: ignore[attr-defined]
    next(codecs.CODECS["zstd"].pack([os.urandom(9 << 20)], 3, 8))
    assert used[-1] == 4, "those that have ended take no share"
    assert real(3, 64, 4) * 4 <= real(3, 64) + 3


@pytest.mark.slow
@pytest.mark.parametrize(("level", "available"), [(1, 64), (3, 1000), (12, 8), (19, 8)])
def test_threads_share_a_bounded_memory(level: int, available: int) -> None:
    threads = codecs.zstd_threads(level, available)
    assert 1 <= threads <= available
    code = """
import sys
import zlib
from tools.flow import codecs
data = open("/dev/urandom", "rb").read(1 << 20)
for chunk in codecs.CODECS["zstd"].pack([data, bytes(1 << 20)] * 20, *map(int, sys.argv[1:])):
    pass
"""
    assert peak(sys.executable, "-c", code, str(level), str(available)) < 200 * 1024


@pytest.mark.slow
@pytest.mark.parametrize("way", ["pack", "unpack"])
def test_memory_stays_small(way: str) -> None:
    code = """
import sys
import zlib
from tools.flow import codecs
data = open("/dev/urandom", "rb").read(1 << 20)
source = [data, bytes(1 << 20)] * 300 + [bytes(1 << 20)] * 400
packed = codecs.CODECS["zstd"].pack(source, 3, 4)
if sys.argv[1] == "unpack":
    packed = codecs.CODECS["zstd"].unpack(packed)
for chunk in packed:
    pass
"""
    assert peak(sys.executable, "-c", code, way) < 200 * 1024


def zstd_bomb(window: int, blocks: int) -> bytes:
    """A frame whose window has so many bits: blocks of four bytes for 128 KiB (RFC 8878, 3.1.1)."""
    block = (1 << 17 << 3 | 1 << 1).to_bytes(3, "little") + b"x"
    return b"\x28\xb5\x2f\xfd\0" + bytes([window - 10 << 3]) + block * blocks + b"\1\0\0"


def xz_window(window: int) -> bytes:
    """A stream whose header claims a dictionary of so many bits."""
    smallest = {"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 12}
    file = bytearray(lzma.compress(b"x", format=lzma.FORMAT_XZ, filters=[smallest]))
    end = 12 + file[12] * 4  # of the block header, where its checksum begins
    file[file.index(0x21, 13) + 2] = (window - 12) * 2
    file[end : end + 4] = zlib.crc32(file[12:end]).to_bytes(4, "little")
    return bytes(file)


@pytest.mark.fault("a part that needs GiB of memory to decompress", "an error that says so")
@pytest.mark.parametrize("window", [28, 31])
def test_a_window_that_takes_gib_of_memory_is_refused(window: int) -> None:
    """Issue 14: as the program zstd does; what this project writes needs 64 MiB at most."""
    for name, file in (("zstd", zstd_bomb(window, 1)), ("xz", xz_window(window))):
        with pytest.raises(StageError, match=f"{name}: .* more than 128 MiB of memory") as caught:
            unpacked(name, file)
        assert "If you trust it" in caught.value.hint
    assert unpacked("zstd", zstd_bomb(23, 3)) == b"x" * (3 << 17)
    assert unpacked("xz", xz_window(26)) == b"x"


@pytest.mark.slow
def test_a_bomb_takes_little_memory() -> None:
    """Issue 14: 12 kB for 393 MB, at a window as large as our own."""
    code = """
import sys
import zlib
from tools.flow import codecs
file = bytes.fromhex(sys.argv[1])
assert sum(map(len, codecs.CODECS["zstd"].unpack([file]))) == 3000 << 17
"""
    assert peak(sys.executable, "-c", code, zstd_bomb(23, 3000).hex()) < 200 * 1024
