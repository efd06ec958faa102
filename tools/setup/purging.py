"""uninstall --purge: config, keys, work folder and logs as well, but never a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tools import filesystem_handling
from tools.base import removal
from tools.setup import questions
from tools.setup.installation import CONFIG_FOLDER, HOME, IDENTITY_FILE, LOG_FOLDER, Installation
from tools.setup.steps import Step

_MANIFEST = ".manifest.json"  # ends the name of what makes a run exist in a store


def question(installation: Installation) -> Iterator[Step]:
    """Ask before anything is removed; give no step. Raises ConfigError without a yes."""
    key = installation.at(IDENTITY_FILE)
    if installation.purge and key.exists():
        questions.confirm(
            f"{key}: --purge removes it, and without a copy no backup can be restored",
            f"Copy it to another machine first, with {key.parent}.",
            "Remove config and keys?",
            installation,
        )
    yield from ()


def steps(installation: Installation) -> Iterator[Step]:
    """Yield the steps that remove the folders of the layout."""
    for folder in (LOG_FOLDER, HOME, CONFIG_FOLDER) if installation.purge else ():
        yield _step(installation.at(folder), installation)


def _step(path: Path, installation: Installation) -> Step:
    def reason() -> str:
        if not filesystem_handling.exists(path):
            return ""
        obstacle_text = obstacle(path)
        if obstacle_text:
            installation.notice(f"warning: {path} is kept: {obstacle_text}")
        return "" if obstacle_text else "it is there"

    return Step(str(path), "remove it", reason, lambda: removal.tree(path))


def obstacle(folder: Path) -> str:
    """Return why a folder must not be removed: it holds a store, or a mounted disk; else ""."""
    if folder.is_symlink() or not folder.is_dir():
        return "it is not a directory"
    device = folder.stat().st_dev
    if folder.is_mount():
        return "a file system is mounted there"
    for entry in filesystem_handling.entries_below(folder):
        if entry.name.endswith(_MANIFEST):
            return f"it holds a store of backups ({Path(entry.path).parent})"
        # of folders alone: files in an overlay have the device of the file system below
        folder_below = entry.is_dir(follow_symlinks=False)
        if folder_below and entry.stat(follow_symlinks=False).st_dev != device:
            return f"a file system is mounted there ({entry.path})"
    return ""
