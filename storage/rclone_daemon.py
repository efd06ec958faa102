"""The one `rclone rcd` of a process: it takes calls on a socket that only this user can reach."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from storage import rclone_errors
from tools import filesystem_handling, os_works
from tools.base import fixes, foreign_json, removal, signals
from tools.base.errors import StoreError, TransientError
from tools.base.log import logger
from tools.flow import process, task

_PRIVATE = "rclone-"  # begins the names of the folders of the socket and of the spool
_RUNS = Path(".nc-backup-py")  # the private folder of runs in WORK_FOLDER
_READY = 60.0  # seconds until rclone must listen
_GRACE = 1.0  # seconds that it has to end
_LONGEST = 70  # characters of a folder for a socket: its whole path may have 107 (unix(7))
_USER = "nc-backup-py"
_HOURS = "8760h"  # of one transfer: rclone would end one after an hour
# rclone ends with this process, however that ends: its pipe is closed then.
_WATCHED = 'exec 3<&0 </dev/null; (read -r _ <&3; kill $$) >/dev/null 2>&1 & exec "$@" 3<&-'
_FIXED = (
    *("--rc-serve", "--ask-password=false", "--use-json-log", "--use-server-modtime"),
    *(f"--rc-server-read-timeout={_HOURS}", f"--rc-server-write-timeout={_HOURS}"),
)


@dataclass(frozen=True)
class Program:
    """How rclone is started.

    config: its file; None for the one that it finds by itself
    flags:  further options of its command line
    work:   folder for objects that a remote cannot take as a stream
    env:    its environment
    """

    program: str = "rclone"
    config: Path | None = None
    flags: tuple[str, ...] = ()
    work: Path = Path("/opt/backup")
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def path(self) -> str:
        """Return the absolute path of the program. Raises StoreError where it is missing."""
        path = shutil.which(self.program)
        if path is None:
            raise StoreError(
                f"{self.program}: command not found",
                "Install rclone (https://rclone.org/install/, or the package of your system), or "
                "set PROGRAM to its absolute path.",
                fixes.install("rclone"),
            )
        return os.path.abspath(path)  # noqa: PTH100  (links stay)

    def check(self) -> None:
        """Raise StoreError where the program or its config file is missing or cannot be read."""
        self.path()
        if self.config is not None:
            try:
                self.config.open("rb").close()
            except OSError as error:
                raise StoreError(
                    f"CONFIG: {self.config}: {(error.strerror or '').lower()}",
                    "Check CONFIG, and that this user may read it.",
                ) from None


def environment() -> tuple[tuple[str, str], ...]:
    """Return the environment of rclone for the section at work."""
    named = [name for name in os.environ if name.startswith(("RCLONE_", "AWS_"))]
    return tuple(sorted(os_works.environment({}, named, proxies=True).items()))


class Daemon:
    """A running rclone. It belongs to no item: other items go on where one is stopped."""

    def __init__(self, program: Program) -> None:
        """Start it, and wait until it listens. Raises StoreError."""
        program.check()
        self._lines: deque[str] = deque(maxlen=5)
        self._stack = contextlib.ExitStack()
        try:
            folder = self._private(_socket_folder())
            spool_folder = _spool_folder(program.work)
            spool = self._private(spool_folder) if spool_folder else folder
            self.socket = folder / "s"
            password = secrets.token_urlsafe(24)
            self.authorization = str(base64.b64encode(f"{_USER}:{password}".encode()), "ascii")
            self._group = self._started(program, spool, password)
            self._stack.callback(self._end)
            self._wait()
        except BaseException:
            self._stack.close()
            raise

    def _private(self, parent: Path) -> Path:
        removal.sweep(parent, _PRIVATE)
        return self._stack.enter_context(removal.private(parent, _PRIVATE))

    def _started(self, program: Program, spool: Path, password: str) -> process.Group:
        """Start it. The password goes by the environment, never by the arguments."""
        env = {**dict(program.env), "RCLONE_RC_USER": _USER, "RCLONE_RC_PASS": password}
        config = () if program.config is None else ("--config", str(program.config))
        listen = ("--rc-addr", f"unix://{self.socket}", "--temp-dir", str(spool))
        command = (program.path(), "rcd", *program.flags, *_FIXED, *listen, *config)
        with signals.deferred(), task.entered(task.Task()):
            group = process.Group(
                ("/bin/sh", "-c", _WATCHED, "sh", *command),
                env=env,
                stdin=subprocess.PIPE,
                name=program.program,
            )
            for pipe in (group.popen.stderr, group.popen.stdout):
                assert pipe is not None  # noqa: S101
                group.drain(pipe, self._notice)
        return group

    def _notice(self, line: str) -> None:
        """Take a line of its log: an object of JSON, or a text where it has not begun yet."""
        try:
            record = foreign_json.load(line)
            text, level = str(record["msg"]), str(record["level"])
        except (ValueError, KeyError, TypeError):
            text, level = line, "error"
        text = rclone_errors.printable(text)
        logger.debug("rclone: %s", text)
        if text and level in ("error", "critical", "fatal"):
            self._lines.append(text)

    def _wait(self) -> None:
        until = time.monotonic() + _READY
        while not self._listens():
            task.current().check()
            signals.raise_lost()
            if self._group.has_ended:
                self._group.finish()
                ending = process.ending_text(self._group.wait())
                raise rclone_errors.of_start(self._group.name, ending, self.reason())
            if time.monotonic() > until:
                raise TransientError(f"{self._group.name}: does not listen within {_READY:.0f} s")
            time.sleep(0.01)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def reason(self) -> str:
        """Return the last line of its log that was an error; "" for none."""
        return self._lines[-1] if self._lines else ""

    @property
    def is_alive(self) -> bool:
        """Return whether the process still runs."""
        return not self._group.has_ended

    def _end(self) -> None:
        """Close its pipe, which ends it; then end what is left."""
        if self._group.popen.stdin is not None:
            with contextlib.suppress(OSError):
                self._group.popen.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._group.wait(_GRACE)
        self._group.end(0.0)

    def close(self) -> None:
        """End it, and remove its folders."""
        self._stack.close()


def _socket_folder() -> Path:
    folder = Path(tempfile.gettempdir())
    return folder if len(str(folder)) <= _LONGEST else Path("/tmp")  # noqa: S108  (private below it)


def _spool_folder(work: Path) -> Path | None:
    """Return the private folder of runs; None where there is no WORK_FOLDER, as in a restore."""
    if not os.access(work, os.W_OK | os.X_OK):
        return None
    filesystem_handling.make_folder(work / _RUNS)
    return work / _RUNS


class Shared:
    """The rclone of all stores with the same program: started by the first call, and again."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._lock = threading.Lock()
        self._running: list[Daemon] = []
        self.close = weakref.finalize(self, _close, self._running)

    def daemon(self) -> Daemon:
        """Return one that runs. Raises StoreError."""
        with self._lock:
            if self._running and not self._running[0].is_alive:
                self._running.pop().close()
            if not self._running:
                self._running.append(Daemon(self.program))
            return self._running[0]


def _close(running: list[Daemon]) -> None:
    for one in running:
        one.close()


_open: weakref.WeakValueDictionary[Program, Shared] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def shared(program: Program) -> Shared:
    """Return the rclone of this process for a program."""
    with _opening:
        if (rclone := _open.get(program)) is None:
            rclone = _open[program] = Shared(program)
        return rclone
