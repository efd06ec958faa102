"""The keys of NOTIFY in conf.json: channels of each type, and the outcomes that they are sent."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tools import requests_utils
from tools.base import foreign_json, masking
from tools.base.errors import ConfigError
from tools.base.result import Status
from tools.base.secret import Secret
from tools.modules.options import Duration, Fields, Strings, option

_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+(@[A-Za-z0-9.-]+)?")
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
FIELD = re.compile(r"\{([a-z_]+)\}")  # of a TEMPLATE
_LAST_PORT = 65535
_TOKEN = 16  # characters: a longer word of a URL is taken for a secret
_OWN_HEADERS = ("content-length", "host", "transfer-encoding", "connection")
_PLAIN_HEADERS = ("accept", "content-type", "user-agent")  # their values are no secrets
# What a TEMPLATE may name.
FIELDS = (
    *("hostname", "outcome", "status", "exit_code", "summary", "text", "action", "run_id"),
    *("begin", "end", "seconds", "size", "bytes", "message", "hint", "log"),
)


class Outcome(str, Enum):
    """The events of a channel: the start of a run, and each way in which it can end."""

    START = "start"
    SUCCESS = "success"
    UNCLEAN = "unclean"  # stored, clean-up failed
    INCOMPLETE = "incomplete"
    FAILURE = "failure"
    LOCKED = "locked"
    CONFIG = "config"
    CANCELLED = "cancelled"


OF_STATUS = {
    Status.OK: Outcome.SUCCESS,
    Status.UNREPORTED: Outcome.SUCCESS,
    Status.UNCLEAN: Outcome.UNCLEAN,
    Status.INCOMPLETE: Outcome.INCOMPLETE,
    Status.FAILED: Outcome.FAILURE,
    Status.LOCKED: Outcome.LOCKED,
    Status.REFUSED: Outcome.CONFIG,
    Status.INTERRUPTED: Outcome.CANCELLED,
    Status.TERMINATED: Outcome.CANCELLED,
}
ENDS = frozenset(OF_STATUS.values())
_GROUPS = {"all": ENDS, "problems": ENDS - {Outcome.SUCCESS}}
_ON = "outcomes that are sent, in the words of docs/notify.md"


class Security(Enum):
    """How the connection to a mail server is protected."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


Types = Mapping[str, type["ChannelKeys"]]


