"""The verbs of setup.py, and its command line.

Stands on the standard library alone: it runs before anything is installed.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.base import imports
from tools.base.errors import BackupError, ConfigError, in_words
from tools.setup import arguments, checking, installing
from tools.setup.arguments import Arguments
from tools.setup.environment import closed_folder, display_path, environment, say

_SETUPTOOLS = ("build", "bdist", "sdist", "develop", "egg_info", "dist_info", "editable_wheel")
_DEFAULT = "install"


@dataclass(frozen=True)
class Verb:
    """A verb of setup.py: its text in --help, its options, and the function that does it.

    run: returns the exit code; raises BackupError, OSError
    """

    summary: str
    run: Callable[[Arguments], int]
    options: Sequence[str] = ()


def main(argv: Sequence[str]) -> int:
    """Run the command line of setup.py; an error is one line and a hint."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            line_buffering=True
        )  # in order with the output of pip and with errors
    os.umask(os.umask(0o077) | 0o022)  # nobody else may change what is written here
    try:
        return _perform(argv)
    except (BackupError, OSError) as error:
        problem, hint = in_words(error)
        say(f"error: {problem}", hint)
        return getattr(error, "exit_code", 1)
    except KeyboardInterrupt:
        say("error: cancelled", "Run the same command again to continue.")
        return 130


def _perform(argv: Sequence[str]) -> int:
    if {"-h", "--help", "help"} & set(argv):
        sys.stdout.write(usage())
        return 0
    if argv and argv[0].startswith(_SETUPTOOLS):
        raise ConfigError(
            f"setup.py {argv[0]}: this setup.py is the system installer, not that of setuptools",
            hint="To build a package use pip (pyproject.toml). Verbs: setup.py --help",
        )
    options = {name: verb.options for name, verb in VERBS.items()}
    parsed = arguments.parse(argv, options, _DEFAULT)
    return VERBS[parsed.verb].run(parsed)


def usage() -> str:
    """Return the text of --help."""
    width = max(map(len, VERBS))
    verbs = [f"{name:{width}}  {verb.summary}" for name, verb in VERBS.items()]
    flags = [(name, text) for name, text in arguments.FLAGS.items()]
    values = [(f"{name} {kind}", text) for name, (kind, text) in arguments.VALUES.items()]
    options = [
        f"{name:17}{text} ({', '.join(_users(name.split()[0]))})" for name, text in values + flags
    ]
    head = f"usage: python3 setup.py [VERB] [OPTION ...]\n\nWithout a verb: {_DEFAULT}.\n"
    return "\n".join([head, *verbs, "", *options]) + "\n"


def _users(option: str) -> list[str]:
    return [name for name, verb in VERBS.items() if option in verb.options]


def _env(_arguments: Arguments) -> int:
    python = environment(imports.FOLDER, Path(sys.executable))
    sys.stdout.write(f"{display_path(imports.FOLDER)} is complete: {python}\n")
    _warn_of_closed(python)
    return 0


def _demo(_arguments: Arguments) -> int:
    from tools.setup import demo

    return demo.demo(environment(imports.FOLDER, Path(sys.executable)))


def _test(_arguments: Arguments) -> int:
    from tools.setup import project_checks

    return project_checks.test()


def _warn_of_closed(python: Path) -> None:
    """Say that a backup as another user, such as ncbackup, could not start."""
    closed = closed_folder(python)
    if closed is not None:
        say(
            f"warning: other users cannot start it: its Python lies below {closed}",
            f"If backups run as another user: remove {display_path(imports.FOLDER)}, then run "
            "/usr/bin/python3 setup.py env",
        )


_CHANGES = ("--dry-run", "--prefix", "--yes")
VERBS: Mapping[str, Verb] = {
    "install": Verb(
        "install this code into the system, or finish and repair an installation",
        installing.install,
        (*_CHANGES, "--wheels", "--schedule"),
    ),
    "check": Verb(
        "check the installation, and run backup.py -t as the user of the backup; change nothing",
        checking.check,
        ("--json", "--prefix"),
    ),
    "upgrade": Verb(
        "install the code of FOLDER, or of this clone, and keep the release before",
        installing.upgrade,
        (*_CHANGES, "--wheels", "--schedule", "FOLDER"),
    ),
    "rollback": Verb("switch back to the release before", installing.rollback, _CHANGES),
    "adopt": Verb(
        "show what the documented system left here; with --yes convert or remove it",
        installing.adopt_old_system,
        (*_CHANGES, "--schedule"),
    ),
    "uninstall": Verb(
        "remove it; config, keys, backups and logs stay", installing.uninstall,
        (*_CHANGES, "--purge"),
    ),
    "env": Verb("create the private environment .venv, and nothing else", _env),
    "demo": Verb("back up, verify, restore and compare a folder in a temporary place", _demo),
    "test": Verb(
        "run ruff, mypy and the tests with this, the oldest and the newest Python", _test
    ),
}  # fmt: skip
