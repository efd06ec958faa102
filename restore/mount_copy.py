"""Copy a part of a restored tree into a folder of another file system, by GNU tar."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from restore import unpack
from tools.base.errors import StoreError
from tools.flow import process, tar

_OPTIONS = [
    "--create",
    "--file=-",
    "--format=posix",
    "--numeric-owner",
    "--acls",
    "--xattrs",
    "--xattrs-include=*",
    "--sparse",
    "--check-links",
    "--quoting-style=escape",
    "--null",
    "--verbatim-files-from",
    "--files-from=-",
]
_LINK = re.compile(r".*tar: Missing links to '(?P<name>.*)'\.$")


def copy(source: Path, target: Path) -> list[str]:
    """Copy everything in a folder into another one; return a line for each difference.

    Raises StoreError if the copy fails.
    """
    names = [os.fsencode(path.name) for path in source.iterdir()]
    if not names:
        return []
    split: list[str] = []  # files with hard links outside of the folder

    def notice(line: str) -> None:
        if match := _LINK.match(line):
            split.append(match["name"])

    def archive() -> Iterator[bytes]:
        return process.output(
            [unpack.program(), f"--directory={source}", *_OPTIONS],
            stdin_data=b"".join(name + b"\0" for name in names),
            notice=notice,
            allowed=lambda code: code == 0,
            env=tar.environment(),
            failure=StoreError,
        )

    unpacked = unpack.unpack(archive, "", target, ())
    text = "is a separate file: a hard link cannot lead to another file system"
    return [*unpacked.warnings(), *(f"{name}: {text}" for name in split)]
