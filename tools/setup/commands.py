"""What setup.py does: the private environment, and the verbs on top of it.

Stands on the standard library alone: it runs before anything is installed.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.base import launcher
from tools.base.errors import BackupError, ConfigError
from tools.setup.environment import environment, say, shown

USAGE = """usage: python3 setup.py VERB

env      make the private environment .venv, and nothing else
demo     back up, verify, restore and compare a real folder in a temporary place
test     ruff, mypy, and the tests under this, the oldest and the newest Python found
install  put the system into its places (not built yet)"""
_SETUPTOOLS = ("build", "bdist", "sdist", "develop", "egg_info", "dist_info", "editable_wheel")


def main(argv: Sequence[str]) -> int:
    """The command line of setup.py; trouble is one line and a hint."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # in order with what pip and errors say
    try:
        return _perform(argv)
    except (BackupError, OSError) as error:
        say(f"error: {error}", getattr(error, "hint", ""))
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
            f"setup.py {verb} is a command of setuptools, and this setup.py is a system installer",
            hint="It knows env, demo, test and install; pip builds by pyproject.toml.",
        )
    if verb not in ("env", "demo", "test", "install") or len(argv) > 1:
        raise ConfigError(
            f"setup.py does not know {' '.join(argv)!r}",
            hint="It knows env, demo, test and install.",
        )
    if verb == "install":
        raise ConfigError(
            "the installation into the system is not built yet, nothing was changed",
            hint="python3 setup.py demo shows a whole backup and its restore, and backup.py "
            "runs from this folder as it is: see README.md.",
        )
    if verb == "env":
        python = environment(launcher.FOLDER, Path(sys.executable))
        sys.stdout.write(f"{shown(launcher.FOLDER)} is complete: {python}\n")
        return 0
    if verb == "demo":
        from tools.setup import demo

        return demo.demo(environment(launcher.FOLDER, Path(sys.executable)))
    from tools.setup import project_checks

    return project_checks.test()
