"""Compression as stages, each with its inverse beside it.

Formats: Zstandard (RFC 8878), gzip (RFC 1952), xz (liblzma). The programs zstd, gzip and xz
read what these write, and the other way round. A stream that is cut exactly between two
frames or members looks whole to any decoder: who stores it keeps its length and digest.
"""

from __future__ import annotations

import contextlib
import lzma
import os
import secrets
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

from tools.base import imports
from tools.base.errors import StageError
from tools.flow.stream import CHUNK, Chunks

_JOB = 2 << 20  # bytes that one zstd thread takes at a time, at least
_MOST_JOB = 4 << 20  # and at most, shared by the compressors: larger ones cost less time
_OVERLAP = 1  # log of the share of the job before that is looked at again: none (zstd.h)
_MEMORY = 160 << 20  # bytes that all threads of zstd may take together
_MOST_WINDOW = 128 << 20  # bytes that a decoder may look back, as of the program zstd; ours need 64
_GZIP = 31  # zlib's window bits for a gzip wrapper of the largest window
_MAGIC = (
    b"\x1f\x8b",  # gzip
    b"\x28\xb5\x2f\xfd",  # zstd
    b"\xfd7zXZ\x00",  # xz
    b"BZh",  # bzip2
    b"\x04\x22\x4d\x18",  # lz4
    b"PK\x03\x04",  # zip
    b"age-encryption.org/",
    b"Salted__",  # OpenSSL
)


def is_compressed(head: bytes) -> bool:
    """Return whether a file that begins like this would gain nothing from compression."""
    return head.startswith(_MAGIC)


