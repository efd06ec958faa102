"""What `backup.py -t` finds about a user-defined module, without running it."""

from __future__ import annotations

import ast
import itertools
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.base import fixes, foreign
from tools.base.finding import Finding, Level, bad
from tools.config import program_file
from tools.config.model import Config, Section
from tools.engine import section_runner
from tools.flow import start_error


def tested(section: Section, config: Config) -> Iterator[str | Finding]:
    """Yield what is found about a section's program or class, and about its arguments."""
    if section.action == "load":
        yield _plugin(section)
    elif section.interpreter:
        yield _interpreter(section)
    else:
        yield _direct(section.file)
    yield from _long_arguments(section, config)


def _plugin(section: Section) -> Finding:
    """Find the class in the file; names that the file imports are not followed."""
    file, name = section.file, section.class_name
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        text = f"{file}{line}: not valid Python: {foreign.line(str(error))}"
        return Finding(text, Level.BAD, "Correct the file.")
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    simple = all(isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Expr) for node in tree.body)
    if name not in classes and simple:
        return Finding(f"CLASS: {file} has no class {name}", Level.BAD, "Correct the name.")
    return Finding(f"{file} exists")


def _interpreter(section: Section) -> Finding:
    name = shlex.split(section.interpreter)[0]
    program = sys.executable if name in ("python", "python3") else shutil.which(name)
    if not program:
        text = f"EXECUTE_WITH: {name}: command not found"
        return bad(text, f"Install {name}, or name another interpreter.", fixes.install(name))
    if not os.access(section.file, os.R_OK, effective_ids=True):
        command = fixes.on(section.file, fixes.command("chmod", "a+r", section.file))
        return bad(f"{section.file}: permission denied", "Let this user read it.", command)
    return Finding(f"{program} runs {section.file}")


def _direct(file: Path) -> Finding:
    text, hint = program_file.read(file).problem()
    return Finding(text, Level.BAD, hint) if text else Finding(f"{file} can be started")


def _long_arguments(section: Section, config: Config) -> Iterator[Finding]:
    """Yield each argument that is longer than Linux hands over."""
    arguments = section_runner.command(section, config).argv
    for before, word in itertools.pairwise(arguments):
        size = len(os.fsencode(word))
        if size > start_error.MAX_ARGUMENT:
            key = f"{before[2:]}: " if before.startswith("--") else ""
            text = f"{key}argument of {size} bytes, but Linux allows {start_error.MAX_ARGUMENT}"
            yield Finding(text, Level.BAD, "Give the path of a file instead of the value.")
