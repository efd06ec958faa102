"""The house is in order? A plugin that looks at users, owners, modes and paths, and warns."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import contextlib
import grp
import logging
import os
import pwd
import shlex
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools import filesystem_handling, os_works
from tools.modules import executable, options
from tools.modules.options import option

_OLD = 86400  # seconds after which an unfinished file is a leftover; `find -mtime +0`


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
    """Everything that is not in order; what may not be looked at is a finding too."""
    yield from _user(given)
    yield from _looked(given.work_folder, lambda path: _folder(path, given))
    if given.local_backup is not None:
        yield from _looked(given.local_backup, lambda path: _folder(path, given))
    yield from _looked(given.key_file, lambda path: _key(path, given))
    yield from _looked(given.log_folder, _log)
    yield from _looked(given.home_folder, _home)


def _looked(path: Path, look: Callable[[Path], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look(path)
    except OSError as error:
        mend = f"namei -l {_quoted(path)}"
        yield Finding(f"{path} cannot be looked at ({error.strerror})", mend)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _user(given: Options) -> Iterator[Finding]:
    user = os_works.user()
    if user != given.user:
        yield Finding(
            f"the backup runs as {user}, not as {given.user}",
            f"crontab -u {given.user} -e, and take it out of the crontab of {user}",
        )
    names = [_group_name(number) for number in {os.getegid(), *os.getgroups()}]
    if given.group not in names:
        mend = f"usermod -aG {given.group} {given.user}"
        yield Finding(f"{user} is not in the group {given.group}", mend)


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _owners(user: str) -> tuple[int, ...]:
    """Who may own what the backup uses: root, and the user that should run it."""
    try:
        return 0, pwd.getpwnam(user).pw_uid
    except KeyError:
        return 0, os.geteuid()


def _folder(folder: Path, given: Options) -> Iterator[Finding]:
    """A folder that must be there, be the user's, be closed to others, and hold no leftovers."""
    if not folder.is_dir():
        make = f"install -d -o {given.user} -m 0700 {_quoted(folder)}"
        yield Finding(f"{folder} does not exist", make)
        return
    yield from _owned(folder, given)
    yield from _closed(folder, stat.S_IRWXG | stat.S_IRWXO, "0700")
    old = time.time() - _OLD
    left = 0
    for place, _, names in os.walk(folder):
        for name in filter(filesystem_handling.is_temporary, names):
            with contextlib.suppress(FileNotFoundError):
                left += (Path(place) / name).lstat().st_mtime < old
    if left:
        mend = f"find {_quoted(folder)} -name '.*{filesystem_handling.PART}*' -mtime +0 -delete"
        yield Finding(f"{folder} holds {left} leftovers of runs that were ended", mend)


def _key(path: Path, given: Options) -> Iterator[Finding]:
    """The user's alone; or root's, and readable by the group of the user."""
    if not path.exists():
        program = _quoted(given.home_folder / "encryption/encryption.py")
        mend = f"python3 {program} --KEYGEN --KEY_FILE {_quoted(path)}"
        yield Finding(f"{path} does not exist", mend)
        return
    yield from _owned(path, given)
    status = path.stat()
    shared = status.st_uid == 0 and _group_name(status.st_gid) == given.group
    bits = stat.S_IWGRP | stat.S_IXGRP if shared else stat.S_IRWXG
    yield from _closed(path, bits | stat.S_IRWXO, "0640" if shared else "0600")


def _log(path: Path) -> Iterator[Finding]:
    if path.exists():
        yield from _closed(path, stat.S_IRWXO | stat.S_IWGRP, "g-w,o-rwx")


def _owned(path: Path, given: Options) -> Iterator[Finding]:
    if path.stat().st_uid not in _owners(given.user):
        yield Finding(f"{path} belongs to somebody else", f"chown {given.user} {_quoted(path)}")


def _closed(path: Path, bits: int, mode: str) -> Iterator[Finding]:
    if path.stat().st_mode & bits:
        have = stat.S_IMODE(path.stat().st_mode)
        yield Finding(
            f"{path} is open to others (mode {have:04o})", f"chmod {mode} {_quoted(path)}"
        )


def _home(folder: Path) -> Iterator[Finding]:
    """Who may write the code may do whatever the backup may."""
    if not folder.is_dir():
        yield Finding(f"HOME_FOLDER {folder} does not exist", "set HOME_FOLDER in GENERAL")
        return
    for path in (folder, *sorted(folder.glob("*.py")), *sorted(folder.glob("*/*.py"))):
        why = filesystem_handling.insecure(path)
        if why:
            what, _, mend = why.rpartition(": ")
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
        text = "\n".join(map(str, self._found)) or "everything is in order"
        return 0, text, ""


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.describe(Options, argv)
