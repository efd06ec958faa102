"""How a user-defined program is started, from its first bytes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from tools.base import foreign

_FIRST = 256  # bytes that Linux reads of a #! line
_ELF = b"\x7fELF"
_BLANKS = re.compile(r"[ \t]+")


@dataclass(frozen=True)
class ProgramFile:
    """A file that starts by itself, or is read by an interpreter.

    binary: whether it is an ELF file
    line:   the text after #! in its first line; "" if it has none
    """

    path: Path
    binary: bool = False
    line: str = ""

    @property
    def is_direct(self) -> bool:
        """Return whether it is started directly where EXECUTE_WITH is not set.

        A #! line that names Python is not followed: Python files run in the Python of backup.py,
        which has the packages of .venv.
        """
        return self.binary or bool(self.line and not self._names_python())

    def _names_python(self) -> bool:
        return os.path.basename(self.interpreter).startswith("python")  # noqa: PTH119  (a word)

    @property
    def interpreter(self) -> str:
        """Return the program that the #! line names; for env(1) the one that it looks for."""
        first, *rest = _BLANKS.split(self.line)
        if os.path.basename(first) != "env":  # noqa: PTH119  (a word)
            return first
        return next((word for word in rest if word[0] != "-" and "=" not in word), first)

    def problem(self) -> tuple[str, str]:
        """Return why it cannot be started directly, and a hint; two empty texts if it can."""
        path = self.path
        if not os.access(path, os.X_OK, effective_ids=True):
            hint = f"Run chmod +x {shlex.quote(str(path))}, or set EXECUTE_WITH."
            return f"{path}: not executable", hint
        if os.statvfs(path).f_flag & os.ST_NOEXEC:
            return f"{path}: its file system is mounted with noexec", "Set EXECUTE_WITH."
        if self.line.endswith("\r"):
            hint = f"Convert its line ends: sed -i 's/\\r$//' {shlex.quote(str(path))}"
            return f"{path}: the #! line ends with a carriage return", hint
        if self.line and shutil.which(self.interpreter) is None:
            name = foreign.line(self.interpreter)
            hint = f"Install {name}, or set EXECUTE_WITH."
            return f"{path}: #! line: {name}: no such file or directory", hint
        return "", ""


def read(path: Path) -> ProgramFile:
    """Return how a file is started. A file that cannot be read has neither mark."""
    try:
        with path.open("rb") as file:
            first = file.read(_FIRST)
    except OSError:
        return ProgramFile(path)
    mark, _, _ = first.partition(b"\n")
    line = os.fsdecode(mark[2:]).strip(" \t") if mark.startswith(b"#!") else ""
    return ProgramFile(path, first.startswith(_ELF), line.strip("\r") and line)
