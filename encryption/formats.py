"""The formats of encrypted files, known by their first bytes."""

from __future__ import annotations

from pathlib import Path

from encryption import armor, header, openssl_format
from tools.base.errors import StageError, TruncatedError

MAGICS = (header.MAGIC, armor.BEGIN, openssl_format.MAGIC)  # how the first part may begin


def is_old(first: bytes, path: Path) -> bool:
    """Return whether a file has the old format, by its first bytes. Raises StageError."""
    if not first:
        raise TruncatedError(f"{path}: empty file", "Fetch the file from the store again.")
    if armor.is_armored(first):
        return False
    for magic, old in ((openssl_format.MAGIC, True), (header.MAGIC, False)):
        if first.startswith(magic[: len(first)]):
            return old
    raise StageError(
        f"{path}: unknown file format",
        "Check that this is the first part: age files begin with age-encryption.org/v1, or "
        "-----BEGIN AGE, and those of the old format with Salted__.",
    )
