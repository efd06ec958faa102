#!/usr/bin/env python3
"""Serve sftp in one folder, in which files can be added and read, but not changed or removed.

A forced command for the key of a machine that is backed up (docs/ransomware.md). A line of
authorized_keys on the machine that keeps the backups:

    restrict,command="/usr/local/bin/append_only_sftp.py /srv/backup/srv-web-1" ssh-ed25519 AAAA...

It needs Python 3.8 and nothing else. What a client can do:

* create a new file under a temporary name (.NAME.part-XXXXXXXX), write it, and remove it again
* link it once complete to a name that does not exist: from then on nobody can change it
* read and list; create folders

Everything else is denied: other names and files for writing, removing, renaming, truncating,
symbolic links, modes, times, and all that is not below the folder. No symbolic link is followed.

Protocol: draft-ietf-secsh-filexfer-02, and PROTOCOL of OpenSSH for its extensions.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import sys
import syslog
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LARGEST = 256 << 10  # bytes that one request reads or writes
LONGEST = LARGEST + 1024  # bytes of a packet
MOST = 512  # files and folders that are open at once
PAGE = 100  # names of one answer of READDIR
OK, EOF, NO_SUCH_FILE, DENIED, FAILURE, UNSUPPORTED = 0, 1, 2, 3, 4, 8
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED_REPLY = 101, 102, 103, 104, 105, 201
WRITE, CREATE, EXCLUSIVE = 2, 8, 0x20
VENDOR = b"@openssh.com"
CODES = {
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), NO_SUCH_FILE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP), DENIED),
}


class StatusError(Exception):
    """An answer STATUS with another code than OK."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def denied(text: str) -> StatusError:
    """Return the error of what an append-only account may not do."""
    return StatusError(DENIED, "append-only: " + text)


def u32(number: int) -> bytes:
    """Return a number as four bytes."""
    return struct.pack(">I", number)


def string(raw: bytes) -> bytes:
    """Return bytes as a string of the protocol."""
    return u32(len(raw)) + raw


def attributes(about: os.stat_result) -> bytes:
    """Return size, owner, mode and times."""
    times = (int(about.st_atime) & 0xFFFFFFFF, int(about.st_mtime) & 0xFFFFFFFF)
    owner = (about.st_uid, about.st_gid, about.st_mode)
    return struct.pack(">IQIIIII", 0xF, about.st_size, *owner, *times)


