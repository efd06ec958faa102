"""Errors that nobody foresaw, and output that nobody understands."""

from __future__ import annotations

import logging

import pytest

from tools.base import crash, masking
from tools.base.errors import BackupError, SourceError
from tools.engine.section_runner import Output
from tools.flow import process


def raised(error: Exception) -> Exception:
    """The error as it is caught: with its frames and what it came from."""
    try:
        try:
            raise ValueError("first")
        except ValueError as first:
            raise error from first
    except Exception as caught:  # noqa: BLE001
        return caught


@pytest.mark.parametrize("error", [SourceError("odd", "look"), OSError(5, "odd")])
def test_a_known_error_keeps_no_frames(error: Exception) -> None:
    returned = crash.reportable(raised(error))
    assert returned is error
    assert (returned.__traceback__, returned.__context__, returned.__cause__) == (None, None, None)


def test_a_bug_is_named_and_the_log_has_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL):
        returned = crash.reportable(raised(IndexError("list")))
    assert isinstance(returned, BackupError)
    assert str(returned) == "internal error: IndexError: list"
    assert returned.__traceback__ is None
    assert "Traceback" in caplog.text


def test_a_line_that_is_not_understood_fails_its_program_and_nothing_hangs() -> None:
    """Its pipe is read to the end: otherwise the program would stop at a full pipe."""

    def notice(line: str) -> None:
        if line == "7":
            raise ValueError("seven")

    chunks = process.output(["sh", "-c", "seq 100000 >&2; echo data"], notice=notice)
    with pytest.raises(ValueError, match="seven"):
        list(chunks)


def test_the_bound_of_the_log_counts_lines(caplog: pytest.LogCaptureFixture) -> None:
    """An empty line takes about 60 bytes in the log as well."""
    output = Output()
    with caplog.at_level(logging.INFO):
        for _ in range(50_000):
            output.take("")
    assert 10_000 < len(caplog.records) < 20_000
    assert caplog.records[-1].getMessage() == "more output is left out of the log"


@pytest.mark.parametrize("before", [8183, 65536 - 10, 70_000, 73_728 - 5])
def test_a_secret_over_a_cut_of_a_line_is_masked(before: int) -> None:
    masking.add("SUPERSECRETPASSWORD")
    received: list[str] = []
    lines = process.Lines(received.append)
    raw = b"x" * before + b"SUPERSECRETPASSWORD" + "é".encode() * 50_000 + b"\nnext"
    for at in range(0, len(raw), 8192):
        lines.add(raw[at : at + 8192])
    lines.end()
    masked = "".join(map(masking.text, received))
    assert "SECRET" not in masked
    assert "PASSWORD" not in masked
    assert masked.count("é") == 50_000
    assert received[-1] == "next"
