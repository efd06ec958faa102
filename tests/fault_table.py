"""The faults that tests try, as the table of docs/reliability.md has them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.base.project import ROOT


def table() -> str:
    """Each fault once, with what must come of it and the test that tries it."""
    rows = {}
    for file in sorted((ROOT / "tests").rglob("test_*.py"), key=lambda path: path.parts):
        for name, mark in _marks(file):
            rows[mark.args[0]] = f"| {mark.args[0]} | {mark.args[1]} | `{name}` |\n"
    return "".join(["| Fault | Result | Test |\n", "|---|---|---|\n", *rows.values()])


def _marks(file: Path) -> Iterator[tuple[str, pytest.Mark]]:
    """Yield the faults of a file, each with the name of its test."""
    path = file.relative_to(ROOT).with_suffix("")
    module = importlib.import_module(".".join(path.parts))
    for name, test in vars(module).items():
        if name.startswith("test_") and inspect.isfunction(test):
            for mark in _of_parameters(getattr(test, "pytestmark", [])):
                yield f"{path.relative_to('tests')}.py::{name}", mark


def _of_parameters(marks: list[pytest.Mark]) -> Iterator[pytest.Mark]:
    """Yield the faults of a test and of its parameters."""
    for mark in marks:
        if mark.name == "fault":
            yield mark
        if mark.name == "parametrize":
            for case in mark.args[1]:
                case_marks = getattr(case, "marks", ())
                yield from (one for one in case_marks if one.name == "fault")