def zstd_threads(level: int, total: int, sharing: int = 1) -> int:
    """Return the number of threads of one of `sharing` compressors that work at a time.

    wanted: by all of them together. No more than fit into their share of the memory: a thread
    holds its tables (1 MiB at level 3, 81 MiB at level 19), a job, and its result.
    """
    with imports.packages():
        import zstandard

    tables = zstandard.ZstdCompressionParameters.from_level(level)
    each = tables.estimated_compression_context_size() + 2 * _JOB
    return max(1, min(total // sharing, _MEMORY // sharing // each))


class _Compressors:
    """The zstd compressors of this process that are at work (PARALLEL lets several items flow)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0

    @contextlib.contextmanager
    def one_more(self) -> Iterator[int]:
        """Count one more in the block; gives how many there are now."""
        with self._lock:
            self._number += 1
            number = self._number
        try:
            yield number
        finally:
            with self._lock:
                self._number -= 1


_compressors = _Compressors()


def _zstd(chunks: Chunks, level: int, threads: int) -> Iterator[bytes]:
    """Compress with a share of the threads: items that flow at a time divide them."""
    with _compressors.one_more() as sharing:
        packer = _packer(level, zstd_threads(level, threads, sharing), sharing)
        for chunk in chunks:
            yield from _bounded(packer.compress(chunk))
        yield from _bounded(packer.flush())


def _packer(level: int, threads: int, sharing: int) -> Any:  # noqa: ANN401  (of zstandard)
    """Return a compressor. One thread is the one that calls it: a worker would need more memory."""
    with imports.packages():
        import zstandard

    jobs = {
        "threads": threads,
        "job_size": max(_JOB, min(_MOST_JOB // sharing, _MEMORY // (4 * threads * sharing))),
        "overlap_log": _OVERLAP,
    }
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, write_checksum=True, **(jobs if threads > 1 else {})
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compressobj()


def _bounded(packed: bytes) -> Iterator[bytes]:
    """Yield what came out at once, in chunks: several jobs may end together."""
    if len(packed) <= CHUNK:
        if packed:
            yield packed
        return
    for at in range(0, len(packed), CHUNK):
        yield packed[at : at + CHUNK]


def _unzstd(chunks: Chunks) -> Iterator[bytes]:
    """Decode frames one after another, in pieces of CHUNK, however much a few bytes stand for."""
    with imports.packages():
        import zstandard

    packed = _MarkedEnd(chunks, zstandard.ZstdCompressor(write_checksum=True).compress)
    decoder = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW)
    reader = decoder.stream_reader(cast("IO[bytes]", packed), read_across_frames=True)
    plain = b""  # the last piece, which may end with a part of the mark
    try:
        while piece := reader.read(CHUNK):
            if len(plain) >= CHUNK:
                yield plain
                plain = b""
            plain += piece
    except zstandard.ZstdError as error:
        if packed.is_read:
            raise StageError("zstd: the data ends too early", "It was cut.") from None
        is_between = "descriptor" in str(error)  # of a frame
        raise _undecodable("zstd", error, has_ended=is_between and reader.tell() > 0) from None
    if packed.is_empty:
        raise StageError("zstd: there is no data", "It was cut to nothing.")
    if not plain.endswith(packed.mark):
        raise StageError("zstd: the data ends too early", "It was cut.")
    if content := plain[: -len(packed.mark)]:
        yield content


class _MarkedEnd:
    """Chunks as a file, with one frame more, whose plaintext is a random mark.

    zstandard's reader takes an end of the data within a frame for the end. The plaintext ends
    with the mark only if the last frame was whole. Taken for the rest of a cut frame, the bytes
    of the added one cannot give the mark: as content, because it repeats itself and is longer
    than they are; as blocks, because the checksum behind them is neither that of the cut frame
    nor the beginning of another one.
    """

    def __init__(self, chunks: Chunks, compress: Callable[[bytes], bytes]) -> None:
        self.mark = secrets.token_bytes(16) * 64
        self.is_empty = True  # there is no chunk
        self.is_read = False  # all chunks have been read
        self._pieces = self._with_mark(chunks, compress(self.mark))

    def _with_mark(self, chunks: Chunks, frame: bytes) -> Iterator[bytes]:
        for chunk in filter(None, chunks):
            self.is_empty = False
            yield chunk
        self.is_read = True
        # not as one: after a cut frame header, libzstd 1.5.7 takes a whole frame for that frame
        yield frame[:1]
        yield frame[1:]

    def read(self, _size: int) -> bytes:
        """Return the next chunk; after the last one the frame of the mark, then nothing."""
        return next(self._pieces, b"")


def _gzip(chunks: Chunks, level: int, _threads: int) -> Iterator[bytes]:
    packer = zlib.compressobj(level, zlib.DEFLATED, _GZIP)
    for chunk in chunks:
        if packed := packer.compress(chunk):
            yield packed
    yield packer.flush()


def _gunzip(chunks: Chunks) -> Iterator[bytes]:
    yield from _members(chunks, "gzip", _Gunzip, zlib.error)


class _Gunzip:
    """zlib's decompressor with the methods of lzma's: what is not taken yet is kept."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_GZIP)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        plain = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = not self._inner.unconsumed_tail and len(plain) < max_length
        return plain


def _xz(chunks: Chunks, level: int, _threads: int) -> Iterator[bytes]:
    packer = lzma.LZMACompressor(preset=level)
    for chunk in chunks:
        if packed := packer.compress(chunk):
            yield packed
    yield packer.flush()


def _unxz(chunks: Chunks) -> Iterator[bytes]:
    def decoder() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_WINDOW)

    yield from _members(chunks, "xz", decoder, lzma.LZMAError)


def _members(
    chunks: Chunks, name: str, decoder: Callable[[], Any], error: type[Exception]
) -> Iterator[bytes]:
    """Decode members one after another. Raises StageError for a cut one, and for anything else."""
    current: Any = None  # the decoder of the member that we are in
    ended = 0
    for chunk in chunks:
        unread = chunk
        while unread:
            current = current or decoder()
            try:
                yield from _plain(current, unread)
            except error as why:
                raise _undecodable(name, why, has_ended=ended > 0) from None
            unread = b""
            if current.eof:
                unread, current = current.unused_data, None
                ended += 1
    if current is not None:
        raise StageError(f"{name}: the data ends too early", "It was cut.")
    if not ended:
        raise StageError(f"{name}: there is no data", "It was cut to nothing.")


def _undecodable(name: str, why: Exception, *, has_ended: bool) -> StageError:
    """Return the error of a decoder in our words. has_ended: whether a member ended before it."""
    if "memory" in str(why).lower():
        most = f"{_MOST_WINDOW >> 20} MiB"
        return StageError(
            f"{name}: decompressing this needs more than {most} of memory",
            f"This project writes nothing of that kind. If you trust it, use the program {name}.",
        )
    problem = "something else follows its end" if has_ended else "the data is damaged"
    return StageError(f"{name}: {problem} ({why})", "It was altered, or is another format.")


def _plain(decoder: Any, packed: bytes) -> Iterator[bytes]:  # noqa: ANN401  (of two libraries)
    """Yield what one decoder makes of some bytes, in pieces of at most CHUNK."""
    while True:
        if plain := decoder.decompress(packed, CHUNK):
            yield plain
        packed = b""
        if decoder.eof or decoder.needs_input:
            return


def _as_it_is(chunks: Chunks, _level: int, _threads: int) -> Iterator[bytes]:
    yield from chunks


@dataclass(frozen=True)
class Codec:
    """One algorithm: its ending, its levels, the stage and its inverse.

    checksum: whether its format has a checksum of the plaintext that is as good as any for errors
        of disks and memory: zstd's 64 bits of XXH64 (RFC 8878, Content_Checksum). The CRC-32 of
        gzip is too short, and beside xz a SHA-256 costs nothing.
    """

    ending: str
    level: int
    levels: range
    pack: Callable[[Chunks, int, int], Iterator[bytes]]
    unpack: Callable[[Chunks], Iterator[bytes]]
    checksum: bool = False


CODECS = {
    "zstd": Codec(".zst", 3, range(1, 20), _zstd, _unzstd, checksum=True),
    "gzip": Codec(".gz", 6, range(1, 10), _gzip, _gunzip),
    "xz": Codec(".xz", 6, range(10), _xz, _unxz),
    "none": Codec("", 0, range(1), _as_it_is, lambda chunks: _as_it_is(chunks, 0, 0)),
}


def has_checksum(stages: Sequence[str]) -> bool:
    """Return whether the first of these stages keeps a checksum of the plaintext."""
    return bool(stages) and stages[0] in CODECS and CODECS[stages[0]].checksum


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))
