"""Posting a form to a server that may be down, slow, or not what it seems to be."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tools import mask
from tools.errors import BackupError, ConfigError

if TYPE_CHECKING:
    import requests

_CONNECT = 10.0  # seconds
_READ = 30.0  # seconds without a byte
_TRY = 60.0  # seconds for one whole try, however slowly the bytes come
_BUDGET = 600.0  # seconds for all tries together
_GROWTH = 3.0  # each wait is about so many times the last one
_MOST = 64 * 1024  # bytes of an answer that are read
_AGAIN = (408, 425, 429)  # 4xx codes that may pass: timeout, too early, too many
_SHOWN = 200  # characters of an answer that are shown


class DeliveryError(BackupError):
    """A server did not take what was posted to it."""

    def __init__(self, message: str, *, again: bool = True) -> None:
        super().__init__(message, "Look at the address, the server, and the way to it.")
        self.again = again


def check_address(url: str, key: str) -> None:
    """Refuse an address that is no http(s) address or that holds credentials.

    Raises ConfigError naming the key that it was given for.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{key}: must be an http:// or https:// address")
    if parts.username or parts.password:
        raise ConfigError(
            f"{key}: holds a user name or a password", "An address is logged and handed to modules."
        )


def waits(first: float, tries: int) -> Iterator[float]:
    """The waits in seconds between the tries: growing, each up to a quarter longer or shorter."""
    for number in range(tries - 1):
        yield first * _GROWTH**number * random.uniform(0.75, 1.25)  # noqa: S311  (no secret)


def post_form(  # noqa: PLR0913  (each is named where it is called)
    url: str,
    fields: Mapping[str, str],
    *,
    accept: Callable[[str], bool],
    tries: int = 5,
    first_wait: float = 5.0,
    say: Callable[[str], None] = lambda _line: None,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Post a form until the server acknowledges it; gives the answer, fit to be logged.

    A redirect, an error code, or an answer that `accept` does not know is none. `say` gets a
    line for each try that failed. Raises DeliveryError after the last try, or at once where
    trying again cannot help.
    """
    check_address(url, "MESSAGE_CONFIG_COMMAND")
    until = time.monotonic() + _BUDGET
    for number, wait in enumerate([*waits(first_wait, tries), None], 1):
        try:
            return _once(url, fields, accept)
        except DeliveryError as error:
            over = wait is None or time.monotonic() + wait > until
            then = "" if over or not error.again else f"; next in {wait:.1f} s"
            say(f"report: try {number} of {tries} failed: {error}{then}")
            if over or not error.again or wait is None:
                raise
            sleep(wait)
    raise AssertionError("unreachable: the last wait is None")


def _once(url: str, fields: Mapping[str, str], accept: Callable[[str], bool]) -> str:
    import requests

    with contextlib.ExitStack() as stack:
        session = stack.enter_context(requests.Session())
        session.auth = _no_credentials  # else requests would look into ~/.netrc
        try:
            answer = session.post(
                url,
                data=dict(fields),
                timeout=(_CONNECT, _READ),
                allow_redirects=False,
                stream=True,
            )
            stack.callback(answer.close)
            text = _bounded(answer.iter_content(1024))
        except requests.RequestException as error:
            raise DeliveryError(f"{type(error).__name__}: {shown(str(error))}") from None
    if answer.is_redirect or 300 <= answer.status_code < 400:  # noqa: PLR2004  (RFC 9110)
        raise DeliveryError(
            f"the server redirects ({answer.status_code}): no acknowledgement", again=False
        )
    if answer.status_code != 200:  # noqa: PLR2004  (RFC 9110)
        server = answer.status_code >= 500 or answer.status_code in _AGAIN  # noqa: PLR2004
        raise DeliveryError(f"the server answers {answer.status_code}", again=server)
    if not accept(text):
        raise DeliveryError(f"the answer is no acknowledgement: {shown(text)}")
    return shown(text)


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _bounded(chunks: Iterator[bytes]) -> str:
    """At most _MOST bytes, in at most _TRY seconds."""
    until = time.monotonic() + _TRY
    held = bytearray()
    for chunk in chunks:
        held += chunk
        if len(held) >= _MOST:
            break
        if time.monotonic() > until:
            raise DeliveryError("the answer does not end")
    return held[:_MOST].decode("utf-8", "replace")


def shown(text: str) -> str:
    """An answer fit for a log: one short line without control characters, masked."""
    line = re.sub(r"[^\x20-\x7e\u00a0-\uffff]+", " ", mask.text(text)).strip()
    return line if len(line) <= _SHOWN else line[:_SHOWN] + " ..."
