"""What `backup.py -t` finds about a key file that can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from encryption import key_file
from tools.base.finding import Finding, warning


def identity(path: Path) -> Iterator[Finding]:
    """Yield whether this machine can decrypt what it stores. Raises ConfigError."""
    keys = key_file.read(path)
    if not keys.identities and not keys.password:
        yield Finding(f"KEY_FILE {path} holds no identity: nobody can decrypt a backup with it")
        return
    yield warning(
        f"KEY_FILE {path} holds the identity: an intruder on this machine can decrypt every backup",
        "Keep a copy of it elsewhere, then leave only its recipient (age1...) in this file. A "
        "restore and a restore drill on this machine need the identity.",
    )
