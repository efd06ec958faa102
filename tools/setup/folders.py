"""Folders of the layout, with exact owners and modes whatever the umask."""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools import filesystem_handling
from tools.base import account_names, environments, removal
from tools.base.errors import ConfigError
from tools.setup import account
from tools.setup.installation import CONFIG_FOLDER, HOME, LOG_FOLDER, RELEASES, USER, Installation
from tools.setup.steps import Step

_NO_LINK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Access:
    """Who owns a file or folder, and its mode; `user` and `group`: the backup's, else root's."""

    mode: int
    user: bool = False
    group: bool = False

    def __str__(self) -> str:
        names = [USER if is_private else "root" for is_private in (self.user, self.group)]
        return f"{':'.join(names)} {self.mode:04o}"

    def apply(self, target: Path | int, installation: Installation) -> None:
        """Set owner and mode of an open file or folder, or of a path; with --prefix only the mode.

        Raises OSError where the path is a link: a file that was looked at may have become one.
        Raises ConfigError where a file has other names.
        """
        if isinstance(target, Path):
            with removal.opened(target, _NO_LINK) as descriptor:
                _refuse_other_names(target, descriptor)
                self.apply(descriptor, installation)
            return
        if installation.real:
            uid, gid = account.identifiers() if self.user or self.group else (0, 0)
            os.fchown(target, uid * self.user, gid * self.group)
        os.fchmod(target, self.mode)

    def difference(self, path: Path, installation: Installation) -> str:
        """Return how owner or mode of an existing path differ; "" if they do not."""
        about = path.lstat()
        mode = stat.S_IMODE(about.st_mode)
        if mode != self.mode:
            return f"its mode is {mode:04o}"
        owner = f"{account_names.user(about.st_uid)}:{account_names.group(about.st_gid)}"
        if installation.real and owner != str(self).split()[0]:
            return f"it belongs to {owner}"
        return ""


def _refuse_other_names(path: Path, descriptor: int) -> None:
    """Raise ConfigError for a file with hard links: another name may be that of a file of root."""
    about = os.fstat(descriptor)
    if stat.S_ISREG(about.st_mode) and about.st_nlink > 1:
        raise ConfigError(
            f"{path}: has {about.st_nlink} names (hard links), which would all get owner and mode",
            f"Find them (find / -xdev -samefile {shlex.quote(str(path))}), then remove this one, "
            "or replace it by a copy.",
        )


CONFIG_ACCESS = Access(0o750, group=True)
_FOLDERS = (
    (CONFIG_FOLDER, CONFIG_ACCESS),
    (HOME, Access(0o700, user=True, group=True)),
    (LOG_FOLDER, Access(0o750, user=True, group=True)),
    (RELEASES, Access(0o755)),
)


def steps(installation: Installation) -> Iterator[Step]:
    """Yield a step for each folder of the layout."""
    for folder, access in _FOLDERS:
        yield step(folder, access, installation)


def step(folder: str, access: Access, installation: Installation) -> Step:
    """Return the step that makes a folder, or sets its owner and mode; parents get 0755.

    An operator may have made it a link to a folder of a larger disk.
    """
    path = installation.at(folder)

    def reason() -> str:
        if not filesystem_handling.exists(path):
            return "it does not exist"
        if not path.is_dir():
            return "it is not a directory"
        return access.difference(path.resolve(), installation)

    def perform() -> None:
        if filesystem_handling.exists(path) and not path.is_dir():
            raise ConfigError(
                f"{path}: is not a directory", "Move it to another place, then run this again."
            )
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _opened(path, installation) as descriptor:
            access.apply(descriptor, installation)

    return Step(str(path), f"make it a folder, {access}", reason, perform)


@contextlib.contextmanager
def _opened(path: Path, installation: Installation) -> Iterator[int]:
    """Open a folder. Raises ConfigError for a link that others than root can have made."""
    target = followed(path) if installation.real else path.resolve()
    with removal.opened(target) as descriptor:
        yield descriptor


def followed(path: Path) -> Path:
    """Return where a path leads, if nobody but root can have made its link.

    Another link could give /etc to the user of the backup: one of that user, one in a folder that
    others can write, as /var/log of Ubuntu, one to a place that others can replace. Raises
    ConfigError for such a link.
    """
    if not path.is_symlink():
        return path
    target = path.resolve()
    folders = (path.parent, target.parent)
    if path.lstat().st_uid != 0 or any(environments.unsafe(str(one)) for one in folders):
        raise ConfigError(
            f"{path}: is a symbolic link that others than root can have made, or can change",
            "Look where it leads, and remove it. For another place use a link and folders of "
            "root, or set another path in conf.json.",
        )
    return target
