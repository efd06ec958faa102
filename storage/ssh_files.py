"""Files and folders of an account that sftp reaches: what takes several requests."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator

from storage.ssh_protocol import Attributes, Code, StatusError
from storage.ssh_sftp import WRITE_NEW, Sftp
from tools import filesystem_handling
from tools.base.errors import BackupError
from tools.flow import store, task

_LONGEST = 200  # bytes of a name in a temporary one: a name has at most 255


def temporary(path: bytes) -> bytes:
    """Return a new temporary name beside a path, as filesystem_handling.temporary does."""
    folder, _, name = path.rpartition(b"/")
    ending = f"{filesystem_handling.PART}{uuid.uuid4().hex[:8]}".encode("ascii")
    return folder + b"/." + name[:_LONGEST] + ending


def abandon(sftp: Sftp, handle: bytes, temporary: bytes) -> None:
    """Remove a file that is not complete, also of an item that was stopped."""
    with task.entered(task.Task()):
        for cleanup, what in ((sftp.shut, handle), (sftp.remove, temporary)):
            with contextlib.suppress(BackupError, StatusError):  # a later run removes it
                cleanup(what)


def nearest(sftp: Sftp, path: bytes) -> bytes:
    """Return the nearest existing folder at or above a path."""
    while path not in (b"", b"."):
        with contextlib.suppress(StatusError):
            if (about := sftp.stat(path)) is not None and about.is_folder:
                return path
        path = path.rpartition(b"/")[0]
    return b"/" if path.startswith(b"/") else b"."


def make_folders(sftp: Sftp, path: bytes) -> None:
    """Create a folder and those above it that are missing."""
    missing = []
    while path.strip(b"/") not in (b"", b".") and sftp.stat(path) is None:
        missing.append(path)
        path = path.rpartition(b"/")[0]
    for folder in reversed(missing):
        try:
            sftp.make_folder(folder)
        except StatusError:
            if sftp.stat(folder) is None:  # otherwise another thread was faster
                raise


def listed(sftp: Sftp, path: bytes) -> Iterator[tuple[str, Attributes]]:
    """Yield the names in a folder, sorted, with what they stand for; nothing if it is missing."""
    try:
        found = sftp.listing(path)
    except StatusError as error:
        if error.code == Code.NO_SUCH_FILE:
            return
        raise
    for raw, about in sorted(found, key=lambda one: os.fsdecode(one[0])):
        target = sftp.stat(path + b"/" + raw) if about.is_link else about
        if target is not None:
            yield os.fsdecode(raw), target


def tried_rename(sftp: Sftp, folder: bytes) -> store.CreateOnly:
    """Return whether the server's rename keeps a name that exists, tried with two empty files."""
    one, other = temporary(folder + b"/probe"), temporary(folder + b"/probe")
    try:
        for path in (one, other):
            sftp.shut(sftp.open(path, WRITE_NEW))
        sftp.rename(one, other)
    except StatusError:
        kept = sftp.stat(one) is not None
        return store.CreateOnly.PROBED if kept else store.CreateOnly.LISTED
    finally:
        for path in (one, other):
            sftp.remove(path)
    return store.CreateOnly.LISTED
