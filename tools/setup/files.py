"""Files of the layout: written whole or not at all, with owner and mode before they get a name."""

from __future__ import annotations

import os
from pathlib import Path

from tools import filesystem_handling
from tools.base import account_names
from tools.setup import folders
from tools.setup.folders import Access
from tools.setup.installation import Installation
from tools.setup.steps import Step


def write(path: Path, content: bytes, access: Access, installation: Installation) -> None:
    """Write a file; it replaces another of its name at once. Raises OSError."""
    with filesystem_handling.staged(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            filesystem_handling.write_all(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        access.apply(temporary, installation)
        temporary.rename(path)
    filesystem_handling.sync_folder(path.parent)


def set_access(path: Path, access: Access, installation: Installation) -> None:
    """Set owner and mode of a file, and note that another user could change its content.

    Raises OSError, ConfigError, as Access.apply does.
    """
    owner = path.lstat().st_uid
    access.apply(path, installation)
    if installation.real and owner != 0 and not access.user:
        installation.notice(
            f"warning: {path.parent}: {account_names.user(owner)} owned files in it, and could "
            "change them\nhint: Read them: restore.py and cleanup.py, run as root, start programs "
            "that the config names."
        )


def access_step(system_path: str, access: Access, installation: Installation) -> Step:
    """Return the step that sets owner and mode of a file, where it exists."""
    path = installation.at(system_path)

    def reason() -> str:
        return access.difference(path.resolve(), installation) if path.is_file() else ""

    def perform() -> None:
        set_access(folders.followed(path) if installation.real else path, access, installation)

    return Step(str(path), f"set owner and mode to {access}", reason, perform)
