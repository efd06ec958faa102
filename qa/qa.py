"""The house is in order? A plugin that looks at users, owners, modes and paths, and warns."""

from __future__ import annotations

import grp
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import filesystem_handling, options, os_works, plugin
from tools.options import option


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    user: str = option("the user that should run the backup", default="ncbackup")
    group: str = option("the group that this user should be in", default="ncbackup")
    work_folder: Path = option("looked at: private to the user", default=Path("/opt/backup"))
    local_backup: Path | None = option("looked at: private to the user", default=None)
    home_folder: Path = option(
        "looked at: nobody else may write the code", default=Path("/var/lib/nc-backup-py")
    )
    log_folder: Path = option(
        "looked at: not readable by everybody",
        default=Path("/var/log/nc-backup-py/nc-backup-py.log"),
    )
    key_file: Path = option(
        "looked at: readable by the user alone", default=Path("/etc/nc-backup-py/key_file")
    )


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be, and the command that mends it."""

    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.what}: {self.mend}"


def findings(given: Options) -> Iterator[Finding]:
    """Everything that is not in order."""
    yield from _user(given)
    for folder in (given.work_folder, given.local_backup):
        if folder is not None:
            yield from _private(folder, 0o700, given.user)
    yield from _private(given.key_file, 0o600, given.user)
    log = given.log_folder
    if log.exists():
        yield from _closed(log, stat.S_IROTH | stat.S_IWOTH, "o-rwx")
    yield from _home(given.home_folder)


def _user(given: Options) -> Iterator[Finding]:
    user = os_works.user()
    if user != given.user:
        yield Finding(
            f"the backup runs as {user}, not as {given.user}",
            f"run it by the crontab of {given.user}",
        )
    names = [_group_name(number) for number in {os.getegid(), *os.getgroups()}]
    if given.group not in names:
        mend = f"usermod -aG {given.group} {user}"
        yield Finding(f"{user} is not in the group {given.group}", mend)


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _private(path: Path, mode: int, user: str) -> Iterator[Finding]:
    """A path that must be there, be the user's, and be closed to all others."""
    if not path.exists():
        make = f"install -d -o {user} -m {mode:04o} {path}"
        if mode == 0o600:  # noqa: PLR2004  (a key file)
            make = f"python3 {plugin.ROOT}/encryption/encryption.py --KEYGEN --KEY_FILE {path}"
        yield Finding(f"{path} does not exist", make)
        return
    if path.stat().st_uid not in (0, os.geteuid()):
        yield Finding(f"{path} belongs to somebody else", f"chown {user} {path}")
    yield from _closed(path, stat.S_IRWXG | stat.S_IRWXO, f"{mode:04o}")


def _closed(path: Path, bits: int, mode: str) -> Iterator[Finding]:
    if path.stat().st_mode & bits:
        have = stat.S_IMODE(path.stat().st_mode)
        yield Finding(f"{path} is open to others (mode {have:04o})", f"chmod {mode} {path}")


def _home(folder: Path) -> Iterator[Finding]:
    """Who may write the code may do whatever the backup may."""
    if not folder.is_dir():
        yield Finding(f"HOME_FOLDER {folder} does not exist", "set HOME_FOLDER in GENERAL")
        return
    for path in (folder, *sorted(folder.glob("*/*.py"))):
        why = filesystem_handling.insecure(path)
        if why:
            what, _, mend = why.partition(": ")
            yield Finding(what, mend)


class QA:
    """The plugin class."""

    def __init__(self, parameters: Mapping[str, Any], logger: logging.Logger) -> None:
        self._parameters = parameters
        self._logger = logger
        self._given = Options()
        self._found: list[Finding] = []

    def config_plugin(self) -> None:
        """Read the parameters."""
        texts = {key: options.to_text(value) for key, value in self._parameters.items()}
        self._given = options.fill(Options, texts)

    def works_execution(self) -> None:
        """Look, and warn of each finding."""
        self._found = list(dict.fromkeys(findings(self._given)))
        for finding in self._found:
            self._logger.warning("%s", finding)

    def output(self) -> tuple[int, str, str]:
        """Always good: QA warns, and never makes a backup fail."""
        return 0, f"{len(self._found)} findings", ""
