"""The run of an executable under a Python that is new enough: its last errors and its output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType

from tools.base import imports, output
from tools.base.errors import BackupError, in_words, of_system
from tools.base.project import ROOT

_INTERRUPTED = 130  # exit code after SIGINT before a program catches signals


def run(executable: str, repair: Callable[[str], None] = lambda _why: None) -> int:
    """Return the exit code of an executable; 1 if its standard output could not be written.

    executable: the path of a Python file with a `main`, absolute or from the root of the project
    repair: gets why a package could not be imported at the start; returns where it cannot help
    """
    output.open_standard()
    name = ".".join((ROOT / executable).resolve().relative_to(ROOT).with_suffix("").parts)
    return output.close_standard(_exit_code(name, sys.argv[1:], repair))


def _exit_code(name: str, argv: Sequence[str], repair: Callable[[str], None]) -> int:
    """Return the exit code of `main`. What it does not catch is one line, unless it is a bug."""
    try:
        return int(_loaded(name, repair).main(argv))
    except SystemExit as exit_:
        return _code_of(exit_.code)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (BackupError, OSError) as error:
        return _report(error)
    except Exception as error:
        if (limit := of_system(error)) is None:
            raise
        return _report(limit)


def _code_of(code: str | int | None) -> int:
    """Return the exit code of sys.exit; a text goes to standard error, as Python would print it."""
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    return code if isinstance(code, int) else int(code is not None)


def _loaded(name: str, repair: Callable[[str], None]) -> ModuleType:
    try:
        return imports.module(name)
    except imports.PackageError as error:
        repair(str(error))
        raise


def _report(error: BackupError | OSError) -> int:
    line, hint = in_words(error)
    sys.stderr.write(f"error: {line}\n" + (f"hint: {hint}\n" if hint else ""))
    return getattr(error, "exit_code", 1)
