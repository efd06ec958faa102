"""The size of a run for its report: a plugin for a section that is usually called SIZE."""

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import logging
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools import filesystem_handling
from tools.base.errors import SourceError
from tools.base.real_path import resolved
from tools.modules import executable, options
from tools.modules.options import Paths, option


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    targets: Paths = option(
        "files and folders to measure; default WORK_FOLDER/encrypted, and in a streamed run "
        "what has been stored",
        default=(),
        aliases=("OBJECTIVES",),
    )
    work_folder: Path = option("folder for temporary files", default=Path("/opt/backup"))


def size(targets: Paths) -> int:
    """Return the bytes of all finished files below the targets; a file that vanishes counts 0.

    Raises SourceError where a target is missing, OSError where a folder cannot be read.
    """
    total = 0
    for target in targets:
        if not target.exists():
            raise SourceError(
                f"TARGETS: {target} does not exist, so it has no size",
                "A section before this one should have made it, or TARGETS names another place.",
            )
        total += sum(map(_size, _files(target)))
    return total


def _files(target: Path) -> Iterator[Path]:
    if not target.is_dir():
        yield resolved(target)  # a target may be a link; below one, links count nothing
        return
    for entry in filesystem_handling.entries_below(target):
        if not entry.is_dir() and not filesystem_handling.is_temporary(entry.name):
            yield Path(entry.path)


def _size(path: Path) -> int:
    """Return the size of a file; 0 if it has vanished or is not a regular file."""
    try:
        status = path.lstat() if path.is_symlink() else path.stat()
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


class SizeCalculation:
    """The plugin class."""

    def __init__(self, parameters: Mapping[str, Any], logger: logging.Logger) -> None:
        self._parameters = parameters
        self._logger = logger
        self._targets: Paths = ()
        self._size = 0
        self._named = False

    def config_plugin(self) -> None:
        """Read the parameters."""
        texts = {key: options.to_text(value) for key, value in self._parameters.items()}
        filled = options.fill(Options, texts)
        usual = (filled.work_folder / "encrypted",)
        self._targets = filled.targets or usual
        self._named = self._targets != usual

    def works_execution(self) -> None:
        """Measure."""
        streamed = os.environ.get("NC_BACKUP_STREAMED")
        if streamed is not None and not self._named:
            self._size = int(streamed)  # there are no files to measure
            self._logger.info("%d bytes were streamed", self._size)
            return
        try:
            self._size = size(self._targets)
        except (SourceError, OSError) as error:
            self._logger.error("%s", error)
            raise
        self._logger.info("%d bytes in %s", self._size, " ".join(map(str, self._targets)))

    def output(self) -> int:
        """Return the size in bytes."""
        return self._size


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.describe(Options, argv)
