"""Keys with one path per port of MY_INSTANCES: which path belongs to which server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tools.base import permissions
from tools.base.errors import ConfigError

# Users as whom servers run: they can read all that the login can read, and more.
_SERVER_USERS = ("mysql", "mariadb")
CREDENTIALS = Path("/etc/nc-backup-py/mysql_backup.creds")


def check_path_count(key: str, paths: Sequence[Path], ports: Sequence[int]) -> None:
    """Raise ConfigError if a key has neither no path, nor one, nor one per port."""
    if len(paths) not in (0, 1, len(ports)):
        raise ConfigError(
            f"{key}: {len(paths)} paths for {len(ports)} ports",
            "Give one path per port in MY_INSTANCES, or one path for all.",
        )


def path_for(paths: Sequence[Path], number: int) -> Path | None:
    """Return the path of the server with this index."""
    return paths[number % len(paths)].absolute() if paths else None


def credentials_for(paths: Sequence[Path], number: int) -> Path:
    """Return the option file of a server. Raises ConfigError if it is missing or not private."""
    path = path_for(paths, number)
    if path is None or not path.is_file():
        raise ConfigError(
            f"CREDENTIAL_PATH: {path}: no such file",
            "Create it (owner root, group of the backup user, mode 0640) with [mysqldump] and "
            "[mysql], each with user and password.",
        )
    permissions.check_secret("CREDENTIAL_PATH", path, _SERVER_USERS)
    return path
