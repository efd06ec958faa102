"""No regular expression takes exponential or quadratic time, whatever text it is given."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from tools.base import imports
from tools.base.project import ROOT

try:
    parser: Any = importlib.import_module("re._parser")  # Python 3.11
except ModuleNotFoundError:
    parser = importlib.import_module("sre_parse")

NO_MODULES = {"tests", "benchmarks", "docs", "conf"}
# Each call within 20 seconds of CPU in all, at 100,000 characters; quadratic ones took minutes.
ADVERSARIAL = """
import contextlib, resource, sys
sys.path[0] = sys.argv[1]
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
from cleanup import rules
from mongo import mongo
from mysql_backup import mysql_server, statements
from tools.base import masking, secret
from tools.base.errors import ConfigError
from tools.base.path_patterns import compile_pattern
from tools.config import json_parser
from tools.modules import options
LONG = 100_000
for piece in ("AGE-SECRET-KEY-", "password", "a-", "://:", "'api_key", "x=", "\\"secret\\": "):
    masking.text(piece * (LONG // len(piece)))
masking.quoted("x" * LONG)
masking.quoted("x:" * (LONG // 2))
with contextlib.suppress(ConfigError):
    rules.period("KEEP_WITHIN", "0" * LONG)
secret.learn({"URL": "://:" * (LONG // 4), "OTHER": "http://a:b" * (LONG // 10)})
mongo.reason("\\t" * LONG)
mongo._RESTORED.search("0" * LONG)
mysql_server._SOCKET.search("\\n" * LONG)
mysql_server._HOST.search("\\n" * LONG)
mysql_server._EXIT_CODE.search("a" * LONG)
for piece in (b"\\\\'", b"'\\\\"):
    list(statements.tokens(piece * (LONG // 2), statements.Mode()))
keys = "".join(f'"k{number}": 1,\\n' for number in range(60_000))
json_parser.parse(('{"S": {' + keys + '"x": 1}}').encode(), "conf.json")
for pattern in ("/**/a/**/b/**/c/**/d", "**a**b**c**d", "*a*b*c*d*e"):
    name = b"/".join([b"a/b/c/" * 600, b"abc" * 80])
    compile_pattern(pattern, "KEY").matches(name)
print("good")
"""


def modules() -> Iterator[ModuleType]:
    """Every module of the product."""
    for file in sorted(ROOT.rglob("*.py")):
        relative = file.relative_to(ROOT)
        if (
            len(relative.parts) == 1
            or relative.parts[0][0] == "."
            or relative.parts[0] in NO_MODULES
        ):
            continue
        if file.name not in ("__init__.py", "provider_pycryptodome.py"):
            yield imports.module(".".join(relative.with_suffix("").parts))


def patterns(value: object) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, tuple):
        for entry in value:
            yield from patterns(entry)


def ambiguous(parsed: Any, *, repeated: bool = False) -> bool:
    """Return whether an unbounded repetition stands in another one, and is all that a round needs.

    `(a+)*` and `(a|a+b?)*` can read the same text in many ways, `(,a+)*` in one: each round
    begins with a literal of its own.
    """
    for operation, argument in parsed:
        name = str(operation)
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            unbounded = argument[1] == parser.MAXREPEAT
            if unbounded and repeated:
                return True
            body = argument[2]
            begins = str(body[0][0]) in ("LITERAL", "NOT_LITERAL") if len(body) else False
            if ambiguous(body, repeated=unbounded and not begins):
                return True
        elif name == "SUBPATTERN":
            if ambiguous(argument[3], repeated=repeated):
                return True
        elif name == "BRANCH":
            if any(ambiguous(branch, repeated=repeated) for branch in argument[1]):
                return True
        elif name in ("ASSERT", "ASSERT_NOT") and ambiguous(argument[1]):
            return True
    return False


def test_no_repetition_has_several_readings() -> None:
    """Issue 13 B6: 28 doubled quotes in the name of an account took more than 20 seconds."""
    slow_patterns = {
        f"{module.__name__}: {pattern.pattern!r}"
        for module in modules()
        for value in list(vars(module).values())
        for pattern in patterns(value)
        if ambiguous(parser.parse(pattern.pattern, pattern.flags))
    }
    assert slow_patterns == set()
    assert ambiguous(parser.parse(r"'(?:[^']+|'')*x"))
    assert not ambiguous(parser.parse(r"(?:,[^,]+)*"))


def test_no_text_takes_quadratic_time() -> None:
    """Issue 13 B6: a line of 20 kB in a program's output kept the log for 14 seconds."""
    done = subprocess.run(
        [sys.executable, "-c", ADVERSARIAL, str(ROOT)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "good\n"), done.stderr
