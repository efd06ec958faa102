"""Performs the steps of privileges and schedule alone: those that build a release take minutes."""

from __future__ import annotations

from tests.throwaway_root import ThrowawayRoot
from tools.base import project

_CODE = """
import sys
sys.path[0] = sys.argv[1]
from pathlib import Path
from tools.setup import account, folders, installing, plans, private_tar, schedule, sudoers
from tools.setup import arguments, commands
table = (account.steps, folders.steps, private_tar.steps, sudoers.steps, schedule.steps)
options = {name: verb.options for name, verb in commands.VERBS.items()}
given = arguments.parse(["install", *sys.argv[2:]], options, "install")
sys.exit(installing._change(table, installing.installation(given)))
"""


def grant(root: ThrowawayRoot, *options: str) -> str:
    """Perform them in a root, with options of `setup.py install`; return what was printed."""
    return root.run("/usr/bin/python3", "-c", _CODE, project.ROOT, *options).stdout
