"""Who writes into a store: this machine, and the config of the run.

A machine is known by a digest of its /etc/machine-id, because machine-id(5) asks that the id
itself stays on the machine; or by MACHINE_ID of GENERAL, for containers, which have none of their
own. A config is known by the path of its file, so that an edited config stays the same one.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from pathlib import Path

from tools.base import project
from tools.base.run_result import RunOrigin
from tools.config.model import Config

_MACHINE_ID = Path("/etc/machine-id")
_IS_ID = re.compile(r"[0-9a-f]{32}")  # machine-id(5); an image may have it empty or "uninitialized"
_LENGTH = 32  # hexadecimal digits of our ids


@dataclass(frozen=True)
class Writer:
    """The machine and the config that write a run; `machine` is "" where it is unknown."""

    machine: str
    machine_name: str
    config_id: str
    config_file: str


def writer(config: Config) -> Writer:
    """Return the machine and config that write these runs."""
    path = str(config.path)
    return Writer(machine(config.general.machine_id), _node(), config_id(config.path), path)


def origin(config: Config | None, path: Path | None = None) -> RunOrigin:
    """Return the machine, config and program of a run, for its result.

    path: of the config file if the config could not be read; both None without a config
    """
    file = config.path if config is not None else path
    return RunOrigin(
        config_id="" if file is None else config_id(file),
        config_sha256="" if config is None else config.digest,
        config_file="" if file is None else str(file),
        machine=machine("" if config is None else config.general.machine_id),
        machine_name=_node(),
        program=project.banner(),
    )


def machine(configured: str = "") -> str:
    """Return MACHINE_ID, or the id of this machine; "" where it has none."""
    if configured:
        return configured
    try:
        text = _MACHINE_ID.read_bytes().decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    if not _IS_ID.fullmatch(text):
        return ""
    return hmac.new(b"nc-backup-py", text.encode(), hashlib.sha256).hexdigest()[:_LENGTH]


def config_id(path: Path) -> str:
    """Return the id of a config: that of its path, links followed."""
    real = os.fsencode(os.path.realpath(path))
    return hashlib.sha256(real).hexdigest()[:_LENGTH]


def named(machine: str, name: str) -> str:
    """Return a machine as messages name it."""
    return f"{name} (machine id {machine})" if name else f"machine id {machine}"


def _node() -> str:
    return os.uname().nodename
