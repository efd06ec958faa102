"""Mail as a report channel: by SMTP (RFC 5321), with STARTTLS, TLS, or to this machine."""

from __future__ import annotations

import email.policy
import re
import smtplib
import socket
import ssl
import uuid
from collections.abc import Callable
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import TYPE_CHECKING

from tools import requests_utils
from tools.base import connection_errors, foreign, watched_sockets
from tools.base.bounded_smtp import BoundedSMTP, BoundedSMTPOverTLS
from tools.base.log import logger
from tools.config.notify_keys import EmailKeys, Security
from tools.reporting import summary
from tools.reporting.channel import Channel, Message
from tools.reporting.document import Document
from tools.requests_utils import DeliveryError, Doubt, Limits

_MOST_LOG = 10_000  # bytes of the log in a mail
_PERMANENT = 500  # the first reply code that another attempt cannot change
_NOT_PERMITTED = "Check SMTP_HOST, SMTP_PORT and SMTP_SECURITY."


class Email:
    """Sends a mail of plain text to each address of TO."""

    def __init__(self, keys: EmailKeys) -> None:
        self._keys = keys

    def message(self, document: Document, log: str) -> dict[str, str]:
        """Return subject, body, date and the Message-ID, which is the same for each attempt."""
        body = summary.text(document)
        if log:
            body += f"\nThe end of the log:\n{summary.tail(log, _MOST_LOG)}\n"
        return {
            "subject": summary.clean(summary.subject(document)),
            "body": summary.clean(body),
            "date": str(document["end"] or document["begin"]),
            "id": f"<{document['run_id']}.{uuid.uuid4().hex}@{_own_name()}>",
        }

    def send(self, message: Message, limits: Limits) -> str:
        """Send it once. Raises DeliveryError."""
        mail = self._mail(message)
        session = _Session(self._keys, limits)
        requests_utils.bounded(
            lambda: session.send(mail), limits, session.abandon, self._keys.server
        )
        return f"sent to {self._keys.target()}"

    def login(self, limits: Limits) -> str:
        """Connect and log in without sending anything; return how. Raises DeliveryError."""
        session = _Session(self._keys, limits)
        return requests_utils.bounded(session.try_login, limits, session.abandon, self._keys.server)

    def _mail(self, message: Message) -> EmailMessage:
        mail = EmailMessage(policy=email.policy.SMTP)
        mail["Subject"] = foreign.line(message["subject"])  # it may come from the spool
        mail["From"] = self._keys.from_
        mail["To"] = ", ".join(self._keys.to)
        mail["Date"] = format_datetime(datetime.fromisoformat(message["date"]))
        mail["Message-ID"] = foreign.line(message["id"])
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answers from absent people
        mail.set_content(message["body"], cte="quoted-printable")
        return mail


