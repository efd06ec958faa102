"""Why a connection failed, in the words of the system: libraries wrap the cause several times."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator

_MOST = 20  # errors of one chain
# What OpenSSL calls an answer that is not TLS at all.
_PLAIN = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "RECORD_LAYER_FAILURE")


def reason(error: BaseException) -> str:
    """Return the cause in one line, without the name of the server; "" where it is not known."""
    errors = list(_chain(error))
    for kind, describe in _KINDS:
        for cause in errors:
            if isinstance(cause, kind) and (text := describe(cause)):
                return text
    return ""


def is_permanent(error: BaseException) -> bool:
    """Return whether another attempt would fail as well: the certificate, or no TLS there."""
    return any(
        isinstance(one, ssl.SSLCertVerificationError)
        or (isinstance(one, ssl.SSLError) and one.reason in _PLAIN)
        for one in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Give an error and those that it was made of: as arguments, as `reason`, or by `from`."""
    waiting: list[object] = [error]
    visited: list[object] = []
    while waiting and len(visited) < _MOST:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or one in visited:
            continue
        visited.append(one)
        yield one
        waiting += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]


def _certificate(error: BaseException) -> str:
    text = str(getattr(error, "verify_message", "") or "not valid")
    return f"certificate of the server: {text.rstrip('.')}"


def _tls(error: BaseException) -> str:
    name = str(getattr(error, "reason", "") or "")
    if name in _PLAIN:
        return "the server does not speak TLS on this port"
    return f"TLS: {name.replace('_', ' ').lower() or error}"


def _system(error: BaseException) -> str:
    number, text = getattr(error, "errno", None), getattr(error, "strerror", None)
    return str(text).lower() if number and text else ""


_KINDS = (
    (ssl.SSLCertVerificationError, _certificate),
    (ssl.SSLError, _tls),
    (socket.gaierror, lambda error: f"name cannot be resolved: {_system(error)}"),
    (TimeoutError, lambda error: _system(error) or "timed out"),
    (http.client.HTTPException, lambda error: str(error).lower()),
    (OSError, _system),
)
