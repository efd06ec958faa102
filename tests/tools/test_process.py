from __future__ import annotations

import time

import pytest

from tools import process
from tools.errors import BackupError, SourceError


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
