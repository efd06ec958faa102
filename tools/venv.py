"""Go on in the project's private environment; stands on nothing but the standard library."""

from __future__ import annotations

import os
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / ".venv"


def enter() -> None:
    """Replace this process by the same command under .venv, where there is one.

    So the documented commands work word for word with the system's own python3. A Python
    that is in an environment already stays there.
    """
    python = FOLDER / "bin/python"
    whole = (FOLDER / "pyvenv.cfg").exists() and python.exists()
    # a broken environment must not make this process replace itself for ever
    if whole and sys.prefix == sys.base_prefix and Path(sys.executable) != python:
        os.execv(python, [str(python), *sys.orig_argv[1:]])  # noqa: S606  (no shell is wanted)
