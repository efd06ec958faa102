"""Return whether other users could read or change a file: the rule of docs/security.md.

Code and configuration belong to root or to the user of this process. Key and credential files
and folders may also belong to the user of the backup where root looks at them, so that one
layout serves the nightly run and root's restore.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import stat
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.base import account_names, fixes
from tools.base.errors import ConfigError
from tools.base.real_path import resolved

ACCEPT = "NC_BACKUP_INSECURE_PERMISSIONS"  # set by --insecure-permissions, for modules too
BACKUP_USER = "ncbackup"
_ACL = "system.posix_acl_access"
_ACL_USER, _ACL_OWNING_GROUP, _ACL_GROUP, _ACL_MASK = 2, 4, 8, 16  # tags of its entries (acl(5))
_READ, _WRITE = 4, 2
_BELONGS = "belongs to "
_CHECKED = "Check its content"


@dataclass(frozen=True)
class Problem:
    """A permission problem of a path, and what fixes it.

    commands: of a shell, which follow each other
    advice:   what to do in words, before the commands or instead of them
    """

    path: Path
    description: str
    commands: tuple[str, ...] = ()
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.path} {self.description}"

    @property
    def fix(self) -> str:
        """Return the command that fixes it, as this user runs it; "" where only text can say it."""
        return fixes.on(self.path, *self.commands)

    @property
    def hint(self) -> str:
        """Return what fixes it, for messages."""
        if self.advice and self.commands:
            return f"{self.advice}, then run as root: {' && '.join(self.commands)}"
        return self.advice or " && ".join(self.commands)

    @property
    def hint_or_accept(self) -> str:
        """Return the hint, and how to go on without it, unless this user cannot use the path."""
        if not os.access(self.path, os.R_OK, effective_ids=True):
            return self.hint
        return f"{self.hint} (to run anyway: --insecure-permissions)"


def accept() -> None:
    """Accept insecure permissions from now on, also in the modules that are started."""
    os.environ[ACCEPT] = "1"


def accepted() -> bool:
    """Return whether the user has asked to accept insecure permissions."""
    return os.environ.get(ACCEPT) == "1"


def of_code(path: Path) -> Problem | None:
    """Return why another user could change `path` or a folder above it; None if none can."""
    return next(_changeable(path, {0, os.geteuid()}), None)


def of_folder(path: Path) -> Problem | None:
    """Return why a folder belongs to another user, or could be replaced by one; else None.

    A folder that does not exist yet is judged by the nearest one above it. None where the
    user has asked to accept it.
    """
    if accepted():
        return None
    existing = path
    while not os.path.lexists(existing):
        existing = existing.parent
    problem = of_code(existing)
    real = resolved(existing)
    if problem is None or problem.path != real or not problem.description.startswith(_BELONGS):
        return problem
    owner = account_names.user(real.stat().st_uid)
    if os.geteuid() == 0:  # never taken from the user that the nightly run is
        advice = f"Run it as {owner} (sudo -u {shlex.quote(owner)} ...), or use another folder."
        return Problem(real, problem.description, advice=advice)
    command = f"chown {account_names.user(os.geteuid())} {shlex.quote(str(real))}"
    return Problem(real, problem.description, (command,), _CHECKED)


def of_secret(path: Path, trusted: Collection[str] = ()) -> Problem | None:
    """Return why others could read or replace a file of secrets; None if they cannot.

    trusted: names of users who may own the file and its folders besides root and this user.
    Readable by its owner, and by its group only where that is the own group of the user of
    the backup. None where the user has asked to accept it. Raises OSError.
    """
    if accepted():
        return None
    real = resolved(path)
    status = real.stat()
    if status.st_mode & stat.S_IRWXO:
        trouble = f"can be read or written by everybody (mode {stat.S_IMODE(status.st_mode):04o})"
        return Problem(real, trouble, _closing(real, status))
    owners = {0, os.geteuid(), *_backup_users(real, status), *_numbers(trusted)}
    problem = next(_changeable(real, owners), None)
    if (
        problem is not None
        and problem.path == real
        and not problem.description.startswith(_BELONGS)
    ):
        return _readable(real, status, owners) or problem  # one command for reading and writing
    return problem or _readable(real, status, owners)


def check_reference(reference: str, path: Path) -> None:
    """Raise ConfigError if others could replace the file that a value refers to.

    That others can read it is accepted: it may hold no secret, or be mounted by a container's
    engine, which knows no owner but root.
    """
    if accepted():
        return
    real = resolved(path)
    owners = {0, os.geteuid(), *_backup_users(real, real.stat())}
    if (problem := next(_changeable(real, owners), None)) is not None:
        raise ConfigError(
            f"secret {reference}: {problem}",
            problem.hint_or_accept,
            problem.fix,
        )


def check_secret(key: str, path: Path, trusted: Collection[str] = ()) -> None:
    """Raise ConfigError naming the key if others could read or replace a file of secrets."""
    if (problem := of_secret(path, trusted)) is not None:
        raise ConfigError(
            f"{key}: {problem}",
            problem.hint_or_accept,
            problem.fix,
        )


def exposed(path: Path) -> Problem | None:
    """Return why everyone could read or write a file of secrets: enough for decryption."""
    status = resolved(path).stat()
    if accepted() or not status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        return None
    trouble = f"can be read or written by everybody (mode {stat.S_IMODE(status.st_mode):04o})"
    return Problem(path, trouble, _closing(path, status))


def _changeable(path: Path, owners: set[int]) -> Iterator[Problem]:
    """Give each way in which others than the owners could change a path or a folder above it."""
    real = resolved(path)
    for level in (real, *real.parents):
        status = level.stat()
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        quoted = shlex.quote(str(level))
        if status.st_uid not in owners:
            description = f"{_BELONGS}{account_names.user(status.st_uid)}"
            yield Problem(level, description, *_owning(real, level, status))
        if sticky:
            continue
        if status.st_mode & stat.S_IWOTH:
            yield Problem(level, "is writable by everybody", (f"chmod o-w {quoted}",))
        if status.st_mode & stat.S_IWGRP:
            ours = _own_group(status)
            if (fix := _foreign_entry(level, owners, _WRITE, ours=ours)) is not None:
                yield Problem(level, "is writable by others through its ACL", (fix,))
            elif not _has_acl(level) and not ours:
                yield Problem(level, "is writable by its group", (f"chmod g-w {quoted}",))


def _readable(real: Path, status: os.stat_result, owners: set[int]) -> Problem | None:
    """Return why a group or an ACL entry lets others read a file of secrets; else None."""
    if not status.st_mode & stat.S_IRWXG:
        return None
    ours = _own_group(status) or _group_of_backup(status, real.parent)
    if (fix := _foreign_entry(real, owners, _READ, ours=ours)) is not None:
        return Problem(real, "can be read by others through its ACL", (fix,))
    if _has_acl(real) or ours:
        return None
    access = "read or written" if status.st_mode & stat.S_IWGRP else "read"
    description = f"can be {access} by the group {account_names.group(status.st_gid)}"
    if status.st_uid == 0 and os.geteuid() != 0:  # this very user needs the right of a group
        return Problem(real, description, _closing(real, status))
    return Problem(real, description, (f"chmod g-rwx {shlex.quote(str(real))}",))


def _closing(path: Path, status: os.stat_result) -> tuple[str, ...]:
    """Return the commands that close a file to others.

    They take no access from the user of the backup: a group that may be that user's keeps its
    rights.
    """
    quoted = shlex.quote(str(path))
    runner = os.geteuid()
    if status.st_uid == 0 and runner != 0:  # 0600 would lock this very user out
        group = account_names.group(_primary_group(runner))
        return f"chown root:{group} {quoted}", f"chmod 0640 {quoted}"
    if not _own_group(status):
        return (f"chmod o-rwx {quoted}",)
    return (f"chmod 0600 {quoted}",)


def _owning(real: Path, path: Path, status: os.stat_result) -> tuple[tuple[str, ...], str]:
    """Return the commands that give a path to root but keep it readable for the backup.

    With what to do before, or instead of them.

    A folder above the file is given away by no command but that of the file's own folder, and
    never a home directory.
    """
    movable = path == real or (path == real.parent and not _is_home(path))
    if not movable:
        advice = f"Move {real} to a folder that belongs to root, for example /etc/nc-backup-py."
        return (), advice
    runner = os.geteuid()
    quoted = shlex.quote(str(path))
    primary = _primary_group(status.st_uid if runner == 0 else runner)
    group = account_names.group(primary if primary >= 0 else status.st_gid)
    mode = "0750" if stat.S_ISDIR(status.st_mode) else "0640"
    return (f"chown root:{group} {quoted}", f"chmod {mode} {quoted}"), _CHECKED


def _is_home(path: Path) -> bool:
    return any(Path(entry.pw_dir).is_relative_to(path) for entry in pwd.getpwall())


def _backup_users(real: Path, status: os.stat_result) -> Iterator[int]:
    """Give the users that root accepts as owners of a file of secrets.

    The user ncbackup, and the user whose own group root has given the file's folder to.
    """
    if os.geteuid() != 0:
        return
    with contextlib.suppress(KeyError):  # no such user: the folder's group decides
        yield pwd.getpwnam(BACKUP_USER).pw_uid
    folder = real.parent.stat()
    by_root = folder.st_uid == 0 and folder.st_gid != 0
    if by_root and _primary_group(status.st_uid) == folder.st_gid:
        yield status.st_uid


def _numbers(users: Collection[str]) -> Iterator[int]:
    for user in users:
        with contextlib.suppress(KeyError):  # no such user here
            yield pwd.getpwnam(user).pw_uid


def _group_of_backup(status: os.stat_result, folder: Path) -> bool:
    """Return whether the group of a file is the own group of the user of the backup.

    Root takes any user's own group on a file of root's, and the group of a folder of root's:
    who else could have given it to them?
    """
    runner = os.geteuid()
    if runner != 0:
        return status.st_gid == _primary_group(runner)
    if status.st_uid != 0:
        return False
    status_above = folder.stat()
    if status_above.st_uid == 0 and status_above.st_gid == status.st_gid:
        return True
    try:
        return pwd.getpwnam(account_names.group(status.st_gid)).pw_gid == status.st_gid
    except KeyError:
        return False


def _own_group(status: os.stat_result) -> bool:
    """Return whether a group is root's, or has the name of the owner: a group of one user."""
    group, owner = account_names.group(status.st_gid), account_names.user(status.st_uid)
    return status.st_gid == 0 or group == owner


