"""The keys that every storage section has, whatever its DESTINATION."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tools.base import host_name
from tools.base.errors import ConfigError
from tools.modules.options import Duration, Paths, Size, option

_ACTIONS = ("upload", "list", "size", "check")
_ADDRESS = re.compile(
    r"(?:([^@:/]+)@)?(?:\[([0-9A-Fa-f:.]+)\]|([^@:/\[\]]*))(?::([0-9]{1,5}))?(?:/(.*))?", re.S
)


@dataclass(frozen=True)
class Address:
    """Where a store lies, as `--store` names it: DESTINATION://[USER@]HOST[:PORT]/PATH.

    host:     host name, or bucket
    path:     without the slash at either end
    absolute: whether the path begins with one more slash
    endpoint: URL of the server, where the address does not say it; "" for the usual one
    """

    host: str
    path: str = ""
    user: str = ""
    port: int | None = None
    endpoint: str = ""
    absolute: bool = False

    @classmethod
    def parse(cls, text: str, endpoint: str = "") -> Address:
        """Return the parts of what follows `://`; % is not special. Raises ConfigError."""
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise ConfigError(
                "--store: not an address of a store",
                "Write s3://BUCKET/PREFIX or ssh://USER@HOST:PORT/FOLDER, without a password.",
            )
        user, bracketed, host, port, path = match.groups(default="")
        number = int(port) if port else None
        absolute = path.startswith("/")
        return cls(bracketed or host, path.strip("/"), user, number, endpoint, absolute)


@dataclass(frozen=True)
class StorageKeys:
    """The keys of every storage section; the file of each store adds its own."""

    hostname: str = option("name of this server; folder of its backups in the store")
    destination: str = option(
        "type of store: `local`, `s3`, `oss`, `ssh`, `rclone` or `command`", default="local"
    )
    targets: Paths = option(
        "files and folders to store; default WORK_FOLDER/encrypted",
        default=(),
        aliases=("OBJECTIVES",),
    )
    remove_targets: bool = option(
        "remove the originals after every store of the run has confirmed them",
        default=True,
        aliases=("REMOVE_OBJECTIVES",),
    )
    retry_wait: Duration = option(
        "seconds before the second of five attempts; each wait is longer than the last",
        default=Duration(5.0),
    )
    stall_timeout: Duration = option(
        "end the section if the store takes no data for this long; a streamed run ends the item",
        default=Duration(3600.0),
        least=1,
    )
    limit_upload: Size | None = option(
        "bytes a second that are sent at most (`500K`, `5M`); a run sets the total of all stores",
        default=None,
        least=1024,
    )
    limit_download: Size | None = option(
        "the same for what is read from the store", default=None, least=1024
    )
    action: str = option(
        "of the command line: `upload`, `list`, `size` or `check`; a section always uploads",
        default="upload",
    )
    work_folder: Path = option("folder for temporary files", default=Path("/opt/backup"))

    def __post_init__(self) -> None:
        if self.action not in _ACTIONS:
            raise ConfigError(
                f"ACTION: {self.action!r}: invalid value", f"Choose from: {', '.join(_ACTIONS)}."
            )
        host_name.check(self.hostname)
