from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from tools import os_works
from tools.base.errors import BackupError, Cancelled, SourceError
from tools.flow import process


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
    given = b"x" * (5 << 20)
    assert (
        b"".join(process.output(["sh", "-c", "cat; head -c 3000000 /dev/zero >&2"], given=given))
        == given
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


def test_a_signal_while_a_program_starts_waits_for_its_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[process.Group] = []
    real = process.Group

    def slow(*argv: Any, **how: Any) -> process.Group:
        group = real(*argv, **how)
        made.append(group)
        os.kill(os.getpid(), signal.SIGTERM)  # lands before anybody owns the group
        return group

    monkeypatch.setattr(process, "Group", slow)
    before = {number: signal.getsignal(number) for number in os_works._CAUGHT}
    os_works.catch_signals()
    try:
        with pytest.raises(Cancelled), process.started(["sleep", "60"]):
            pytest.fail("the block was entered")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert made[0].popen.returncode == -signal.SIGTERM
