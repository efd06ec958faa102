"""Which files of the work folder a section has written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tools import filesystem_handling
from tools.base import foreign_json
from tools.base.errors import BackupError
from tools.base.log import logger
from tools.base.result import Result
from tools.config.model import Config
from tools.modules import work_folder
from tools.modules.work_folder import State

_MAX_NOTE = 256 << 20  # bytes: a line for each file


class WorkFiles:
    """Looks at the files in the work folder that could be stored."""

    def __init__(self, config: Config, note: Path | None = None) -> None:
        """List files. note: a file that tells the next run what existed when this section began"""
        self._general = config.general
        self._note = note

    def written_by(self, run: Callable[[], Result]) -> tuple[Result, list[Path]]:
        """Run a section; return its result and the files that it has written or changed."""
        before = self._states()
        if self._note is not None:
            text = json.dumps({str(path): state for path, state in before.items()})
            work_folder.write_synced(self._note, text)
        return run(), self._changed_since(before)

    def forget(self) -> None:
        """Trust what the last section has written from now on."""
        if self._note is not None:
            filesystem_handling.remove(self._note)

    def interrupted(self) -> Sequence[Path]:
        """Return the files that a section of an earlier run had written when it was killed.

        Raises OSError, or BackupError where the note says nothing: they would pass for whole ones.
        """
        if self._note is None or not self._note.exists():
            return ()
        with filesystem_handling.naming(self._note):
            content = self._note.read_bytes()
        try:
            before = foreign_json.load(content, _MAX_NOTE)
            return self._changed_since({Path(path): tuple(before[path]) for path in before})
        except (ValueError, TypeError, RecursionError) as error:
            raise BackupError(f"{self._note} is not understood: {error}") from None

    def all(self) -> Sequence[Path]:
        """Return the files that could be stored."""
        return list(self._states())

    def relative_path(self, path: Path) -> str:
        """Return a path as it lies below the work folder."""
        top = self._general.work_folder
        return str(path.relative_to(top)) if path.is_relative_to(top) else path.name

    def _changed_since(self, before: dict[Path, State]) -> list[Path]:
        return [path for path, state in self._states().items() if before.get(path) != state]

    def _states(self) -> dict[Path, State]:
        states = {}
        for path in self._all():
            state = work_folder.state_of(path)
            if state is not None:
                states[path] = state
        return states

    def _all(self) -> Iterator[Path]:
        for top in self._general.work_folder.iterdir():
            if not top.name.startswith(".") and top != self._general.local_backup:
                yield from _files_below(top)


def _files_below(top: Path) -> Iterator[Path]:
    """Yield the finished regular files below a folder; a closed one does not hide the others."""
    if top.is_file() and not top.is_symlink():
        yield top
    if not top.is_dir():
        return
    for entry in filesystem_handling.entries_below(
        top,
        enter=lambda one: not one.name.startswith("."),
        problem=lambda error: logger.warning("%s", error),
    ):
        if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
