"""Files of a local store, each block of which is compared with what the disk gives back."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

from tools import filesystem_handling
from tools.base import trusted_path
from tools.base.errors import StoreError

_libc = ctypes.CDLL(None)
_BLOCK = 2 << 20  # bytes that are written and read back together


def unlink(path: Path, folder: int) -> None:
    """Remove a file from its folder, which is open; a missing one is not an error."""
    with contextlib.suppress(FileNotFoundError), trusted_path.naming(path):
        os.unlink(path.name, dir_fd=folder)


def write(temporary: Path, folder: int, path: Path, chunks: Iterable[bytes]) -> int:
    """Write a new file in an open folder, sync it, and compare each block with what the disk has.

    It bypasses the page cache where the file system supports O_DIRECT (open(2)): that costs a
    fraction of the CPU, and a backup does not evict what the programs of the server use.
    path: names it in errors. Returns the number of bytes. Raises StoreError where the disk returns
    other bytes.
    """
    descriptor = _create(temporary, folder)
    try:
        buffer, back = mmap.mmap(-1, _BLOCK), mmap.mmap(-1, _BLOCK)
        begin = filled = 0
        for chunk in chunks:
            position = 0
            while position < len(chunk):
                count = min(len(chunk) - position, _BLOCK - filled)
                piece = memoryview(chunk)[position : position + count]
                buffer[filled : filled + count] = piece
                position, filled = position + count, filled + count
                if filled == _BLOCK:
                    _write_verified(descriptor, path, (buffer, back), (begin, filled))
                    begin, filled = begin + filled, 0
        _disable_direct_io(descriptor)  # the last block may be shorter
        _write_verified(descriptor, path, (buffer, back), (begin, filled))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return begin + filled


def _create(temporary: Path, folder: int) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with trusted_path.naming(temporary):
            return os.open(temporary.name, flags | os.O_DIRECT, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    unlink(temporary, folder)  # some file systems create it all the same
    with trusted_path.naming(temporary):
        return os.open(temporary.name, flags, 0o600, dir_fd=folder)


def _disable_direct_io(descriptor: int) -> None:
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)


def _write_verified(
    descriptor: int, path: Path, buffers: tuple[mmap.mmap, mmap.mmap], extent: tuple[int, int]
) -> None:
    """Write one block to the disk, read it back and compare. extent: offset and size."""
    buffer, back = buffers
    begin, size = extent
    with memoryview(buffer) as view, view[:size] as block:
        try:
            filesystem_handling.write_all(descriptor, block)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            _disable_direct_io(descriptor)
            os.lseek(descriptor, begin, os.SEEK_SET)
            filesystem_handling.write_all(descriptor, block)
    if not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, begin, size, os.POSIX_FADV_DONTNEED)
    with memoryview(back) as view:
        received = 0
        while received < size and (
            count := os.preadv(descriptor, [view[received:size]], begin + received)
        ):
            received += count
    if received != size or not _equal(buffer, back, size):
        raise StoreError(
            f"{path}: read-back mismatch: the disk returned other data than was written",
            "Check this disk (dmesg, smartctl). The file was not stored.",
        )


def _equal(one: mmap.mmap, other: mmap.mmap, size: int) -> bool:
    """Return whether two buffers begin with the same bytes; comparing slices would copy both."""
    addresses = (ctypes.addressof(ctypes.c_char.from_buffer(buffer)) for buffer in (one, other))
    return bool(_libc.memcmp(*map(ctypes.c_void_p, addresses), ctypes.c_size_t(size)) == 0)
