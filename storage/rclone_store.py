"""The store `rclone`: any remote that an installed rclone knows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from storage import account_checks, rclone_daemon
from storage.keys import Address, StorageKeys
from storage.rclone_calls import Calls
from storage.rclone_daemon import Program
from storage.rclone_objects import RcloneStore, address
from tools.base import log
from tools.base.errors import ConfigError
from tools.base.finding import Finding, Level
from tools.flow import store
from tools.modules.options import Strings, option

# NAME:PATH as rclone config allows names, or :TYPE:PATH; no parameters, which may hold secrets
_REMOTE = re.compile(r"(?:[\w.+@][\w.+@ -]*|:[a-z0-9]+):[^\0-\x1f\]]*")
_SECRET = re.compile(r"(?i)--[a-z0-9-]*(?:pass|password|secret|token|key|credentials)(?:=|\Z)")
_OURS = re.compile(r"--(?:rc\b|rc-|config\b|ask-password|use-json-log|log-|temp-dir|dry-run)")


@dataclass(frozen=True)
class Options(StorageKeys):
    """The keys of a section with DESTINATION rclone."""

    remote: str = option("rclone: remote and folder of the store, `NAME:PATH`", default="")
    program: str = option("rclone: the program, or its absolute path", default="rclone")
    config: Path | None = option(
        "rclone: its config file; default that of RCLONE_CONFIG or of the user", default=None
    )
    flags: Strings = option(
        "rclone: further options of its command line, as a list; no secrets", default=()
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.remote:
            raise ConfigError("REMOTE is required with DESTINATION rclone", "Set REMOTE.")
        if not _REMOTE.fullmatch(self.remote) or ".." in self.remote.split("/"):
            raise ConfigError(
                "REMOTE: not a remote of rclone",
                "Write it as NAME:PATH. Settings of the remote belong into the config of rclone "
                "(rclone config).",
            )
        for flag in self.flags:
            if _SECRET.match(flag):
                name = flag.partition("=")[0]
                raise ConfigError(
                    f"FLAGS: {name}: a secret on a command line is visible to every user",
                    f"Set it with rclone config, or as {_variable(name)} in the environment.",
                )
            if _OURS.match(flag):
                raise ConfigError(
                    f"FLAGS: {flag.partition('=')[0]}: set by this store",
                    "Remove it. CONFIG names the config file.",
                )

    @property
    def location(self) -> str:
        """Return the remote and its config file, for comparison with other sections."""
        return f"{address(self.remote)}{f' of {self.config}' if self.config else ''}"

    @property
    def rclone(self) -> Program:
        """Return how rclone is started."""
        work = self.work_folder
        env = rclone_daemon.environment()
        return Program(self.program, self.config, tuple(self.flags), work, env)


def _variable(flag: str) -> str:
    return "RCLONE_" + flag.removeprefix("--").upper().replace("-", "_")


def _remote_of(options: Options) -> RcloneStore:
    return RcloneStore(Calls(rclone_daemon.shared(options.rclone), options.remote))


def open_store(options: Options) -> store.Store:
    """Return the store; the first call to it starts rclone."""
    options.rclone.check()
    remote = _remote_of(options)
    log.always("%s: %s", remote, remote.note())
    return remote


def test(options: Options) -> Sequence[Finding]:
    """Return what was found about the remote, with an object that does not stay.

    Raises StoreError where that cannot be written, read or removed.
    """
    remote = _remote_of(options)
    version, able = remote.version(), remote.features
    remote.tried()
    findings = [Finding(f"{remote} is writable: rclone {version}, {able}")]
    findings.append(Finding(f"{remote}: {remote.note()}"))
    findings += [
        account_checks.removing(remote, allowed=True),
        *account_checks.clock(remote, remote.ahead),
    ]
    if not able.moves:
        findings.append(
            Finding(
                f"{remote}: the remote can neither move nor copy: every object is sent twice",
                Level.WARN,
                "Use another type of remote where that takes too long.",
            )
        )
    return findings


def keys_of(where: Address) -> dict[str, str]:
    """Return the keys of a store by its address: rclone://NAME/PATH.

    NAME:PATH for rclone; rclone://NAME//PATH is an absolute path, NAME:/PATH. Raises ConfigError.
    """
    if not where.host or where.user or where.port:
        raise ConfigError(
            "--store: rclone:// needs the name of a remote", "Write rclone://NAME/PATH."
        )
    return {"REMOTE": f"{where.host}:{'/' if where.absolute else ''}{where.path}"}


def describe(options: Options) -> str:
    """Return where the objects of this host lie, for messages."""
    return f"{address(options.remote)}/{options.hostname}"
