"""The user ncbackup: it runs the backups, has no shell and no password, and owns nothing else."""

from __future__ import annotations

import grp
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

from tools.base.errors import BackupError, ConfigError
from tools.setup import programs, questions
from tools.setup.installation import HOME, USER, Installation
from tools.setup.steps import Step

_NO_SHELLS = ("nologin", "false")  # names of programs that allow no login
_ADD = "useradd"


def steps(installation: Installation) -> Iterator[Step]:
    """Yield the step that creates the user, where this is the running system."""
    if not installation.real:
        return
    if (user := _user()) is not None:
        _check(user, installation)
    yield Step(
        subject=f"user {USER}",
        action=f"create it and its group: no shell, home {HOME}",
        reason=lambda: "" if _user() else "there is no such user",
        perform=_create,
    )


def removal(installation: Installation) -> Iterator[Step]:
    """Yield the step that removes the user; only --purge does, because it owns files."""
    if installation.real and installation.purge:
        yield Step(
            subject=f"user {USER}",
            action="remove it and its group",
            reason=lambda: "it exists" if _user() else "",
            perform=_remove,
        )


def _remove() -> None:
    programs.run(["userdel", USER])


def identifiers() -> tuple[int, int]:
    """Return the numbers of the user and its group. Raises BackupError if there is none."""
    user = _user()
    if user is None:
        raise BackupError(f"user {USER}: no such user", "Run setup.py as root without --prefix.")
    return user.pw_uid, user.pw_gid


def _user() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return None


def _group() -> grp.struct_group | None:
    try:
        return grp.getgrnam(USER)
    except KeyError:
        return None


def _create() -> None:
    """Create user and group. A group of that name is taken over if it has no members."""
    if shutil.which(_ADD, path=programs.PATH) is None:
        raise BackupError(
            f"user {USER}: cannot be created: {_ADD} is not installed",
            f"Create a system user {USER} with a group of that name and home {HOME}, then run "
            "this again.",
        )
    group = _group()
    if group is not None and group.gr_mem:
        raise ConfigError(
            f"group {USER}: exists, with members: {', '.join(group.gr_mem)}",
            f"They could read the config and its keys. Remove them: gpasswd -d USER {USER}",
        )
    group_option = ["--user-group"] if group is None else ["--gid", USER]
    about = ["--comment", "nc-backup-py", "--home-dir", HOME, "--no-create-home"]
    programs.run(
        [_ADD, "--system", *group_option, *about, "--shell", _no_shell(), USER],
        f"user {USER}: cannot be created",
    )


def _no_shell() -> str:
    nologin = shutil.which("nologin", path="/usr/sbin:/sbin")
    return nologin or "/bin/false"


def _check(user: pwd.struct_passwd, installation: Installation) -> None:
    """Raise ConfigError for a user of that name that must not run backups; warn of other oddities.

    It will be able to read every file of the system: nobody may be able to log in as it.
    """
    group = _group()
    if user.pw_uid == 0 or user.pw_gid == 0:
        raise ConfigError(
            f"user {USER}: is root by its number (uid {user.pw_uid}, gid {user.pw_gid})",
            f"Backups must not run as root. Rename that user: usermod --login OTHER {USER}",
        )
    if group is None or group.gr_gid != user.pw_gid:
        missing = f"groupadd --system {USER} && " if group is None else ""
        raise ConfigError(
            f"user {USER}: its primary group is not {USER}",
            f"Files for it alone would be readable by another group. Run: {missing}"
            f"usermod --gid {USER} {USER}",
        )
    if Path(user.pw_shell or "/bin/sh").name not in _NO_SHELLS:
        questions.confirm(
            f"user {USER}: exists, with the login shell {user.pw_shell or '/bin/sh'}",
            "Whoever logs in as it can read all that is backed up. "
            f"Run: usermod --shell {_no_shell()} {USER}.",
            "Keep its shell?",
            installation,
        )
    if user.pw_dir != HOME:
        installation.notice(
            f"warning: user {USER}: its home is {user.pw_dir}, not {HOME}; it is kept"
        )
    if members := [name for name in group.gr_mem if name != USER]:
        installation.notice(
            f"warning: group {USER}: these users can read config and keys: {', '.join(members)}"
        )
