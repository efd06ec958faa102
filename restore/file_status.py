"""What has a name in an open folder: type, owner, and what keeps it from being replaced.

statx(2) also reports mount points (Linux 5.8) and the attributes of chattr(1). Where it is missing,
lstat(2) is used, and neither is known before the file is touched.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from typing import NamedTuple

_NO_FOLLOW = 0x100 | 0x800  # AT_SYMLINK_NOFOLLOW, AT_NO_AUTOMOUNT
_FIELDS = 0x1 | 0x2 | 0x8  # STATX_TYPE, STATX_MODE, STATX_UID
_LOCKED = 0x10 | 0x20  # STATX_ATTR_IMMUTABLE, STATX_ATTR_APPEND
_MOUNT_ROOT = 0x2000
_STRUCT = struct.Struct("=8xQ4xI4xH")  # attributes, owner, mode of struct statx
_SIZE = 256  # bytes of struct statx
_statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)


class FileStatus(NamedTuple):
    """Mode and owner; locked: immutable or append-only; mounted: the root of a mount."""

    mode: int
    uid: int
    locked: bool = False
    mounted: bool = False

    @property
    def is_folder(self) -> bool:
        """Return whether it is a folder, and no symbolic link to one."""
        return stat.S_ISDIR(self.mode)


def status(name: bytes, folder: int) -> FileStatus | None:
    """Return the status of a name in an open folder, never of a link's target; None if it is free.

    Raises OSError.
    """
    buffer = ctypes.create_string_buffer(_SIZE)
    if _statx is not None and _statx(folder, name, _NO_FOLLOW, _FIELDS, buffer) == 0:
        attributes, uid, mode = _STRUCT.unpack_from(buffer)
        return FileStatus(mode, uid, bool(attributes & _LOCKED), bool(attributes & _MOUNT_ROOT))
    try:
        about = os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return None
    mounted = stat.S_ISDIR(about.st_mode) and about.st_dev != os.fstat(folder).st_dev
    return FileStatus(about.st_mode, about.st_uid, mounted=mounted)
