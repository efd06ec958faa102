"""The wheels that later versions of Python need, kept beside those of the Python that is used.

A distribution upgrade brings a new Python. With them the environment is made again offline.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from tools.base.errors import BackupError

_NEWEST = 14  # minor version of Python 3 that is supported
_BLOCK = re.compile(r"^(?P<name>[a-z0-9.-]+)==.*\n(?: .*\n)*", re.M)
_VERSION = re.compile(r"python_(?:full_)?version (?P<sign><=?|>=?) '3\.(?P<minor>[0-9]+)'")
_SIGNS: Mapping[str, Callable[[int, int], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ALWAYS, _NEVER = "python_version >= '3'", "python_version < '3'"

# Takes a list of requirements and further options of `pip download`. Raises BackupError.
Download = Callable[[str, list[str]], None]


def fetch(version: str, lock: str, wheels: Path, download: Download) -> str:
    """Fetch what Pythons after `version` need beside what a folder has.

    lock: the text of the lock file. Return why that failed, with the versions that it concerns;
    "" if nothing did: nothing is raised.
    """
    compiled = {
        path.name.partition("-")[0].replace("_", "-").lower()
        for path in wheels.glob("*.whl")
        if not path.name.endswith("-none-any.whl")
    }
    used = re.fullmatch(r"3\.([0-9]{1,3})", version)
    minors = range(int(used[1]) + 1, _NEWEST + 1) if used else range(0)
    for minor in minors if compiled else ():
        try:
            options = [f"--python-version=3.{minor}"]
            download(requirements(lock, minor, compiled), options)
        except (BackupError, OSError) as error:
            lacking = ", ".join(f"3.{one}" for one in minors if one >= minor)
            reason = getattr(error, "hint", "") or error
            return (
                f"the packages for Python {lacking} are not kept ({reason}): after a distribution "
                "upgrade to one of these the next run fetches them from the network"
            )
    return ""


def requirements(lock: str, minor: int, compiled: set[str]) -> str:
    """Return the part of a lock file that differs between versions of Python, for Python 3.`minor`.

    compiled: names of the packages that are built for a version. pip evaluates markers with the
    version that it runs under: they are replaced by the answer for the other one.
    """

    def answer(match: re.Match[str]) -> str:
        holds = _SIGNS[match["sign"]](minor, int(match["minor"]))
        return _ALWAYS if holds else _NEVER

    blocks = _BLOCK.finditer(lock + "\n")
    return "".join(
        _VERSION.sub(answer, match[0])
        for match in blocks
        if match["name"] in compiled or _VERSION.search(match[0])
    )
