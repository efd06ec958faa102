"""Folders of the layout, with exact owners and modes whatever the umask."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools import filesystem_handling
from tools.base import account_names, removal
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
        names = [USER if own else "root" for own in (self.user, self.group)]
        return f"{':'.join(names)} {self.mode:04o}"

    def apply(self, place: Path | int, installation: Installation) -> None:
        """Set owner and mode of an open file or folder, or of a path; with --prefix only the mode.

        Raises OSError where the path is a link: a file that was looked at may have become one.
        """
        if isinstance(place, Path):
            with removal.opened(place, _NO_LINK) as descriptor:
                self.apply(descriptor, installation)
            return
        if installation.real:
            uid, gid = account.identifiers() if self.user or self.group else (0, 0)
            os.fchown(place, uid * self.user, gid * self.group)
        os.fchmod(place, self.mode)

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


_FOLDERS = (
    (CONFIG_FOLDER, Access(0o750, group=True)),
    (HOME, Access(0o700, user=True, group=True)),
    (LOG_FOLDER, Access(0o750, user=True, group=True)),
    (RELEASES, Access(0o755)),
)


def steps(installation: Installation) -> Iterator[Step]:
    """Give a step for each folder of the layout."""
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
    """Open a folder; through a link only where nobody but root can have made it.

    In a folder that others can write, as /var/log of Ubuntu, a link could give /etc to the user
    of the backup. Raises ConfigError for such a link.
    """
    above = path.parent.stat()
    shared = above.st_uid != 0 or (above.st_gid != 0 and above.st_mode & 0o020)
    shared = shared or above.st_mode & 0o002
    target = path if installation.real and shared else path.resolve()
    try:
        descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        raise ConfigError(
            f"{path}: is a symbolic link in a folder that others than root can write",
            "Remove it. For another place set WORK_FOLDER or LOG_FOLDER in conf.json.",
        ) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)
