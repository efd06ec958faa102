"""The one door through which every module executable goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tools import os_works
from tools.base import crash, project, signals
from tools.base.errors import Cancelled
from tools.base.result import Result, Status, of_error
from tools.modules import key_tables, options
from tools.modules.options import Declaration

T = TypeVar("T", bound=Declaration)


def describe(declaration: type[Declaration], argv: Sequence[str]) -> int:
    """Answer the command line of a plugin: --help and --help-markdown; exit code 2 for the rest."""
    if _helped(declaration, argv):
        return 0
    program = Path(sys.argv[0]).name
    print(f"error: {program} is a plugin and runs as a section of conf.json", file=sys.stderr)
    print("hint: --help lists its keys", file=sys.stderr)
    return Status.REFUSED.exit_code


def _helped(declaration: type[Declaration], argv: Sequence[str]) -> bool:
    """Print what --help, --help-markdown or --version asks for; return whether one was given."""
    if list(argv) == ["--version"]:
        text = project.banner()
    elif "--help-markdown" in argv[:1]:
        text = key_tables.table(declaration)
    elif "--help" in argv or "-h" in argv:
        text = key_tables.usage(Path(sys.argv[0]).name, declaration)
    else:
        return False
    print(text)
    return True


def run(declaration: type[T], work: Callable[[T], Result], argv: Sequence[str]) -> int:
    """Parse argv, do the work, say what came of it; return the exit code (DESIGN 8).

    Where NC_BACKUP_RESULT names a file, the result is written there as JSON: a built-in
    module that ends without one has not ended well.
    """
    if _helped(declaration, argv):
        return 0
    os_works.harden()
    signals.catch()
    try:
        result = work(options.parse(declaration, argv))
    except Exception as error:  # noqa: BLE001  (see crash.reportable)
        result = of_error(crash.reportable(error))
    except Cancelled as cancelled:
        result = Result(signals.status(cancelled.signal_number), str(cancelled))
    _report(result)
    return result.status.exit_code


def _report(result: Result) -> None:
    """Write the result where the run reads it, which logs it; without a run print it.

    Warnings of a success are printed in any case: the run logs its lines as information.
    """
    file = os.environ.get("NC_BACKUP_RESULT")
    if not file:
        _show(result)
        return
    try:
        Path(file).write_text(result.to_json(), encoding="utf-8")
    except OSError:  # the log has it at least
        _show(result)
        raise
    if result.status is Status.OK and result.warnings:
        print("\n".join(f"warning: {line}" for line in result.warnings), file=sys.stderr)


def _show(result: Result) -> None:
    """Print the text for people: success on standard output, problems on standard error."""
    good = result.status is Status.OK
    lines = [result.message if result.status.stored else f"error: {result.message}"]
    lines += result.details
    lines += [f"warning: {warning}" for warning in result.warnings]
    lines += [f"hint: {result.hint}"] if result.hint else []
    print("\n".join(lines), file=sys.stdout if good else sys.stderr, flush=True)
