"""Answers of an S3 server that have an end: botocore reads what is not an object into memory.

Times in listings are parsed here as well: botocore takes 0.1 ms for each.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, BinaryIO

from storage import bucket_answers
from tools.base.errors import TransientError

_PIECE = 64 << 10
_PATIENCE = 1200.0  # seconds; a completion of S3 sends spaces for minutes
_HINT = "Check ENDPOINT_URL and the server."
_LONGEST_TIME = 40  # characters
_LINES = 100  # of headers, as in http.client
_LONGEST_LINE = 8192  # bytes; they are read one by one
_EXPECT = "_expect_of_botocore"  # its method, under a name of ours
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]{1,9})?Z")
REGION = re.compile(r"[A-Za-z0-9-]{1,40}")
_REDIRECTS = (301, 302, 303, 307, 308)


class AnswerError(TransientError):
    """An answer that cannot be one of the server."""


def guard(api: Any) -> None:  # noqa: ANN401  (botocore has no types)
    """Bound the answers that a client of boto3 reads, and where it looks after a redirection."""
    from botocore.awsrequest import AWSConnection

    endpoint = api._endpoint  # botocore offers no other way
    if not hasattr(AWSConnection, _EXPECT):
        setattr(AWSConnection, _EXPECT, AWSConnection._handle_expect_response)
        AWSConnection._handle_expect_response = _expect
    endpoint.http_session = Bounded(endpoint.http_session)
    api.meta.events.register_first("needs-retry.s3", _stay)
    api.meta.events.register("before-sign.s3.DeleteObjects", _digest)


def quicken(session: Any) -> None:  # noqa: ANN401  (botocore has no types)
    """Let the clients of a session of botocore read the times of answers by `moment`."""
    factory = session.get_component("response_parser_factory")
    factory.set_parser_defaults(timestamp_parser=moment)


def moment(text: str) -> datetime:
    """Return a time of an answer, in whole seconds where it is written as S3 does.

    Raises ValueError where it is none.
    """
    match = _TIME.fullmatch(text)
    if match is not None:
        return datetime.fromisoformat(match[1]).replace(tzinfo=timezone.utc)
    if len(text) > _LONGEST_TIME:
        raise ValueError("not a time")
    from botocore.utils import parse_timestamp

    try:
        parsed: datetime = parse_timestamp(text)
        if parsed.tzinfo is None:
            return parsed.replace(tzinfo=timezone.utc)
        return parsed.astimezone(timezone.utc)
    except (RuntimeError, OverflowError) as error:  # by its way of parsing
        raise ValueError("not a time") from error


def _expect(connection: Any, body: object) -> None:  # noqa: ANN401  (of botocore)
    """Read the answer to `Expect: 100-continue` as botocore does, up to a limit.

    It reads lines without end, and loops where the connection ends among them.
    """
    socket = connection.sock
    connection.sock = _BoundedSocket(socket)
    try:
        getattr(connection, _EXPECT)(body)
    finally:
        if connection.sock is not None:  # None: it was closed
            connection.sock = socket


class _BoundedSocket:
    """A socket whose file has 100 lines of 8 KiB at most."""

    def __init__(self, socket: Any) -> None:  # noqa: ANN401  (of ssl, too)
        self._socket = socket
        self._file: BinaryIO | None = None
        self._lines_left = _LINES

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._socket, name)

    def makefile(self, mode: str, buffering: int) -> _BoundedSocket:
        """Return this as a file."""
        self._file = self._socket.makefile(mode, buffering)
        return self

    def readline(self) -> bytes:
        """Return the next line. Raises ConnectionError where the lines do not end."""
        assert self._file is not None  # noqa: S101  (by makefile)
        line = self._file.readline(_LONGEST_LINE)
        self._lines_left -= 1
        if not self._lines_left or not line.endswith(b"\n"):
            raise ConnectionError("the answer is cut, or does not end")
        return line

    def close(self) -> None:
        """Close the file; the socket stays open."""
        if self._file is not None:
            self._file.close()


def _digest(request: Any, **_more: object) -> None:  # noqa: ANN401  (botocore has no types)
    """Send Content-MD5 as well: many servers know no other checksum of a list of names."""
    digest = hashlib.md5(request.data, usedforsecurity=False).digest()
    request.headers["Content-MD5"] = base64.b64encode(digest).decode("ascii", "strict")


def _stay(
    request_dict: Mapping[str, Any],
    response: tuple[Any, Mapping[str, Any]] | None = None,
    **_more: object,
) -> None:
    """Tell botocore to follow no redirection that names no region, or one that is none.

    It would ask HeadBucket for the region, and where that is redirected as well, without end.
    """
    if response is None or response[0] is None:
        return
    error = response[1].get("Error", {})
    named = str(response[0].headers.get("x-amz-bucket-region") or error.get("Region") or "")
    leads = bool(named) or response[0].status_code in _REDIRECTS
    if leads and not REGION.fullmatch(named):
        request_dict["context"].setdefault("s3_redirect", {})["redirected"] = True


def _is_cut(answer: Any) -> bool:  # noqa: ANN401  (botocore has no types)
    """Return whether the headers of a good answer end before they say how long its content is.

    Python takes the end of a connection for that of the headers, and what follows for all.
    """
    headers = {name.lower() for name in answer.headers}
    known = headers & {"content-length", "transfer-encoding"}
    return answer.status_code < 300 and not known  # noqa: PLR2004


class Bounded:
    """The HTTP session of a client; see URLLib3Session of botocore."""

    def __init__(self, inner: Any, longest: int = bucket_answers.LARGEST) -> None:  # noqa: ANN401
        """Limit answers that are no object to `longest` bytes."""
        self._inner = inner
        self._longest = longest

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._inner, name)

    def send(self, request: Any) -> Any:  # noqa: ANN401
        """Return the answer, read to its end unless it is an object. Raises as botocore does."""
        is_object = request.stream_output
        request.stream_output = True
        answer = self._inner.send(request)
        if (is_object or request.method == "HEAD") and _is_cut(answer):
            from botocore import exceptions

            answer.raw.close()
            raise exceptions.ConnectionClosedError(endpoint_url=request.url)
        if not is_object or answer.status_code >= 300:  # noqa: PLR2004
            answer._content = self._parsable(b"".join(self._read(answer)), answer)
        return answer

    def _parsable(self, content: bytes, answer: Any) -> bytes:  # noqa: ANN401
        """Return an answer that may be parsed; of an error without one the status is enough."""
        if bucket_answers.is_parsable(content):
            return content
        if answer.status_code >= 300:  # noqa: PLR2004
            return b""
        raise AnswerError("the answer is none of S3", _HINT)

    def _read(self, answer: Any) -> Iterator[bytes]:  # noqa: ANN401
        import urllib3
        from botocore import exceptions

        left, until = self._longest, time.monotonic() + _PATIENCE
        try:
            for piece in answer.raw.stream(_PIECE):
                left -= len(piece)
                if left < 0 or time.monotonic() > until:
                    answer.raw.close()
                    raise AnswerError("the answer does not end", _HINT)
                yield piece
        except urllib3.exceptions.ReadTimeoutError as error:
            raise exceptions.ReadTimeoutError(endpoint_url=answer.url, error=error) from error
        except urllib3.exceptions.HTTPError as error:
            raise exceptions.ConnectionClosedError(endpoint_url=answer.url, error=error) from error
