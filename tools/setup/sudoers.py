"""The exact line of sudoers: how tar reads every file where no file can have a capability.

Why it is exact: with any wildcard behind tar, its options --checkpoint-action, --to-command,
--file, --index-file or --remove-files give a shell of root's, or write files of root's.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools import filesystem_handling
from tools.base import fixed_tar
from tools.base.errors import BackupError
from tools.base.removal import tree
from tools.setup import account, folders, labels, private_tar, programs
from tools.setup.installation import PRIVATE_TAR, USER, Installation
from tools.setup.steps import Step

FILE = "/etc/sudoers.d/nc-backup-py"
_ALIAS = "NC_BACKUP_TAR"
_FOLDER = folders.Access(0o750, group=True)
_FILLED = folders.Access(0o660, group=True)  # by the user of the backup, who cannot replace it
_OLDEST = (1, 29)  # of GNU tar: --null implies --verbatim-files-from


def text() -> str:
    """Return the content of the file."""
    lines = [_line(single) for single in (False, True)]
    return f"""# nc-backup-py: tar as root, with these arguments alone. Written by setup.py; see
# docs/privileges.md. Never add a wildcard: any option of tar's may be a shell of root's.
Cmnd_Alias {_ALIAS} = \\
    {lines[0]}, \\
    {lines[1]}
Defaults!{_ALIAS} env_reset, !setenv, !requiretty, umask=0077
{USER} ALL=(root) NOPASSWD:NOEXEC:NOSETENV: {_ALIAS}
"""


def _line(single: bool) -> str:
    command = [fixed_tar.program(), *fixed_tar.sudo_arguments(single=single)]
    return " ".join(re.sub(r"([,:=\\*?\[\]])", r"\\\1", word) for word in command)


def steps(installation: Installation) -> Iterator[Step]:
    """Yield the steps that write it where tar's copy cannot work, and that remove it elsewhere."""
    if not installation.real:
        return
    copy = Path(PRIVATE_TAR)
    if not private_tar.impossible(copy) and (installation.dry_run or not private_tar.broken(copy)):
        yield from removal(installation)
        return
    if problem := _unusable():
        installation.notice(f"warning: {FILE}: not written: {problem}")
        return
    folder = str(fixed_tar.EXCLUDES)
    yield folders.step(folder, _FOLDER, installation)
    for name in (*fixed_tar.MODES, fixed_tar.LOCK):
        yield _empty_file(fixed_tar.EXCLUDES / name, installation)
    path = Path(FILE)
    yield Step(
        FILE,
        f"let {USER} run tar as root with fixed arguments",
        lambda: "" if path.is_file() and _read(path) == text() else _why(path),
        lambda: _write(path),
    )


def removal(installation: Installation) -> Iterator[Step]:
    """Yield the steps that remove it."""
    if not installation.real:
        return
    for path in (Path(FILE), fixed_tar.EXCLUDES):
        if path.exists():
            perform = functools.partial(_remove, path)
            yield Step(str(path), "remove it", lambda: "it is not needed", perform)


def _remove(path: Path) -> None:
    if path.is_dir():
        tree(path)
    else:
        path.unlink()


def _why(path: Path) -> str:
    return "it has changed" if path.exists() else "it does not exist"


def _read(path: Path) -> str:
    return path.read_text("utf-8", "replace")


def _unusable() -> str:
    """Return why sudo is no way here; "" if it is."""
    if shutil.which("visudo", path=programs.PATH) is None:
        return "sudo is not installed"
    version = programs.run([fixed_tar.program(), "--version"]).partition("\n")[0]
    numbers = re.search(r"GNU tar\) (\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < _OLDEST:
        return f"it needs GNU tar {'.'.join(map(str, _OLDEST))} or later"
    return ""


def _empty_file(path: Path, installation: Installation) -> Step:
    def reason() -> str:
        if not filesystem_handling.exists(path):
            return "it does not exist"
        if path.is_symlink() or not path.is_file():
            return "it is not a file"
        return _FILLED.difference(path, installation)

    def perform() -> None:
        path.unlink(missing_ok=True)
        path.touch(0o600, exist_ok=False)
        _FILLED.apply(path, installation)

    return Step(str(path), f"make it an empty file, {_FILLED}", reason, perform)


def _write(path: Path) -> None:
    """Put the file in its place when visudo has accepted it, and sudo the line for the user."""
    replace(path, text().encode())
    account.identifiers()
    command = ["sudo", "-n", "-l", "-U", USER, fixed_tar.program()]
    try:
        programs.run([*command, *fixed_tar.sudo_arguments(single=False)], f"{path}: sudo denies it")
    except BackupError:
        path.unlink()
        raise


def replace(path: Path, content: bytes) -> None:
    """Replace a file of sudoers, mode 0440, if visudo accepts the new content.

    Raises BackupError; the file is unchanged then.
    """
    descriptor, name = tempfile.mkstemp(prefix=".nc-backup-py.", dir=path.parent)
    temporary = Path(name)  # sudo ignores names with a dot
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        temporary.chmod(0o440)
        programs.run(["visudo", "-cf", temporary], f"{path}: visudo rejects the new content")
        temporary.rename(path)
        labels.restore(path)
    finally:
        temporary.unlink(missing_ok=True)
