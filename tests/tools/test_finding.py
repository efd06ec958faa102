"""The list that `backup.py -t` shows: errors first, each with what fixes it, and bounded."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from tools.base import finding, fixes, permissions
from tools.base.finding import Level, Line
from tools.flow import retries
from tools.flow.retries import Retries


def test_errors_come_first_and_each_level_keeps_its_order() -> None:
    levels = [Level.OK, Level.WARN, Level.BAD, Level.OK, Level.BAD]
    lines = [Line(f"S{number}", "text", level) for number, level in enumerate(levels)]
    assert [line.section for line in finding.sorted_lines(lines)] == ["S2", "S4", "S1", "S0", "S3"]
    assert finding.summary(lines) == "2 errors, 1 warning, 2 good"


def test_what_sections_have_in_common_is_one_line() -> None:
    lines = [
        ("same", Line("A", "a.json:1: same", Level.BAD, "hint")),
        ("other", Line("B", "other", Level.BAD)),
        ("same", Line("B", "a.json:2: same", Level.BAD, "hint")),
        ("same", Line("B", "a.json:2: same", Level.BAD, "hint")),
        ("same", Line("C", "same", Level.WARN)),
        ("good", Line("A", "good")),
        ("good", Line("B", "good")),
    ]
    output_lines = finding.merged(lines)
    assert [(line.section, line.also) for line in output_lines] == [
        *[("A", ("B",)), ("B", ()), ("C", ()), ("A", ()), ("B", ())]
    ]
    assert finding.rendered(output_lines[0]) == ["BAD  A, B: a.json:1: same", "     hint: hint"]


def test_a_hostile_server_gives_a_bounded_list() -> None:
    lines = [Line("A", "x" * 10_000, Level.BAD, "y" * 10_000, "z" * 10_000)] * 1_000
    output_lines = finding.sorted_lines([*lines, Line("B", "last", Level.WARN)])
    assert len(output_lines) == 102
    assert output_lines[100].text == "900 more lines of this kind"
    assert len("".join(finding.rendered(output_lines[0]))) < 5_000
    assert not output_lines[0].fix  # the beginning of a command is another command
    many = Line("A", "text", Level.BAD, also=tuple(f"S{number}" for number in range(500)))
    assert len(finding.rendered(many)[0]) < 200


def test_a_hint_of_several_lines_is_never_taken_for_another_finding() -> None:
    text = finding.rendered(Line("A", "text", Level.BAD, "one\nok   B: fine", "command"))
    assert text == ["BAD  A: text", "     hint: one\n           ok   B: fine", "     fix:  command"]


def test_commands_can_be_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path with a space and a quote; sudo only for who is not root and not the owner."""
    path = tmp_path / "a 'b' && c"
    path.touch()
    command = fixes.command("chmod", "o-w", path)
    assert shlex.split(command) == ["chmod", "o-w", str(path)]
    assert fixes.on(path, command) == command
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 4711)
    assert fixes.on(path, command) == f"sudo {command}"
    assert fixes.as_root("a", "b") == "sudo a && sudo b"
    assert fixes.as_user("postgres", "psql") == "sudo -u postgres psql"
    folder = tmp_path / "open folder"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid)
    problem = permissions.of_code(folder)
    assert problem is not None
    assert shlex.split(problem.fix) == ["chmod", "o-w", str(folder)]


def test_a_program_is_installed_by_the_manager_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fixes.install("pg_dump") == ""
    (tmp_path / "dnf").touch(mode=0o755)
    assert fixes.install("/usr/pgsql-16/bin/pg_dump") == "dnf install postgresql"
    assert fixes.install("an-unknown-program") == ""


def test_a_test_makes_each_call_once() -> None:
    calls: list[int] = []

    def fails() -> None:
        calls.append(1)
        raise ConnectionRefusedError(111, "refused")

    waits = Retries(wait=lambda _event, _seconds: None, say=lambda _line: None)
    with retries.once(), pytest.raises(ConnectionRefusedError):
        waits.call("name", fails)
    assert len(calls) == 1
    with pytest.raises(ConnectionRefusedError):
        waits.call("name", fails)
    assert len(calls) == 1 + retries.ATTEMPTS