@dataclass(frozen=True, kw_only=True)
class ChannelKeys:
    """The keys of any channel."""

    type: str = option("`email`, `webhook`, `ping`, `ntfy` or `apprise`")
    on: Strings = option(_ON, default=("problems",))
    timeout: Duration = option("maximum duration of one attempt (20, 30s)", default=Duration(30.0))

    def __post_init__(self) -> None:
        if not 0 < self.timeout <= requests_utils.Limits().whole:
            raise ConfigError("TIMEOUT: must be more than 0 and at most 60 seconds", "Set 30.")
        _ = self.outcomes
        self.check()

    @classmethod
    def variants(cls) -> tuple[str, Types]:
        """Return the key that chooses the type, and the keys of each type by its value."""
        return "TYPE", TYPES

    @property
    def outcomes(self) -> frozenset[Outcome]:
        """Return the outcomes that this channel gets. Raises ConfigError for an unknown word."""
        outcomes: set[Outcome] = set()
        for word in self.on:
            name = word.lower().strip(",")
            if name in _GROUPS:
                outcomes |= _GROUPS[name]
                continue
            try:
                outcomes.add(Outcome(name))
            except ValueError:
                names = ", ".join([*_GROUPS, *(one.value for one in Outcome)])
                raise ConfigError(
                    f"ON: {masking.quoted(word)}: unknown outcome", f"Choose from: {names}."
                ) from None
        return frozenset(outcomes)

    def check(self) -> None:
        """Raise ConfigError, which begins with the key, for a value that cannot be right."""

    def secrets(self) -> Iterator[str]:
        """Yield what no output may show, beside the values of type Secret."""
        yield from ()

    def target(self) -> str:
        """Return where it goes, for people, without secrets."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class AddressKeys(ChannelKeys):
    """The keys of a channel that is an address of HTTP."""

    url: Secret = option("address, or a reference to it (`env:NAME`, `file:/path`): it is a secret")

    def check(self) -> None:
        if not self.url:
            raise ConfigError("URL: is empty", "Set the address of the service.")
        if not self.url.is_reference:
            self.address()

    def address(self) -> str:
        """Return the URL. Raises ConfigError where it cannot be had or is not an HTTP address."""
        address = self.url.reveal().strip()
        requests_utils.check_address(address, "URL")
        for word in _secret_words(address):
            masking.add(word)
        return address

    def target(self) -> str:
        if self.url.is_reference:
            return str(self.url.reference)
        parts = urlsplit(self.url.reveal())
        return f"{parts.scheme}://{parts.hostname}"


@dataclass(frozen=True, kw_only=True)
class EmailKeys(ChannelKeys):
    """The keys of an `email` channel."""

    to: Strings = option("addresses that the mail goes to")
    from_: str = option("address of the sender")
    smtp_host: str = option("name or address of the mail server", default="localhost")
    smtp_port: int | None = option(
        "port; default: 587 for `starttls`, 465 for `tls`, 25 for `none`", default=None, least=1
    )
    smtp_security: Security | None = option(
        "`starttls`, `tls` or `none`; default: `starttls`, and `none` for this machine itself",
        default=None,
    )
    user: str = option("name for the login; without it there is no login", default="")
    password: Secret = option(
        "password for the login (`env:NAME`, `file:/path`)", default=Secret("")
    )
    ca_file: Path | None = option(
        "certificates of a private authority, in PEM; default: those of the system", default=None
    )

    def check(self) -> None:
        if not self.to:
            raise ConfigError("TO: is empty", "Set at least one address.")
        for key, address in (*(("TO", one) for one in self.to), ("FROM", self.from_)):
            if not _ADDRESS.fullmatch(address):
                raise ConfigError(
                    f"{key}: {masking.quoted(address)}: not a mail address", "Use name@domain."
                )
        if not _HOST.fullmatch(self.smtp_host):
            raise ConfigError(
                f"SMTP_HOST: {masking.quoted(self.smtp_host)}: not the name of a server",
                "Write the name or the address alone, and the port as SMTP_PORT.",
            )
        if self.smtp_port is not None and self.smtp_port > _LAST_PORT:
            raise ConfigError(f"SMTP_PORT: {self.smtp_port}: not a port", "Use 1 to 65535.")
        _check_login(self.user, self.password)

    @property
    def security(self) -> Security:
        """Return how the connection is protected."""
        if self.smtp_security is not None:
            return self.smtp_security
        return Security.NONE if self.is_local else Security.STARTTLS

    @property
    def port(self) -> int:
        """Return the port of the mail server."""
        default = {Security.STARTTLS: 587, Security.TLS: 465, Security.NONE: 25}
        return self.smtp_port or default[self.security]

    @property
    def is_local(self) -> bool:
        """Return whether the mail server is this machine."""
        try:
            return ipaddress.ip_address(self.smtp_host).is_loopback
        except ValueError:
            return self.smtp_host.lower() == "localhost"

    @property
    def server(self) -> str:
        """Return the name and the port of the mail server."""
        return f"{self.smtp_host}:{self.port}"

    def target(self) -> str:
        return f"{', '.join(self.to)} by {self.server} ({self.security.value})"


@dataclass(frozen=True, kw_only=True)
class WebhookKeys(AddressKeys):
    """The keys of a `webhook` channel."""

    on: Strings = option(_ON, default=("all",))
    template: Fields = option(
        "JSON object that is posted; `{name}` in its texts stands for a field of the run; default: "
        "the JSON document of the run",
        default=Fields(""),
    )
    headers: Fields = option(
        "JSON object of further headers; a value may be a reference", default=Fields("")
    )
    token: Secret = option(
        "token for the header `Authorization: Bearer` (`env:NAME`, `file:/path`)",
        default=Secret(""),
    )

    def check(self) -> None:
        super().check()
        unknown = set(FIELD.findall(json.dumps(_object("TEMPLATE", self.template)))) - set(FIELDS)
        if unknown:
            raise ConfigError(
                f"TEMPLATE: {{{min(unknown)}}}: unknown field", f"Choose from: {', '.join(FIELDS)}."
            )
        for name, value in self.header_texts().items():
            good = _HEADER.fullmatch(name) and name.lower() not in _OWN_HEADERS
            if not good or not isinstance(value, str) or not value.isprintable():
                raise ConfigError(
                    f"HEADERS: {name!r}: not a header that can be set",
                    'For example: {"X-Api-Key": "file:/etc/nc-backup-py/api_key"}.',
                )

    def header_texts(self) -> dict[str, Any]:
        """Return the headers as they are written: a value may be a reference."""
        return _object("HEADERS", self.headers)

    def posted(self) -> dict[str, Any]:
        """Return the object of TEMPLATE; empty without one."""
        return _object("TEMPLATE", self.template)

    def secrets(self) -> Iterator[str]:
        for name, value in self.header_texts().items():
            if name.lower() not in _PLAIN_HEADERS and not masking.reference(value):
                yield value


@dataclass(frozen=True, kw_only=True)
class PingKeys(AddressKeys):
    """The keys of a `ping` channel."""

    on: Strings = option(_ON, default=("start", "all"))


@dataclass(frozen=True, kw_only=True)
class NtfyKeys(AddressKeys):
    """The keys of an `ntfy` channel."""

    token: Secret = option("access token (`env:NAME`, `file:/path`)", default=Secret(""))
    user: str = option("name for the login, instead of a token", default="")
    password: Secret = option(
        "password for the login (`env:NAME`, `file:/path`)", default=Secret("")
    )

    def check(self) -> None:
        super().check()
        _check_login(self.user, self.password)
        if self.token and self.user:
            raise ConfigError("TOKEN: TOKEN and USER exclude each other", "Remove one of them.")

    def address(self) -> str:
        address = super().address()
        if not urlsplit(address).path.strip("/"):
            raise ConfigError("URL: has no topic", "Use https://SERVER/TOPIC.")
        return address


@dataclass(frozen=True, kw_only=True)
class AppriseKeys(ChannelKeys):
    """The keys of an `apprise` channel."""

    url: Secret = option("URL of Apprise, or a reference to it (`env:NAME`, `file:/path`)")

    def check(self) -> None:
        if not self.url:
            raise ConfigError("URL: is empty", "Set a URL of Apprise, as tgram://TOKEN/CHAT.")
        if not self.url.is_reference and "://" not in self.url.reveal():
            raise ConfigError("URL: not a URL of Apprise", "For example: tgram://TOKEN/CHAT.")

    def target(self) -> str:
        if self.url.is_reference:
            return str(self.url.reference)
        return f"{self.url.reveal().partition('://')[0]}://"

    def secrets(self) -> Iterator[str]:
        if not self.url.is_reference:
            yield from _secret_words(self.url.reveal())


# By the value of TYPE.
TYPES: Types = {
    "email": EmailKeys,
    "webhook": WebhookKeys,
    "ping": PingKeys,
    "ntfy": NtfyKeys,
    "apprise": AppriseKeys,
}


def _check_login(user: str, password: Secret) -> None:
    if bool(user) != bool(password):
        raise ConfigError(
            "USER: USER and PASSWORD belong together", "Set both, or none for no login."
        )


def _object(key: str, text: str) -> dict[str, Any]:
    """Return the JSON object that a key holds; empty if it is not set. Raises ConfigError."""
    if not text:
        return {}
    try:
        held = foreign_json.load(text)
    except (ValueError, RecursionError):
        held = None
    if not isinstance(held, dict):
        raise ConfigError(f"{key}: not a JSON object", 'For example: {"text": "{summary}"}.')
    return held


def _secret_words(url: str) -> Iterator[str]:
    """Yield the parts of a URL with which others could post to it."""
    for word in re.split(r"[/?&=#@:]", url.partition("://")[2].partition("/")[2]):
        if len(word) >= _TOKEN:
            yield word
