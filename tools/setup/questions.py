"""Questions: --yes answers them, and without a terminal the answer is no."""

from __future__ import annotations

import sys

from tools.base.errors import ConfigError
from tools.setup.installation import Installation


def confirm(problem: str, hint: str, question: str, installation: Installation) -> None:
    """Return if the operator answers yes. Raises ConfigError otherwise.

    A dry run asks nothing, and goes on with a notice.
    """
    if installation.yes or installation.dry_run:
        why = "--yes" if installation.yes else "this needs a yes"
        installation.notice(f"warning: {problem} ({why})")
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(problem, f"{hint} To do it anyway: --yes")
    sys.stdout.write(f"{problem}\n{hint}\n{question} [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfigError(problem, hint)
