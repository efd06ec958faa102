"""Posting a form to a server that may be down, slow, or not what it seems to be."""

from __future__ import annotations

import contextlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tools import mask
from tools.errors import BackupError, ConfigError

if TYPE_CHECKING:
    import requests

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
    try:
        parts = urlsplit(url)
        good = parts.port != 0 and not re.search(r"[\x00-\x20\x7f\\]", url)
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"{key}: is no address", "It looks like https://HOST/PATH.")
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


@dataclass(frozen=True)
class Limits:
    """How long a server may take, in seconds.

    connect: for the connection; read: between two bytes; whole: for one try, however slowly
    the bytes come; budget: for all tries and waits together
    """

    connect: float = 10.0
    read: float = 30.0
    whole: float = 60.0
    budget: float = 600.0


def post_form(  # noqa: PLR0913  (each is named where it is called)
    url: str,
    fields: Mapping[str, str],
    *,
    accept: Callable[[str], bool],
    tries: int = 5,
    first_wait: float = 5.0,
    limits: Limits = Limits(),
    key: str = "MESSAGE_CONFIG_COMMAND",
    say: Callable[[str], None] = lambda _line: None,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Post a form until the server acknowledges it; gives the answer, fit to be logged.

    A redirect, an error code, or an answer that `accept` does not know is none. `say` gets a
    line for each try that failed. `key` is the key of the config that the address came from.
    Raises ConfigError for an address that is none, DeliveryError after the last try, or at
    once where trying again cannot help.
    """
    check_address(url, key)
    until = time.monotonic() + limits.budget
    for number, wait in enumerate([*waits(first_wait, tries), None], 1):
        left = max(0.0, until - time.monotonic())
        try:
            return _once(url, fields, accept, replace(limits, whole=min(limits.whole, left)))
        except DeliveryError as error:
            over = wait is None or time.monotonic() + wait >= until
            then = "" if over or not error.again else f"; next in {wait:.1f} s"
            say(f"report: try {number} of {tries} failed: {error}{then}")
            if over or not error.again or wait is None:
                raise
            sleep(wait)
    raise AssertionError("unreachable: the last wait is None")


def _once(
    url: str, fields: Mapping[str, str], accept: Callable[[str], bool], limits: Limits
) -> str:
    """One try, in a thread: requests bounds the time between two bytes, never the whole."""
    outcome: list[str | DeliveryError] = []

    def work() -> None:
        try:
            outcome.append(_exchange(url, fields, accept, limits))
        except DeliveryError as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)  # left behind where the server hangs
    thread.start()
    thread.join(limits.whole)
    if not outcome:
        raise DeliveryError(f"the answer does not end within {limits.whole:.0f} s")
    if isinstance(outcome[0], DeliveryError):
        raise outcome[0]
    return outcome[0]


def _exchange(
    url: str, fields: Mapping[str, str], accept: Callable[[str], bool], limits: Limits
) -> str:
    import requests

    with contextlib.ExitStack() as stack:
        session = stack.enter_context(requests.Session())
        session.auth = _no_credentials  # else requests would look into ~/.netrc
        try:
            answer = session.post(
                url,
                data=dict(fields),
                headers={"Accept-Encoding": "identity"},  # small answers stay small
                timeout=(limits.connect, limits.read),
                allow_redirects=False,
                stream=True,
            )
            stack.callback(answer.close)
            text = _bounded(answer.iter_content(1024), limits)
        except (requests.RequestException, UnicodeError) as error:
            raise DeliveryError(f"{type(error).__name__}: {shown(str(error))}") from None
    if answer.is_redirect or 300 <= answer.status_code < 400:  # noqa: PLR2004  (RFC 9110)
        raise DeliveryError(
            f"the server redirects ({answer.status_code}): no acknowledgement", again=False
        )
    if answer.status_code != 200:  # noqa: PLR2004  (RFC 9110)
        server = answer.status_code >= 500 or answer.status_code in _AGAIN  # noqa: PLR2004
        raise DeliveryError(f"the server answers {answer.status_code}: {shown(text)}", again=server)
    if not accept(text):
        raise DeliveryError(f"the answer is no acknowledgement: {shown(text)}")
    return shown(text)


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _bounded(chunks: Iterator[bytes], limits: Limits) -> str:
    """At most _MOST bytes; the thread that reads them ends even where nobody waits for it."""
    until = time.monotonic() + limits.whole
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
    printable = "".join(sign if sign.isprintable() else " " for sign in mask.text(text))
    line = " ".join(printable.split())
    return line if len(line) <= _SHOWN else line[:_SHOWN] + " ..."
