"""Text of other programs is decoded, split and read in one place; read off the source.

Where a call is right all the same, `ALLOWED` has its file and the reason.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.test_layout import OUR_SOURCES, named

CALLS = {
    "splitlines": "foreign.lines: str.splitlines splits names at U+2028 and others",
    "isdigit": "foreign.number: int() fails with '²' and with 5,000 digits",
    "isdecimal": "foreign.number",
    "isnumeric": "foreign.number",
    "rmtree": "removal.tree: shutil.rmtree fails with 1,000 levels",
    "TemporaryDirectory": "removal.private: its removal fails with 1,000 levels",
    "rglob": "filesystem_handling.entries_below: it fails with 1,000 levels",
    "walk": "filesystem_handling.entries_below: os.walk fails with 1,000 levels",
    "loads": "foreign_json.load: json.loads takes Infinity and fails with deep lists",
    "load": "foreign_json.load",
    "JSONDecoder": "foreign_json.load",
}
OWNERS = {"load": {"json"}, "loads": {"json"}, "walk": {"os"}}  # of calls with common names
ALLOWED = {
    ("tools/base/foreign.py", "isdigit"): "the one place",
    ("tools/base/foreign_json.py", "JSONDecoder"): "the one place",
    ("tools/base/masking.py", "loads"): "text is masked however leniently others read it",
    ("tools/setup/demo.py", "walk"): "the tree of the demo itself",
    ("tools/base/rebuilding.py", "rmtree"): "environments that pip has made; Python 3.6 runs it",
    ("tools/reporting/apprise_process.py", "load"): "what apprise_service.py wrote",
    ("tools/base/last_config.py", "loads"): "whatever it raises is one line; Python 3.6 runs it",
}
DECODERS = {"decode": 1, "read_text": 1, "open": 3, "fdopen": 3}  # places before `errors`
CATCHING = {"ValueError", "UnicodeError", "UnicodeDecodeError", "Exception"}
DECODED = {
    "tools/base/project.py": "pyproject.toml",
    "tools/setup/environment.py": "pyproject.toml and the stamp of .venv",
    "encryption/header.py": "checked to be ASCII, and base64",
    "encryption/age.py": "a constant",
    "tools/base/masking.py": "base64",
}


def calls(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield line and name of each forbidden call or function that is passed on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in CALLS:
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if node.attr not in OWNERS or owner in OWNERS[node.attr]:
                yield str(node.lineno), node.attr


def strict(node: ast.AST, *, caught: bool = False) -> Iterator[str]:
    """Yield the line of each decoding that can fail where nothing catches it."""
    if isinstance(node, ast.Try):
        handled = {
            name.id for one in node.handlers if one.type for name in ast.walk(one.type)
            if isinstance(name, ast.Name)
        }  # fmt: skip
        for statement in node.body:
            yield from strict(statement, caught=caught or bool(handled & CATCHING))
        for rest in (*node.handlers, *node.orelse, *node.finalbody):
            yield from strict(rest, caught=caught)
        return
    if isinstance(node, ast.Call) and not caught and is_strict(node):
        yield str(node.lineno)
    for child in ast.iter_child_nodes(node):
        yield from strict(child, caught=caught)


def is_strict(call: ast.Call) -> bool:
    """Whether a call decodes bytes and raises an error for some."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if name not in DECODERS or (name != "decode" and not text_mode(call, name)):
        return False
    escaped = [child for child in ast.walk(call.func) if isinstance(child, ast.Constant)]
    if any(child.value == "unicode_escape" for child in escaped):
        return False
    named_so = any(one.arg == "errors" for one in call.keywords)
    return not named_so and len(call.args) <= DECODERS[name]


def text_mode(call: ast.Call, name: str) -> bool:
    return name == "read_text" or any(one.arg == "encoding" for one in call.keywords)


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.AST]:
    """Every file of the project by its name."""
    return {named(path): ast.parse(path.read_text(encoding="utf-8")) for path in OUR_SOURCES}


def test_foreign_text_has_one_place(trees: dict[str, ast.AST]) -> None:
    matches = [
        f"{file}:{line}: {name} ({CALLS[name]})"
        for file, tree in trees.items()
        for line, name in calls(tree)
        if (file, name) not in ALLOWED
    ]
    assert not matches


def test_no_decoding_fails(trees: dict[str, ast.AST]) -> None:
    matches = [
        f"{file}:{line}: decoding without `errors`"
        for file, tree in trees.items()
        if file not in DECODED
        for line in strict(tree)
    ]
    assert not matches


def test_the_rules_find_what_they_forbid() -> None:
    bad = """
import json, os, shutil
shutil.rmtree(x)
json.loads(x); json.load(x); json.JSONDecoder(); x.splitlines(); map(str.isdigit, x)
x.decode(); y.decode("ascii"); p.read_text(encoding="utf-8"); p.open(encoding="utf-8")
for a in os.walk(x): pass
try:
    x.decode()
except OSError:
    y.decode()
"""
    good = """
loader.load(x); x.decode("utf-8", "replace"); x.decode(errors="replace"); p.open("rb")
x.encode("unicode_escape").decode("ascii"); ast.walk(tree)
try:
    x.decode()
except (OSError, ValueError):
    pass
"""
    names = sorted(name for _, name in calls(ast.parse(bad)))
    assert names == ["JSONDecoder", "isdigit", "load", "loads", "rmtree", "splitlines", "walk"]
    assert len(list(strict(ast.parse(bad)))) == 6
    assert not [*calls(ast.parse(good)), *strict(ast.parse(good))]


def test_every_exception_is_needed(trees: dict[str, ast.AST]) -> None:
    needed = {(file, name) for file, _ in ALLOWED for _, name in calls(trees[file])}
    assert set(ALLOWED) <= needed
    assert all(list(strict(trees[file])) for file in DECODED)
