"""tar by sudo: the exact command line that sudoers allows, where no capability can be had."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from tools.base import fixed_tar
from tools.base.errors import ConfigError
from tools.flow import tar

_SUDO = ("sudo", "-n")  # never waits for a password
_UNWRITABLE = re.compile(r"\n|\s$")  # tar reads patterns by line, and trims them


def allowed() -> bool:
    """Return whether setup has written the line of sudoers, and sudo accepts it."""
    if not fixed_tar.EXCLUDES.is_dir() or shutil.which(_SUDO[0]) is None:
        return False
    asked = [*_SUDO, "-l", fixed_tar.program(), *fixed_tar.sudo_arguments(single=False)]
    done = subprocess.run(
        asked, env=tar.environment(), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    return done.returncode == 0


@contextlib.contextmanager
def command(patterns: Sequence[tuple[str, str]], *, single: bool) -> Iterator[list[str]]:
    """Give the command line while its exclude files hold these patterns, each with its mode.

    Leave the block when tar has read them. Raises ConfigError for a pattern that no file can hold.
    """
    for _mode, text in patterns:
        if _UNWRITABLE.search(text):
            raise ConfigError(
                f"FILESET_EXCLUDE: {text!r} cannot be used with sudo",
                "Give tar a capability instead (docs/privileges.md), or remove the line break or "
                "the space at its end.",
            )
    with (fixed_tar.EXCLUDES / fixed_tar.LOCK).open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for mode in fixed_tar.MODES:
            lines = [os.fsencode(text) + b"\n" for one, text in patterns if one == mode]
            with (fixed_tar.EXCLUDES / mode).open("r+b") as file:
                file.truncate()
                file.writelines(lines)
        yield [*_SUDO, fixed_tar.program(), *fixed_tar.sudo_arguments(single=single)]
