"""The copy of tar that may read every file: made, renewed, and tried as the user of the backup.

Its capability is an extended attribute of the file (capabilities(7), "File capabilities"), which
is written here without a program of the system.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools import filesystem_handling
from tools.base import capability, fixed_tar, foreign
from tools.base.errors import BackupError
from tools.base.finding import Finding, warning
from tools.base.removal import private
from tools.setup import account, folders, labels
from tools.setup.installation import PRIVATE_TAR, USER, Installation
from tools.setup.steps import Step

EARLIER = "/usr/local/libexec/nc-backup/tar"  # where earlier docs had it
ATTRIBUTE = "security.capability"
# struct vfs_cap_data of linux/capability.h: revision 2, effective; permitted, inheritable, 0, 0
_VALUE = struct.pack("<5I", 0x02000001, capability.MASK, 0, 0, 0)
_REVISION = slice(3, 4)  # 2, or 3 in a user namespace, whose root it belongs to
_PERMITTED = slice(4, 20)
_ACCESS = folders.Access(0o750, group=True)
_MOUNTS = Path("/proc/self/mountinfo")
_WITHOUT = "tar cannot have a capability here"


def steps(installation: Installation) -> Iterator[Step]:
    """Yield the steps that make the copy, where this is the running system and files can have one.

    Where it cannot work it is no error: sudoers.py has another way then.
    """
    if not installation.real:
        return
    copy = Path(PRIVATE_TAR)
    yield folders.step(str(copy.parent), folders.Access(0o755), installation)
    if obstacle := impossible(copy):
        installation.notice(f"warning: {copy}: {obstacle}")
        return
    yield Step(
        str(copy),
        f"copy {fixed_tar.program()} there, {_ACCESS}, cap_dac_read_search",
        lambda: _outdated(copy, installation),
        lambda: _make_if_possible(copy, installation),
    )
    yield from _removal(Path(EARLIER), f"{copy} replaces it")


def removal(installation: Installation) -> Iterator[Step]:
    """Yield the steps that remove the copy."""
    if installation.real:
        yield from _removal(Path(PRIVATE_TAR), "it exists")
        yield from _removal(Path(EARLIER), "it exists")


def _removal(copy: Path, why: str) -> Iterator[Step]:
    def perform() -> None:
        copy.unlink()
        with contextlib.suppress(OSError):  # other files are in it
            copy.parent.rmdir()

    if filesystem_handling.exists(copy):
        yield Step(str(copy), "remove it", lambda: why, perform)


def impossible(copy: Path) -> str:
    """Return why no file beside the copy can have a capability; "" if one can."""
    folder = next(one for one in copy.parents if one.is_dir())
    flags = os.statvfs(folder).f_flag
    mount = mount_point(folder)
    for flag, option in ((os.ST_NOSUID, "nosuid"), (os.ST_NOEXEC, "noexec")):
        if flags & flag:
            return (
                f"{_WITHOUT}: {mount} is mounted with {option}; allow it with: "
                f"mount -o remount,{option.removeprefix('no')} {mount} (and in /etc/fstab)"
            )
    try:
        os.listxattr(folder)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return f"{_WITHOUT}: the file system of {folder} has no extended attributes"
    return ""


def mount_point(path: Path) -> Path:
    """Return the folder on which the file system of a path is mounted.

    Source: proc(5), mountinfo: the fifth field, octal where it has spaces; later mounts last.
    """
    lines = foreign.lines(foreign.decoded(_MOUNTS.read_bytes()))
    points = [Path(re.sub(r"\\(\d{3})", _octal, line.split()[4])) for line in lines]
    above = [point for point in points if path.is_relative_to(point)]
    return max(above, key=lambda point: len(point.parts), default=Path("/"))


def _octal(match: re.Match[str]) -> str:
    return chr(int(match[1], 8))


def _outdated(copy: Path, installation: Installation) -> str:
    """Return why the copy must be made again; "" if it is right, and works."""
    if not filesystem_handling.exists(copy):
        return "it does not exist"
    if copy.is_symlink() or not copy.is_file():
        return "it is not a file"
    if difference := _ACCESS.difference(copy, installation):
        return difference
    if _digest(copy) != _digest(Path(fixed_tar.program())):
        return f"{fixed_tar.program()} has changed"
    return _capability_problem(copy) or broken(copy)


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _capability_problem(copy: Path) -> str:
    try:
        value = os.getxattr(copy, ATTRIBUTE)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return "it has lost its capability (cp -a and backups without xattrs do that)"
        raise
    if value[_REVISION] not in (b"\x02", b"\x03") or value[_PERMITTED] != _VALUE[_PERMITTED]:
        return "it has other capabilities than cap_dac_read_search"
    return ""


def _make_if_possible(copy: Path, installation: Installation) -> None:
    try:
        _make(copy, installation)
    except BackupError as error:  # sudoers.py is another way
        installation.notice(f"warning: {error}\nhint: {error.hint}")


def _make(copy: Path, installation: Installation) -> None:
    """Write the copy under a temporary name, give it owner and capability, try it, and rename it.

    Raises BackupError where it does not work; the one that was there is kept then.
    """
    descriptor, name = tempfile.mkstemp(prefix=".tar-", dir=copy.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(Path(fixed_tar.program()).read_bytes())
        _ACCESS.apply(temporary, installation)
        _give(temporary)  # a change of the owner would take it away
        if problem := broken(temporary):
            raise BackupError(f"{copy}: {problem}", _hint())
        temporary.rename(copy)
        labels.restore(copy)
    finally:
        temporary.unlink(missing_ok=True)


def _give(path: Path) -> None:
    try:
        os.setxattr(path, ATTRIBUTE, _VALUE)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BackupError(f"{path.parent}: {_WITHOUT}: {reason}", _hint()) from None


def _hint() -> str:
    return (
        "Allow it (a container needs the capabilities SETFCAP and DAC_READ_SEARCH, and no "
        "no-new-privileges), then run this again."
    )


def broken(copy: Path) -> str:
    """Return why the user of the backup cannot read a file of root's with the copy; "" if it can.

    This tries what counts: it starts the copy as that user.
    """
    uid, gid = account.identifiers()
    with private(Path(tempfile.gettempdir()), "nc-backup-") as folder:
        secret = folder / "secret"  # of root's, in a folder of root's
        secret.write_text("read", "ascii")
        secret.chmod(0o600)
        command = [str(copy), "--create", "--file=-", "--directory=/", str(secret)[1:]]
        try:
            done = subprocess.run(
                command,
                env={"LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                user=uid,
                group=gid,
                extra_groups=[],
                start_new_session=True,  # it gets no terminal of root's
            )
        except OSError as error:
            return f"{USER} cannot start it: {(error.strerror or str(error)).lower()}"
    if done.returncode == 0:
        return ""
    last = foreign.decoded(done.stderr).strip().partition("\n")[0]
    return f"{USER} cannot read a file of root with it: {foreign.line(last)}"


def findings(installation: Installation) -> list[Finding]:
    """Return why the copy cannot work here; elsewhere the steps report its faults."""
    copy = Path(PRIVATE_TAR)
    if not installation.real or not (obstacle := impossible(copy)):
        return []
    hint = "Or use a timer, or the rule of sudoers: docs/privileges.md"
    return [warning(f"{copy}: {obstacle}", hint)]