def _primary_group(user: int) -> int:
    try:
        return pwd.getpwuid(user).pw_gid
    except KeyError:
        return os.getegid() if user == os.geteuid() else -1


def _has_acl(path: Path) -> bool:
    """Return whether there are entries beyond owner, group and others (acl(5)).

    The group bits of the mode are then the mask of all entries: they say that somebody may
    write, and not who.
    """
    try:
        return _ACL in os.listxattr(path)
    except OSError:
        return False  # a file system without such attributes


def _foreign_entry(path: Path, owners: set[int], access: int, *, ours: bool) -> str | None:
    """Return the command that removes the first ACL entry of another user or group.

    ours: whether the owning group is the owner's own.
    """
    if not _has_acl(path):
        return None
    quoted = shlex.quote(str(path))
    entries = list(struct.iter_unpack("<HHI", os.getxattr(path, _ACL)[4:]))
    mask = next((rights for tag, rights, _ in entries if tag == _ACL_MASK), 7)
    for tag, rights, number in entries:
        if not rights & mask & access:
            continue
        if tag == _ACL_USER and number not in owners:
            return f"setfacl -x u:{shlex.quote(account_names.user(number))} {quoted}"
        if tag == _ACL_GROUP and number != 0:
            return f"setfacl -x g:{shlex.quote(account_names.group(number))} {quoted}"
        if tag == _ACL_OWNING_GROUP and not ours:
            return f"setfacl -m g::- {quoted}"
    return None