class Fields:
    """The fields of a request, one after the other."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.at = 0

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        self.at += size
        if size < 0 or self.at > len(self.raw):
            raise StatusError(5, "bad message")
        return self.raw[self.at - size : self.at]

    def number(self, size: int = 4) -> int:
        """Return the next integer."""
        return int.from_bytes(self.take(size), "big")

    def string(self) -> bytes:
        """Return the next string."""
        return self.take(self.number())


def is_temporary(name: bytes) -> bool:
    """Return whether a name is that of a file that is not complete yet."""
    return name.startswith(b".") and b".part-" in name


class Folder:
    """The one folder that is served. Paths lead to it component by component, never by a link."""

    def __init__(self, path: str) -> None:
        self.path = os.fsencode(os.path.abspath(path))  # noqa: PTH100  (bytes)
        self.root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def parts(self, raw: bytes) -> list[bytes]:
        """Return the components of a path below the folder. Raises StatusError for any other."""
        if raw.startswith(b"/"):
            if raw != self.path and not raw.startswith(self.path.rstrip(b"/") + b"/"):
                raise denied("outside of the folder")
            raw = raw[len(self.path) :]
        parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
        if b".." in parts or b"\0" in raw:
            raise denied("outside of the folder")
        return parts

    @contextmanager
    def above(self, raw: bytes) -> Iterator[tuple[int, bytes]]:
        """Give a descriptor of the folder that a path lies in, and its last component."""
        parts = self.parts(raw)
        current = os.dup(self.root)
        try:
            for part in parts[:-1]:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                following = os.open(part, flags, dir_fd=current)
                os.close(current)
                current = following
            yield current, parts[-1] if parts else b"."
        finally:
            os.close(current)

    def opened(self, raw: bytes, flags: int) -> int:
        """Return a descriptor of what exists at a path; a link is not followed."""
        with self.above(raw) as (parent, name):
            more = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return os.open(name, flags | more, 0o600, dir_fd=parent)


class Server:
    """Answers requests. handles: descriptors, whether they are written, names not yet listed"""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.handles: dict[bytes, tuple[int, bool, list[bytes]]] = {}
        self.count = 0
        self.kinds: dict[int, Callable[[Fields], bytes]] = {
            3: self.open, 4: self.close, 5: self.read, 6: self.write, 7: self.stat, 8: self.fstat,
            11: self.opendir, 12: self.readdir, 13: self.remove, 14: self.mkdir,
            16: self.realpath, 17: self.stat, 200: self.extended,
        }  # fmt: skip
        self.extensions: dict[bytes, Callable[[Fields], bytes]] = {
            b"hardlink": self.link, b"fsync": self.fsync, b"statvfs": self.statvfs,
            b"limits": self.limits,
        }  # fmt: skip

    def answer(self, kind: int, number: bytes, raw: bytes) -> bytes:
        """Return the answer to one request."""
        try:
            method = self.kinds.get(kind)
            if method is None:  # RENAME, SETSTAT, FSETSTAT, RMDIR, SYMLINK, READLINK
                raise denied(f"request {kind} is not possible")
            body = method(Fields(raw))
        except StatusError as error:
            body = status(error.code, str(error))
            if error.code == DENIED:
                syslog.syslog(syslog.LOG_WARNING, f"denied: {error}: {raw[:300]!r}")
        except OSError as error:
            body = status(CODES.get(error.errno or 0, FAILURE), os.strerror(error.errno or 0))
        except OverflowError:  # an offset that no file has
            body = status(FAILURE, "bad message")
        return body[:1] + number + body[1:]

    # --- files

    def handle(self, descriptor: int, *, writing: bool, names: list[bytes]) -> bytes:
        """Return the answer with a new handle."""
        if len(self.handles) >= MOST:
            os.close(descriptor)
            raise StatusError(FAILURE, "too many open files")
        self.count += 1
        token = u32(self.count)
        self.handles[token] = (descriptor, writing, names)
        return bytes([HANDLE]) + string(token)

    def descriptor(self, fields: Fields, *, writing: bool = False) -> int:
        """Return the descriptor of a handle."""
        handle = self.handles.get(fields.string())
        if handle is None:
            raise StatusError(FAILURE, "no such handle")
        if writing and not handle[1]:
            raise denied("the file is open for reading")
        return handle[0]

    def open(self, fields: Fields) -> bytes:
        """Open a file: any one for reading, a temporary one of ours for writing."""
        path, flags = fields.string(), fields.number()
        if not flags & WRITE:
            descriptor = regular(self.folder.opened(path, os.O_RDONLY))
            return self.handle(descriptor, writing=False, names=[])
        self.require_temporary(path)
        how = os.O_RDWR
        if flags & CREATE:
            if not flags & EXCLUSIVE:
                raise denied("a file that may exist is not written")
            how |= os.O_CREAT | os.O_EXCL
        descriptor = locked(regular(self.folder.opened(path, how)))
        if os.fstat(descriptor).st_nlink != 1:
            os.close(descriptor)
            raise denied("the file is complete")
        return self.handle(descriptor, writing=True, names=[])

    def require_temporary(self, path: bytes) -> None:
        """Raise StatusError for the name of what is complete."""
        parts = self.folder.parts(path)
        if not parts or not is_temporary(parts[-1]):
            raise denied("not a temporary file")

    def close(self, fields: Fields) -> bytes:
        """Close a handle."""
        handle = self.handles.pop(fields.string(), None)
        if handle is None:
            raise StatusError(FAILURE, "no such handle")
        os.close(handle[0])
        return status(OK)

    def read(self, fields: Fields) -> bytes:
        """Read from a file."""
        descriptor, offset = self.descriptor(fields), fields.number(8)
        data = os.pread(descriptor, min(fields.number(), LARGEST), offset)
        return bytes([DATA]) + string(data) if data else status(EOF, "end of file")

    def write(self, fields: Fields) -> bytes:
        """Write to a file that this session has opened for writing."""
        descriptor, offset = self.descriptor(fields, writing=True), fields.number(8)
        remaining = memoryview(fields.string())
        while remaining:
            count = os.pwrite(descriptor, remaining, offset)
            remaining, offset = remaining[count:], offset + count
        return status(OK)

    def fsync(self, fields: Fields) -> bytes:
        """Write a file to the disk."""
        os.fsync(self.descriptor(fields))
        return status(OK)

    def fstat(self, fields: Fields) -> bytes:
        """Describe an open file."""
        return bytes([ATTRS]) + attributes(os.fstat(self.descriptor(fields)))

    def stat(self, fields: Fields) -> bytes:
        """Describe what is at a path; a link is described itself."""
        with self.folder.above(fields.string()) as (parent, name):
            about = os.stat(name, dir_fd=parent, follow_symlinks=False)
        return bytes([ATTRS]) + attributes(about)

    def remove(self, fields: Fields) -> bytes:
        """Remove a temporary file. What was linked from it stays."""
        path = fields.string()
        self.require_temporary(path)
        with self.folder.above(path) as (parent, name):
            os.unlink(name, dir_fd=parent)
        return status(OK)

    def link(self, fields: Fields) -> bytes:
        """Give a temporary file that nobody writes a name that does not exist."""
        old, new = fields.string(), fields.string()
        self.require_temporary(old)
        descriptor = locked(regular(self.folder.opened(old, os.O_RDONLY)))
        try:
            with self.folder.above(old) as source, self.folder.above(new) as target:
                about = os.stat(source[1], dir_fd=source[0], follow_symlinks=False)
                if not os.path.samestat(about, os.fstat(descriptor)):
                    raise denied("the file was replaced")
                folders = {"src_dir_fd": source[0], "dst_dir_fd": target[0]}
                os.link(source[1], target[1], **folders, follow_symlinks=False)
        finally:
            os.close(descriptor)
        return status(OK)

    # --- folders

    def opendir(self, fields: Fields) -> bytes:
        """Open a folder."""
        descriptor = self.folder.opened(fields.string(), os.O_RDONLY | os.O_DIRECTORY)
        names = sorted(map(os.fsencode, os.listdir(descriptor)), reverse=True)  # noqa: PTH208
        return self.handle(descriptor, writing=False, names=names)

    def readdir(self, fields: Fields) -> bytes:
        """Return the next names of a folder."""
        token = fields.string()
        descriptor, _, names = self.handles.get(token, (-1, False, []))
        entries: list[bytes] = []
        while names and len(entries) < PAGE:
            name = names.pop()
            try:
                about = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:  # removed meanwhile
                continue
            entries.append(string(name) + string(name) + attributes(about))
        if not entries:
            return status(EOF, "end of folder")
        return bytes([NAME]) + u32(len(entries)) + b"".join(entries)

    def mkdir(self, fields: Fields) -> bytes:
        """Create a folder, for its owner alone."""
        with self.folder.above(fields.string()) as (parent, name):
            os.mkdir(name, 0o700, dir_fd=parent)
        return status(OK)

    def realpath(self, fields: Fields) -> bytes:
        """Return an absolute path; nothing is looked up."""
        parts = [self.folder.path.rstrip(b"/"), *self.folder.parts(fields.string())]
        path = b"/".join(parts) or b"/"
        return bytes([NAME]) + u32(1) + string(path) + string(path) + u32(0)

    # --- extensions

    def extended(self, fields: Fields) -> bytes:
        """Answer a request of OpenSSH."""
        name, at, vendor = fields.string().partition(b"@")
        method = self.extensions.get(name) if at + vendor == VENDOR else None
        if method is None:
            raise StatusError(UNSUPPORTED, "append-only: not supported")
        return method(fields)

    def statvfs(self, fields: Fields) -> bytes:
        """Describe the file system."""
        self.folder.parts(fields.string())
        about = os.statvfs(self.folder.root)
        numbers = (
            *(about.f_bsize, about.f_frsize, about.f_blocks, about.f_bfree, about.f_bavail),
            *(about.f_files, about.f_ffree, about.f_favail, 0, 2, about.f_namemax),
        )
        return bytes([EXTENDED_REPLY]) + struct.pack(">11Q", *numbers)

    def limits(self, _fields: Fields) -> bytes:
        """Say how large requests may be."""
        return bytes([EXTENDED_REPLY]) + struct.pack(">4Q", LONGEST, LARGEST, LARGEST, MOST)


def status(code: int, text: str = "") -> bytes:
    """Return an answer STATUS."""
    return bytes([STATUS]) + u32(code) + string(text.encode("utf-8", "replace")) + string(b"")


def regular(descriptor: int) -> int:
    """Return a descriptor of a regular file. Raises StatusError for any other, and closes it."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise denied("not a regular file")
    return descriptor