class _Session:
    """One connection to a mail server, and what is known of a failure in it."""

    def __init__(self, keys: EmailKeys, limits: Limits) -> None:
        self._keys = keys
        self._limits = limits
        self._smtp: smtplib.SMTP | None = None
        self._over = False
        self._doubt = Doubt.UNSENT

    def send(self, mail: EmailMessage) -> str:
        return self._explained(lambda smtp: self._send(smtp, mail))

    def try_login(self) -> str:
        return self._explained(lambda smtp: smtp.noop()[1].decode("ascii", "replace"))

    def abandon(self) -> Doubt:
        """Cut the connection, so that what was given up is not sent after all."""
        self._over = True
        sock = self._smtp.sock if self._smtp is not None else None
        if sock is not None:
            watched_sockets.shut_down(sock)
        return self._doubt

    def _explained(self, work: Callable[[smtplib.SMTP], str]) -> str:
        """Connect, log in, work; every failure is a DeliveryError."""
        try:
            smtp = self._connected()
            try:
                answer = work(smtp)
            finally:
                smtp.close()
        except ssl.SSLCertVerificationError as error:
            raise self._failure(
                f"certificate of the server: {error.verify_message}",
                "Set SMTP_HOST to the name in the certificate, or CA_FILE to its authority.",
                again=False,
            ) from None
        except smtplib.SMTPAuthenticationError as error:
            hint = "Check USER and PASSWORD."
            raise self._failure(f"login rejected: {_reply(error)}", hint, again=False) from None
        except smtplib.SMTPResponseException as error:
            permanent = error.smtp_code >= _PERMANENT
            raise self._failure(f"server replied {_reply(error)}", again=not permanent) from None
        except smtplib.SMTPNotSupportedError as error:
            trouble = f"server offers no {self._keys.security.value} or no login: {error}"
            raise self._failure(trouble, again=False) from None
        except (smtplib.SMTPException, OSError) as error:
            why = connection_errors.reason(error) or f"{type(error).__name__}: {error}"
            again = not connection_errors.is_permanent(error)
            raise self._failure(why, again=again) from None
        except UnicodeError:
            trouble = "USER or PASSWORD has characters that SMTP cannot carry"
            raise self._failure(trouble, again=False) from None
        return answer

    def _failure(
        self, problem: str, hint: str = _NOT_PERMITTED, *, again: bool = True
    ) -> DeliveryError:
        line = requests_utils.printable(f"{self._keys.server}: {problem}")
        return DeliveryError(line, again=again, doubt=self._doubt, hint=hint)

    def _connected(self) -> smtplib.SMTP:
        """Return a connection, protected and logged in as configured."""
        keys, name = self._keys, _own_name()
        context = ssl.create_default_context(cafile=keys.ca_file)
        if keys.security is Security.TLS:
            smtp: smtplib.SMTP = BoundedSMTPOverTLS(
                keys.smtp_host,
                keys.port,
                name,
                timeout=self._limits.connect,
                context=context,
                opened=self._keep,
            )
        else:
            smtp = BoundedSMTP(
                keys.smtp_host, keys.port, name, timeout=self._limits.connect, opened=self._keep
            )
        if smtp.sock is not None:
            smtp.sock.settimeout(self._limits.read)
        if keys.security is Security.STARTTLS:
            smtp.starttls(context=context)
        if keys.user:
            smtp.login(keys.user, keys.password.reveal())
        return smtp

    def _keep(self, smtp: smtplib.SMTP) -> None:
        self._smtp = smtp
        if self._over:  # it was connected after that
            self.abandon()

    def _send(self, smtp: smtplib.SMTP, mail: EmailMessage) -> str:
        """Send a mail to every address that the server takes; it must take one."""
        smtp.ehlo_or_helo_if_needed()
        _check(smtp.mail(self._keys.from_))
        self._doubt = Doubt.REFUSED
        replies = [(address, smtp.rcpt(address)) for address in self._keys.to]
        bad = [(address, reply) for address, reply in replies if reply[0] not in (250, 251)]
        if len(bad) == len(replies):
            _check(bad[0][1])
            raise smtplib.SMTPResponseException(*bad[0][1])
        self._doubt = Doubt.AMBIGUOUS
        code, text = smtp.data(mail.as_bytes())
        if code != 250:  # noqa: PLR2004  (RFC 5321)
            self._doubt = Doubt.REFUSED
            raise smtplib.SMTPResponseException(code, text)
        for address, reply in bad:
            why = _reply(smtplib.SMTPResponseException(*reply))
            logger.warning("mail not sent to %s: server replied %s", address, why)
        return ""


def _check(reply: tuple[int, bytes]) -> None:
    if reply[0] != 250:  # noqa: PLR2004  (RFC 5321)
        raise smtplib.SMTPResponseException(*reply)


def _reply(error: smtplib.SMTPResponseException) -> str:
    raw = error.smtp_error
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
    return requests_utils.printable(f"{error.smtp_code} {text}")


def _own_name() -> str:
    """Return the name of this machine for EHLO: asking the resolver for more could take long."""
    name = socket.gethostname()
    return name if re.fullmatch(r"[A-Za-z0-9.-]+", name) else "[127.0.0.1]"


if TYPE_CHECKING:
    _: type[Channel] = Email
