"""The rules of the house, held by reading the source and by spawning what it holds."""

from __future__ import annotations

import ast
import graphlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import starter
from tools.base import project
from tools.modules import loader, registry

ROOT = project.ROOT
TOP = ("backup.py", "setup.py", "README.md", "CHANGELOG.md", "LICENSE", "conf", "docs", "tests")
NO_MODULE_FOLDERS = {"tools", "tests", "docs", "conf", "benchmarks"}
# Of tools/, lowest first; the documented files that stand beside them belong to the lowest.
PACKAGES = (
    *("base", "flow", "modules", "config", "catalog", "engine", "reporting", "setup", "commands"),
)
DOCUMENTED = (
    *("date_str_utils.py", "filesystem_handling.py", "os_works.py", "requests_utils.py"),
    "size_calculation.py",
)
LONGEST = 400  # lines of a file
EXECUTABLES = sorted(row.file for row in registry.ROWS if not row.plugin)
PLUGINS = sorted(row.file for row in registry.ROWS if row.plugin)
# Documented commands that Python 2.7 can read, and the files that have their code.
COMMANDS = {
    "backup.py": "tools/commands/backup.py",
    "restore/restore.py": "restore/command.py",
    "encryption/encryption.py": "encryption/stage.py",
    "copy_runs/copy_runs.py": "copy_runs/command.py",
}
BOOTSTRAP = [
    "sys.path[0] = str(Path(__file__).resolve().parents[1])",
    "from tools.base import launcher",
    "launcher.start(__file__)",
]


def module_folders() -> list[str]:
    """The folders at the top that hold Python and are modules."""
    return sorted(
        folder.name
        for folder in ROOT.iterdir()
        if folder.name[0] not in "._"
        and folder.name not in NO_MODULE_FOLDERS
        and any(folder.glob("*.py"))
    )


def sources(*tops: str) -> list[Path]:
    """Every Python file below the folders or files named."""
    paths: list[Path] = []
    for top in tops:
        path = ROOT / top
        paths += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return paths


def named(path: Path) -> str:
    """How a file is called in the id of a test."""
    return str(path.relative_to(ROOT))


OUR_SOURCES = sources("backup.py", "setup.py", "tools", *module_folders())
EVERYTHING = [*OUR_SOURCES, *sources("tests", "benchmarks")]


def imports(path: Path) -> Iterator[str]:
    """The full names of what a file imports, in functions too, and what it loads by path."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (entry.name for entry in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides which package is meant"
            yield node.module or ""


def test_the_top_level_is_as_the_user_fixed_it() -> None:
    missing = [name for name in (*TOP, *registry.MODULES) if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("path", OUR_SOURCES, ids=named)
def test_two_floors(path: Path) -> None:
    """tools stands on libraries; a module on tools and its own folder, never on another."""
    folder = path.relative_to(ROOT).parts[0]
    upper = {*module_folders(), "backup", "setup", "tests", "benchmarks"} - {folder}
    forbidden = [name for name in imports(path) if name.split(".")[0] in upper]
    assert not forbidden, f"{path} may not stand on {forbidden}"


def imported_files(path: Path) -> Iterator[Path]:
    """The files of this project that a file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            below = ROOT.joinpath(*str(node.module).split("."))
            files = [below.with_suffix(".py"), *(below / f"{name.name}.py" for name in node.names)]
            yield from (file for file in files if file.is_file())


def rank(file: Path) -> int:
    """The place of a file of tools/ in the order of its packages, lowest first."""
    package = file.relative_to(ROOT / "tools").parts[0]
    if package == "size_calculation.py":  # a module, though it lies among the tools
        return len(PACKAGES)
    return PACKAGES.index(package) if package in PACKAGES else 0


def test_tools_has_packages_and_the_five_documented_files() -> None:
    folders = {folder.parent.name for folder in (ROOT / "tools").glob("*/__init__.py")}
    assert folders == set(PACKAGES)
    assert {file.name for file in (ROOT / "tools").glob("*.py")} == {"__init__.py", *DOCUMENTED}


