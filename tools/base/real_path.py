"""Real paths: those without links."""

from __future__ import annotations

import os
from pathlib import Path


def resolved(path: Path) -> Path:
    """Return the absolute path with its links followed as far as they lead.

    Before Python 3.13 Path.resolve raises RuntimeError for a link that leads back to itself;
    what opens such a path gets the system's own error.
    """
    return Path(os.path.realpath(path))
