"""Post to a server that may be down, slow, or another one than expected."""

from __future__ import annotations

import contextlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tools.base import connection_errors, masking
from tools.base.errors import BackupError, ConfigError
from tools.base.watched_sockets import WatchedSockets

if TYPE_CHECKING:
    import requests

ATTEMPT = "attempt"  # name of the thread of one
_GROWTH = 3.0  # factor of the back-off
_MOST = 1 << 20  # bytes of a response that are read
_MOST_OF_A_SERVICE = 1 << 16  # the same where its text does not matter
_AGAIN = (408, 425, 429)  # 4xx codes worth a retry: timeout, too early, too many
_TLS_HINT = (
    "Use https:// with the name in the certificate, and let this machine trust its authority "
    "(update-ca-certificates)."
)
_MAX_SHOWN = 200  # characters of a response that are shown


class Doubt(Enum):
    """Whether a message that was not acknowledged may have arrived."""

    UNSENT = "unsent"  # it cannot have arrived
    REFUSED = "refused"  # the server answered something else
    AMBIGUOUS = "ambiguous"  # it was sent, and may have arrived


class DeliveryError(BackupError):
    """A server did not acknowledge what was posted to it.

    again: whether another attempt can help; doubt: whether this one may have arrived
    """

    def __init__(
        self, message: str, *, again: bool = True, doubt: Doubt = Doubt.REFUSED, hint: str = ""
    ) -> None:
        super().__init__(message, hint or "Check the URL, the server and the network.")
        self.again = again
        self.doubt = doubt


def check_address(url: str, key: str) -> None:
    """Reject what is not an http(s) URL, and a URL with credentials.

    Raises ConfigError naming the key.
    """
    try:
        parts = urlsplit(url)
        good = parts.port != 0 and not re.search(r"[\x00-\x20\x7f\\]", url)
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"{key}: not a URL", "Use https://HOST/PATH.")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{key}: must begin with http:// or https://", "Use https://HOST/PATH.")
    if parts.username or parts.password:
        raise ConfigError(
            f"{key}: URL contains a user name or password",
            "Remove them: the URL is written to logs and passed to modules.",
        )


