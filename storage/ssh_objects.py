"""Objects as files below one folder of an account that sftp reaches."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from storage import account_checks, ssh_files
from storage.ssh_command import Server
from storage.ssh_protocol import FSYNC, HARDLINK, Code, Flag, Kind, StatusError, text
from storage.ssh_session import Session
from storage.ssh_sftp import WRITE_NEW, Sftp
from storage.ssh_shell import Shell
from tools import date_str_utils, filesystem_handling
from tools.base import foreign
from tools.base.errors import BackupError, ForbiddenError, StoreError, TakenError
from tools.flow import store, stream, task
from tools.flow.retries import Retries

_SMALL = 1 << 18  # bytes up to which reading back is faster than asking the shell
_FULL = 1 << 20  # a disk with less free bytes counts as full
_FORBIDDEN = (Code.PERMISSION_DENIED, Code.OP_UNSUPPORTED)
_RIGHTS = "Check the rights of the account in this folder, and the forced command of its key."


class SshStore:
    """See Store. Written under a temporary name, read back, and linked to its name.

    Data goes by sftp alone. The checksum of what the server holds comes from its own shell where
    that sees the same files; otherwise the bytes are read back.
    """

    consistent = True

    def __init__(
        self,
        session: Session,
        folder: str,
        *,
        retries: Retries | None = None,
        small: int = _SMALL,
    ) -> None:
        """Use a folder, which the first `put` creates.

        folder: absolute, or relative to the home of the account
        retries: of logging in again while an object is written
        small: bytes of an object that is read back without asking the shell
        """
        self._session = session
        self._retries = retries or Retries()
        self._small = small
        self._shown = folder
        self._folder = os.fsencode(folder if folder.startswith("/") else f"./{folder}")
        self._unpublished: dict[str, tuple[bytes, store.StoredObject]] = {}
        self._renaming: store.CreateOnly | None = None  # how; None where files can be linked

    def __str__(self) -> str:
        return address(self._session.server, self._shown)

    @property
    def create_only(self) -> store.CreateOnly:
        """See Store: link(2) replaces nothing; renaming must be tried."""
        return self._renaming or store.CreateOnly.ATOMIC

    # --- paths and errors

    def _path(self, name: str) -> bytes:
        return self._folder + b"/" + os.fsencode(store.check_name(name))

    def _named(self, path: bytes) -> str:
        inside = os.fsdecode(path).removeprefix(os.fsdecode(self._folder))
        return foreign.line(f"{self}{inside}")

    @contextlib.contextmanager
    def _explaining(self, path: bytes) -> Iterator[Sftp]:
        """Give the connection; turn what the server rejects into a StoreError about a path."""
        sftp = self._session.sftp()
        with self._judging(path):
            yield sftp

    @contextlib.contextmanager
    def _judging(self, path: bytes) -> Iterator[None]:
        try:
            yield
        except StatusError as error:
            raise self._error(self._session.sftp(), path, error) from error

    def _error(self, sftp: Sftp, path: bytes, error: StatusError) -> StoreError:
        where = self._named(path)
        if error.code == Code.NO_SUCH_FILE:
            return StoreError(f"{where}: no such file in the store")
        if error.code == Code.PERMISSION_DENIED:
            return StoreError(
                f"{where}: permission denied",
                "On the server, let the account read and write REMOTE_DIR, or create it for it.",
            )
        free = self._free(sftp, path)
        if free is not None and free < _FULL:
            return StoreError(
                f"{self}: disk full: {date_str_utils.human_size(free)} free",
                "Remove old runs there, or use a larger disk.",
            )
        return StoreError(
            f"{where}: the server answers {str(error) or f'code {error.code}'!r}",
            "Check the quota of the account, the disk of the server and its log.",
        )

    def _free(self, sftp: Sftp, path: bytes) -> int | None:
        """Return the bytes left at the nearest existing folder; sftp's "Failure" says no more."""
        folder = ssh_files.nearest(sftp, path)
        with contextlib.suppress(StatusError):
            if (free := sftp.free(folder)) is not None:
                return free
        return self._session.ask(lambda shell: shell.free(folder), None)

    def free(self) -> int | None:
        """See Measured: by statvfs of sftp, else by df of the shell."""
        with self._explaining(self._folder) as sftp:
            return self._free(sftp, self._folder)

    def tried(self, host: str) -> str:
        """Write a file, give it another name, and remove both; return what was found.

        In the folder of the host, or the nearest one above it that exists.
        """
        with self._explaining(self._path(host)) as sftp:
            about = sftp.stat(self._folder)
            if about is not None and not about.is_folder:
                raise StoreError(f"{self}: not a directory", "Set REMOTE_DIR to a folder.")
            probe = ssh_files.nearest(sftp, self._path(host)) + b"/probe"
            one, other = ssh_files.temporary(probe), ssh_files.temporary(probe)
            content = os.urandom(32)
            try:
                handle = sftp.open(one, WRITE_NEW)
                sftp.done(sftp.write(handle, 0, content))
                sftp.shut(handle)
                written = sftp.stat(one)
                if written is not None and written.mtime:
                    self._session.clock = written.mtime - time.time()
                sha256 = self._session.ask(lambda shell: shell.sha256(one), "")
                self._name(sftp, one, other)
            finally:
                for path in (one, other):
                    sftp.remove(path)
        shell = sha256 == _digest([content])
        way = "checksums by the server's shell" if shell else "sftp alone, read back"
        created = "" if about is not None else " (it will be created)"
        return f"{created}; {way}; nothing is overwritten {self.create_only.value}"

    def may_remove(self, host: str) -> bool:
        """See Probed: an append-only server denies it for names that do not exist as well."""
        try:
            self.remove([account_checks.name_in(host)])
        except ForbiddenError:
            return False
        return True

    # --- put

    def put(self, name: str, chunks: Iterable[bytes]) -> store.StoredObject:
        """See Store: under a temporary name, synced, size and checksum compared."""
        path = self._path(name)
        content = stream.content(chunks)
        self.discard([name])
        with self._explaining(path) as sftp:
            temporary = ssh_files.temporary(path)
            asked = sftp.request(Kind.STAT, text(path))
            opening = sftp.opening(temporary, WRITE_NEW)
            file = ssh_files.create(self._session, sftp, temporary, opening)
            try:
                with self._judging(path):  # while a full disk is still full
                    if sftp.stat(path, asked) is None:
                        stored = self._write(file, temporary, name, content)
                        self._unpublished[name] = temporary, stored
                        return stored
            except BaseException:
                file.abandon()
                raise
            file.abandon()
        stream.drained(content)
        return self._accept_existing(path, store.StoredObject(name, content.size, content.sha256))

    def _write(
        self, file: ssh_files.NewFile, path: bytes, name: str, content: stream.Content
    ) -> store.StoredObject:
        size = file.write(content, self._retries, name)
        about, back = file.finish(size, self._small)
        if self._session.clock is None and about.mtime:
            self._session.clock = about.mtime - time.time()
        if FSYNC not in file.sftp.extensions:
            self._session.ask(lambda shell: shell.sync(path), False)
        stored = store.StoredObject(name, size, content.sha256)
        sha256 = "" if back is None else _digest([back])
        if about.size != size or not self._holds(path, stored, sha256):
            raise StoreError(
                f"{self._named(self._path(name))}: read-back mismatch: the server holds other "
                "data than was sent",
                "Check the disk of the server (dmesg, smartctl). The file was not stored.",
            )
        return stored

    def _holds(self, path: bytes, stored: store.StoredObject, sha256: str) -> bool:
        """Return whether a temporary file of ours has this content. sha256: if known already"""
        if not sha256:
            sha256 = self._session.ask(lambda shell: shell.sha256(path), "")
            if sha256 == stored.sha256:
                self._session.shell_proven = True
        if sha256 == stored.sha256:
            return True
        read_back = functools.partial(self._read_back, path)
        return self._retries.call(stored.name, read_back) == stored.sha256

    def _read_back(self, path: bytes) -> str:
        return _digest(self._read(self._session.sftp(), path, 0, None))

    def _accept_existing(self, path: bytes, stored: store.StoredObject) -> store.StoredObject:
        """Return `stored` if the file has this content already. Raises TakenError otherwise."""
        with self._explaining(path) as sftp:
            about = sftp.stat(path)
            if about is not None and about.size == stored.size:
                proven = self._session.shell_proven and stored.size > self._small
                ask = self._session.ask
                sha256 = ask(lambda shell: shell.sha256(path), "") if proven else ""
                if stored.sha256 == sha256 or stored.sha256 == self._read_back(path):
                    return stored
        raise TakenError(
            f"{self._named(path)}: file exists with different content",
            "Stored files are never overwritten. Check whether two machines use the same HOSTNAME.",
        )

    # --- publish and discard

    def set_age(self, name: str, seconds: float) -> None:
        """See Timed; a server that sets no times keeps that of the copy."""
        if name in self._unpublished:
            temporary, _ = self._unpublished[name]
            moment = max(0, int(self._session.now() - seconds))
            sftp = self._session.sftp()
            with contextlib.suppress(StatusError):
                sftp.set_time(temporary, moment)

    def publish(self, names: Sequence[str]) -> None:
        """See Store: linked without replacing; then synced, which writes the new names too."""
        fresh = {self._path(name): name for name in names if name in self._unpublished}
        for path, name in fresh.items():
            temporary, stored = self._unpublished[name]
            with self._explaining(path) as sftp:
                try:
                    self._name(sftp, temporary, path)
                except StatusError:
                    if sftp.stat(path) is None:
                        raise
                    self._accept_existing(path, stored)
        self._sync(list(fresh))
        for name in fresh.values():
            self.discard([name])  # the file has its own name now

    def _sync(self, paths: Sequence[bytes]) -> None:
        with self._explaining(self._folder) as sftp:
            if FSYNC in sftp.extensions:
                return ssh_files.sync(sftp, paths)
        folders = {path.rpartition(b"/")[0] for path in paths}
        for folder in folders:
            self._session.ask(functools.partial(Shell.sync, path=folder), False)
        return None

    def _name(self, sftp: Sftp, temporary: bytes, path: bytes) -> None:
        """Link a file, or rename it where the server or its file system has no links."""
        if self._renaming is None and HARDLINK in sftp.extensions:
            try:
                return sftp.link_file(temporary, path)
            except StatusError as error:
                known = error.code in (Code.NO_SUCH_FILE, Code.PERMISSION_DENIED)
                if known or sftp.stat(path) is not None:
                    raise
            self._renaming = store.CreateOnly.LISTED  # rename(2) without link(2): it replaces
        if self._renaming is None:
            folder = os.path.dirname(path)  # noqa: PTH120  (a path of another machine)
            self._renaming = ssh_files.tried_rename(sftp, folder)
        if self._renaming is store.CreateOnly.LISTED and sftp.stat(path) is not None:
            raise StatusError(Code.FAILURE, "file exists")
        return sftp.rename(temporary, path)

    def discard(self, names: Sequence[str]) -> None:
        """See Store."""
        for name in names:
            if name in self._unpublished:
                temporary, _ = self._unpublished.pop(name)
                with task.entered(task.Task()), self._explaining(temporary) as sftp:
                    sftp.remove(temporary)  # also of an item that was stopped

    # --- get, list, remove

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store."""
        path = self._path(name)
        with self._explaining(path) as sftp:
            yield from self._read(sftp, path, start, end)

    def _read(self, sftp: Sftp, path: bytes, start: int, end: int | None) -> Iterator[bytes]:
        handle = sftp.open(path, Flag.READ)
        try:
            size = sftp.size(handle)
            yield from sftp.read(handle, start, size if end is None else min(size, end))
        finally:
            with contextlib.suppress(BackupError, StatusError):
                sftp.shut(handle)

    def entries(self, folder: str) -> Iterator[store.StoreEntry]:
        """See Store."""
        return self._files(folder, temporary=False)

    def unfinished(self, folder: str) -> Iterator[store.StoreEntry]:
        """See Store."""
        return self._files(folder, temporary=True)

    def _files(self, folder: str, *, temporary: bool) -> Iterator[store.StoreEntry]:
        path = self._path(folder)
        with self._explaining(path) as sftp:
            entries = list(ssh_files.listed(sftp, path))
            now = self._session.now() if entries else 0.0
        for name, about in entries:
            if filesystem_handling.is_temporary(name) is temporary and about.is_file:
                yield store.StoreEntry(f"{folder}/{name}", about.size, now - about.mtime)

    def folders(self) -> Iterator[str]:
        """See Store."""
        with self._explaining(self._folder) as sftp:
            entries = list(ssh_files.listed(sftp, self._folder))
        for name, about in entries:
            if about.is_folder and name != store.OWN_FOLDER and not name.startswith("."):
                yield name

    def remove(self, names: Sequence[str]) -> None:
        """See Store."""
        for name in names:
            path = self._path(name)
            with self._explaining(path) as sftp:
                try:
                    sftp.remove(path)
                except StatusError as error:
                    if error.code not in _FORBIDDEN:
                        raise
                    reason = str(error) or "permission denied"
                    raise ForbiddenError(f"{self._named(path)}: {reason}", _RIGHTS) from error


def address(server: Server, folder: str) -> str:
    """Return a folder of an account as `restore.py --store` takes it."""
    between = "" if folder.startswith("/") else "/~/"
    return foreign.line(f"ssh://{server}{between}{folder}")


def _digest(chunks: Iterable[bytes]) -> str:
    content = stream.content(chunks)
    stream.drained(content)
    return content.sha256


if TYPE_CHECKING:
    _: type[store.Store] = SshStore
    _measured: type[store.Measured] = SshStore
    _timed: type[store.Timed] = SshStore
    _probed: type[store.Probed] = SshStore
