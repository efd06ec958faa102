"""MY_INSTANCES and the keys that hold as many paths: which of them belongs to which server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tools.base import permissions
from tools.base.errors import ConfigError

# Whom a server usually runs as: it reads all that the login may read, and more.
_SERVER_USERS = ("mysql", "mariadb")
CREDENTIALS = Path("/etc/nc-backup-py/mysql_backup.creds")


def check_path_count(key: str, paths: Sequence[Path], ports: Sequence[int]) -> None:
    """Raises ConfigError where a key has neither one path, nor one for each port, nor none."""
    if len(paths) not in (0, 1, len(ports)):
        raise ConfigError(
            f"{key}: {len(paths)} paths for {len(ports)} ports",
            "Give one path per port in MY_INSTANCES, or one path for all.",
        )


def path_for(paths: Sequence[Path], number: int) -> Path | None:
    """The path that belongs to the server of this number."""
    return paths[number % len(paths)].absolute() if paths else None


def credentials_for(paths: Sequence[Path], number: int) -> Path:
    """The option file of a server. Raises ConfigError where it is not there, or others read it."""
    path = path_for(paths, number)
    if path is None or not path.is_file():
        raise ConfigError(
            f"CREDENTIAL_PATH: {path}: no such file",
            "Create it (owner root, group of the backup user, mode 0640) with [mysqldump] and "
            "[mysql], each with user and password.",
        )
    permissions.check_secret("CREDENTIAL_PATH", path, _SERVER_USERS)
    return path
