"""Whether the channels of NOTIFY could be reached (`-t`): nothing is sent to anybody."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from tools import requests_utils
from tools.base.errors import BackupError, in_words
from tools.base.finding import Finding, Level, Line, bad, warning
from tools.base.secret import Secret
from tools.config.notify import NAME, NotifyChannel
from tools.config.notify_keys import AddressKeys, AppriseKeys, ChannelKeys, EmailKeys, Security
from tools.reporting import apprise_service
from tools.reporting.smtp_mail import Email
from tools.requests_utils import DeliveryError, Limits

_LONGEST = 15.0  # seconds for one channel
_LIMITS = Limits(connect=5.0, read=10.0, whole=_LONGEST)


def tested(channels: Sequence[NotifyChannel]) -> list[Line]:
    """Return what is found about the channels, in their order; they are tried at the same time."""
    findings: dict[str, list[Finding]] = {channel.name: [] for channel in channels}
    threads = [
        threading.Thread(target=lambda one: findings[one.name].extend(_of(one)), args=(channel,))
        for channel in channels
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()  # each look has its time limit
    return [
        Line(NAME, one.text if one.level is Level.OK else _placed(channel, one.text), one.level,
             one.hint, one.fix)
        for channel in channels
        for one in findings[channel.name]
    ]  # fmt: skip


def _placed(channel: NotifyChannel, text: str) -> str:
    """Return a text after file, line and key of its channel."""
    return f"{channel.location}: {text}"


def _of(channel: NotifyChannel) -> list[Finding]:
    """Return what is found about one channel."""
    try:
        text = _tried(channel.keys)
    except DeliveryError as error:
        kind = warning if error.again else bad
        return [kind(str(error), error.hint)]
    except (BackupError, OSError) as error:
        return [bad(*in_words(error))]
    lines = [Finding(f"{channel.name}: {text}")]
    keys = channel.keys
    if isinstance(keys, EmailKeys) and keys.security is Security.NONE and not keys.is_local:
        lines.append(
            warning(
                "SMTP_SECURITY is none: mail and password cross the network unencrypted",
                "Set SMTP_SECURITY to starttls or tls.",
            )
        )
    return lines


def _tried(keys: ChannelKeys) -> str:
    """Return what works. Raises BackupError, OSError."""
    if isinstance(keys, EmailKeys):
        Email(keys).login(_LIMITS)
        login = f"logged in as {keys.user}" if keys.user else "connected"
        return f"{login} at {keys.smtp_host}:{keys.port} ({keys.security.value})"
    if isinstance(keys, AppriseKeys):
        apprise_service.opened(keys)
        return "the URL is one that Apprise knows"
    if isinstance(keys, AddressKeys):
        for value in vars(keys).values():
            if isinstance(value, Secret):
                value.reveal()
        return _reachable(keys.address())
    raise AssertionError(f"a type of channel that -t does not know: {keys.type}")


def _reachable(url: str) -> str:
    """Connect to the server of a URL; return how. Raises DeliveryError."""
    from requests.utils import get_environ_proxies

    parts = urlsplit(url)
    host = str(parts.hostname)
    if get_environ_proxies(url):
        return f"{host} is reached through the proxy of the environment"
    port = parts.port or (443 if parts.scheme == "https" else 80)

    def connect() -> str:
        try:
            with socket.create_connection((host, port), _LIMITS.connect) as opened:
                if parts.scheme == "https":
                    _context().wrap_socket(opened, server_hostname=host).close()
        except ssl.SSLCertVerificationError as error:
            trouble = f"{host}: certificate of the server: {error.verify_message}"
            raise DeliveryError(trouble, again=False) from None
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DeliveryError(f"{host}:{port}: {reason.lower()}") from None
        return f"{host}:{port} answers"

    return requests_utils.bounded(connect, _LIMITS)


def _context() -> ssl.SSLContext:
    """Return the context that requests uses."""
    from requests.utils import DEFAULT_CA_BUNDLE_PATH

    path = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    return ssl.create_default_context(cafile=path or DEFAULT_CA_BUNDLE_PATH)
