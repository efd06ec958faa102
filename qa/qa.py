"""Check user, group, owners, modes and paths of this installation, and warn. A plugin."""

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import contextlib
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
from tools.base import account_names, permissions
from tools.date_str_utils import count
from tools.modules import executable, options
from tools.modules.options import option

_OLD = 86400  # seconds after which a temporary file is reported
_MOUNT_FIRST = "check that its file system is mounted, then: "


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    user: str = option("user that the backup should run as", default="ncbackup")
    group: str = option("group that this user should belong to", default="ncbackup")
    work_folder: Path = option("checked: accessible only by the user", default=Path("/opt/backup"))
    local_backup: Path | None = option("checked: accessible only by the user", default=None)
    home_folder: Path = option(
        "checked: not writable by others", default=Path("/var/lib/nc-backup-py")
    )
    log_folder: Path = option(
        "checked: not readable by everyone",
        default=Path("/var/log/nc-backup-py/nc-backup-py.log"),
    )
    key_file: Path = option(
        "checked: readable only by the user (or owner root, mode 0640 and GROUP)",
        default=Path("/etc/nc-backup-py/key_file"),
    )


@dataclass(frozen=True)
class Finding:
    """A problem, and the command (or instruction) that fixes it."""

    problem: str
    fix_command: str

    def __str__(self) -> str:
        return f"{self.problem}: {self.fix_command}"


def findings(options: Options) -> Iterator[Finding]:
    """Yield every problem; a path that cannot be checked is one too."""
    yield from _user(options)
    yield from _guarded_check(options.work_folder, lambda path: _work_folder(path, options))
    if options.local_backup is not None:
        yield from _guarded_check(options.local_backup, lambda path: _store(path, options))
    yield from _guarded_check(options.key_file, lambda path: _key(path, options))
    yield from _guarded_check(options.log_folder, _log)
    yield from _guarded_check(options.home_folder, _home)


def _guarded_check(path: Path, check: Callable[[Path], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield the findings of a check, or one finding for its OSError."""
    try:
        yield from check(path)
    except OSError as error:
        problem = f"{path}: cannot be checked ({str(error.strerror).lower()})"
        yield Finding(problem, f"namei -l {_quoted(path)}")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _user(options: Options) -> Iterator[Finding]:
    user = os_works.user()
    if user != options.user:
        yield Finding(
            f"the backup runs as {user}, not as {options.user}",
            f"move its line from `crontab -u {user} -e` to `crontab -u {options.user} -e`, "
            "or change the user in its line in /etc/cron.d",
        )
    names = [account_names.group(number) for number in {os.getegid(), *os.getgroups()}]
    if options.group not in names:
        fix_command = f"usermod -aG {options.group} {options.user}"
        yield Finding(f"{user} is not a member of group {options.group}", fix_command)


def _owners(user: str) -> tuple[int, ...]:
    """Return the user IDs that may own the files of the backup: root and its user."""
    try:
        return 0, pwd.getpwnam(user).pw_uid
    except KeyError:
        return 0, os.geteuid()


def _work_folder(folder: Path, options: Options) -> Iterator[Finding]:
    yield from _folder(folder, options, "")


def _store(folder: Path, options: Options) -> Iterator[Finding]:
    yield from _folder(folder, options, _MOUNT_FIRST)


def _folder(folder: Path, options: Options, first: str) -> Iterator[Finding]:
    """Check that a folder exists, is private to the user and has no old temporary files.

    first: what to check before a command that creates the folder or changes its owner
    """
    if not folder.is_dir():
        create = f"install -d -o {options.user} -m 0700 {_quoted(folder)}"
        yield Finding(f"{folder}: no such file or directory", first + create)
        return
    yield from _check_owner(folder, options, first)
    yield from _check_mode(folder, stat.S_IRWXG | stat.S_IRWXO, "0700")
    number = _old_temporary_files(folder)
    if number:
        yield Finding(
            f"{folder}: {count(number, 'temporary file')} older than one day",
            "no action needed, a later run removes the files of crashed runs",
        )


def _old_temporary_files(folder: Path) -> int:
    old = time.time() - _OLD
    number = 0
    for entry in filesystem_handling.entries_below(folder, problem=lambda _error: None):
        if filesystem_handling.is_temporary(entry.name) and not entry.is_dir():
            with contextlib.suppress(FileNotFoundError):
                number += entry.stat(follow_symlinks=False).st_mtime < old
    return number


def _key(path: Path, options: Options) -> Iterator[Finding]:
    """Check the key file: readable by the user only, or owned by root with the user's group."""
    if not path.exists():
        program = _quoted(options.home_folder / "encryption/encryption.py")
        keygen = f"python3 {program} --KEYGEN --KEY_FILE {_quoted(path)}"
        yield Finding(
            f"{path}: no such file or directory",
            "copy your key file back, older backups cannot be decrypted without it; only on a "
            f"system without encrypted backups: sudo -u {options.user} {keygen}",
        )
        return
    yield from _check_owner(path, options)
    status = path.stat()
    shared = status.st_uid == 0 and account_names.group(status.st_gid) == options.group
    bits = stat.S_IWGRP | stat.S_IXGRP if shared else stat.S_IRWXG
    yield from _check_mode(path, bits | stat.S_IRWXO, "0640" if shared else "0600")


def _log(path: Path) -> Iterator[Finding]:
    if path.exists():
        yield from _check_mode(path, stat.S_IRWXO | stat.S_IWGRP, "g-w,o-rwx")


def _check_owner(path: Path, options: Options, first: str = "") -> Iterator[Finding]:
    owner = path.stat().st_uid
    if owner not in _owners(options.user):
        fix_command = f"{first}chown {options.user} {_quoted(path)}"
        yield Finding(f"{path}: owned by {account_names.user(owner)}", fix_command)


def _check_mode(path: Path, bits: int, mode: str) -> Iterator[Finding]:
    if path.stat().st_mode & bits:
        current = stat.S_IMODE(path.stat().st_mode)
        problem = f"{path}: accessible by others (mode {current:04o})"
        yield Finding(problem, f"chmod {mode} {_quoted(path)}")


def _home(folder: Path) -> Iterator[Finding]:
    """Check the code: others who can write it can run commands as the user of the backup."""
    if not folder.is_dir():
        problem = f"HOME_FOLDER: {folder}: no such file or directory"
        yield Finding(problem, "set HOME_FOLDER in GENERAL to the folder of backup.py")
        return
    for path in (folder, *sorted(folder.glob("*.py")), *sorted(folder.glob("*/*.py"))):
        insecure = permissions.of_code(path)
        if insecure:
            yield Finding(str(insecure), insecure.hint)


class QA:
    """The plugin class."""

    def __init__(self, parameters: Mapping[str, Any], logger: logging.Logger) -> None:
        self._parameters = parameters
        self._logger = logger
        self._options = Options()
        self._findings: list[Finding] = []

    def config_plugin(self) -> None:
        """Read the parameters."""
        texts = {key: options.to_text(value) for key, value in self._parameters.items()}
        self._options = options.fill(Options, texts)

    def works_execution(self) -> None:
        """Run the checks and log a warning for each finding."""
        self._findings = list(dict.fromkeys(findings(self._options)))
        for finding in self._findings:
            self._logger.warning("%s", finding)

    def output(self) -> tuple[int, str, str]:
        """Return exit code 0 and the findings: they never make a backup fail."""
        text = "\n".join(map(str, self._findings)) or "no findings"
        return 0, text, ""


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.describe(Options, argv)
