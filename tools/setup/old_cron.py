"""Lines of cron that start a backup: those of the documented system, written by hand."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.base import foreign
from tools.setup import schedule_files
from tools.setup.installation import USER, Installation
from tools.setup.schedule_files import Time

# A user's own lines, by distribution; there a file is named after its user.
_USER_TABLES = ("/var/spool/cron/crontabs", "/var/spool/cron/tabs", "/var/spool/cron")
_SYSTEM = ("/etc/crontab", "/etc/cron.d")  # their lines have a field with the user
_TRUSTED = ("", "root", USER)  # users whose lines count
_BACKUP = re.compile(r"\bbackup\.py['\"]?\s(?=.*\s?-(r|-run)\b)(?=.*-(c|-config)\b)")
_LONGEST = 1 << 20  # bytes of a file of cron that are looked at


@dataclass(frozen=True)
class Line:
    """A line of cron that starts a backup."""

    path: Path
    number: int  # from 1
    text: str
    user: str = ""  # whose own file it is; "" for a file of the system

    @property
    def config(self) -> str:
        """Return the path of its config; "" if it names none."""
        try:
            arguments = shlex.split(self.text)
        except ValueError:
            arguments = self.text.split()
        positions = [at for at, word in enumerate(arguments[:-1]) if word in ("-c", "--config")]
        return arguments[positions[-1] + 1] if positions else ""

    @property
    def time(self) -> Time | None:
        """Return its time, if it runs once every day."""
        match = re.match(r"\s*(\d{1,2})\s+(\d{1,2})\s+\*\s+\*\s+\*\s", self.text)
        return Time(int(match[2]), int(match[1])) if match else None

    def __str__(self) -> str:
        return f"{self.path}:{self.number}: {foreign.line(self.text.strip())}"


def lines(installation: Installation) -> list[Line]:
    """Return the lines of root and of the user of the backup that start it, but that of setup.py.

    Any user can write any line: it must not keep setup.py from a schedule of its own.
    """
    return [line for line in _every(installation) if line.user in _TRUSTED]


def lines_of_others(installation: Installation) -> list[Line]:
    """Return the lines of other users that seem to start a backup."""
    return [line for line in _every(installation) if line.user not in _TRUSTED]


def _every(installation: Installation) -> list[Line]:
    schedule_file = installation.at(schedule_files.CRON)
    return [
        Line(path, number, line, user)
        for path, user in _files(installation)
        if path != schedule_file
        for number, line in enumerate(_lines(path), 1)
        if not line.lstrip().startswith("#") and _BACKUP.search(line)
    ]


def _files(installation: Installation) -> Iterator[tuple[Path, str]]:
    """Yield each file of cron, and the user whose own it is."""
    for name in (*_USER_TABLES, *_SYSTEM):
        table = installation.at(name)
        try:
            paths = sorted(table.iterdir()) if table.is_dir() else [table]
        except OSError:  # not for this user
            continue
        for file in paths:
            if file.is_file() and not file.is_symlink():
                yield file, file.name if name in _USER_TABLES else ""


def _lines(path: Path) -> list[str]:
    try:
        return foreign.lines(foreign.decoded(foreign.beginning(path, _LONGEST)))
    except OSError:
        return []


def without(path: Path, removed: Collection[Line]) -> None:
    """Remove lines of a file in one rename: owner and mode stay. Raises OSError."""
    numbers = {line.number for line in removed}
    lines = path.read_bytes().split(b"\n")
    about = path.stat()
    descriptor, name = tempfile.mkstemp(prefix=".nc-backup-py.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"\n".join(line for at, line in enumerate(lines, 1) if at not in numbers))
        os.chown(temporary, about.st_uid, about.st_gid)
        temporary.chmod(about.st_mode & 0o7777)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
