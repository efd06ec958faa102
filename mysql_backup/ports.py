"""MY_INSTANCES and the keys that hold as many paths: which of them belongs to which server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tools.base import permissions
from tools.base.errors import ConfigError

# Whom a server usually runs as: it reads all that the login may read, and more.
_SERVER_USERS = ("mysql", "mariadb")
CREDENTIALS = Path("/etc/nc-backup-py/mysql_backup.creds")


def each(key: str, given: Sequence[Path], found: Sequence[int]) -> None:
    """Raises ConfigError where a key has neither one path, nor one for each port, nor none."""
    if len(given) not in (0, 1, len(found)):
        raise ConfigError(
            f"{key}: {len(given)} paths for {len(found)} ports",
            "Give one path per port in MY_INSTANCES, or one path for all.",
        )


def of(given: Sequence[Path], number: int) -> Path | None:
    """The path that belongs to the server of this number."""
    return given[number % len(given)].absolute() if given else None


def credentials(given: Sequence[Path], number: int) -> Path:
    """The option file of a server. Raises ConfigError where it is not there, or others read it."""
    found = of(given, number)
    if found is None or not found.is_file():
        raise ConfigError(
            f"CREDENTIAL_PATH: {found}: no such file",
            "Create it (owner root, group of the backup user, mode 0640) with [mysqldump] and "
            "[mysql], each with user and password.",
        )
    permissions.check_secret("CREDENTIAL_PATH", found, _SERVER_USERS)
    return found
