"""The command line of ssh, and its errors in words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools import os_works
from tools.base import foreign, masking
from tools.base.errors import ConfigError, StoreError, TransientError, UnreachableError
from tools.flow import reachability

_ALIVE = 15  # seconds between two questions to a silent server; three without an answer end it
_HOST = re.compile(r"[\w.:%][\w.:%-]*")
_USER = re.compile(r"[\w.+@\\][\w.+@\\-]*")
_UNSAFE = re.compile(r"[\x00-\x1f\"'\\$]")  # what ssh would expand or take for quotes in a path
_LONGEST = 65535  # the highest port

# Of every connection. Sharing is off: an existing connection has neither our options nor our
# questions to a silent server. Forwardings and commands of ssh_config would disturb the stream.
_FIXED = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    f"ServerAliveInterval={_ALIVE}",
    "ServerAliveCountMax=3",
    "ConnectionAttempts=1",
    "ControlMaster=no",
    "ControlPath=none",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "EscapeChar=none",
    "LogLevel=INFO",
)


@dataclass(frozen=True)
class Server:
    """A server and the account on it, as the keys of the section name them.

    port, user, key, known_hosts: None and "" for what ssh and its ssh_config choose
    connect_timeout: seconds until the server must answer
    """

    host: str
    port: int | None = None
    user: str = ""
    key: Path | None = None
    known_hosts: Path | None = None
    connect_timeout: float = 30.0

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.host):
            raise ConfigError(
                f"HOST: {masking.quoted(self.host)}: not a host name or an address",
                "Write the name alone. Set USER and PORT for the rest.",
            )
        if self.user and not _USER.fullmatch(self.user):
            raise ConfigError(f"USER: {masking.quoted(self.user)}: not a user name")
        if self.port is not None and not 0 < self.port <= _LONGEST:
            raise ConfigError(f"PORT: {self.port}: not a port", "Choose one from 1 to 65535.")
        for name, path in (("KEY", self.key), ("KNOWN_HOSTS", self.known_hosts)):
            if path is not None and _UNSAFE.search(str(path)):
                raise ConfigError(
                    f"{name}: {str(path)!r}: contains a character that ssh would expand",
                    "Use a path without quotes, backslashes, $ and control characters.",
                )

    def __str__(self) -> str:
        at = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{at}{host}" + (f":{self.port}" if self.port else "")

    def argv(self, *, verbose: bool = False) -> list[str]:
        """Return the arguments up to the host: a command may follow.

        verbose: ssh also writes the fingerprint of the server's key to its standard error
        """
        options = [*_FIXED, f"ConnectTimeout={max(1, round(self.connect_timeout))}"]
        if self.known_hosts is not None:
            options += [
                f"UserKnownHostsFile={_quoted(self.known_hosts)}",
                "GlobalKnownHostsFile=/dev/null",
            ]
        if self.key is not None:
            options += [f"IdentityFile={_quoted(self.key)}", "IdentitiesOnly=yes"]
        arguments = ["ssh", "-T", "-x", *(word for one in options for word in ("-o", one))]
        arguments += ["-v"] if verbose else []
        arguments += ["-l", self.user] if self.user else []
        arguments += ["-p", str(self.port)] if self.port else []
        return arguments

    def check_files(self) -> None:
        """Raise StoreError where a file that a key names cannot be read."""
        for name, path in (("KEY", self.key), ("KNOWN_HOSTS", self.known_hosts)):
            if path is None:
                continue
            try:
                path.open("rb").close()
            except OSError as error:
                reason = (error.strerror or "").lower()
                raise StoreError(
                    f"{name}: {path}: {reason}", f"Check {name}, and that this user may read it."
                ) from None

    def error(self, lines: Sequence[str], ending: str, *, connected: bool) -> StoreError:
        """Return why a connection has ended, from the lines that ssh wrote to standard error.

        ending: how ssh ended, in words. connected: whether the server had answered before.
        """
        text = "\n".join(lines)
        for pattern, make in _REASONS:
            if (match := re.search(pattern, text, re.M)) is not None:
                problem, hint = make
                filled = problem.format(*map(foreign.line, match.groups()))
                kind = UnreachableError if pattern is _UNRESOLVED else StoreError
                return kind(f"{self}: {filled}", self._filled(hint))
        closed = f"the server has closed the connection (ssh {ending})"
        reason = foreign.line(_reason(lines)) or (closed if connected else f"ssh {ending}")
        if connected or _BUSY.search(text):
            absent = not connected and reachability.tells_no_connection(text)
            kind = UnreachableError if absent else TransientError
            return kind(f"{self}: {reason}", "Check the network and the server's log.")
        return StoreError(
            f"{self}: {reason}",
            f"Check that this works as the user {os_works.user()}: {self.login('-s')} sftp",
        )

    def _filled(self, hint: str) -> str:
        name = f"[{self.host}]:{self.port}" if self.port and self.port != _SSH else self.host
        fields = f" -f {shlex.quote(str(self.known_hosts))}" if self.known_hosts else ""
        forget = f"ssh-keygen -R {shlex.quote(name)}{fields}"
        return hint.format(
            forget=forget,
            login=self.login(),
            me=os_works.user(),
            user=self.user or "the account",
            key=f"{self.key}.pub" if self.key else "this user",
        )

    def login(self, *more: str) -> str:
        """Return the command by which a person logs in to the same account."""
        command = ["ssh", *more]
        command += ["-i", str(self.key)] if self.key else []
        command += ["-o", f"UserKnownHostsFile={self.known_hosts}"] if self.known_hosts else []
        command += ["-p", str(self.port)] if self.port else []
        return shlex.join([*command, f"{self.user}@{self.host}" if self.user else self.host])


_SSH = 22
_BUSY = re.compile(
    "Connection refused|timed out|No route to host|unreachable|Connection reset|Connection closed"
    "|Broken pipe|Timeout, server|Temporary failure|closed by remote host|not responding"
    "|kex_exchange_identification|Connection to .* closed|open failed"
)
_IDLE = re.compile("debug|OpenSSH_|Authenticated to|Transferred: |Bytes per second: ")
_UNRESOLVED = r"Could not resolve hostname .*: (Name or service not known|nodename nor .*)"
# What ssh writes (ssh.c, sshconnect.c, sshconnect2.c, clientloop.c), as message and hint. All
# of it stays until somebody acts: no other attempt is made.
_REASONS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED|REVOKED HOST KEY",
        (
            "the host key has changed",
            "Do not continue before you know why: someone may intercept the connection. If the "
            "server was reinstalled, compare the fingerprint on its console (ssh-keygen -lf "
            "/etc/ssh/ssh_host_ed25519_key.pub), then forget the old key ({forget}) and log in "
            "once as the user {me}: {login}",
        ),
    ),
    (
        r"host key is known|Host key verification failed",
        (
            "the host key is not known",
            "Log in once as the user {me} ({login}) and accept the key if its fingerprint is the "
            "one that the console of the server shows (ssh-keygen -lf "
            "/etc/ssh/ssh_host_ed25519_key.pub).",
        ),
    ),
    (
        r"UNPROTECTED PRIVATE KEY FILE",
        ("other users can read the private key", "Take their permission away: chmod 600 KEY."),
    ),
    (
        r'^Load key "(.*)": (.*?)\r?$',
        (
            "private key {}: {}",
            "Use a key without a passphrase, or load it into ssh-agent, and pass SSH_AUTH_SOCK.",
        ),
    ),
    (
        r"Too many authentication failures",
        ("too many authentication failures", "Set KEY to the one key that the account accepts."),
    ),
    (
        r"(Permission denied \([^)]*\))",
        (
            "{}",
            "Add the public key of {key} to ~/.ssh/authorized_keys of {user} on the server. "
            "Then this must log in: {login}",
        ),
    ),
    (
        _UNRESOLVED,
        ("host name not known", "Check HOST, and the name server of this machine."),
    ),
    (
        r"(Bad owner or permissions on .*?|Bad configuration option.*?|.*bad configuration.*?)\r?$",
        ("ssh rejects its configuration: {}", "Correct that file."),
    ),
    (
        r"subsystem request failed",
        (
            "the server offers no sftp",
            'Add the line "Subsystem sftp internal-sftp" to sshd_config on the server.',
        ),
    ),
)


def _reason(lines: Sequence[str]) -> str:
    """Return the line of ssh that says most: the last, without its prefix and closing remarks."""
    spoken = [line.strip() for line in lines if line.strip() and not _IDLE.match(line)]
    telling = [line for line in spoken if _BUSY.search(line)] or spoken
    return re.sub(r"^ssh: ", "", telling[-1]) if telling else ""


def _quoted(path: Path) -> str:
    """Return a path as a value of `-o`: % begins a token of ssh_config(5)."""
    return '"' + str(path).replace("%", "%%") + '"'
