"""The section GENERAL of a config: read, checked, and passed to every module."""

from __future__ import annotations

import dataclasses
import difflib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.base import project
from tools.base.errors import ConfigError
from tools.base.real_path import resolved
from tools.config import legacy
from tools.config.declarations import HOOK_KEYS, General, placeholder
from tools.config.include import Entry
from tools.config.paths import anchored, answered, check_folder
from tools.config.validation import check_key, filled, literal_secret, trouble
from tools.modules import options

# Files that only a copy of this program has, below HOME_FOLDER.
_OF_A_COPY = ("backup.py", "tools")
TEMPLATE_HOSTNAME = "srv-nc-template-host-config"  # of conf/conf.json


@dataclass(frozen=True)
class GeneralSection:
    """GENERAL as it was read.

    handed: every key, as every module gets it, paths absolute; places: file and line of each
    unknown: keys that GENERAL does not have, with a warning for each
    misplaced: an error for each key that belongs to a built-in module
    """

    general: General
    handed: Mapping[str, Any]
    places: Mapping[str, str]
    unknown: Mapping[str, list[str]]
    misplaced: Sequence[ConfigError]

    @property
    def home(self) -> Path:
        """Return the folder of the modules."""
        return Path(str(self.general.home_folder))

    def adapted(self, entry: Entry, warnings: list[str]) -> tuple[General, dict[str, Any]]:
        """Return GENERAL and the keys that modules get.

        entry: the section without those; warnings: gets one for each other unknown key
        """
        dropped = {key for key in self.unknown if key not in entry.value}
        for key, texts in self.unknown.items():
            if key not in dropped:
                warnings += texts
        for key in self.general_keys():
            warnings += literal_secret(self.places[key], key, self.handed.get(key), None)
        return self.general, {k: v for k, v in self.handed.items() if k not in dropped}

    def general_keys(self) -> list[str]:
        """Return the known keys that are set."""
        return [key for key in self.places if key not in self.unknown]


def read(path: Path, merged: Mapping[str, Entry]) -> GeneralSection:
    """Read GENERAL of a config. Raises ConfigError naming file, line and key."""
    if "GENERAL" not in merged:
        raise _missing(path, merged)
    section = merged["GENERAL"]
    declared = options.keys(General)
    handed: dict[str, Any] = {}
    places: dict[str, str] = {}
    unknown: dict[str, list[str]] = {}
    misplaced: list[ConfigError] = []
    for key, entry in section.value.items():
        places[key] = f"{entry.where}: GENERAL.{key}"
        if key not in declared:
            unknown[key] = _unknown(key, entry)
            misplaced += legacy.misplaced(key, entry)
        handed[key] = anchored(General, key, entry, places[key])
    values = {key: value for key, value in handed.items() if key in declared}
    for key in HOOK_KEYS:  # the run's alone: modules have no use for them
        handed.pop(key, None)
    threshold = values.get("DISK_SPACE_THRESHOLD")
    if isinstance(threshold, str):
        values["DISK_SPACE_THRESHOLD"] = threshold.removesuffix("%")
    general: General = filled(General, values, places, f"{section.where}: GENERAL")
    home = general.home_folder or project.ROOT
    for key, folder in (("HOME_FOLDER", home), ("WORK_FOLDER", general.work_folder)):
        handed[key] = handed.get(key) or str(folder)
    _check_edited(general.hostname, handed, places)
    _check_home(home, places.get("HOME_FOLDER", f"{section.where}: GENERAL.HOME_FOLDER"))
    if "WORK_FOLDER" in places:
        check_folder(general.work_folder, places["WORK_FOLDER"])
    return GeneralSection(
        dataclasses.replace(general, home_folder=home), handed, places, unknown, misplaced
    )


def _check_edited(hostname: str, handed: Mapping[str, Any], places: Mapping[str, str]) -> None:
    """Reject the template that setup.py installs as long as nobody has edited it."""
    if hostname == TEMPLATE_HOSTNAME:
        raise ConfigError(
            f"{places['HOSTNAME']}: {hostname}: is the name of the template",
            "Set HOSTNAME to the name of this server.",
        )
    if placeholder(str(handed.get("LOCAL_BACKUP", ""))):
        raise ConfigError(
            f"{places['LOCAL_BACKUP']}: is still that of the template",
            "Set LOCAL_BACKUP to the folder where the disk for backups is mounted, or use another "
            "store (docs/modules/storage.md).",
        )


def _missing(path: Path, merged: Mapping[str, Entry]) -> ConfigError:
    """Return the error for a config without GENERAL, naming a section that looks like it."""
    near = difflib.get_close_matches("GENERAL", [key.upper() for key in merged], 1)
    key = next((key for key in merged if key.upper() in near), "")
    where = merged[key].where if key else f"{path}:1"
    hint = (
        f"Rename the section {key} to GENERAL."
        if key
        else "Add GENERAL with at least HOSTNAME (see conf/examples/minimal.json)."
    )
    return ConfigError(f"{where}: section GENERAL is missing", hint)


def _unknown(key: str, entry: Entry) -> list[str]:
    """Return the warnings for a key that may be meant for a user-defined module."""
    legacy.general_key(key, entry)
    check_key(key, entry, "GENERAL")
    location = f"{entry.where}: GENERAL.{key}"
    text = f"{location}: unknown key, passed to the modules"
    return [text, *literal_secret(location, key, entry.value, None)]


def is_copy(home: Path) -> bool:
    """Return whether a folder holds this program, or an earlier version of it."""
    return all(os.path.exists(home / name) for name in _OF_A_COPY)  # noqa: PTH110  (closed: False)


def _check_home(home: Path, location: str) -> None:
    """Reject HOME_FOLDER if it is not a folder, or another copy of this program.

    The built-in modules of another copy would be taken for user-defined ones: their keys would
    not be checked, and no manifest would be written.
    """
    why = answered(home, lambda: trouble(home, stat.S_ISDIR), location)
    if why:
        raise ConfigError(
            f"{location}: {home}: not a directory{why}",
            f"Remove the key to use the modules of this program ({project.ROOT}).",
        )
    if is_copy(home) and resolved(home / "tools") != project.ROOT / "tools":
        raise ConfigError(
            f"{location}: {home} holds another copy of this program",
            f"Run the backup.py of that copy, {home / 'backup.py'}, or remove HOME_FOLDER "
            f"to use the modules of this one ({project.ROOT}).",
        )
