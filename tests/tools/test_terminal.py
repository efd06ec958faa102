"""What the terminal shows of foreign text."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from tools.base.result import Result, Status
from tools.base.run_result import RunResult, SectionResult
from tools.reporting import terminal


def test_a_row_is_one_line_whatever_an_item_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table(("item", "size"), [("a\nb\x1b[31m", "1"), ("c", "22")])
    assert capsys.readouterr().out.split("\n") == [
        *("item          size", r"a\nb\x1b[31m  1", "c             22", "")
    ]


def test_the_closing_table_has_one_line_per_item() -> None:
    now = datetime.now(timezone.utc)
    sections = (SectionResult("FILES/a\nb", "item", Result(Status.OK, "restored")),)
    result = RunResult("20260101_000000", "srv", now, 1.0, Status.OK, sections)
    lines = terminal.table_lines(result)
    assert len(lines) == 2
    assert lines[0].startswith(r"FILES/a\nb  ok")
