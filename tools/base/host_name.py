"""The name of a server: it is the name of a folder in each store, and a word of commands."""

from __future__ import annotations

import os
import re

from tools.base.errors import ConfigError

_LONGEST = 200  # bytes; most file systems take 255


def check(name: str) -> None:
    """Raise ConfigError unless HOSTNAME can be the name of a folder."""
    if not name.strip() or re.search(r"[/\x00-\x1f\x7f]", name):
        raise ConfigError("HOSTNAME: must not be empty or contain / or control characters")
    if name.strip(". ") == "" or name.startswith("-"):
        raise ConfigError(f"HOSTNAME: {name!r}: not usable as a folder name")
    if len(os.fsencode(name)) > _LONGEST:
        raise ConfigError("HOSTNAME: too long for a folder name")
