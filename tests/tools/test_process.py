from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tools.base import signals
from tools.base.errors import BackupError, Cancelled, SourceError
from tools.flow import process, start_error


def test_output_gives_all_and_reads_the_exit_code_at_the_end() -> None:
    chunks = process.output(["sh", "-c", "printf abc; exit 3"])
    assert next(chunks) == b"abc"
    with pytest.raises(SourceError, match="sh ended with exit code 3"):
        next(chunks)


def test_an_allowed_exit_code_is_no_error() -> None:
    assert b"".join(process.output(["sh", "-c", "printf abc; exit 1"], allowed=(0, 1))) == b"abc"


def test_a_signal_is_named_and_the_tail_of_standard_error_is_the_hint() -> None:
    with pytest.raises(SourceError, match="SIGKILL") as caught:
        list(process.output(["sh", "-c", "echo why >&2; kill -9 $$"]))
    assert caught.value.hint == "why"


def test_no_deadlock_between_a_large_input_and_a_large_output() -> None:
    content = b"x" * (5 << 20)
    assert (
        b"".join(
            process.output(["sh", "-c", "cat; head -c 3000000 /dev/zero >&2"], stdin_data=content)
        )
        == content
    )


def test_a_reader_that_leaves_early_ends_the_program() -> None:
    chunks = process.output(["sh", "-c", "echo a; exec yes"])
    next(chunks)
    began = time.monotonic()
    chunks.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 9


def test_a_missing_program_is_named() -> None:
    with pytest.raises(BackupError, match=r"no-such-program cannot be started"):
        list(process.output(["no-such-program"]))


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOENT, "Install no-such, or"),
        (errno.EAGAIN, "ulimit -u"),
        (errno.ENOMEM, "Free memory"),
        (errno.EMFILE, "ulimit -n"),
        (errno.E2BIG, "together they are too long"),
        (errno.EACCES, "may execute /bin/no-such"),
        (errno.ETXTBSY, "Check /bin/no-such"),
    ],
)
def test_the_hint_fits_why_a_program_cannot_be_started(number: int, hint: str) -> None:
    """Issue 13 C6: "Install X" where the memory, the processes or the rights were missing."""
    error = OSError(number, os.strerror(number), "/bin/no-such")
    of_program = start_error.of("SECTION", ["/bin/no-such", "x"], error, Path("/a"))
    assert str(of_program).startswith("SECTION: /bin/no-such cannot be started: ")
    of_hook = start_error.of("BEFORE /bin/no-such", ["/bin/no-such"], error, None)
    assert str(of_hook).startswith("BEFORE /bin/no-such cannot be started: ")
    assert hint in of_program.hint
    assert ("Install" in of_program.hint) is (number == errno.ENOENT)


def test_a_long_argument_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    """Issue 13 C6: the folder of the config was removed, and the program was to be installed."""
    with pytest.raises(BackupError, match="argument list too long") as caught:
        list(process.output(["cat", "x" * (start_error.MAX_ARGUMENT + 1)]))
    assert "The longest argument has 131072 bytes" in caught.value.hint
    with pytest.raises(BackupError, match=rf"in {tmp_path}/gone: no such file") as caught:
        list(process.output(["cat"], folder=tmp_path / "gone"))
    assert "Install" not in caught.value.hint


def test_a_signal_while_a_program_starts_waits_for_its_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups: list[process.Group] = []
    real = process.Group

    def slow(*argv: Any, **how: Any) -> process.Group:
        group = real(*argv, **how)
        groups.append(group)
        os.kill(os.getpid(), signal.SIGTERM)  # lands before anybody owns the group
        return group

    monkeypatch.setattr(process, "Group", slow)
    monkeypatch.setattr(signals, "_deferral", signals._Deferral())  # the signal ends no later run
    before = {number: signal.getsignal(number) for number in signals._CAUGHT}
    signals.catch()
    try:
        with pytest.raises(Cancelled), process.started(["sleep", "60"]):
            pytest.fail("the block was entered")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert groups[0].popen.returncode == -signal.SIGTERM
