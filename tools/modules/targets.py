"""TARGETS of a stage or a store in a staged run: the files that it takes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from tools import filesystem_handling
from tools.base.errors import BackupError
from tools.base.real_path import resolved
from tools.modules import work_folder


@dataclass(frozen=True)
class TargetFile:
    """A file that lies below a target, or is one."""

    path: Path
    target: Path

    @property
    def name(self) -> Path:
        """Return its path from the folder of the target on."""
        return self.path.relative_to(self.target.parent) if self.target.name else self.path


def files(
    targets: Iterable[Path], failure: type[BackupError], reserved: Collection[Path] = ()
) -> list[TargetFile]:
    """Return every finished file below the targets, once.

    reserved: folders inside a target that are not looked into, links followed. Raises `failure`
    where a target is not there.
    """
    by_path: dict[Path, TargetFile] = {}
    refused = {path.resolve() for path in work_folder.refused(work_folder.records())}
    for target in targets:
        if not target.exists():
            raise failure(
                f"TARGETS: {target}: no such file or directory",
                "Set TARGETS to what the earlier sections wrote.",
            )
        root = resolved(target)
        inside = {folder for folder in reserved if root in folder.parents}
        for path in filesystem_handling.files_below(target):
            real = resolved(path)
            if real not in refused and inside.isdisjoint((real, *real.parents)):
                by_path.setdefault(real, TargetFile(path, target))
    return list(by_path.values())
