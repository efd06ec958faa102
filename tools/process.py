"""Programs: spawned by list, in a group of their own, drained all the time, ended whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from tools import mask, os_works
from tools.errors import BackupError, SourceError
from tools.stream import CHUNK

TAIL = 25  # lines of a failed program's output that go into the error
_LINE = 8192  # bytes; a longer line is cut into several
_GRACE = 10.0  # seconds between SIGTERM and SIGKILL
_LINGER = 1.0  # seconds that a pipe may stay open after its program has ended


def ended(code: int) -> str:
    """How a program ended, in words; a negative code is the number of a signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    hint = " (out of memory? see the kernel log)" if -code == signal.SIGKILL else ""
    return f"was ended by {name}{hint}"


class Group:
    """A program in a process group of its own, whose output is read by threads."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
    ) -> None:
        """Start it. Raises BackupError where there is no such program."""
        self.name = os.path.basename(argv[0])  # noqa: PTH119  (argv[0] need be no path)
        try:
            self.popen = subprocess.Popen(
                list(argv),
                env=env,
                cwd=folder,
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise BackupError(
                f"{argv[0]} cannot be started: {error.strerror}",
                hint=f"Install {self.name}, or name the right program in the config.",
            ) from None
        self._threads: list[threading.Thread] = []

    def drain(self, pipe: IO[bytes], take: Callable[[str], None]) -> None:
        """Hand every line of a pipe to `take`, in a thread, until the pipe is closed."""

        def work() -> None:
            with contextlib.suppress(ValueError, OSError):  # closed by `end` while reading
                while line := pipe.readline(_LINE):
                    take(line.decode("utf-8", "backslashreplace").rstrip("\r\n"))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self._threads.append(thread)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""
        return self.popen.wait(timeout)

    def finish(self) -> bool:
        """Wait for what is left in the pipes; False if a child of the program held them open."""
        until = time.monotonic() + _LINGER
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        alone = not any(thread.is_alive() for thread in self._threads)
        if not alone:
            self.end()
        return alone

    def end(self, grace: float = _GRACE) -> None:
        """End the whole group: SIGTERM, then SIGKILL to what is left; never raises for the dead."""
        until = time.monotonic() + grace
        self._signal(signal.SIGTERM)
        while self._alive() and time.monotonic() < until:
            time.sleep(0.02)
        self._signal(signal.SIGKILL)
        self.popen.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, number)

    def _alive(self) -> bool:
        self.popen.poll()
        try:
            os.killpg(self.popen.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True


@contextlib.contextmanager
def started(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
    stdin: int = subprocess.DEVNULL,
) -> Iterator[Group]:
    """A program that is ended, with all that it started, at the end of the block.

    A signal that comes while it starts waits until it has its owner here. Raises
    BackupError where there is no such program.
    """
    group = None
    try:
        with os_works.signals_deferred():
            group = Group(argv, env=env, folder=folder, stdin=stdin)
        yield group
    finally:
        if group is not None:
            group.end()


def output(
    argv: Sequence[str],
    *,
    given: bytes = b"",
    allowed: Collection[int] | Callable[[int], bool] = (0,),
    notice: Callable[[str], None] | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[bytes]:
    """The standard output of a program, as chunks.

    At the end of it the exit code is read: one that is not allowed raises SourceError
    with the last lines of standard error; `allowed` may also be a function that is asked
    once all of standard error has been read. `given` is written to its standard input;
    `notice` gets each line of its standard error. The program is ended if the reader
    goes away early.
    """
    tail: deque[str] = deque(maxlen=TAIL)

    def take(line: str) -> None:
        tail.append(line)
        if notice is not None:
            notice(line)

    stdin = subprocess.PIPE if given else subprocess.DEVNULL
    with started(argv, env=env, stdin=stdin) as group:
        assert group.popen.stdout is not None and group.popen.stderr is not None  # noqa: S101, PT018
        with group.popen.stdout as pipe:
            with contextlib.suppress(PermissionError):  # over the limit: it stays small
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, CHUNK)
            group.drain(group.popen.stderr, take)
            if given:
                feed(group.popen, given)
            while chunk := pipe.read(CHUNK):
                yield chunk
            code = group.wait()
            group.finish()
            if not (allowed(code) if callable(allowed) else code in allowed):
                raise SourceError(f"{group.name} {ended(code)}", hint=mask.text("\n".join(tail)))


def feed(popen: subprocess.Popen[bytes], given: bytes) -> None:
    """Write the standard input in a thread, so that neither side waits for the other."""

    def work() -> None:
        assert popen.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError), popen.stdin as pipe:
            pipe.write(given)

    threading.Thread(target=work, daemon=True).start()
