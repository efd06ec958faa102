"""No wait outlasts its task: programs, pipes, channels and threads."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tools.base import signals
from tools.base.errors import Cancelled, SourceError
from tools.flow import pipes, process, stream, task
from tools.flow.task import StoppedError, Task


@pytest.fixture
def work() -> Iterator[Task]:
    """A task of the test, stopped at its end."""
    with task.entered(Task()) as entered:
        yield entered
        entered.stop("the test has ended")


@pytest.mark.fault("a pipe cannot be made larger", "the run goes on with a small one")
@pytest.mark.parametrize("error", [errno.EPERM, errno.EBUSY, errno.ENOMEM, errno.EINVAL])
def test_a_pipe_that_stays_small(error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_arguments: object) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "fcntl", refused)
    assert b"".join(process.output(["cat"], stdin_data=[b"da", b"ta"])) == b"data"


def test_few_bytes_are_handed_on_at_once_and_count_as_movement(work: Task) -> None:
    """A stall counts bytes: a source of 20 kB each 0.1 s never fills a chunk of 1 MiB."""
    work.moved = 0.0
    with stream.closed(process.output(["sh", "-c", "printf abc; exec sleep 300"])) as chunks:
        assert next(chunks) == b"abc"
        assert work.moved > 0


@pytest.mark.fault(
    "a program in the background keeps the output of a source open", "the item fails"
)
def test_a_descendant_that_keeps_the_output_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "LINGER", 0.1)
    pids: list[str] = []
    command = "setsid sleep 300 & echo $! >&2; echo data"
    try:
        with pytest.raises(SourceError, match="keeps its output open") as caught:
            list(process.output(["sh", "-c", command], notice=pids.append))
    finally:
        os.kill(int(pids[0]), signal.SIGKILL)
    assert "background" in caught.value.hint


def test_a_descendant_that_writes_on_is_read_to_its_end() -> None:
    command = "{ sleep 0.3; echo two; } & echo one"
    assert b"".join(process.output(["sh", "-c", command])) == b"one\ntwo\n"


def test_a_descendant_that_keeps_the_input_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a pipe holds is written; the program has ended, and the other never reads."""
    monkeypatch.setattr(pipes, "LINGER", 0.1)
    pids: list[str] = []
    command = "exec 3<&0; setsid sleep 300 <&3 >/dev/null 2>&1 & echo $! >&2"
    chunks = (bytes(1 << 20) for _ in range(8))
    try:
        with pytest.raises(SourceError, match="left a part of its input unread"):
            list(process.output(["sh", "-c", command], stdin_data=chunks, notice=pids.append))
    finally:
        os.kill(int(pids[0]), signal.SIGKILL)


@pytest.mark.fault("a filter or store program ends before it has read all", "the item fails")
def test_a_program_that_ends_while_its_input_pauses() -> None:
    """The input goes on long after the end of the program."""
    ended = threading.Event()

    def pausing_input() -> Iterator[bytes]:
        yield b"x"
        assert ended.wait(60)
        yield b"y"

    chunks = process.output(
        ["sh", "-c", "exec <&-; echo over >&2; exit 0"],
        stdin_data=pausing_input(),
        notice=lambda _line: ended.set(),
    )
    with pytest.raises(SourceError, match="left a part of its input unread"):
        list(chunks)


def _ends_ahead(_work: Task) -> None:
    def endless() -> Iterator[bytes]:
        threading.Event().wait()
        yield b""

    list(stream.ahead(endless()))


def _fills_a_channel(_work: Task) -> None:
    channel = stream.Channel(1)
    for _ in range(2):
        channel.put(b"x")


def _reads_a_channel(_work: Task) -> None:
    list(stream.Channel())


def _reads_a_program(_work: Task) -> None:
    list(process.output(["sleep", "300"]))


def _waits_for_the_end(_work: Task) -> None:
    list(process.output(["sh", "-c", "exec >&-; sleep 300"]))


def _writes_to_a_program(_work: Task) -> None:
    chunks = (bytes(1 << 20) for _ in range(8))
    list(process.output(["sh", "-c", "exec >&-; sleep 300"], stdin_data=chunks))


def _waits_for_more_input(_work: Task) -> None:
    def pausing_input() -> Iterator[bytes]:
        yield b"x"
        threading.Event().wait()

    list(process.output(["head", "-c1"], stdin_data=pausing_input()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "wait",
    [
        _ends_ahead,
        _fills_a_channel,
        _reads_a_channel,
        _reads_a_program,
        _waits_for_the_end,
        _writes_to_a_program,
        _waits_for_more_input,
    ],
)
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "may not be killed"])
def test_every_wait_ends_with_its_task(
    wait: Callable[[Task], None], killed: bool, work: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where killed is False, nothing can end the programs: as with one of root."""
    monkeypatch.setattr(task, "GRACE", 0.3)
    monkeypatch.setattr(process, "_KILLED", 0.1)
    started: list[process.Group] = []
    real = process.Group

    def group(*argv: Any, **how: Any) -> process.Group:
        started.append(real(*argv, **how))
        return started[-1]

    monkeypatch.setattr(process, "Group", group)
    if not killed:
        monkeypatch.setattr(os, "killpg", _not_permitted)
    threading.Timer(0.1, work.stop, ("its time is over",)).start()
    try:
        with pytest.raises((StoppedError, SourceError)):
            wait(work)
        assert work.stopped == "its time is over"
    finally:
        for one in started:
            one.popen.kill()


def _not_permitted(_group: int, _number: int) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.mark.fault("SIGTERM while a program gets its time to end", "it is killed, no orphan")
def test_a_signal_during_the_grace_period(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_deferral", signals._Deferral())  # the signal ends no later run
    before = {number: signal.getsignal(number) for number in signals._CAUGHT}
    signals.catch()
    deaf = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"]
    with process.started(deaf) as group:
        assert group.popen.stdout is not None
        assert group.popen.stdout.readline() == b"ready\n"
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        try:
            with pytest.raises(Cancelled):
                group.end(0.4)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    assert group.popen.returncode == -signal.SIGKILL


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_a_destructor_swallows_is_raised_later() -> None:
    class Swallows:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(100):  # the handler runs between two instructions of this frame
                pass

    before = {number: signal.getsignal(number) for number in signals._CAUGHT}
    signals.catch()
    try:
        Swallows()
        with pytest.raises(Cancelled):
            signals.raise_lost()
        signals.raise_lost()  # once
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
