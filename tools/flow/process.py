"""Programs: spawned by list, in a group of their own, drained all the time, ended whole."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from tools import os_works
from tools.base import capability, foreign, masking, signals
from tools.base.errors import BackupError, SourceError
from tools.base.log import logger
from tools.flow import pipes, start_error, stream, task
from tools.flow.stream import Chunks

TAIL = 25  # lines of a failed program's output that go into the error
_LINE = 8192  # bytes that are read at once
_LONGEST = 64 * 1024  # characters of a line; a longer one is cut into several
_HELD = "ended, but a program that it started keeps its output open"
_HELD_HINT = "Redirect the output of a program in the background (> /dev/null)."
_KILLED = 5.0  # seconds in which a program is gone after SIGKILL, unless it may not be killed
_AT_EXIT = 1.0  # seconds between SIGTERM and SIGKILL for what still runs when we end


def ending_text(code: int) -> str:
    """Describe how a program ended; a negative code is the number of a signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    hint = " (out of memory? see the kernel log)" if -code == signal.SIGKILL else ""
    return f"was ended by {name}{hint}"


class Lines:
    """Joins the pieces of an output to lines, so that no secret comes in two halves."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._held = bytearray()

    def add(self, piece: bytes) -> None:
        """Hand on each line that is whole by now, and what is too long for one."""
        self._held += piece
        while (at := self._held.find(b"\n")) >= 0:
            line = bytes(self._held[: at + 1])
            del self._held[: at + 1]
            self._hand_on(line)
        if len(self._held) > _LONGEST + _LINE:
            self._held = bytearray(self._shortened(bytes(self._held)))

    def end(self) -> None:
        """Hand on what no newline has ended."""
        if self._held:
            self._hand_on(bytes(self._held))
            self._held.clear()

    def _hand_on(self, line: bytes) -> None:
        while len(line) > _LONGEST + _LINE:
            line = self._shortened(line)
        self._take(line.decode("utf-8", "backslashreplace").rstrip("\r\n"))

    def _shortened(self, line: bytes) -> bytes:
        """Hand on the first characters; give what is left, at most a secret's length more."""
        text = line.decode("utf-8", "surrogateescape")
        at = masking.cut(text, min(_LONGEST, len(text) - _LINE))
        head = text[:at].encode("utf-8", "surrogateescape")
        self._take(head.decode("utf-8", "backslashreplace").rstrip("\r\n"))
        return line[len(head) :]


