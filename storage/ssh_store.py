"""The ssh store: a folder of another machine, by the OpenSSH of this one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from storage import account_checks, ssh_objects, ssh_session
from storage.keys import Address, StorageKeys
from storage.ssh_command import Server
from storage.ssh_objects import SshStore
from storage.ssh_session import Session
from tools import date_str_utils
from tools.base.errors import ConfigError
from tools.base.finding import Finding
from tools.flow import store
from tools.flow.retries import Contact, Retries
from tools.modules.options import Duration, option


@dataclass(frozen=True)
class Options(StorageKeys):
    """The keys of a section with DESTINATION ssh."""

    host: str = option("ssh: name or address of the server, or a Host of ssh_config", default="")
    port: int | None = option("ssh: port; default that of ssh_config, else 22", default=None)
    user: str = option("ssh: account on the server; default that of ssh_config", default="")
    key: Path | None = option(
        "ssh: file of the private key; default those of ssh_config and the agent", default=None
    )
    known_hosts: Path | None = option(
        "ssh: file with the keys of the servers; default those of ssh_config", default=None
    )
    remote_dir: str = option(
        "ssh: folder of the store on the server; a relative path begins in the home of the account",
        default="",
    )
    connect_timeout: Duration = option(
        "s3, ssh: seconds until the server must answer", default=Duration(30.0)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("host", "remote_dir"):
            if not getattr(self, name):
                key = name.upper()
                raise ConfigError(f"{key} is required with DESTINATION ssh", f"Set {key}.")
        if "\0" in self.remote_dir or ".." in self.remote_dir.split("/"):
            raise ConfigError(f"REMOTE_DIR: {self.remote_dir!r}: not usable as a folder")
        _ = self.server  # raises ConfigError

    @property
    def server(self) -> Server:
        """Return the account to log in to."""
        return Server(
            self.host, self.port, self.user, self.key, self.known_hosts, self.connect_timeout
        )

    @property
    def location(self) -> str:
        """Return the folder and its account, for comparison with other sections."""
        return ssh_objects.address(self.server, self.folder)

    @property
    def folder(self) -> str:
        """Return the folder of the store; "." is the home of the account."""
        below = self.remote_dir.removeprefix("~/") if self.remote_dir != "~" else "."
        return below.rstrip("/") or ("/" if self.remote_dir.startswith("/") else ".")


def open_store(options: Options) -> store.Store:
    """Return the store; the first call to it logs in."""
    # of objects that are being written: the server has been reached by then
    retries = Retries(options.retry_wait, contact=Contact(is_made=True))
    return SshStore(ssh_session.shared(options.server), options.folder, retries=retries)


def test(options: Options) -> tuple[str | Finding, ...]:
    """Log in, and write a file that does not stay. Raises StoreError where that fails."""
    session = Session(options.server, verbose=True)
    try:
        target = SshStore(session, options.folder)
        report = target.tried(options.hostname)
        size = target.free()
        free = "" if size is None else f", {date_str_utils.human_size(size)} free"
        key = session.sftp().link.fingerprint
        return (
            f"{target} is writable{report}{free}",
            f"host key of {options.host}: {key}",
            account_checks.removing(target, allowed=target.may_remove(options.hostname)),
            *account_checks.clock(target, session.clock),
        )
    finally:
        session.close()


def keys_of(address: Address) -> dict[str, str]:
    """Return the keys of a store by its address: ssh://USER@HOST:PORT/FOLDER.

    The folder is absolute; below /~/ it is relative to the home of the account.
    Raises ConfigError where parts are missing.
    """
    if not address.host or not address.path:
        raise ConfigError(
            "--store: ssh:// requires a host and a folder",
            "Write ssh://USER@HOST:PORT/FOLDER, or ssh://USER@HOST/~/FOLDER below the home.",
        )
    home = address.path == "~" or address.path.startswith("~/")
    keys = {"HOST": address.host, "REMOTE_DIR": address.path if home else f"/{address.path}"}
    keys |= {"USER": address.user} if address.user else {}
    return keys | ({"PORT": str(address.port)} if address.port else {})


def describe(options: Options) -> str:
    """Return where the objects of this host lie, for messages."""
    return f"{options.location}/{options.hostname}"
