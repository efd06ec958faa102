"""The packets of sftp, version 3, and the extensions of OpenSSH.

draft-ietf-secsh-filexfer-02; PROTOCOL in the source of OpenSSH. All integers are big-endian.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from enum import IntEnum

from tools.base.errors import StoreError

VERSION = 3
HARDLINK, FSYNC = b"hardlink@openssh.com", b"fsync@openssh.com"
STATVFS, LIMITS = b"statvfs@openssh.com", b"limits@openssh.com"
LONGEST = 1 << 20  # bytes of a packet that is accepted; OpenSSH sends at most 256 KiB


class Kind(IntEnum):
    """Types of packets."""

    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    FSTAT = 8
    SETSTAT = 9
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    REALPATH = 16
    STAT = 17
    RENAME = 18
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 200
    EXTENDED_REPLY = 201


class Code(IntEnum):
    """Codes of STATUS."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    NO_CONNECTION = 6
    CONNECTION_LOST = 7
    OP_UNSUPPORTED = 8


class Flag(IntEnum):
    """How a file is opened."""

    READ = 1
    WRITE = 2
    CREAT = 8
    EXCL = 0x20


_SIZE, _OWNER, _PERMISSIONS, _TIMES, _EXTENDED = 1, 2, 4, 8, 0x80000000


class StatusError(Exception):
    """The answer STATUS with another code than OK."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Attributes:
    """What a server says of a file; 0 and None for what it does not say."""

    size: int = 0
    permissions: int | None = None
    mtime: int = 0

    @property
    def is_file(self) -> bool:
        """Return whether it is a regular file; True if the server does not say."""
        return self.permissions is None or stat.S_ISREG(self.permissions)

    @property
    def is_folder(self) -> bool:
        """Return whether it is a folder."""
        return self.permissions is not None and stat.S_ISDIR(self.permissions)

    @property
    def is_link(self) -> bool:
        """Return whether it is a symbolic link."""
        return self.permissions is not None and stat.S_ISLNK(self.permissions)


def u32(number: int) -> bytes:
    """Return a number as four bytes."""
    return struct.pack(">I", number)


def u64(number: int) -> bytes:
    """Return a number as eight bytes."""
    return struct.pack(">Q", number)


def text(raw: bytes) -> bytes:
    """Return bytes as a string of the protocol: their length before them."""
    return u32(len(raw)) + raw


def mode(permissions: int) -> bytes:
    """Return the attributes of a new file or folder."""
    return u32(_PERMISSIONS) + u32(permissions)


def times(seconds: int) -> bytes:
    """Return the attributes that set when a file was last read and written, from 1970 on."""
    return u32(_TIMES) + u32(seconds) + u32(seconds)


class Reader:
    """Reads the fields of a packet. Every method raises StoreError where it is too short."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    @property
    def has_more(self) -> bool:
        """Return whether fields are left."""
        return self._at < len(self._raw)

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        self._at += size
        if self._at > len(self._raw):
            raise StoreError("sftp: the answer of the server is too short")
        return self._raw[self._at - size : self._at]

    def u32(self) -> int:
        """Return the next four bytes."""
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        """Return the next eight bytes."""
        return int.from_bytes(self.take(8), "big")

    def text(self) -> bytes:
        """Return the next string."""
        return self.take(self.u32())

    def attributes(self) -> Attributes:
        """Return the next attributes."""
        flags = self.u32()
        size = self.u64() if flags & _SIZE else 0
        if flags & _OWNER:
            self.take(8)
        permissions = self.u32() if flags & _PERMISSIONS else None
        times = (self.u32(), self.u32()) if flags & _TIMES else (0, 0)
        if flags & _EXTENDED:
            for _ in range(self.u32()):
                self.text(), self.text()
        return Attributes(size, permissions, times[1])
