"""The connections to one account: shared by all stores of a process, made anew where cut."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable
from typing import TypeVar

from storage import ssh_link
from storage.ssh_command import Server
from storage.ssh_sftp import Sftp
from storage.ssh_shell import Shell
from tools.base.errors import StoreError

T = TypeVar("T")
_open: weakref.WeakValueDictionary[Server, Session] = weakref.WeakValueDictionary()
_opening = threading.Lock()


class Session:
    """An sftp connection, and a shell where the account has one. For several threads.

    shell_proven: the shell has seen a file that sftp has just written
    clock: seconds that the clock of the server is ahead of ours; None until that is known
    """

    def __init__(self, server: Server, *, with_shell: bool = True, verbose: bool = False) -> None:
        """Prepare a session.

        with_shell: whether to start a shell as well. verbose: learn the key of the server too
        """
        self.server = server
        self.shell_proven = False
        self.clock: float | None = None
        self._with_shell = with_shell
        self._verbose = verbose
        self._lock = threading.Lock()
        self._closers: dict[str, Callable[[], None]] = {}
        self._sftp: Sftp | None = None
        self._shell: Shell | None = None
        self.close = weakref.finalize(self, _close, self._closers)

    def sftp(self) -> Sftp:
        """Return a connection that stands. Raises StoreError."""
        with ssh_link.held(self._lock):
            if self._sftp is None or not self._sftp.is_alive:
                self.server.check_files()
                self._sftp = Sftp(self.server, verbose=self._verbose)
                self._closers["sftp"] = self._sftp.close
            return self._sftp

    def shell(self) -> Shell | None:
        """Return the shell; None where the account has none that we can use."""
        with ssh_link.held(self._lock):
            if self._shell is None and self._with_shell:
                self._with_shell = False
                with contextlib.suppress(StoreError):
                    self._shell = Shell(self.server)
                    self._closers["shell"] = self._shell.close
                    self.clock = self._shell.clock if self.clock is None else self.clock
            return self._shell

    def ask(self, question: Callable[[Shell], T], otherwise: T) -> T:
        """Return what the shell answers; `otherwise` where there is none, or it is cut off."""
        shell = self.shell()
        if shell is None:
            return otherwise
        try:
            return question(shell)
        except StoreError:
            with ssh_link.held(self._lock):
                if self._shell is shell:
                    self._shell, self._with_shell = None, True  # the next call logs in again
            return otherwise

    def now(self) -> float:
        """Return the time by the clock of the server, as far as it is known."""
        if self.clock is None:
            self.shell()
        return time.time() + (self.clock or 0.0)


def _close(closers: dict[str, Callable[[], None]]) -> None:
    for close in list(closers.values()):
        close()


def shared(server: Server) -> Session:
    """Return the session of this process with an account."""
    with _opening:
        if (session := _open.get(server)) is None:
            session = _open[server] = Session(server)
        return session