@pytest.mark.parametrize("path", sources("tools"), ids=named)
def test_the_packages_of_tools_stand_on_lower_ones(path: Path) -> None:
    """Issue 12, 3: base, flow, modules, config, catalog, engine, reporting, setup, commands."""
    higher = [
        named(file)
        for file in imported_files(path)
        if file.is_relative_to(ROOT / "tools") and rank(file) > rank(path)
    ]
    assert not higher, f"{path} may not stand on {higher}"


def test_no_file_imports_itself_in_a_circle() -> None:
    graph = graphlib.TopologicalSorter({file: imported_files(file) for file in OUR_SOURCES})
    assert list(graph.static_order())  # raises CycleError


@pytest.mark.parametrize("path", EVERYTHING, ids=named)
def test_compression_is_never_imported_by_name(path: Path) -> None:
    """`import compression` is the standard library's from Python 3.14 on."""
    text = path.read_text(encoding="utf-8")
    if "compression" not in text:
        return
    tree = ast.parse(text)
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names = []
    for node in ast.walk(tree):
        if node not in for_types and isinstance(node, ast.Import):
            names += [entry.name for entry in node.names]
        elif node not in for_types and isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    assert not [name for name in names if name.split(".")[0] == "compression"]


@pytest.mark.parametrize("folder", module_folders())
def test_a_module_folder_is_a_package_and_has_its_executable(folder: str) -> None:
    """All but compression, whose name the standard library uses."""
    assert (ROOT / folder / "__init__.py").is_file() == (folder != "compression")
    modules = {name for name in registry.MODULES if name.startswith(f"{folder}/")}
    assert modules or (ROOT / folder / f"{folder}.py").is_file()


