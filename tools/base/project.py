"""The checkout of this code: its root folder and its version."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = Path("/var/lib/nc-backup-py")  # a symbolic link to the current release


def version() -> str:
    """Return the version that pyproject.toml states; "unknown" if it states none."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    line = re.search(r'^version = "(.+)"$', text, re.M)
    return line[1] if line else "unknown"


def banner() -> str:
    """Return the line that `--version` of every program prints."""
    return f"nc-backup-py {version()}"
