"""The keys of conf.json: those of GENERAL and those of every other section."""

from __future__ import annotations

import dataclasses
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tools import requests_utils
from tools.base import host_name, system_log
from tools.base.errors import ConfigError
from tools.modules import options
from tools.modules.json_values import Switch
from tools.modules.options import Commands, Duration, Size, Strings, option

INTERPRETER = "python"
_PLACEHOLDER = re.compile(r"<[^<>]*>")  # as in https://backupreporter.<your domain>.com
_NICEST = 19
_IONICE = re.compile(r"idle|best-effort(?::[0-7])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Hooks:
    """Argument lists that are run before and after a run, or a section (docs/hooks.md)."""

    before: Commands = ()
    after: Commands = ()
    on_failure: Commands = ()
    finally_: Commands = ()

    def __bool__(self) -> bool:
        return bool(self.before or self.after or self.on_failure or self.finally_)


@dataclass(frozen=True)
class General:
    """The keys of GENERAL."""

    hostname: str = option("name of this server; folder of its backups in every store")
    work_folder: Path = option("folder for temporary files", default=Path("/opt/backup"))
    local_backup: Path | None = option("folder of the local store", default=None)
    home_folder: Path = option("folder of the code; default: where backup.py is", default=None)
    log_folder: Path = option(
        "log file, or folder for the log file",
        default=Path("/var/log/nc-backup-py/nc-backup-py.log"),
    )
    log_size: int = option(
        "size in MiB at which the log file is rotated", default=10, least=1, unit="MiB"
    )
    log_files: int = option("rotated log files to keep", default=10, least=1)
    log_to: Strings = option("where the log goes: `file`, `syslog`, `journald`", default=("file",))
    metrics_file: Path | None = option(
        "file with the figures of the last run, for the node exporter of Prometheus (`.prom`)",
        default=None,
    )
    disk_space_check: bool = option(
        "check the free space of WORK_FOLDER's file system before each section", default=True
    )
    disk_space_threshold: float = option(
        "free space in percent: below it a warning, below half an error, below a tenth the run "
        "stops",
        default=20.0,
        least=0,
    )
    message_config_command: str = option(
        "URL of the report server; without it no report is sent", default=""
    )
    message_config_method: str = option(
        "HTTP method of reports; only `post`", default="post", empty=True
    )
    message_config_wait: Duration = option(
        "seconds before the second attempt to send a report; each wait is longer than the last",
        default=Duration(5.0),
    )
    max_runtime: Duration | None = option("maximum duration of a run (90, 30m, 12h)", default=None)
    connect_wait: Duration = option(
        "how long a run waits at its beginning for stores and databases that cannot be reached yet "
        "(0, 30s, 10m)",
        default=Duration(600.0),
    )
    before: Commands = option("commands before the run (docs/hooks.md)", default=())
    after: Commands = option(
        "commands after a run that has stored (exit codes 0, 3 and 5)", default=()
    )
    on_failure: Commands = option("commands after a run that failed", default=())
    finally_: Commands = option("commands after every run, however it ended", default=())
    hook_timeout: Duration = option(
        "maximum duration of each of these commands, and of those of sections",
        default=Duration(300.0),
    )
    nice: int | None = option("scheduling priority of the run, 0 to 19 (nice)", default=None)
    ionice: str = option(
        "I/O priority of the run: `idle`, `best-effort`, or `best-effort:0` to `best-effort:7`",
        default="",
    )
    allow_root: bool = option("allow the run as root (for containers)", default=False)
    stream: Switch = option(
        "`True`: send every item from its source through all stages into all stores, without "
        "temporary files; `False`: a staged run; `auto`: streamed if nothing is lost by it",
        default=Switch.AUTO,
    )
    parallel: int = option("streamed runs: items processed at the same time", default=1, least=1)
    stall_timeout: Duration = option(
        "stop what moves no data for this long (90, 30m, 12h): an item of a streamed run, a staged "
        "run, a copy or a restore whose store is silent",
        default=Duration(3600.0),
    )
    limit_upload: Size | None = option(
        "bytes a second that a run sends at most, to all its stores together (`500K`, `5M`); local "
        "disks are not limited",
        default=None,
        least=1024,
    )
    limit_download: Size | None = option(
        "the same for what runs and restores read from stores", default=None, least=1024
    )
    shrink_check: bool = option(
        "compare each item with its last good copies; a suspicious one is a warning and freezes "
        "its clean-up ([history](history.md))",
        default=True,
    )
    anomaly_runs: int = option(
        "last good copies of an item whose median is its usual figure", default=7, least=1
    )
    anomaly_shrink: float = option(
        "percent of the usual size, or number of files, below which an item is suspicious; 0: off",
        default=50.0,
        least=0,
    )
    anomaly_ratio: float = option(
        "percentage points by which stored size to plaintext size may change before an item is "
        "suspicious: encrypted files do not compress; 0: off",
        default=30.0,
        least=0,
    )
    anomaly_growth: float = option(
        "times the usual size, or number of files, above which a run names an item; 0: off",
        default=10.0,
        least=0,
    )
    anomaly_duration: float = option(
        "times the usual duration above which a run names an item or a section; 0: off",
        default=5.0,
        least=0,
    )
    leftovers_age: Duration = option(
        "age in seconds after which files of crashed runs of this host are removed from a store",
        default=Duration(86400.0),
    )

    writer_key: Path = option(
        "key to sign the manifests of this host; without the file they are not signed",
        default=Path("/etc/nc-backup-py/writer.key"),
    )
    signers: Path | None = option(
        "file of allowed_signers lines, or key file that names signers in comments: whose "
        "manifests are trusted, beside those of WRITER_KEY",
        default=None,
    )

    machine_id: str = option(
        "name of this machine in manifests, for containers; default: from /etc/machine-id",
        default="",
    )

    def __post_init__(self) -> None:
        self._check_names()
        self._check_report()
        self._check_outputs()
        for key, folder in (("WORK_FOLDER", self.work_folder), ("LOCAL_BACKUP", self.local_backup)):
            if folder == Path("/"):
                raise ConfigError(
                    f"{key}: / is not allowed", f"Set {key} to a folder that nothing else uses."
                )
        _refuse_zero("MAX_RUNTIME", self.max_runtime)
        _refuse_zero("HOOK_TIMEOUT", self.hook_timeout, "Set a long time, for example 12h.")
        self._check_priority()
        _check_shrink(self.anomaly_shrink)
        _refuse_zero("STALL_TIMEOUT", self.stall_timeout, "Set a long time, for example 30d.")
        if self.disk_space_threshold > 100:  # noqa: PLR2004  (percent)
            raise ConfigError(
                "DISK_SPACE_THRESHOLD: must be between 0 and 100",
                "Set a number from 0 to 100.",
            )

    @property
    def hooks(self) -> Hooks:
        """Return the commands before and after the run."""
        return Hooks(self.before, self.after, self.on_failure, self.finally_)

    def _check_priority(self) -> None:
        if self.nice is not None and not 0 <= self.nice <= _NICEST:
            raise ConfigError(f"NICE: {self.nice}: must be between 0 and 19", "Set 10, or 19.")
        if self.ionice and not _IONICE.fullmatch(self.ionice):
            raise ConfigError(
                f"IONICE: {self.ionice!r}: invalid priority",
                "Set idle, best-effort, or best-effort:0 to best-effort:7.",
            )

    def _check_names(self) -> None:
        if self.machine_id and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.machine_id):
            raise ConfigError(
                f"MACHINE_ID: {self.machine_id!r}: invalid machine ID",
                "Use 1 to 64 letters, digits, dots, hyphens and underscores.",
            )
        host_name.check(self.hostname)

    def _check_outputs(self) -> None:
        for word in self.log_to:
            if word not in system_log.TARGETS:
                raise ConfigError(
                    f"LOG_TO: {word!r}: unknown target",
                    f"Choose from: {', '.join(system_log.TARGETS)}.",
                )
        if self.metrics_file is not None and self.metrics_file.suffix != ".prom":
            raise ConfigError(
                f"METRICS_FILE: {self.metrics_file}: does not end in .prom",
                "The node exporter reads no other files.",
            )

    def _check_report(self) -> None:
        if self.message_config_method.lower() != "post":
            raise ConfigError(
                f"MESSAGE_CONFIG_METHOD: {self.message_config_method!r}: must be post",
                'Use "post", or remove the key.',
            )
        if placeholder(self.message_config_command):
            raise ConfigError(
                "MESSAGE_CONFIG_COMMAND: is a placeholder",
                "Set the URL of your report server, or remove the key to send no reports.",
            )
        if self.message_config_command:
            requests_utils.check_address(self.message_config_command, "MESSAGE_CONFIG_COMMAND")