class Group:
    """A program in a process group of its own, whose output is read by threads."""

    def __init__(  # noqa: PLR0913  (as subprocess.Popen, by name)
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        name: str = "",
        capable: bool = False,
    ) -> None:
        """Start it. Raises BackupError where there is no such program.

        env: None for the allow-list of `os_works.environment`; nothing is ever inherited whole.
        name: what errors call it; default: the file that is started
        capable: whether it gets the capability to read every file, if this process holds it
        """
        self.name = name or os.path.basename(argv[0])  # noqa: PTH119  (argv[0] need be no path)
        try:
            with capability.raised() if capable else contextlib.nullcontext():
                self.popen = subprocess.Popen(
                    list(argv),
                    env=dict(os_works.environment({}) if env is None else env),
                    cwd=folder,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
        except OSError as error:
            raise start_error.of(name, argv, error, folder) from None
        self.held = False  # whether a child outside of the group keeps the pipes open
        self._threads: list[threading.Thread] = []
        self.errors: list[Exception] = []  # what was raised about lines of its output
        self._task = task.current()
        self._task.add(self)
        _running.add(self)

    @property
    def has_ended(self) -> bool:
        """Return whether its first process has ended."""
        return self.popen.poll() is not None

    def drain(self, pipe: IO[bytes], take: Callable[[str], None]) -> None:
        """Hand every line of a pipe to `take`, in a thread, until the pipe is closed."""

        def guarded(line: str) -> None:
            try:
                take(line)
            except Exception as error:  # noqa: BLE001  (raised again where the program is waited for)
                self.errors.append(error)  # unread, the program would stop at a full pipe

        def work() -> None:
            lines = Lines(guarded)
            with contextlib.suppress(ValueError, OSError):  # closed by `end` while reading
                while piece := pipe.readline(_LINE):
                    lines.add(piece)
            lines.end()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self._threads.append(thread)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code. Raises subprocess.TimeoutExpired."""
        return self.popen.wait(timeout)

    def finish(self) -> bool:
        """Wait for what is left in the pipes; False if a child of the program held them open.

        The child is ended, unless it has left the group: `held` says so.
        """
        if self._drained():
            return True
        self.end()
        self.held = not self._drained()
        return False

    def _drained(self) -> bool:
        """Wait a moment for the end of the pipes; False if they are still open."""
        until = time.monotonic() + pipes.LINGER
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def terminate(self) -> None:
        """Send SIGTERM to the whole group; does not wait."""
        self._signal(signal.SIGTERM)

    def end(self, grace: float = task.GRACE) -> None:
        """End the whole group: SIGTERM, then SIGKILL to what is left; never raises for the dead.

        A signal that asks this program to end waits meanwhile: nothing is left running. A program
        that cannot be ended (it belongs to another user, or hangs in the kernel) is logged, and
        not waited for.
        """
        with signals.deferred():
            until = time.monotonic() + grace
            self.terminate()
            while self._alive() and time.monotonic() < until:
                time.sleep(0.02)
            self._signal(signal.SIGKILL)
            try:
                self.popen.wait(_KILLED)
            except subprocess.TimeoutExpired:
                logger.error("%s (process %d) cannot be ended", self.name, self.popen.pid)
            self._task.remove(self)
            _running.discard(self)

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


_running: set[Group] = set()


@atexit.register
def _end_the_rest() -> None:
    """End what a signal in an unlucky moment has left running."""
    for group in list(_running):
        group.end(_AT_EXIT)


@contextlib.contextmanager
def started(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    name: str = "",
    capable: bool = False,
) -> Iterator[Group]:
    """Yield a program that is ended, with all that it started, at the end of the block.

    A signal that comes while it starts waits until it has its owner here. Raises
    BackupError where there is no such program.
    """
    group = None
    try:
        with signals.deferred():
            group = Group(argv, env=env, folder=folder, stdin=stdin, name=name, capable=capable)
        yield group
    finally:
        if group is not None:
            group.end()


def output(  # noqa: PLR0913  (as subprocess.Popen, by name)
    argv: Sequence[str],
    *,
    stdin_data: bytes | Chunks = b"",
    allowed: Collection[int] | Callable[[int], bool] = (0,),
    notice: Callable[[str], None] | None = None,
    idle: Callable[[float], None] | None = None,
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
    failure: type[BackupError] = SourceError,
    name: str = "",
    capable: bool = False,
) -> Iterator[bytes]:
    """Yield the standard output of a program, as chunks.

    At the end of it the exit code is read: one that is not allowed raises `failure`
    with the last lines of standard error; `allowed` may also be a function that is asked
    once all of standard error has been read. `stdin_data` is written to its standard input: bytes,
    or chunks; when those raise, the program is ended and never sees their end, and what they
    raise is raised. `notice` gets each line of its standard error; `idle` the seconds of
    silence, a few times a second while nothing comes: what it raises is raised. The program is
    ended if the reader goes away early. Raises task.StoppedError where the task is stopped, and
    `failure` where the program ended while another one keeps its output open in silence.
    """
    stderr_tail = StderrTail(notice)
    stdin = subprocess.PIPE if stdin_data else subprocess.DEVNULL
    with started(argv, env=env, stdin=stdin, folder=folder, name=name, capable=capable) as group:
        assert group.popen.stdout is not None and group.popen.stderr is not None  # noqa: S101, PT018
        with group.popen.stdout as pipe:
            pipes.widen(pipe)
            group.drain(group.popen.stderr, stderr_tail.take)
            reader = pipes.Reader(group, pipe, idle)
            feeder = _Feeder(group, stdin_data) if stdin_data else None
            try:
                yield from reader
                code = _exit_code(group)
                group.finish()
                if feeder is not None:
                    feeder.judge()
                if group.errors:
                    raise group.errors[0]
                if not (allowed(code) if callable(allowed) else code in allowed):
                    raise failure(f"{group.name} {ending_text(code)}", hint=stderr_tail.text())
                if reader.held:
                    raise failure(f"{group.name} {_HELD}", _HELD_HINT)
                if feeder is not None and feeder.unread():
                    raise failure(f"{group.name} ended well, and left a part of its input unread")
            finally:
                if feeder is not None:
                    feeder.stop()


def _exit_code(group: Group) -> int:
    """Wait for the end of a program that has closed its output. Raises StoppedError."""
    while True:
        try:
            return group.wait(task.TICK)
        except subprocess.TimeoutExpired:
            task.current().check()


class StderrTail:
    """The last lines that a program wrote to its standard error, for the error message."""

    def __init__(self, notice: Callable[[str], None] | None = None) -> None:
        self._notice = notice
        self._tail: deque[str] = deque(maxlen=TAIL)

    def take(self, line: str) -> None:
        """Keep a line, and hand it on."""
        self._tail.append(line)
        if self._notice is not None:
            self._notice(line)

    def text(self) -> str:
        """Return the lines, secrets masked, each of a length that can be shown."""
        return "\n".join(map(foreign.line, self._tail))


class _Feeder:
    """Writes a program's standard input in a thread, so that neither side waits for the other."""

    def __init__(self, group: Group, stdin_data: bytes | Chunks) -> None:
        self._group = group
        self._chunks: Chunks = [stdin_data] if isinstance(stdin_data, bytes) else stdin_data
        self._lenient = isinstance(stdin_data, bytes)  # a program need not read a list to its end
        self._error: BaseException | None = None
        self._closed_early = False
        self._thread = stream.thread(self._work)

    def _work(self) -> None:
        pipe = self._group.popen.stdin
        assert pipe is not None  # noqa: S101
        try:
            pipes.widen(pipe)
            writer = pipes.Writer(self._group, pipe)
            for chunk in self._chunks:
                writer.write(chunk)
            pipe.close()
        except BrokenPipeError:
            self._closed_early = True
        except BaseException as error:  # noqa: BLE001  (raised again by `judge`)
            self._error = error
            self._group.end()  # it must not take the end of its input for the end of the data
        finally:
            with contextlib.suppress(OSError):
                pipe.close()
            if not isinstance(self._chunks, list):
                getattr(self._chunks, "close", lambda: None)()

    def judge(self) -> None:
        """Raise what the chunks raised."""
        if self._error is not None:
            raise self._error

    def unread(self) -> bool:
        """Return, after the program has ended, whether it left chunks unread, which a list may be.

        Waits until the chunks end, or go on and find nobody. Raises what they raise, and
        StoppedError.
        """
        while self._thread.is_alive():
            task.current().check()
            self._thread.join(task.TICK)
        self.judge()
        return self._closed_early and not self._lenient

    def stop(self) -> None:
        """End the program if it has not ended, and with it the thread."""
        if self._thread.is_alive():
            self._group.end()
            self._thread.join(task.GRACE)


def feed(popen: subprocess.Popen[bytes], stdin_data: bytes) -> None:
    """Write the standard input in a thread, so that neither side waits for the other."""

    def work() -> None:
        assert popen.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError), popen.stdin as pipe:
            pipe.write(stdin_data)

    threading.Thread(target=work, daemon=True).start()
