"""Posting a form to a server that may be down, slow, or not what it seems to be."""

from __future__ import annotations

import contextlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tools.base import masking
from tools.base.errors import BackupError, ConfigError

if TYPE_CHECKING:
    import requests

_GROWTH = 3.0  # each wait is about so many times the last one
_MOST = 1 << 20  # bytes of an answer that are read
_AGAIN = (408, 425, 429)  # 4xx codes that may pass: timeout, too early, too many
_SHOWN = 200  # characters of an answer that are shown


class Doubt(Enum):
    """What is known of a post that was not acknowledged."""

    UNSENT = "unsent"  # the server cannot have it
    REFUSED = "refused"  # the server has answered something else
    AMBIGUOUS = "ambiguous"  # it was sent, and the server may have taken it


class DeliveryError(BackupError):
    """A server did not take what was posted to it.

    again: whether trying again can help; doubt: whether the server may have it all the same
    """

    def __init__(
        self, message: str, *, again: bool = True, doubt: Doubt = Doubt.REFUSED, hint: str = ""
    ) -> None:
        super().__init__(message, hint or "Check the URL, the server and the network.")
        self.again = again
        self.doubt = doubt


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
    before: Callable[[], bool] = lambda: True,
    after: Callable[[Doubt], None] = lambda _doubt: None,
) -> str:
    """Post a form until the server acknowledges it; gives the end of the answer for the log.

    A redirect, an error code, or an answer that `accept` does not know is none. `say` gets a
    line for each try that failed. `key` is the key of the config that the address came from.
    `before` is asked before each try whether it may be made, `after` is told of each that
    failed.
    Raises ConfigError for an address that is none, DeliveryError after the last try, or at
    once where trying again cannot help.
    """
    check_address(url, key)
    until = time.monotonic() + limits.budget
    for number, wait in enumerate([*waits(first_wait, tries), None], 1):
        left = max(0.0, until - time.monotonic())
        if not before():
            raise DeliveryError(
                "it was sent before, and may have arrived", again=False, doubt=Doubt.AMBIGUOUS
            )
        try:
            return _once(url, fields, accept, replace(limits, whole=min(limits.whole, left)))
        except DeliveryError as error:
            after(error.doubt)
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
        except Exception as error:  # noqa: BLE001  (no thread may end without a word)
            trouble = f"{type(error).__name__}: {shown(str(error))}"
            outcome.append(DeliveryError(trouble, again=False, doubt=Doubt.UNSENT))

    thread = threading.Thread(target=work, daemon=True)  # left behind where the server hangs
    thread.start()
    thread.join(limits.whole)
    if not outcome:
        raise DeliveryError(
            f"the answer does not end within {limits.whole:.0f} s", doubt=Doubt.AMBIGUOUS
        )
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
            trouble = f"{type(error).__name__}: {shown(str(error))}"
            raise DeliveryError(trouble, doubt=_doubt(error)) from None
        except OSError as error:  # a file that the library cannot read, as that of the CAs
            raise DeliveryError(
                f"{type(error).__name__}: {shown(str(error))}",
                again=False,
                doubt=Doubt.UNSENT,
                hint="Check REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE.",
            ) from None
    if answer.is_redirect or 300 <= answer.status_code < 400:  # noqa: PLR2004  (RFC 9110)
        raise DeliveryError(
            f"the server redirects ({answer.status_code}): no acknowledgement", again=False
        )
    if answer.status_code != 200:  # noqa: PLR2004  (RFC 9110)
        server = answer.status_code >= 500 or answer.status_code in _AGAIN  # noqa: PLR2004
        raise DeliveryError(f"the server answers {answer.status_code}: {shown(text)}", again=server)
    if not accept(text):
        taken = len(text) >= _MOST or _echoes(text, fields)
        doubt = Doubt.AMBIGUOUS if taken else Doubt.REFUSED
        raise DeliveryError(f"the answer is no acknowledgement: {_ending(text)}", doubt=doubt)
    return _ending(text)


def _doubt(error: Exception) -> Doubt:
    """Whether a post can have arrived: not where there was no connection at all."""
    import requests
    from urllib3.exceptions import NewConnectionError

    if isinstance(error, requests.ConnectTimeout | requests.exceptions.SSLError | UnicodeError):
        return Doubt.UNSENT
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(error, requests.ConnectionError) and isinstance(reason, NewConnectionError):
        return Doubt.UNSENT
    sent = isinstance(error, requests.ConnectionError | requests.Timeout)
    sent = sent or isinstance(error, requests.exceptions.ChunkedEncodingError)
    return Doubt.AMBIGUOUS if sent else Doubt.UNSENT


def _echoes(text: str, fields: Mapping[str, str]) -> bool:
    """Whether an answer shows what was posted: the server has read it."""
    run_id = fields.get("run_id", "")
    return bool(run_id) and run_id in text


def _ending(text: str) -> str:
    """The end of an answer, where acknowledgements stand."""
    line = shown(text)
    return line if not line.endswith(" ...") else f"... {shown(text[-_SHOWN:])}"


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
            raise DeliveryError("the answer does not end", doubt=Doubt.AMBIGUOUS)
    return held[:_MOST].decode("utf-8", "replace")


def shown(text: str) -> str:
    """An answer fit for a log: one short line without control characters, masked."""
    printable = "".join(sign if sign.isprintable() else " " for sign in masking.text(text))
    line = " ".join(printable.split())
    return line if len(line) <= _SHOWN else line[:_SHOWN] + " ..."
