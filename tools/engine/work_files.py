"""Which files of the work folder a section has written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tools import filesystem_handling
from tools.base.result import Result
from tools.config.model import Config

Seen = tuple[int, int, int]  # inode, size, time of the last change


class WorkFiles:
    """Looks at the files in the work folder that could be stored."""

    def __init__(self, config: Config) -> None:
        self._general = config.general

    def written_by(self, run: Callable[[], Result]) -> tuple[Result, list[Path]]:
        """Run a section; return its result and the files that it has written or changed."""
        before = self._seen()
        result = run()
        return result, [path for path, seen in self._seen().items() if before.get(path) != seen]

    def below(self, path: Path) -> str:
        """Return a path as it lies below the work folder."""
        top = self._general.work_folder
        return str(path.relative_to(top)) if path.is_relative_to(top) else path.name

    def _seen(self) -> dict[Path, Seen]:
        return {path: _seen(path) for path in self._all()}

    def _all(self) -> Iterable[Path]:
        for top in self._general.work_folder.iterdir():
            if not top.name.startswith(".") and top != self._general.local_backup:
                yield from filesystem_handling.files_below(top)


def _seen(path: Path) -> Seen:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
