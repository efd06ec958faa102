"""NICE and IONICE: the priority of a run, which all that it starts inherits."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tools.base.errors import BackupError, in_words
from tools.base.log import logger
from tools.config.declarations import General
from tools.flow import dump_stream, process

_CLASSES = {"best-effort": "2", "idle": "3"}  # of ionice(1)


def lower(general: General) -> None:
    """Set the priorities of this process. The run goes on where the system refuses one."""
    if general.nice is not None:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, general.nice)
        except OSError as error:
            logger.warning("NICE: %s: %s", general.nice, in_words(error)[0])
    if general.ionice:
        try:
            for _ in process.output(_command(general.ionice)):
                pass
        except (BackupError, OSError) as error:
            logger.warning("IONICE: %s: %s", general.ionice, ": ".join(in_words(error)))


def _command(priority: str) -> Sequence[str]:
    """Return the command that sets the I/O priority of this process. Raises ConfigError."""
    kind, _, level = priority.partition(":")
    command = [dump_stream.program("ionice"), "-c", _CLASSES[kind]]
    command += ["-n", level] if level else []
    return [*command, "-p", str(os.getpid())]
