"""Check beforehand what prevents moving a restored tree into a folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from restore.file_status import FileStatus
from restore.folder_pairs import Step
from tools.base.errors import ConfigError

_MAX_NAMED = 20  # conflicts that are named
_EXISTS = "already exists"
_TYPE = "exists and is of another type"
_MOUNTED = "is a mount point"
_LOCKED = "is immutable or append-only"
_READ_ONLY = "is on a read-only file system"
_DENIED = "cannot be merged: permission denied"
_STICKY = "belongs to another user, in a folder with the sticky bit"
_HINTS = {
    _EXISTS: "Restore into a new folder, or use --overwrite to replace files.",
    _TYPE: "Move it to another place, then restore again.",
    _MOUNTED: "Unmount it (umount), then restore again.",
    _LOCKED: "Remove the attribute (lsattr shows it): chattr -i -a FILE.",
    _READ_ONLY: "Mount it read-write (mount -o remount,rw), or restore into another folder.",
    _DENIED: "Restore as root, or into a new folder.",
    _STICKY: "Restore as root, or into a new folder.",
}


class Conflicts:
    """Finds the conflicts of a tree with a destination. A Visitor of `folder_pairs.walk`.

    mounts: paths of mount points that the tree has as folders: files must be copied into them
    replaces: whether something has a name of the tree and is replaced
    """

    files = True

    def __init__(self, goal: Path, *, overwrite: bool) -> None:
        self.mounts: list[bytes] = []
        self.replaces = False
        self._goal = goal
        self._overwrite = overwrite
        self._count = 0
        self._named: dict[str, list[str]] = {}  # paths by reason
        self._checked = b"/"  # path of the folder that was checked last

    def visit(self, step: Step) -> None:
        """Note why a name cannot be put into its folder; see Visitor."""
        if step.both_folders and step.there is not None:
            if step.there.locked:
                self._add(_LOCKED, step.path)
                self._checked = step.path  # named once
            if step.there.mounted:
                self.mounts.append(step.path)
            return
        self.replaces = self.replaces or step.there is not None
        folder = step.path.rpartition(b"/")[0]
        if folder != self._checked:
            self._checked = folder
            if reason := _closed(step.goal):
                self._add(reason, folder)
        if reason := _obstacle(step, overwrite=self._overwrite):
            self._add(reason, step.path)

    def denied(self, step: Step, error: OSError) -> None:
        """Implement Visitor."""
        self._add(_DENIED, step.path)

    def leave(self, path: bytes, source: int, goal: int) -> None:
        """Implement Visitor."""

    def _add(self, reason: str, path: bytes) -> None:
        self._count += 1
        if self._count <= _MAX_NAMED:
            self._named.setdefault(reason, []).append(f"{self._goal}/{os.fsdecode(path)}")

    def raise_if_any(self) -> None:
        """Raise ConfigError that names the first conflicts and counts the others."""
        if not self._count:
            return
        groups = [f"{', '.join(paths)}: {reason}" for reason, paths in self._named.items()]
        more = self._count - _MAX_NAMED
        text = "; ".join(groups) + (f"; and {more} more" if more > 0 else "")
        hints = dict.fromkeys(_HINTS[reason] for reason in self._named)
        raise ConfigError(f"DESTINATION: {text}", f"Nothing was replaced. {' '.join(hints)}")


def _closed(folder: int) -> str:
    """Return why nothing can be put into an open folder; "" if the user can, or may change that."""
    if os.access(".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=True):
        return ""
    if os.fstatvfs(folder).f_flag & os.ST_RDONLY:
        return _READ_ONLY
    return "" if os.fstat(folder).st_uid == os.geteuid() else _DENIED


def _obstacle(step: Step, *, overwrite: bool) -> str:
    """Return why a name cannot take its place; "" if it can."""
    there = step.there
    if there is None:
        return ""
    if step.is_folder or there.is_folder:
        return _TYPE
    if not overwrite:
        return _EXISTS
    if there.mounted:
        return _MOUNTED
    if there.locked:
        return _LOCKED
    return _STICKY if _is_anothers(step, there) else ""


def _is_anothers(step: Step, there: FileStatus) -> bool:
    """Return whether only another user may replace a file: the folder has the sticky bit."""
    user = os.geteuid()
    if user in (0, there.uid):
        return False
    folder = os.fstat(step.goal)
    return bool(folder.st_mode & stat.S_ISVTX) and folder.st_uid != user
