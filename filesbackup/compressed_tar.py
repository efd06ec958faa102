"""Compressed archives of TAR_COMMAND: their suffix, and how to decompress them."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable

from tools.flow import tar

_COMPRESSIONS = (  # first bytes, suffix, program that decompresses it
    (b"\x1f\x8b", ".gz", "gzip"),
    (b"BZh", ".bz2", "bzip2"),
    (b"\xfd7zXZ", ".xz", "xz"),
    (b"\x28\xb5\x2f\xfd", ".zst", "zstd"),
)


def compression(head: bytes) -> tuple[str, str]:
    """Return suffix and decompressor of an archive by its first bytes; "" for a plain one."""
    matches = (kind[1:] for kind in _COMPRESSIONS if head.startswith(kind[0]))
    return next(matches, ("", ""))


def decoder(ending: str) -> tar.Decoder:
    """Return the decompressor of an archive by its suffix."""
    if ending == ".zst":
        import zstandard

        zstd: tar.Decoder = zstandard.ZstdDecompressor().decompressobj()
        return zstd
    makers: dict[str, Callable[[], tar.Decoder]] = {
        ".gz": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16),
        ".bz2": bz2.BZ2Decompressor,
        ".xz": lzma.LZMADecompressor,
    }
    return makers[ending]()