def locked(descriptor: int) -> int:
    """Lock a file that is written, or linked. Raises StatusError while another one does that."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise denied("the file is being written") from None
    return descriptor


def send(body: bytes) -> None:
    """Send a packet."""
    remaining = memoryview(u32(len(body)) + body)
    while remaining:
        remaining = remaining[os.write(1, remaining) :]


def packets() -> Iterator[bytes]:
    """Yield the packets of the client, until it goes, or sends what is none."""
    read = sys.stdin.buffer.read
    while True:
        size = int.from_bytes(read(4), "big")
        packet = read(size) if 5 <= size <= LONGEST else b""  # noqa: PLR2004  (kind, number)
        if not packet or len(packet) < size:
            return
        yield packet


def main() -> int:
    """Serve one client; return the exit code."""
    command = os.environ.get("SSH_ORIGINAL_COMMAND", "sftp")
    if len(sys.argv) != 2 or "sftp" not in command.partition(" ")[0]:  # noqa: PLR2004
        sys.stderr.write("usage: append_only_sftp.py FOLDER; this account offers sftp alone\n")
        return 2
    os.umask(0o077)
    syslog.openlog("append_only_sftp", syslog.LOG_PID, syslog.LOG_AUTH)
    server = Server(Folder(sys.argv[1]))
    received = packets()
    if next(received, b"")[:1] != b"\1":  # INIT
        return 1
    versions = [(name, b"2" if name == b"statvfs" else b"1") for name in server.extensions]
    send(b"\2" + u32(3) + b"".join(string(a + VENDOR) + string(b) for a, b in versions))
    for packet in received:
        send(server.answer(packet[0], packet[1:5], packet[5:]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
