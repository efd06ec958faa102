"""The commands of setup.py: the private environment, demo and tests.

Stands on the standard library alone: it runs before anything is installed.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.base import imports
from tools.base.errors import BackupError, ConfigError, in_words
from tools.setup.environment import closed_folder, environment, say, shown

USAGE = """usage: python3 setup.py VERB

env      create the private environment .venv, and nothing else
demo     back up, verify, restore and compare a folder in a temporary place
test     run ruff, mypy and the tests with this, the oldest and the newest Python
install  install into the system (not implemented yet)"""
_SETUPTOOLS = ("build", "bdist", "sdist", "develop", "egg_info", "dist_info", "editable_wheel")


def main(argv: Sequence[str]) -> int:
    """Run the command line of setup.py; an error is one line and a hint."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            line_buffering=True
        )  # in order with the output of pip and with errors
    try:
        return _perform(argv)
    except (BackupError, OSError) as error:
        problem, hint = in_words(error)
        say(f"error: {problem}", hint)
        return getattr(error, "exit_code", 1)
    except KeyboardInterrupt:
        return 130


def _perform(argv: Sequence[str]) -> int:
    verb = argv[0] if argv else "install"
    if {"-h", "--help", "help"} & set(argv):
        sys.stdout.write(USAGE + "\n")
        return 0
    if verb.startswith(_SETUPTOOLS):
        raise ConfigError(
            f"setup.py {verb}: this setup.py is the system installer, not that of setuptools",
            hint="Use env, demo, test or install. To build a package use pip (pyproject.toml).",
        )
    if verb not in ("env", "demo", "test", "install") or len(argv) > 1:
        raise ConfigError(
            f"setup.py: unknown command {' '.join(argv)!r}",
            hint="Use env, demo, test or install.",
        )
    if verb == "install":
        raise ConfigError(
            "setup.py install: not implemented yet; nothing was changed",
            hint='Run python3 setup.py env, then follow "Install" in README.md.',
        )
    if verb == "env":
        python = environment(imports.FOLDER, Path(sys.executable))
        sys.stdout.write(f"{shown(imports.FOLDER)} is complete: {python}\n")
        _warn_of_closed(python)
        return 0
    if verb == "demo":
        from tools.setup import demo

        return demo.demo(environment(imports.FOLDER, Path(sys.executable)))
    from tools.setup import project_checks

    return project_checks.test()


def _warn_of_closed(python: Path) -> None:
    """Say that a backup as another user, such as ncbackup, could not start."""
    closed = closed_folder(python)
    if closed is not None:
        say(
            f"warning: other users cannot start it: its Python lies below {closed}",
            f"If backups run as another user: remove {shown(imports.FOLDER)}, then run "
            "/usr/bin/python3 setup.py env",
        )
