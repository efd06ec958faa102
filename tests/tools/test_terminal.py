"""What the terminal shows of foreign text."""

from __future__ import annotations

import dataclasses
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


def test_an_error_stands_below_the_table_or_in_it_and_not_in_both(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = datetime.now(timezone.utc)
    failed = SectionResult("FILES/a", "item", Result(Status.FAILED, "wrong key: no identity"))
    result = RunResult("20260101_000000", "srv", now, 1.0, Status.FAILED, (failed,))
    brief, _ = terminal.table_lines(result, brief=True)
    assert brief.split() == ["FILES/a", "failed", "0.0", "s", "-"]
    assert terminal.table_lines(result)[0].endswith("wrong key: no identity")
    assert [one.text for one in result.problems()] == ["wrong key: no identity"]
    follows = Result(Status.FAILED, "not run: it needs FILES/a, which failed", consequence=True)
    both = dataclasses.replace(result, sections=(SectionResult("S", "store", follows), failed))
    assert both.problems()[0] == result.problems()[0]  # the cause, which the subject of a mail has
    names = ("a", "b", "c", "d", "e")
    alike = tuple(dataclasses.replace(failed, name=name) for name in names)
    terminal._print_problems(dataclasses.replace(result, sections=alike))
    assert capsys.readouterr().err == "error: a, b, c and 2 more: wrong key: no identity\n"
    part = Result(Status.INCOMPLETE, "3 files", warnings=("b: permission denied",))
    assert SectionResult("FILES/a", "item", part).summary == "3 files"
