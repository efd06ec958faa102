"""Labels of SELinux: a file that was renamed into its place has that of the place it came from."""

from __future__ import annotations

import shutil
from pathlib import Path

from tools.setup import programs

ENFORCE = Path("/sys/fs/selinux/enforce")  # it exists where SELinux is on


def restore(path: Path) -> None:
    """Set the label of the policy on a path and all below it. Raises BackupError."""
    if ENFORCE.exists() and shutil.which("restorecon", path=programs.PATH):
        programs.run(["restorecon", "-R", path], f"{path}: its SELinux label cannot be restored")
