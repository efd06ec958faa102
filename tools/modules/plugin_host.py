#!/usr/bin/env python3
"""Runs one plugin class in a process of its own, so that it can hang, die or exit alone.

The job comes as JSON on standard input ({"file", "class", "home", "parameters"}): no value
of it stands in an argument list. What the plugin says of itself goes into the file named
by NC_BACKUP_RESULT.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from tools.base import launcher

    launcher.start(__file__)

import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tools import date_str_utils
from tools.base import foreign, foreign_json, project
from tools.base.errors import BackupError, Cancelled
from tools.base.result import Result, Status
from tools.modules import executable, loader

_MAX_JOB = 64 << 20  # bytes
_MAX_SIZE = (1 << 63) - 1
_METHODS = ("config_plugin", "works_execution", "output")


class Plugin(Protocol):
    """What a class that a section loads must be (MANUAL). Each is called once, in this order."""

    def __init__(self, parameters: dict[str, Any], logger: logging.Logger) -> None: ...

    def config_plugin(self) -> object:
        """Read the parameters."""

    def works_execution(self) -> object:
        """Do the work."""

    def output(self) -> object:
        """Return (code, stdout, stderr); a size plugin gives the size, in bytes or as a text."""


@dataclass(frozen=True)
class Options:
    """The host takes its job from standard input and no keys."""


def work(_options: Options) -> Result:
    """Load the class, call its methods in order, and judge what it gives."""
    job = foreign_json.load(sys.stdin.buffer.read(), _MAX_JOB)
    _set_path(Path(job["file"]), job["home"])
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.DEBUG, stream=sys.stderr)
    try:
        return _checked(judged(_run_plugin(job)))
    except (BackupError, Cancelled):
        raise
    except SystemExit as left:
        raise BackupError(f"the plugin {job['class']} called sys.exit({left.code!r})") from None
    except BaseException as error:  # noqa: BLE001  (whatever a plugin raises fails its section)
        traceback.print_exc()
        raise BackupError(
            f"the plugin {job['class']} raised {_described(error)}",
            hint="The log has the traceback.",
        ) from None


def _described(error: BaseException) -> str:
    """Return name and text of an exception whose text may not be had."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  (the plugin's own __str__)
        return type(error).__name__


def _checked(result: Result) -> Result:
    """Return a result as its JSON says it: a plugin may have put anything into it."""
    return Result.from_json(result.to_json())


def _set_path(file: Path, home: str) -> None:
    """Let a user-defined class import what is installed, and its own files, before our folders.

    `import redis` of a plugin means the package from PyPI, not redis/ of this checkout.
    """
    root = str(project.ROOT)
    if file.resolve().is_relative_to(project.ROOT):
        sys.path.append(home)
        return
    sys.path.remove(root)
    sys.path += [home, root]


def _run_plugin(job: dict[str, Any]) -> object:
    loaded = loader.module(job["file"])
    plugin_class: type[Plugin] | None = getattr(loaded, job["class"], None)
    if plugin_class is None:
        raise BackupError(f"{job['file']} has no class {job['class']}")
    missing = [name for name in _METHODS if not callable(getattr(plugin_class, name, None))]
    if missing:
        raise BackupError(f"the class {job['class']} has no method {', '.join(missing)}")
    instance = plugin_class(job["parameters"], logging.getLogger("ncbackup"))
    instance.config_plugin()
    instance.works_execution()
    return instance.output()


def judged(output: object) -> Result:
    """Return the result of a plugin's output. Raises BackupError for any other object."""
    if isinstance(output, Result):
        return output
    if isinstance(output, str) and output:
        return Result(Status.OK, f"size {output}", size=output)
    if isinstance(output, int | float) and not isinstance(output, bool):
        if not 0 <= output <= _MAX_SIZE:  # NaN is neither
            raise BackupError("the plugin returned a size that is not a number of bytes")
        size = date_str_utils.human_size(output)
        return Result(Status.OK, f"size {size}", size=size, bytes=int(output))
    if isinstance(output, tuple | list) and len(output) == 3 and type(output[0]) is int:  # noqa: PLR2004
        code, *texts = output
        message = " ".join(_text(text) for text in texts if text).strip()
        return Result(Status.of_exit_code(code), message or f"code {code}")
    raise BackupError(
        f"the plugin gave {type(output).__name__} as its output",
        hint="output() gives (code, stdout, stderr), or a size.",
    )


def _text(text: object) -> str:
    """Return what a plugin gives as text: bytes in any encoding as well."""
    return foreign.decoded(text) if isinstance(text, bytes) else str(text)


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.run(Options, work, argv)
