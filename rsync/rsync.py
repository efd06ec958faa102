"""Run commands, one after the other: rsync, or a snapshot before a source. A plugin."""

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import logging
import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tools.base import foreign, masking
from tools.base.errors import ConfigError, SourceError
from tools.base.result import Result, Status
from tools.date_str_utils import count
from tools.flow import process
from tools.modules import executable, options
from tools.modules.options import Lists, option

_VANISHED = 24  # exit code of rsync(1): "Partial transfer due to vanished source files"
_OPERATORS = frozenset("|&;<>()")


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    origin_and_targets_params: Lists = option(
        "commands by name, run in this order; each a command line, or a list of arguments"
    )
    log_internal: bool = option("write the output of the commands to the log", default=True)

    def __post_init__(self) -> None:
        if not self.origin_and_targets_params:
            raise ConfigError(
                "ORIGIN_AND_TARGETS_PARAMS: no commands",
                'Write {"NAME": "rsync -a /srv/data/ backup@example.com:/srv/data/"}.',
            )
        for name, command in self.origin_and_targets_params.items():
            _arguments(name, command)

    @property
    def commands(self) -> dict[str, list[str]]:
        """Return the arguments of each command by its name, in their order."""
        return {
            name: _arguments(name, command)
            for name, command in self.origin_and_targets_params.items()
        }


def _arguments(name: str, command: Sequence[str]) -> list[str]:
    """Return the arguments of a command; a list of several is taken as it is.

    Raises ConfigError for a command line that only a shell could run.
    """
    at = f"ORIGIN_AND_TARGETS_PARAMS: {name}"
    if len(command) > 1:
        return list(command)
    try:
        line = "".join(command)
        arguments = shlex.split(line)
        parts = list(shlex.shlex(line, posix=True, punctuation_chars=True))
    except ValueError as error:
        raise ConfigError(f"{at}: {str(error).lower()}", "Close the quotes.") from None
    if not arguments:
        raise ConfigError(f"{at}: is empty", "Set it to a command, or remove it.")
    operator = next((part for part in parts if part and _OPERATORS.issuperset(part)), "")
    if operator and operator in arguments:
        raise ConfigError(
            f"{at}: {operator}: commands are run without a shell",
            f"Write one command for each name, or a list that starts a shell: "
            f'["sh", "-c", {shlex.quote("...")}].',
        )
    return arguments


def work(options: Options, logger: logging.Logger) -> Result:
    """Run the commands in their order. Raises SourceError with the first that fails."""
    warnings: list[str] = []
    for name, arguments in options.commands.items():
        logger.info("%s: %s", name, masking.command(arguments))
        code = _run(name, arguments, logger if options.log_internal else None)
        if code == _VANISHED:
            warnings.append(f"{name}: rsync: source files vanished while it ran (exit code 24)")
    status = Status.INCOMPLETE if warnings else Status.OK
    return Result(status, count(len(options.commands), "command"), warnings=tuple(warnings))


def _run(name: str, arguments: list[str], logger: logging.Logger | None) -> int:
    """Run a command to its end; return its exit code. Raises SourceError where it fails."""
    codes: list[int] = []

    def allowed(code: int) -> bool:
        codes.append(code)
        return code == 0 or (code == _VANISHED and _program(arguments) == "rsync")

    def take(line: str) -> None:
        if logger is not None and line:
            logger.info("%s: %s", name, foreign.line(line))

    lines = process.Lines(take)
    title = f"{name}: {_program(arguments)}"
    for chunk in process.output(arguments, allowed=allowed, notice=take, name=title):
        lines.add(chunk)
    lines.end()
    return codes[-1]


def _program(arguments: Sequence[str]) -> str:
    """Return the name of the program, if only by sudo."""
    names = [os.path.basename(word) for word in arguments]  # noqa: PTH119  (not all are paths)
    return names[1] if names[0] == "sudo" and len(names) > 1 else names[0]


def test(options: Options) -> tuple[str, ...]:
    """Return which commands would run. Raises SourceError where a program is missing."""
    for name, arguments in options.commands.items():
        if shutil.which(arguments[0]) is None:
            raise SourceError(
                f"ORIGIN_AND_TARGETS_PARAMS: {name}: {arguments[0]}: command not found",
                f"Install it, or correct the command {name}.",
            )
    return (f"commands: {', '.join(options.commands)}",)


class RsyncBackup:
    """The plugin class."""

    def __init__(self, parameters: Mapping[str, Any], logger: logging.Logger) -> None:
        self._parameters = parameters
        self._logger = logger
        self._options: Options | None = None
        self._result = Result(Status.OK, "")

    def config_plugin(self) -> None:
        """Read the parameters."""
        self._options = options.fill(Options, options.texts(Options, self._parameters))

    def works_execution(self) -> None:
        """Run the commands."""
        assert self._options is not None  # noqa: S101  (config_plugin comes first)
        self._result = work(self._options, self._logger)

    def output(self) -> Result:
        """Return how many commands have run."""
        return self._result


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.describe(Options, argv)
