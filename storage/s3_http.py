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
from typing import Any

from tools.base.errors import TransientError

_LONGEST = 32 << 20  # bytes of an answer that is no object; a page of a list has at most 8 MiB
_PIECE = 64 << 10
_PATIENCE = 1200.0  # seconds; a completion of S3 sends spaces for minutes
_HINT = "Check ENDPOINT_URL and the server."
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]{1,9})?Z")
_REDIRECTS = (301, 302, 303, 307, 308)


def guard(api: Any) -> None:  # noqa: ANN401  (botocore has no types)
    """Bound the answers that a client of boto3 reads, and where it looks after a redirection."""
    endpoint = api._endpoint  # botocore offers no other way
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
    found = _TIME.fullmatch(text)
    if found is not None:
        return datetime.fromisoformat(found[1]).replace(tzinfo=timezone.utc)
    from botocore.utils import parse_timestamp

    parsed: datetime = parse_timestamp(text)
    return parsed


def _digest(request: Any, **_more: object) -> None:  # noqa: ANN401  (botocore has no types)
    """Send Content-MD5 as well: many servers know no other checksum of a list of names."""
    digest = hashlib.md5(request.data, usedforsecurity=False).digest()
    request.headers["Content-MD5"] = base64.b64encode(digest).decode("ascii", "strict")


def _stay(
    request_dict: Mapping[str, Any],
    response: tuple[Any, Mapping[str, Any]] | None = None,
    **_more: object,
) -> None:
    """Tell botocore to follow no redirection that names no region.

    It would ask HeadBucket for the region, and where that is redirected as well, without end.
    """
    if response is None or response[0] is None or response[0].status_code not in _REDIRECTS:
        return
    named = "x-amz-bucket-region" in response[0].headers or response[1].get("Error", {}).get(
        "Region"
    )
    if not named:
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

    def __init__(self, inner: Any, longest: int = _LONGEST) -> None:  # noqa: ANN401
        """longest: bytes of an answer that is no object"""
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
            answer._content = b"".join(self._read(answer))
        return answer

    def _read(self, answer: Any) -> Iterator[bytes]:  # noqa: ANN401
        import urllib3
        from botocore import exceptions

        left, until = self._longest, time.monotonic() + _PATIENCE
        try:
            for piece in answer.raw.stream(_PIECE):
                left -= len(piece)
                if left < 0 or time.monotonic() > until:
                    answer.raw.close()
                    raise TransientError(f"{answer.url}: the answer does not end", _HINT)
                yield piece
        except urllib3.exceptions.ReadTimeoutError as error:
            raise exceptions.ReadTimeoutError(endpoint_url=answer.url, error=error) from error
        except urllib3.exceptions.HTTPError as error:
            raise exceptions.ConnectionClosedError(endpoint_url=answer.url, error=error) from error
