"""The layout of an installed nc-backup-py, and the options of an installation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tools.base import capability, project
from tools.base.errors import BackupError
from tools.base.permissions import BACKUP_USER

USER = BACKUP_USER  # and the name of its group
CODE = str(project.INSTALLED)
RELEASES = f"{CODE}-releases"
CONFIG_FOLDER = "/etc/nc-backup-py"
CONFIG = f"{CONFIG_FOLDER}/conf.json"
KEY_FILE = f"{CONFIG_FOLDER}/key_file"  # recipients and signers, for the nightly run
IDENTITY_FILE = f"{KEY_FILE}.identity"  # the private key, for a restore by root
WRITER_KEY = f"{CONFIG_FOLDER}/writer.key"
HOME = "/opt/backup"  # of the user, and the work folder
LOG_FOLDER = "/var/log/nc-backup-py"
PRIVATE_TAR = str(capability.TAR)


@dataclass(frozen=True)
class Installation:
    """What is installed, from where, and how.

    source:   folder with the code: a clone, or an unpacked archive
    python:   the Python that makes the private environment
    prefix:   the folder that stands for /; paths inside files are written without it
    wheels:   folder with wheels, instead of downloads; None: download
    schedule: value of --schedule; "": not given
    dry_run:  only say what would be done
    yes:      answer each question with yes
    purge:    uninstall: remove config, keys, work folder and logs as well, never a store
    notices:  lines that are printed at the end, a failed run included
    errors:   what was asked for and is not possible, beside steps that stand: exit code 1
    """

    source: Path
    python: Path
    prefix: Path = Path("/")
    wheels: Path | None = None
    schedule: str = ""
    dry_run: bool = False
    yes: bool = False
    purge: bool = False
    notices: list[str] = field(default_factory=list)
    errors: list[BackupError] = field(default_factory=list)

    def at(self, path: str) -> Path:
        """Return an absolute path of the layout below the prefix."""
        return self.prefix / path.lstrip("/")

    def notice(self, line: str) -> None:
        """Print a line at the end, once."""
        if line not in self.notices:
            self.notices.append(line)

    @property
    def real(self) -> bool:
        """Return whether this is the running system, whose users and daemons may be changed."""
        return self.prefix == Path("/")
