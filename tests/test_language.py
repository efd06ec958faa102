"""Words that are not plain technical English stay out of texts that users read.

Checked are pages, and in Python files the string literals that reach users: arguments of
exceptions, findings, results, log calls and options, `help` and `hint` of any call, and constants.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.base import project

# Folders and files that have been revised; new ones belong in these lists.
CODE = (
    *("backup.py", "setup.py", "tools", "restore", "storage", "compression", "encryption", "qa"),
    *("filesbackup", "mysql_backup", "postgres", "mongo", "sqlite", "redis", "openldap", "rsync"),
    *("cleanup", "copy_runs"),
)
PAGES = (
    "README.md",
    *sorted(str(page.relative_to(project.ROOT)) for page in (project.ROOT / "docs").rglob("*.md")),
)

BANNED = {
    r"mend(?:s|ed|ing)?": "fix",
    r"(?:is|are|it is then|and) (?:said|told)": "is reported, a warning is printed",
    r"what (?:comes|came) of": "result",
    r"of (?:your|the user's|its|their) own": "user-defined, separate",
    r"slips?": "typo",
    r"dead runs?": "crashed run",
    r"signs": "characters",
    r"go(?:es)? round": "bypasses",
    r"settled?": "fsync",
    r"put aside": "moved aside",
    r"ended well": "exited with 0",
    r"(?:said|says) that all is well": "exited with 0",
    r"distrust": "(name the check)",
    r"(?:the )?way back": "restore",
    r"the house": "the project",
    r"rooms?": "module, space",
    r"(?:is|are) refused": "is rejected, fails with",
    r"whoever": "(name who it is)",
    r"all the same": "anyway",
    r"begins? anew": "restart, reset",
    r"(?<!there )is no (?!longer\b|error\b)\w+": "is not a, not a",
    r"does not say": "(name the missing output)",
    r"there is no (?:file|folder|program)": "no such file or directory, command not found",
    r"look at": "check",
}
_QUESTION = r"\w\?$"  # a hint is an instruction
_PATTERN = re.compile(
    "|".join([*(rf"\b(?:{word})\b" for word in BANNED), _QUESTION]), re.IGNORECASE
)
_CALLS = {
    *("option", "warning", "bad", "Finding", "Result", "Problem"),
    *("debug", "info", "error", "exception", "critical"),
}
_KEYWORDS = {"help", "hint", "message", "description", "epilog"}


def banned(text: str) -> list[str]:
    """Return the banned words in a text; code between backticks is ignored."""
    return [match[0] for match in _PATTERN.finditer(re.sub(r"`[^`]*`", "``", text))]


def _name(function: ast.expr) -> str:
    """Return the last name of what is called."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _literals(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and text of each literal below a node, f-strings as one text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.lineno, node.value
    elif isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
        yield node.lineno, "".join(map(str, parts))
    else:
        for child in ast.iter_child_nodes(node):
            yield from _literals(child)


def messages(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of the literals of a Python file that reach users."""
    tree = ast.parse(source)
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            yield from _literals(statement.value)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = _name(node.func)
        reaches = name in _CALLS or name.endswith("Error")
        for argument in node.args if reaches else ():
            yield from _literals(argument)
        for keyword in node.keywords:
            if reaches or keyword.arg in _KEYWORDS:
                yield from _literals(keyword.value)


def _files() -> Iterator[Path]:
    for name in CODE:
        path = project.ROOT / name
        yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


@pytest.mark.parametrize(
    "path", list(_files()), ids=lambda path: str(path.relative_to(project.ROOT))
)
def test_messages(path: Path) -> None:
    matches = [
        (line, word)
        for line, text in messages(path.read_text(encoding="utf-8"))
        for word in banned(text)
    ]
    assert matches == [], "see BANNED for the words to use"


@pytest.mark.parametrize("page", PAGES)
def test_pages(page: str) -> None:
    lines = (project.ROOT / page).read_text(encoding="utf-8").splitlines()
    matches = [(number, word) for number, line in enumerate(lines, 1) for word in banned(line)]
    assert matches == [], "see BANNED for the words to use"


def test_the_words_are_found_where_users_read_them() -> None:
    source = '''
def f(path):
    """What came of it is refused: a docstring is not checked."""
    raise ConfigError(f"{path} is refused", hint="Mend it.")
option("the house", default="")
'''
    assert [word for _, text in messages(source) for word in banned(text)] == [
        "the house",
        "is refused",
        "Mend",
    ]
    assert banned("there is no such run; `is refused` is code; this is no error") == []
    assert banned("it is no folder") == ["is no folder"]


# Names that say nothing of what they hold; name the thing: `run`, `manifest`, `arguments`.
VAGUE = frozenset(
    ("found", "given", "said", "told", "made", "what", "words", "place", "own", "called", "house")
)
# The first words of a docstring that describes a thing instead of telling what a function does.
NOUNS = frozenset(
    (
        *("The", "A", "An", "What", "Whether", "How", "Each", "All", "Those", "That", "This"),
        *("Which", "Who", "Where", "Why", "It", "Its", "No", "None", "One", "Gives", "Raises"),
    )
)


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of all that a file defines: functions, parameters, variables, fields."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and first word of the docstring of each function."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield node.lineno, text.split()[0]


def _folder_names() -> list[str]:
    return sorted({path.parent.relative_to(project.ROOT).as_posix() for path in _files()})


@pytest.mark.parametrize("folder", [*_folder_names(), "benchmarks", "tests"])
def test_names_and_docstrings(folder: str) -> None:
    root = project.ROOT / folder
    vague = []
    for path in sorted(root.rglob("*.py") if folder == "tests" else root.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        vague += [(path.name, *one) for one in names(tree) if one[1].strip("_").lower() in VAGUE]
        if folder != "tests":
            vague += [(path.name, *one) for one in docstrings(tree) if one[1] in NOUNS]
    assert vague == [], "see VAGUE and NOUNS"


def test_vague_names_and_noun_docstrings_are_found() -> None:
    tree = ast.parse('''
def _told(words):
    """The words of it."""
    place = self.what = [given for given in words]
''')
    assert [name for _, name in names(tree)] == ["_told", "words", "place", "what", "given"]
    assert [word for _, word in docstrings(tree)] == ["The"]
