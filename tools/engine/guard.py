"""What is looked at before a run: folders and code that another user owns or can write."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from tools import os_works
from tools.base import hung_mount, log, permissions, project
from tools.base.errors import ConfigError
from tools.base.permissions import Problem
from tools.base.real_path import resolved
from tools.config.model import Config
from tools.engine import hooks, state

ROOT_ALLOWED = "running as root, as ALLOW_ROOT says (meant for containers)"


def check(config: Config) -> None:
    """Raise ConfigError naming the key and the command for the first thing that is not ours."""
    for key, problem in problems(config):
        raise ConfigError(
            f"{key}: {problem}",
            problem.hint_or_accept,
            problem.fix,
        )


def problems(config: Config) -> Iterator[tuple[str, Problem]]:
    """Yield each file or folder by which another user could change what this user's run does."""
    if permissions.accepted():
        return
    general = config.general
    checked: list[tuple[str, Problem | None]] = [
        ("WORK_FOLDER", permissions.of_folder(general.work_folder)),
        ("WORK_FOLDER", state.problem(general.work_folder)),
        ("LOG_FOLDER", _log_folder(general.log_folder)),
    ]
    checked += [("HOME_FOLDER", permissions.of_code(path)) for path in _code()]
    checked += _hooks(config)
    if general.signers is not None and os.path.exists(general.signers):  # noqa: PTH110  (closed: False)
        checked.append(("SIGNERS", permissions.of_code(general.signers)))
    yield from ((key, problem) for key, problem in checked if problem is not None)


def _hooks(config: Config) -> Iterator[tuple[str, Problem | None]]:
    """Check the programs of hooks: who can change one runs commands as this user."""
    for name, of_it in hooks.all_of(config, config.sections):
        for key, argv in hooks.listed(of_it):
            program = hooks.program(argv, config.path.parent)
            if program is not None:
                yield f"{name}.{key}", permissions.of_code(program)


def _log_folder(path: Path) -> Problem | None:
    """Return the problem of the log's own folder: those above it belong to the system.

    (/var/log is writable by the group of the system's logger.)
    """
    try:
        folder = log.file_of(path).parent
        status = hung_mount.answer(path, folder.stat)
    except OSError:
        return None  # not there yet, or not to be reached: opening the log tells
    problem = permissions.of_folder(folder)
    if problem is None or problem.path != resolved(folder):
        return None
    by_group = status.st_uid == 0 and not status.st_mode & stat.S_IWOTH
    return None if by_group else problem


def _code() -> Iterator[Path]:
    """Yield the folders of this program's own code and of its libraries."""
    yield project.ROOT
    files = (file for pattern in ("*/*.py", "tools/*/*.py") for file in project.ROOT.glob(pattern))
    yield from sorted({file.parent for file in files if file.parent.name[0] != "."})
    library = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    packages = project.ROOT / ".venv" / library
    if packages.is_dir():
        yield packages


def root_allowed(config: Config) -> bool:
    """Return whether this runs as root because the config allows it: each run reports so."""
    return os_works.is_root() and config.general.allow_root