@pytest.mark.parametrize("path", OUR_SOURCES, ids=named)
def test_docstrings(path: Path) -> None:
    """On every file and on every public function and class at its top."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path} has no docstring"
    bare = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not bare, f"{path}: no docstring on {bare}"


@pytest.mark.parametrize("path", OUR_SOURCES, ids=named)
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_any_python_can_read(name: str) -> None:
    """Issue 13 A7: what follows the bootstrap is for the registry, and no code."""
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    kinds = (ast.Expr, ast.Import, ast.ImportFrom, ast.If, ast.Assign)
    assert {type(node) for node in tree.body} <= set(kinds)
    (guard,) = (node for node in tree.body if isinstance(node, ast.If))
    assert is_guard(guard)
    assert ast.unparse(guard.body[-1]) == f"launcher.start({COMMANDS[name]!r})"


@pytest.mark.parametrize("name", [name for name in EXECUTABLES if name in COMMANDS])
def test_the_code_of_a_command_has_its_parts_in_order(name: str) -> None:
    tree = ast.parse((ROOT / COMMANDS[name]).read_text(encoding="utf-8"))
    parts = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
    assert parts["Options"].lineno < parts["work"].lineno < parts["main"].lineno
    assert ast.unparse(parts["main"].body[-1]) == "return executable.run(Options, work, argv)"


@pytest.mark.parametrize("name", [name for name in EXECUTABLES if name not in COMMANDS])
def test_an_executable_has_its_five_parts_in_order(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    guards = [node for node in tree.body if isinstance(node, ast.If) and is_guard(node)]
    assert len(guards) == 1, "one bootstrap, which never returns"
    declared = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Options")
    work = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "work")
    assert ast.get_docstring(tree)
    main = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "main")
    assert guards[0].lineno < declared.lineno < work.lineno < main.lineno
    assert [ast.unparse(line) for line in guards[0].body] == BOOTSTRAP
    assert ast.unparse(main.body[-1]) == "return executable.run(Options, work, argv)"
    assert tree.body[-1] is main
    assert "frozen=True" in "".join(ast.unparse(entry) for entry in declared.decorator_list)
    before = [n for n in tree.body if n.lineno < guards[0].lineno]
    early = [n.module or "" for n in before if isinstance(n, ast.ImportFrom)]
    assert not [name for name in early if name.startswith("tools")], "imported too early"
    used = {ast.unparse(n.func) for n in ast.walk(work) if isinstance(n, ast.Call)}
    assert not used & {"print", "exit", "sys.exit"}, "work returns its result"


def is_guard(node: ast.If) -> bool:
    """Whether this is `if __name__ == "__main__":`."""
    return ast.unparse(node.test) == "__name__ == '__main__'"


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_has_the_documented_class(name: str) -> None:
    methods = {"__init__", "config_plugin", "works_execution", "output"}
    assert methods <= set(dir(getattr(loader.module(name), registry.MODULES[name].plugin)))


@pytest.mark.parametrize("name", sorted(registry.MODULES))
def test_imported_it_does_nothing(name: str) -> None:
    """It declares Options, and neither prints nor loads what costs start-up time."""
    code = (
        "import sys; sys.path[0] = sys.argv[1]; from tools.modules import loader\n"
        "assert loader.module(sys.argv[2]).Options\n"
        "heavy = {'cryptography', 'zstandard', 'requests', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'loaded at import: {heavy}' if heavy else 0)\n"
    )
    command = [sys.executable, "-c", code, str(ROOT), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", [*EXECUTABLES, *PLUGINS, "backup.py"])
@pytest.mark.parametrize("through", ["path", "link"])
def test_spawned_from_anywhere(name: str, through: str, tmp_path: Path) -> None:
    """By its path from /, and through a symbolic link in another folder."""
    program = ROOT / name
    if through == "link":
        program = tmp_path / "link.py"
        program.symlink_to(ROOT / name)
    arguments = [str(program), "--help"]
    if through == "path":
        done = starter.run(arguments, os.environ)
    else:
        done = subprocess.run(
            [sys.executable, *arguments], cwd="/", capture_output=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert b"--" in done.stdout
    assert b"|---" not in done.stdout, "Markdown is for the docs (Issue 11 E)"
    assert not done.stderr


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_that_is_spawned_says_what_it_is(name: str) -> None:
    """Issue 11 E: one line and a hint, never a traceback."""
    done = starter.run([str(ROOT / name), "--HOSTNAME", "x"], os.environ)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(f"error: {Path(name).name} is a plugin".encode())
    assert b"hint: " in done.stderr


def test_the_standard_library_works_beside_our_folders() -> None:
    """Since Python 3.14 gzip, bz2 and lzma import a package called compression."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import bz2, gzip, lzma; print('good')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "good\n", done.stderr


def test_a_wheel_can_be_built_without_our_setup_py() -> None:
    """pip runs a setup.py where the backend is setuptools or absent; ours would refuse."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'build-backend = "hatchling.build"' in text
    assert "bypass-selection = true" in text


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["bdist_wheel"], "not that of setuptools"),
        (["egg_info"], "not that of setuptools"),
        (["instal"], "unknown command 'instal': did you mean install?"),
        (["--nonsense"], "setup.py install: unknown argument '--nonsense'"),
        (["--dry"], "did you mean --dry-run?"),
        (["demo", "--yes"], "setup.py demo: unknown argument '--yes'"),
        (["--prefix"], "--prefix needs a value"),
        (["--prefix", "/nowhere"], "--prefix: /nowhere: not a directory"),
        (["--dry-run", "--dry-run"], "--dry-run is given twice"),
    ],
)
def test_setup_py_refuses_in_one_line(arguments: list[str], problem: str) -> None:
    command = [sys.executable, str(ROOT / "setup.py"), *arguments]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert problem in error
    assert hint.startswith("hint: ")
    assert not done.stdout


def test_ci_runs_what_everybody_runs() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").endswith("exec python3 setup.py test\n")
