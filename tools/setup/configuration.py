"""conf.json: the template, where there is none, and who may read it."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools import filesystem_handling
from tools.base import foreign, foreign_json
from tools.setup import files
from tools.setup.folders import Access
from tools.setup.installation import CODE, CONFIG, Installation
from tools.setup.steps import Step

ACCESS = Access(0o640, group=True)
_TEMPLATE = "conf/conf.json"
_LARGEST = 1 << 24  # bytes of a config
_NO_NAMES = ("localhost", "debian", "ubuntu", "raspberrypi")  # of machines without a chosen name


def steps(installation: Installation) -> Iterator[Step]:
    """Yield the steps that write the template, and set owner and mode of what is there."""
    path = installation.at(CONFIG)

    def perform() -> None:
        files.write(path, _filled(installation), ACCESS, installation)
        installation.notice(f"Edit {path}: set LOCAL_BACKUP, or use another store.")
        installation.notice(f"Then check it: python3 {CODE}/setup.py check")

    yield Step(
        subject=str(path),
        action=f"write the template, {ACCESS}",
        reason=lambda: "" if filesystem_handling.exists(path) else "there is no config",
        perform=perform,
    )
    yield files.access_step(CONFIG, ACCESS, installation)


def hostname(installation: Installation) -> str:
    """Return HOSTNAME of the config; "" where it has none, or that of the template.

    Raises OSError where the config cannot be read.
    """
    template = _read(installation.source / _TEMPLATE)["GENERAL"]["HOSTNAME"]
    try:
        name = _read(installation.at(CONFIG))["GENERAL"]["HOSTNAME"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return ""
    return name if isinstance(name, str) and name != template else ""


def _read(path: Path) -> Any:  # noqa: ANN401  (any JSON value)
    return foreign_json.load(foreign.content(path, _LARGEST))


def _filled(installation: Installation) -> bytes:
    """Return the template with the name of this machine, and the folders that it has."""
    config: dict[str, Any] = _read(installation.source / _TEMPLATE)
    config["$schema"] = f"{CODE}/conf/schema.json"
    name = _machine_name() if installation.real else ""
    if name:
        config["GENERAL"]["HOSTNAME"] = name
    for section in config.values():
        parameters = section.get("PARAMETERS", {}) if isinstance(section, dict) else {}
        if "FILESET_INCLUDE" in parameters and installation.real:
            present = [one for one in parameters["FILESET_INCLUDE"] if os.path.isdir(one)]  # noqa: PTH112  (as in JSON)
            parameters["FILESET_INCLUDE"] = present
    return (json.dumps(config, indent=2) + "\n").encode()


def _machine_name() -> str:
    """Return the name of this machine without its domain; "" where none was chosen."""
    name = socket.gethostname().partition(".")[0]
    usable = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", name) and name not in _NO_NAMES
    return name if usable else ""
