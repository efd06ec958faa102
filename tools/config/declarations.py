"""What conf.json may hold: the keys of GENERAL and those of any section."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tools import requests_utils
from tools.base.errors import ConfigError
from tools.modules import options
from tools.modules.options import Duration, option

INTERPRETER = "python"
_LONGEST_NAME = 200  # bytes; most file systems take 255
_PLACEHOLDER = re.compile(r"<[^<>]*>")  # as in https://backupreporter.<your domain>.com
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Stream(Enum):
    """How the data of a run flow; spelt like the other booleans."""

    AUTO = "auto"
    TRUE = "True"
    FALSE = "False"

    @classmethod
    def _missing_(cls, value: object) -> Stream | None:
        spelt = {"true": cls.TRUE, "1": cls.TRUE, "yes": cls.TRUE}
        spelt |= {"false": cls.FALSE, "0": cls.FALSE, "no": cls.FALSE}
        return spelt.get(str(value).lower())


@dataclass(frozen=True)
class General:
    """The keys of GENERAL."""

    hostname: str = option("name of this server; the folder of its backups in every store")
    work_folder: Path = option("temporary work", default=Path("/opt/backup"))
    local_backup: Path | None = option("folder of the local store", default=None)
    home_folder: Path = option("where the code is; default: where this program is", default=None)
    log_folder: Path = option(
        "log file, or folder of logs", default=Path("/var/log/nc-backup-py/nc-backup-py.log")
    )
    log_size: int = option(
        "MiB of one log file before it is put aside", default=10, least=1, unit="MiB"
    )
    log_files: int = option("how many of those are kept", default=10, least=1)
    disk_space_check: bool = option(
        "look at the partition of WORK_FOLDER before each section", default=True
    )
    disk_space_threshold: float = option(
        "percent free: below it a warning, below half an error, below a tenth the run stops",
        default=20.0,
        least=0,
    )
    message_config_command: str = option(
        "address of the report server; without it no report is sent", default=""
    )
    message_config_method: str = option(
        "how reports are sent; only post is known", default="post", empty=True
    )
    message_config_wait: Duration = option(
        "seconds before a report's second try; each wait is longer than the last",
        default=Duration(5.0),
    )
    max_runtime: Duration | None = option("how long a run may take (90, 30m, 12h)", default=None)
    allow_root: bool = option("run as root all the same (for containers)", default=False)
    stream: Stream = option(
        "`True`: every item flows from its source through the stages into all stores, without "
        "files in between; `False`: a staged run; `auto`: streamed where nothing is lost by it",
        default=Stream.AUTO,
    )
    parallel: int = option("streamed: how many items flow at a time", default=1, least=1)
    stall_timeout: Duration | None = option(
        "streamed: a source of which nothing comes for so long is ended (90, 30m, 12h)",
        default=None,
    )
    shrink_check: bool = option(
        "compare each item with the last good run: below half of its size a warning, below a "
        "tenth a failure (is a disk not mounted?)",
        default=True,
    )
    leftovers_age: Duration = option(
        "how old what dead runs of this host left in a store must be to be removed",
        default=Duration(86400.0),
    )

    machine_id: str = option(
        "name of this machine in manifests, for containers; default: from /etc/machine-id",
        default="",
    )

    def __post_init__(self) -> None:
        self._check_names()
        self._check_report()
        for key, folder in (("WORK_FOLDER", self.work_folder), ("LOCAL_BACKUP", self.local_backup)):
            if folder == Path("/"):
                raise ConfigError(f"{key}: / cannot be it", "Name a folder of its own.")
        _refuse_zero("MAX_RUNTIME", self.max_runtime)
        _refuse_zero("STALL_TIMEOUT", self.stall_timeout)
        if self.disk_space_threshold > 100:  # noqa: PLR2004  (percent)
            raise ConfigError(
                "DISK_SPACE_THRESHOLD: more than 100 percent cannot be free",
                "Set a number from 0 to 100.",
            )

    def _check_names(self) -> None:
        if self.machine_id and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.machine_id):
            raise ConfigError(
                f"MACHINE_ID: {self.machine_id!r} is not a machine id",
                "Use 1 to 64 letters, digits, dots, hyphens and underscores.",
            )
        if not self.hostname.strip() or re.search(r"[/\x00-\x1f\x7f]", self.hostname):
            raise ConfigError("HOSTNAME: must be a name without / and control characters")
        if self.hostname.strip(". ") == "" or self.hostname.startswith("-"):
            raise ConfigError(f"HOSTNAME: {self.hostname!r} cannot be the name of a folder")
        if len(os.fsencode(self.hostname)) > _LONGEST_NAME:
            raise ConfigError("HOSTNAME: is too long for the name of a folder")

    def _check_report(self) -> None:
        if self.message_config_method.lower() != "post":
            raise ConfigError(
                f"MESSAGE_CONFIG_METHOD: {self.message_config_method!r} is not known", 'Use "post".'
            )
        if placeholder(self.message_config_command):
            raise ConfigError(
                f"MESSAGE_CONFIG_COMMAND: {self.message_config_command!r} is a placeholder",
                "Set the address of your report server, or remove the key to send no reports.",
            )
        if self.message_config_command:
            requests_utils.check_address(self.message_config_command, "MESSAGE_CONFIG_COMMAND")


@dataclass(frozen=True)
class SectionKeys:
    """The keys of any other section."""

    action: str = option("`execute`: spawn a program; `load`: run a plugin class")
    name: str = option("execute: folder of the module", default="")
    executable: str = option("execute: file in that folder; default NAME.py", default="")
    execute_with: str = option(
        "execute: interpreter (bash, perl, php ...)", default=INTERPRETER, empty=True
    )
    from_: str = option("load: folder", default="")
    filename: str = option("load: file without .py", default="")
    class_: str = option("load: class", default="")
    parameters: str = option("what is handed to the module", default="")
    parameters_mode: str = option("`flat`: the values alone, without --KEY", default="")
    needs: options.Words = option("sections that must not have failed", default=())
    on_error: str = option("`stop`: no section runs after this one failed", default="continue")
    timeout: Duration | None = option("how long it may take (90, 30m, 12h)", default=None)
    environment: options.Words = option("names of variables that are handed on", default=())
    stream: str = option(
        "a module of your own in a streamed run: `source`, `filter` or `store`", default=""
    )

    def __post_init__(self) -> None:
        _refuse_zero("TIMEOUT", self.timeout)
        for name in self.environment:
            if not _VARIABLE.fullmatch(name):
                raise ConfigError(f"ENVIRONMENT: {name!r} is no name of a variable")
        try:
            words = shlex.split(self.execute_with)
        except ValueError:
            words = []
        if not words:
            raise ConfigError(
                f"EXECUTE_WITH: {self.execute_with!r} is no interpreter", "Like bash or perl."
            )


def placeholder(text: str) -> bool:
    """Return whether a value is one that the documented templates ask the user to change."""
    return bool(_PLACEHOLDER.search(text))


def _refuse_zero(key: str, limit: float | None) -> None:
    if limit == 0:
        raise ConfigError(f"{key}: 0 would end it at once", "Leave it out for no limit.")


# The keys of GENERAL that report channels need; read even if the config is wrong elsewhere.
REPORT_KEYS = ("HOSTNAME", "MESSAGE_CONFIG_COMMAND", "WORK_FOLDER")
SECTION_KEYS = tuple(f.name.upper().rstrip("_") for f in dataclasses.fields(SectionKeys))
