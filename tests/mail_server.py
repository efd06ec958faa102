"""A real mail server: aiosmtpd in a thread, on a free port, with what it got."""

from __future__ import annotations

import socket
import ssl
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

from tests.receivers import PASSWORD, USER


@dataclass
class Mailbox:
    """What a mail server got. reject: a reply to each address of TO, instead of taking it."""

    port: int = 0
    reject: str = ""
    mails: list[EmailMessage] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802  (aiosmtpd's name)
        self, server: SMTP, session: object, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.reject and address.startswith("nobody"):
            return self.reject
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: object, envelope: Envelope) -> str:  # noqa: N802
        raw = envelope.content
        assert isinstance(raw, bytes)
        assert all(len(line) <= 998 for line in raw.split(b"\r\n"))
        mail = message_from_bytes(raw, policy=policy.default)
        assert not mail.defects
        self.mails.append(mail)
        self.envelopes.append(envelope)
        return "250 OK"

    def login(
        self, server: SMTP, session: object, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append(data.login.decode())
        good = (data.login.decode(), data.password.decode()) == (USER, PASSWORD)
        return AuthResult(success=good, handled=False)


class _Controller(Controller):
    """A controller that asks nobody for the name of this machine."""

    def __init__(self, mailbox: Mailbox, context: ssl.SSLContext | None, security: str) -> None:
        self.options: dict[str, Any] = {"hostname": "localhost"}
        if security == "starttls":
            self.options |= {"tls_context": context, "require_starttls": True}
        if security != "none":
            self.options |= {"authenticator": mailbox.login, "auth_required": True}
        if security == "tls":
            self.options |= {"auth_require_tls": False}  # the connection is TLS already
        outer = context if security == "tls" else None
        warnings.filterwarnings("ignore", message="Requiring AUTH while not requiring TLS")
        super().__init__(mailbox, hostname="127.0.0.1", port=free_port(), ssl_context=outer)

    def factory(self) -> SMTP:
        return SMTP(self.handler, **self.options)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def opened(security: str = "none", context: ssl.SSLContext | None = None) -> Iterator[Mailbox]:
    """A mail server: "starttls" and "tls" want a login, "none" offers neither."""
    mailbox = Mailbox()
    controller = _Controller(mailbox, context, security)
    controller.start()
    mailbox.port = controller.port
    try:
        yield mailbox
    finally:
        controller.stop(no_assert=True)