@dataclass(frozen=True)
class Request:
    """One POST.

    data: fields of a form, or the body
    statuses: those of a good answer; accept: whether its text acknowledges what was posted
    most: bytes of the answer that are read
    """

    url: str
    data: Mapping[str, str] | bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    statuses: range = range(200, 201)
    accept: Callable[[str], bool] = lambda _text: True
    most: int = _MOST

    @property
    def server(self) -> str:
        """Return the host of the URL, with its port if there is one."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def waits(first: float, tries: int) -> Iterator[float]:
    """Give the seconds to wait between attempts: exponential back-off with 25 % jitter."""
    for number in range(tries - 1):
        yield first * _GROWTH**number * random.uniform(0.75, 1.25)  # noqa: S311  (no secret)


@dataclass(frozen=True)
class Limits:
    """Time limits in seconds.

    connect: for the connection; read: between two bytes; whole: for one attempt; budget: for all
    attempts and waits together
    """

    connect: float = 10.0
    read: float = 30.0
    whole: float = 60.0
    budget: float = 600.0


def post_form(
    url: str,
    fields: Mapping[str, str],
    *,
    accept: Callable[[str], bool],
    limits: Limits = Limits(),
    key: str = "MESSAGE_CONFIG_COMMAND",
) -> str:
    """Post a form once, and return the end of the server's answer for the log.

    Only an answer with status 200 that `accept` knows is an acknowledgement. `key` is the key of
    the config that the URL came from. Raises ConfigError for an invalid URL, DeliveryError
    without an acknowledgement.
    """
    check_address(url, key)
    return _posted(Request(url, fields, accept=accept), limits)


def post_body(url: str, body: bytes, headers: Mapping[str, str], limits: Limits) -> None:
    """Post a body once; any answer from 200 to 299 acknowledges it. Raises DeliveryError."""
    request = Request(url, body, headers, range(200, 300), most=_MOST_OF_A_SERVICE)
    _posted(request, limits)


def retried(  # noqa: PLR0913  (each is named where it is called)
    attempt: Callable[[Limits], str],
    *,
    tries: int = 5,
    first_wait: float = 5.0,
    limits: Limits = Limits(),
    say: Callable[[str], None] = lambda _line: None,
    sleep: Callable[[float], None] = time.sleep,
    before: Callable[[], bool] = lambda: True,
    after: Callable[[Doubt], None] = lambda _doubt: None,
) -> str:
    """Return what the first successful attempt returned; the waits between attempts grow.

    `say` gets a line for each attempt that failed. `before` is asked before each attempt whether
    it may be made; `after` gets the doubt of each that failed. Raises DeliveryError after the
    last attempt, or at once if another one cannot help.
    """
    until = time.monotonic() + limits.budget
    for number, wait in enumerate([*waits(first_wait, tries), None], 1):
        remaining = max(0.0, until - time.monotonic())
        if not before():
            raise DeliveryError(
                "it was sent before, and may have arrived", again=False, doubt=Doubt.AMBIGUOUS
            )
        try:
            return attempt(replace(limits, whole=min(limits.whole, remaining)))
        except DeliveryError as error:
            after(error.doubt)
            over = wait is None or time.monotonic() + wait >= until
            then = "" if over or not error.again else f"; retrying in {wait:.1f} s"
            say(f"attempt {number} of {tries} failed: {error}{then}")
            if over or not error.again or wait is None:
                raise
            sleep(wait)
    raise AssertionError("unreachable: the last wait is None")


def undeliverable(error: BackupError) -> DeliveryError:
    """Return the error of a message that could not be sent, as a secret that cannot be read."""
    if isinstance(error, DeliveryError):
        return error
    return DeliveryError(str(error), again=False, doubt=Doubt.UNSENT, hint=error.hint)


def bounded(
    attempt: Callable[[], str],
    limits: Limits,
    abandon: Callable[[], Doubt] = lambda: Doubt.AMBIGUOUS,
    server: str = "",
) -> str:
    """Return what one attempt returns, which is made in a thread. Raises DeliveryError.

    Libraries limit the time between two bytes, not the total. abandon: called when the time is
    over: ends the attempt where that is possible, and returns whether it may have arrived.
    server: names it in the error
    """
    outcome: list[str | DeliveryError] = []

    def work() -> None:
        try:
            outcome.append(attempt())
        except BackupError as error:
            outcome.append(undeliverable(error))
        except Exception as error:  # noqa: BLE001  (an error in a thread is never lost)
            trouble = f"{type(error).__name__}: {printable(str(error))}"
            outcome.append(DeliveryError(trouble, again=False, doubt=Doubt.UNSENT))

    # left behind if nothing ends it
    thread = threading.Thread(target=work, name=ATTEMPT, daemon=True)
    thread.start()
    thread.join(limits.whole)
    if not outcome:
        doubt = abandon()
        late = f"response not complete after {limits.whole:.0f} s"
        raise DeliveryError(f"{server}: {late}" if server else late, doubt=doubt)
    if isinstance(outcome[0], DeliveryError):
        raise outcome[0]
    return outcome[0]


def session() -> requests.Session:
    """Return a session that never looks where a redirect leads.

    Others prepare the next request even where redirects are not followed, and for that read the
    whole content of the answer into memory, however long it is.
    """
    import requests

    class Unredirected(requests.Session):
        def get_redirect_target(self, _answer: requests.Response) -> None:
            return None

    return Unredirected()


def _posted(request: Request, limits: Limits) -> str:
    sockets = WatchedSockets()

    def abandon() -> Doubt:
        sockets.end()
        return Doubt.AMBIGUOUS

    return bounded(
        lambda: _exchange(request, limits, sockets), limits, abandon, server=request.server
    )


def _exchange(request: Request, limits: Limits, sockets: WatchedSockets) -> str:
    import requests

    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(session())
        sockets.watch(opened)
        opened.auth = _no_credentials  # else requests would look into ~/.netrc
        try:
            answer = opened.post(
                request.url,
                data=request.data if isinstance(request.data, bytes) else dict(request.data),
                headers={**request.headers, "Accept-Encoding": "identity"},  # it stays small
                timeout=(limits.connect, limits.read),
                allow_redirects=False,
                stream=True,
            )
            stack.callback(answer.close)
            _reject_redirect(answer.status_code)
            text = _bounded(answer.iter_content(1024), limits, request.most)
        except (requests.RequestException, UnicodeError) as error:
            raise _failed(request.server, error) from None
        except ValueError as error:  # of http.client, for an answer: the lengths of its pieces
            line = printable(f"{request.server}: answer not understood: {error}")
            raise DeliveryError(line, doubt=Doubt.AMBIGUOUS) from None
        except (
            OSError
        ) as error:  # a file that the library cannot read, as that of the CA certificates
            raise DeliveryError(
                f"{type(error).__name__}: {printable(str(error))}",
                again=False,
                doubt=Doubt.UNSENT,
                hint="Check REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE.",
            ) from None
    if answer.status_code not in request.statuses:
        server = answer.status_code >= 500 or answer.status_code in _AGAIN  # noqa: PLR2004
        raise DeliveryError(
            f"server returned {answer.status_code}: {printable(text)}", again=server
        )
    if not request.accept(text):
        in_doubt = len(text) >= request.most or _echoes(text, request.data)
        doubt = Doubt.AMBIGUOUS if in_doubt else Doubt.REFUSED
        raise DeliveryError(f"unexpected response: {_ending(text)}", doubt=doubt)
    return _ending(text)


def _reject_redirect(code: int) -> None:
    if 300 <= code < 400:  # noqa: PLR2004  (RFC 9110)
        raise DeliveryError(f"server redirects ({code}); redirects are not followed", again=False)


def _failed(server: str, error: Exception) -> DeliveryError:
    """Return the error of a connection, with server and cause."""
    why = connection_errors.reason(error) or f"{type(error).__name__}: {error}"
    permanent = connection_errors.is_permanent(error)
    line = printable(f"{server}: {why}")
    return DeliveryError(
        line, again=not permanent, doubt=_doubt(error), hint=_TLS_HINT if permanent else ""
    )


def _doubt(error: Exception) -> Doubt:
    """Return whether a form may have arrived: not if there was no connection."""
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


def _echoes(text: str, data: Mapping[str, str] | bytes) -> bool:
    """Return whether a response shows what was posted: the server has read it."""
    run_id = "" if isinstance(data, bytes) else data.get("run_id", "")
    return bool(run_id) and run_id in text


def _ending(text: str) -> str:
    """Return the end of a response, where acknowledgements are."""
    line = printable(text)
    return line if not line.endswith(" ...") else f"... {printable(text[-_MAX_SHOWN:])}"


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _bounded(chunks: Iterator[bytes], limits: Limits, most: int) -> str:
    """Return at most `most` bytes; reading ends in time even if nobody waits for the thread."""
    until = time.monotonic() + limits.whole
    held = bytearray()
    for chunk in chunks:
        held += chunk
        if len(held) >= most:
            break
        if time.monotonic() > until:
            raise DeliveryError("response too slow", doubt=Doubt.AMBIGUOUS)
    return held[:most].decode("utf-8", "replace")


def printable(text: str) -> str:
    """Return a response as one short line for the log, printable and masked."""
    spaced = "".join(c if c.isprintable() else " " for c in masking.text(text))
    line = " ".join(spaced.split())
    return line if len(line) <= _MAX_SHOWN else line[:_MAX_SHOWN] + " ..."