@dataclass(frozen=True)
class SectionKeys:
    """The keys of any other section."""

    action: str = option("`execute`: run a program; `load`: run a plugin class")
    name: str = option("execute: folder of the module", default="")
    executable: str = option("execute: file in that folder; default NAME.py", default="")
    execute_with: str = option(
        "execute: interpreter (python, bash, perl, php ...); if it is not set, a binary or a "
        "script whose `#!` line does not name Python is started directly",
        default=INTERPRETER,
        empty=True,
    )
    from_: str = option("load: folder of the plugin", default="")
    filename: str = option("load: file name without .py", default="")
    class_: str = option("load: class name", default="")
    parameters: str = option("keys and values for the module", default="")
    parameters_mode: str = option("`flat`: pass only the values, without --KEY", default="")
    needs: options.Strings = option(
        "sections that must have succeeded before this one runs", default=()
    )
    on_error: str = option(
        "`stop`: run no further section after this one fails", default="continue"
    )
    timeout: Duration | None = option(
        "maximum duration of the section (90, 30m, 12h)", default=None
    )
    before: Commands = option("commands before the section (docs/hooks.md)", default=())
    after: Commands = option("commands after the section, if it succeeded", default=())
    on_failure: Commands = option("commands after the section, if it failed", default=())
    finally_: Commands = option("commands after the section, however it ended", default=())
    environment: options.Strings = option("environment variables to pass to the module", default=())
    required: bool = option(
        "of a store; `False`: the run counts as stored without it, and ends with exit code 3 where "
        "it fails",
        default=True,
    )
    anomaly_shrink: float | None = option("as in GENERAL, for this section", default=None, least=0)
    anomaly_ratio: float | None = option("as in GENERAL, for this section", default=None, least=0)
    anomaly_growth: float | None = option("as in GENERAL, for this section", default=None, least=0)
    anomaly_duration: float | None = option(
        "as in GENERAL, for this section", default=None, least=0
    )
    stream: str = option(
        "role of a user-defined module in a streamed run: `source`, `filter` or `store`", default=""
    )

    @property
    def hooks(self) -> Hooks:
        """Return the commands before and after the section."""
        return Hooks(self.before, self.after, self.on_failure, self.finally_)

    def __post_init__(self) -> None:
        _refuse_zero("TIMEOUT", self.timeout)
        _check_shrink(self.anomaly_shrink)
        for name in self.environment:
            if not _VARIABLE.fullmatch(name):
                masked = name.partition("=")[0] + ("=***" if "=" in name else "")
                raise ConfigError(
                    f"ENVIRONMENT: {masked!r}: invalid variable name",
                    "Name the variables alone: their values come from the environment of the run.",
                )
        try:
            arguments = shlex.split(self.execute_with)
        except ValueError:
            arguments = []
        if not arguments:
            raise ConfigError(
                f"EXECUTE_WITH: {self.execute_with!r}: invalid interpreter",
                "Use a program name, for example bash or perl.",
            )


def placeholder(text: str) -> bool:
    """Return whether a value is a placeholder of the documented templates."""
    return bool(_PLACEHOLDER.search(text))


def _check_shrink(percent: float | None) -> None:
    if percent is not None and percent > 100:  # noqa: PLR2004  (percent)
        raise ConfigError(
            f"ANOMALY_SHRINK: {percent:g} is more than 100",
            "Set percent of the usual size, from 0 (off) to 100.",
        )


def _refuse_zero(key: str, limit: float | None, hint: str = "") -> None:
    if limit == 0:
        raise ConfigError(f"{key}: must be greater than 0", hint or f"Remove {key} for no limit.")


# The keys of GENERAL that report channels need; read even if the config is wrong elsewhere.
REPORT_KEYS = ("HOSTNAME", "MESSAGE_CONFIG_COMMAND", "WORK_FOLDER", "METRICS_FILE")
SECTION_KEYS = tuple(map(options.key_of, dataclasses.fields(SectionKeys)))
HOOK_KEYS = tuple(map(options.key_of, dataclasses.fields(Hooks)))
