"""Files of the layout: written whole or not at all, with owner and mode before they get a name."""

from __future__ import annotations

import os
from pathlib import Path

from tools import filesystem_handling
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


def access_step(place: str, access: Access, installation: Installation) -> Step:
    """Return the step that sets owner and mode of a file, where it exists."""
    path = installation.at(place)

    def reason() -> str:
        return access.difference(path, installation) if path.is_file() else ""

    def perform() -> None:
        access.apply(path.resolve() if installation.real else path, installation)

    return Step(str(path), f"set owner and mode to {access}", reason, perform)
