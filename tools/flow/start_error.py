"""Why a program cannot be started, with the hint for this reason."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tools.base.errors import BackupError

MAX_ARGUMENT = (128 << 10) - 1  # bytes of one argument in Linux (execve(2), MAX_ARG_STRLEN)
_NO_FILES = "Allow more open files (ulimit -n, LimitNOFILE)."
_FOLDER = "Check the folder of the config: programs are started in it."
_NO_ROOM = "Free memory, or allow this user more processes (ulimit -u, TasksMax)."


def of(name: str, argv: Sequence[str], error: OSError, folder: Path | None) -> BackupError:
    """Return the error of a program that cannot be started, with the hint for this reason."""
    program = argv[0]
    reason = (error.strerror or str(error)).lower()
    named = name.endswith(f" {program}")  # as that of a hook is
    subject = name if named else f"{name}: {program}" if name else program
    if folder is not None and str(error.filename) == str(folder):  # chdir(2) failed
        return BackupError(f"{subject} cannot be started in {folder}: {reason}", _FOLDER)
    return BackupError(f"{subject} cannot be started: {reason}", _start_hint(argv, error))


def _start_hint(argv: Sequence[str], error: OSError) -> str:
    program = argv[0]
    name = os.path.basename(program)  # noqa: PTH119  (it need be no path)
    path = shutil.which(program) or program
    longest = max(len(os.fsencode(word)) for word in argv)
    hints = {
        errno.E2BIG: f"The longest argument has {longest} bytes: Linux allows {MAX_ARGUMENT}. "
        "Give the path of a file instead of the value."
        if longest > MAX_ARGUMENT
        else "Shorten the values of the section: together they are too long.",
        errno.EACCES: f"Check that this user may execute {path} and enter the folders above "
        "it, and that its file system is not mounted with noexec.",
        errno.ENOENT: f"Install {name}, or name the right program in the config.",
        errno.ENOEXEC: "Set EXECUTE_WITH to its interpreter, or write it into a #! line.",
        errno.ENOMEM: _NO_ROOM,
        errno.EAGAIN: _NO_ROOM,
        errno.EMFILE: _NO_FILES,
        errno.ENFILE: _NO_FILES,
    }
    if error.errno == errno.ENOENT and os.path.exists(program):  # noqa: PTH110  (never raises)
        return f"Install the interpreter that the first line of {program} names."
    return hints.get(error.errno or 0, f"Check {path} and its file system.")
