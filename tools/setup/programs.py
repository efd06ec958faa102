"""Programs of the system that setup.py runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.base import foreign
from tools.base.errors import BackupError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ALIKE = 24  # characters in which lines agree that repeat each other
_TAIL = 5  # lines of a failed program that are shown


def run(
    command: Sequence[str | Path], failure: str = "", environment: Mapping[str, str] | None = None
) -> str:
    """Run a program to its end, from /; return what it printed.

    failure: what failed, for the error; "": the command
    environment: variables beside those of this process
    Raises BackupError with the last lines of its output.
    """
    arguments = list(map(str, command))
    program = shutil.which(arguments[0], path=f"{os.environ.get('PATH', '')}:{PATH}")
    failure = failure or " ".join(arguments)
    if program is None:
        raise BackupError(f"{failure}: {arguments[0]} is not installed")
    done = subprocess.run(
        [program, *arguments[1:]],
        cwd="/",
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    output = foreign.decoded(done.stdout)
    if done.returncode != 0:
        last = [line.strip() for line in foreign.lines(output.strip())[-_TAIL:]]
        raise BackupError(f"{failure}: exit code {done.returncode}", foreign.line(" | ".join(last)))
    return output
