#!/usr/bin/env python3
"""Run setup.py below a prefix, with a stand-in for what takes minutes or changes the machine.

    python3 benchmarks/fault_installer.py CLONE VERB --prefix DIR [OPTION ...]

The environment of a release is made of the packages of this project's own, without pip. Owners
are set and compared, and keys are created, as on a real system; the user of the backup is a number
that no user has. All else is setup.py itself, with CLONE as the clone.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import shutil
from collections.abc import Iterator, Sequence
from types import ModuleType

from tools.base import account_names, imports
from tools.setup import (
    account,
    commands,
    configuration,
    folders,
    installing,
    keys,
    locked_packages,
    plans,
    programs,
    releases,
    schedule,
)
from tools.setup.installation import USER, Installation
from tools.setup.steps import Step

HOST = "srv"
NUMBER = 54321  # of the user of the backup, and of its group


class Owned(Installation):
    """An installation below a prefix whose owners are set, and which gets keys."""

    @property
    def real(self) -> bool:
        """Return whether owners count."""
        return True


def owned(planner: plans.Planner) -> plans.Planner:
    """Return a planner that plans for an installation with owners and keys."""

    def planned(installation: Installation) -> Iterator[Step]:
        yield from planner(Owned(**vars(installation)))

    return planned


def environment(_installation: Installation, release: Path, _final: str, _before: object) -> None:
    """Make the environment of a release, as locked_packages.install does, without pip."""
    folder = release / ".venv"
    (folder / "bin").mkdir(parents=True)
    (release / locked_packages.WHEELS).mkdir()
    (folder / "bin/python").symlink_to(Path(sys.executable).resolve())
    shutil.copyfile(imports.FOLDER / "pyvenv.cfg", folder / "pyvenv.cfg")
    (folder / "lib").symlink_to((imports.FOLDER / "lib").resolve())
    python = str(folder / "bin/python")
    seal = [python, "-I", "-c", locked_packages._SEAL, str(release)]
    programs.run(seal, "the environment does not start")


def _name(number: int) -> str:
    return USER if number == NUMBER else "root"


def main(argv: Sequence[str]) -> int:
    """Run setup.py; return its exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("clone", metavar="CLONE", type=Path)
    parser.add_argument("arguments", metavar="VERB ...", nargs=argparse.REMAINDER)
    options = parser.parse_args(argv)
    if "--prefix" not in options.arguments:
        parser.error("--prefix is missing: this must never change the machine itself")
    first, *others = (folders.steps, configuration.steps, keys.steps)
    table = (owned(first), releases.steps, *map(owned, others), schedule.steps)
    stand_ins: Sequence[tuple[ModuleType, str, object]] = (
        (installing, "ROOT", options.clone),
        (installing, "python", lambda _verb: Path(sys.executable)),
        (locked_packages, "install", environment),
        (account, "identifiers", lambda: (NUMBER, NUMBER)),
        (account_names, "user", _name),
        (account_names, "group", _name),
        (configuration, "_machine_name", lambda: HOST),
        (plans, "INSTALL", table),
    )
    for module, name, stand_in in stand_ins:
        setattr(module, name, stand_in)
    return commands.main(options.arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
