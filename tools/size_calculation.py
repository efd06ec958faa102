"""The size of a run for its report: a plugin, loaded by the section that is usually called SIZE."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import filesystem_handling, options
from tools.errors import SourceError
from tools.options import Paths, option


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    targets: Paths = option(
        "files and folders to measure; default WORK_FOLDER/encrypted",
        default=(),
        aliases=("OBJECTIVES",),
    )
    work_folder: Path = option("temporary work", default=Path("/opt/backup"))


def size(targets: Paths) -> int:
    """The bytes in all files below the targets. Raises SourceError where one is missing."""
    total = 0
    for target in targets:
        if not target.exists():
            raise SourceError(f"{target} does not exist, so it has no size")
        total += sum(path.stat().st_size for path in filesystem_handling.files_below(target))
    return total


class SizeCalculation:
    """The plugin class."""

    def __init__(self, parameters: Mapping[str, Any], logger: logging.Logger) -> None:
        self._parameters = parameters
        self._logger = logger
        self._targets: Paths = ()
        self._size = 0

    def config_plugin(self) -> None:
        """Read the parameters."""
        texts = {key: options.to_text(value) for key, value in self._parameters.items()}
        given = options.fill(Options, texts)
        self._targets = given.targets or (given.work_folder / "encrypted",)

    def works_execution(self) -> None:
        """Measure."""
        self._size = size(self._targets)
        self._logger.info("%d bytes in %s", self._size, " ".join(map(str, self._targets)))

    def output(self) -> int:
        """The size in bytes."""
        return self._size
