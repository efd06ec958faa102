#!/usr/bin/env python3
"""The structure of the code: files and lines of each package, and who imports whom.

    python3 benchmarks/structure.py [FOLDER]

FOLDER is a checkout; default: this one. docs/design.md has the table that it prints.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import ast
import graphlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from tools.base import project

_LEFT_OUT = {"tests", "benchmarks", "docs", "conf"}
_LOADED = re.compile(r'plugin\.load\("([a-z_0-9/]+)\.py"\)')  # in checkouts before the packages


def main(argv: Sequence[str]) -> int:
    """Print the tables; return the exit code."""
    root = Path(argv[0]).resolve() if argv else project.ROOT
    files = sorted(file for file in root.rglob("*.py") if _counts(file.relative_to(root)))
    lines: dict[str, list[int]] = defaultdict(list)
    arrows: dict[str, set[str]] = defaultdict(set)
    graph: dict[Path, set[Path]] = {}
    for file in files:
        package = _package(file, root)
        text = file.read_text(encoding="utf-8")
        lines[package].append(len(text.splitlines()))
        graph[file] = {other for other in _imported(text, root) if other.is_file()} - {file}
        arrows[package] |= {_package(other, root) for other in graph[file]} - {package}
    print("| Package | Files | Lines | Stands on |")
    print("|---|---|---|---|")
    for package, counted in sorted(lines.items(), key=lambda entry: (len(arrows[entry[0]]), entry)):
        below = ", ".join(sorted(arrows[package])) or "-"
        print(f"| `{package}` | {len(counted)} | {sum(counted)} | {below} |")
    print(f"\n{len(files)} files, {sum(map(sum, lines.values()))} lines, ", end="")
    print(f"circles: packages {_circle(arrows)}, files {_circle(graph)}")
    return 0


def _counts(name: Path) -> bool:
    return name.parts[0][0] not in "._" and name.parts[0] not in _LEFT_OUT


def _package(file: Path, root: Path) -> str:
    """Return tools/PACKAGE, the module folder, or `.` for the programs at the top.

    The documented files of tools/ belong to its lowest package, and SIZE is a module.
    """
    parts = file.relative_to(root).parts[:-1]
    if parts == ("tools",) and (root / "tools/base").is_dir():
        return file.name if file.name == "size_calculation.py" else "tools/base"
    return "/".join(parts[:2]) or "."


def _imported(text: str, root: Path) -> Iterator[Path]:
    """Yield the files that a file imports or loads by their path, in functions too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            below = root.joinpath(*node.module.split("."))
            yield below.with_suffix(".py")
            yield from (below / f"{name.name}.py" for name in node.names)
    yield from (root / f"{name}.py" for name in _LOADED.findall(text))


def _circle(graph: dict[Path, set[Path]] | dict[str, set[str]]) -> str:
    """Return "0", or the first circle that is found."""
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        return " -> ".join(str(getattr(entry, "name", entry)) for entry in error.args[1])
    return "0"
