"""The keys that every storage section has, whatever its DESTINATION."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tools.base.errors import ConfigError
from tools.modules.options import Duration, Paths, option

_NOT_IMPLEMENTED = (
    "upload_command", "upload_command_template", "args_dict", "bucket_name", "aliyun_credentials"
)  # fmt: skip


@dataclass(frozen=True)
class StorageKeys:
    """The keys of every storage section; the file of each store adds its own."""

    hostname: str = option("name of this server; folder of its backups in the store")
    destination: str = option("type of store: `local`", default="local")
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
    bucket_name: str = option("not implemented yet (rejected)", default="")
    aliyun_credentials: str = option("not implemented yet (rejected)", default="")
    upload_command: str = option("not implemented yet (rejected)", default="")
    upload_command_template: str = option("not implemented yet (rejected)", default="")
    args_dict: str = option("not implemented yet (rejected)", default="")
    work_folder: Path = option("folder for temporary files", default=Path("/opt/backup"))

    def __post_init__(self) -> None:
        for name in _NOT_IMPLEMENTED:
            if getattr(self, name):
                raise ConfigError(
                    f"{name.upper()}: not implemented yet",
                    f"Available: DESTINATION {self.destination}.",
                )
        if "/" in self.hostname or self.hostname in ("", ".", ".."):
            raise ConfigError(f"HOSTNAME: {self.hostname!r}: not usable as a folder name")
