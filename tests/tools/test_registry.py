"""The registry: its rows are true of the modules, and nothing else repeats them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.base import project
from tools.modules import contracts, loader, options, registry

ROWS = {row.file: row for row in registry.ROWS}


@pytest.mark.parametrize("file", ROWS)
def test_private_paths_are_options(file: str) -> None:
    declared = options.kinds(registry.declaration(file))
    for name in ROWS[file].private:
        assert Path in (declared[name], *getattr(declared[name], "__args__", ())), name


@pytest.mark.parametrize("file", ROWS)
def test_a_row_has_what_its_role_needs(file: str) -> None:
    row = ROWS[file]
    module = loader.module(file)
    functions = {"source": "items", "stage": "stage", "store": "open_store", "check": "main"}
    functions["cleanup"] = "main"
    assert callable(getattr(module, functions[row.role]))
    assert bool(row.kinds) == (row.role == "source")
    assert bool(row.stages) == (row.role == "stage")
    assert isinstance(module, contracts.Restorer) == any(kind.to_server for kind in row.kinds)
    assert isinstance(module, contracts.FolderRestorer) == any(kind.folder for kind in row.kinds)


def test_every_kind_and_stage_stands_in_one_row() -> None:
    kinds = [kind.name for row in registry.ROWS for kind in row.kinds]
    stages = [stage.name for row in registry.ROWS for stage in row.stages]
    assert len(set(kinds)) == len(kinds)
    assert len(set(stages)) == len(stages)


def test_kinds_are_named_nowhere_else() -> None:
    """Issue 12, 2: nine tables and a dozen comparisons of texts stood beside the list."""
    names = "|".join([*registry.STAGES, *registry.KINDS])
    compared = re.compile(
        rf"""(?<!member)\.kind (?:==|!=|in) \(?["'](?:{names})["']|\.kind\.startswith\("""
    )
    for folder in ("tools", "restore"):
        for file in (project.ROOT / folder).rglob("*.py"):
            assert not compared.search(file.read_text(encoding="utf-8")), file
