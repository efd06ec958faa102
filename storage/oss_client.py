"""The connection to Aliyun OSS: calls whose errors are those of a store.

This file and one function of oss_errors.py import oss2, only where a section needs it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from storage import bucket_answers, oss_account, oss_errors
from storage.oss_account import Account, Keys
from storage.oss_errors import Call, ExpiredError
from tools import requests_utils
from tools.base import masking
from tools.base.errors import ConfigError
from tools.flow.block_backend import Block

_CONNECTIONS = 32  # kept for the next calls
_PIECE = 1 << 18
_PATIENCE = 1200.0  # seconds for an answer that is no object
T = TypeVar("T")


class Timeouts(Keys, Protocol):
    """The keys of a section that the connection needs."""

    @property
    def connect_timeout(self) -> float:
        """Return the timeout of a connection attempt in seconds."""

    @property
    def read_timeout(self) -> float:
        """Return the timeout of an answer in seconds."""


class Body:
    """Bytes that are sent in pieces: a time limit counts for each piece, not for all of them."""

    def __init__(self, content: Block) -> None:
        self._content = memoryview(content)
        self._position = 0

    def __len__(self) -> int:
        return len(self._content)

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(_PIECE):
            yield piece

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most `size`; none at the end."""
        begin = self._position
        self._position = len(self) if size < 0 else min(begin + size, len(self))
        return bytes(self._content[begin : self._position])


class _Response:
    """An answer as oss2 reads it, of bounded size."""

    def __init__(self, response: Any) -> None:  # noqa: ANN401  (of requests)
        self.response = response
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.request_id = response.headers.get("x-oss-request-id", "")
        self._is_read = False

    def read(self, size: int | None = None) -> bytes:
        """Return the content, or its beginning.

        Raises ValueError where all of it does not end, or is nothing to parse.
        """
        limit = bucket_answers.LARGEST if size is None else size
        until = time.monotonic() + _PATIENCE
        content = bytearray()
        for piece in self:
            content += piece
            if size is None and (len(content) > limit or time.monotonic() > until):
                raise ValueError("no end")
            if len(content) > limit:
                break
        if size is None and not bucket_answers.is_parsable(content):
            raise ValueError("not parsable")
        return bytes(content[:limit])

    def __iter__(self) -> Iterator[bytes]:
        if not self._is_read:  # oss2 has read an answer without content, and it can be read once
            self._is_read = True
            yield from self.response.iter_content(_PIECE)

    def close(self) -> None:
        """Close the connection if the content has not been read to its end."""
        self.response.close()


class _Session:
    """Sends the requests of oss2: never to another host, and with the login of oss2 alone."""

    def __init__(self) -> None:
        import requests

        self.ahead: float | None = None  # seconds of the clock of the server, by its last answer
        self._session = requests_utils.session()
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=_CONNECTIONS)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)

    def do_request(self, request: Any, timeout: Any) -> _Response:  # noqa: ANN401  (of oss2)
        """Send one request. Raises what requests raises, also for headers that are cut."""
        import requests

        answer = self._session.request(
            request.method,
            request.url,
            data=request.data,
            params=request.params,
            headers=request.headers,
            stream=True,
            timeout=timeout,
            allow_redirects=False,
            auth=_unchanged,
        )
        date = bucket_answers.date_of(answer.headers)
        self.ahead = date.timestamp() - time.time() if date else self.ahead
        if request.method == "HEAD" and answer.ok and "Content-Length" not in answer.headers:
            answer.close()
            raise requests.ConnectionError("the headers of the answer are cut")
        return _Response(answer)


def _unchanged(request: T) -> T:
    """Keep requests from putting the password of a .netrc in the place of the login."""
    return request


@dataclass(frozen=True)
class Connection:
    """A bucket as oss2 knows it. bucket: oss2.Bucket; signature: V4, or V1 without a region."""

    bucket: Any
    account: Account
    signature: str

    def about(self) -> str:
        """Return endpoint, region and credentials in one line."""
        account = self.account
        region = account.region or "unknown"
        return (
            f"endpoint {account.endpoint.url}, region {region}, signature {self.signature}, "
            f"access key ...{account.key_id[-4:]} (from {account.source}){self._proxy()}"
        )

    def _proxy(self) -> str:
        """Return the proxy that the environment names for the endpoint, as a part of a line."""
        from requests import utils

        url = self.account.endpoint.url
        proxy = utils.select_proxy(url, utils.get_environ_proxies(url))
        return f", proxy {masking.text(proxy)}" if proxy else ""


def connected(account: Account, keys: Timeouts) -> Connection:
    """Return a connection; nothing is sent yet. Raises ConfigError where oss2 is missing."""
    try:
        import oss2
    except ImportError:
        raise ConfigError(
            "DESTINATION oss needs the packages oss2 and crcmod-plus",
            "Install them: .venv/bin/pip install oss2 crcmod-plus",
        ) from None
    logging.getLogger("oss2").setLevel(logging.CRITICAL)  # errors are raised; it logs them as well
    version = "v4" if account.region else "v1"
    login = (account.key_id, account.secret)
    auth = (
        oss2.StsAuth(*login, account.token, auth_version=version)
        if account.token
        else oss2.make_auth(*login, auth_version=version)
    )
    bucket = oss2.Bucket(
        auth,
        account.endpoint.url,
        account.bucket,
        session=_Session(),
        connect_timeout=(keys.connect_timeout, keys.read_timeout),
        enable_crc=False,  # in pieces of 8 KiB: compared here, by whole parts
        region=account.region or None,
    )
    return Connection(bucket, account, version.upper())


def part(number: int, etag: str) -> Any:  # noqa: ANN401  (of oss2)
    """Return a part of an upload, for its completion."""
    import oss2

    return oss2.models.PartInfo(number, etag)


def versions(targets: Iterable[tuple[str, str]]) -> Any:  # noqa: ANN401  (of oss2)
    """Return keys with their versions, for the call that removes them."""
    import oss2

    listed = oss2.models.BatchDeleteObjectVersionList()
    for key, version in targets:
        listed.append(oss2.models.BatchDeleteObjectVersion(key, version))
    return listed


class Client:
    """Calls of one bucket. Expired credentials are read anew, once for each call."""

    def __init__(self, keys: Timeouts, url: Callable[[Account], str]) -> None:
        """Connect to the bucket. Raises ConfigError.

        url: returns the name of the store of an account, for messages
        """
        self._keys = keys
        self._lock = threading.Lock()
        self._connection = connected(oss_account.of(keys), keys)
        self._url = url(self._connection.account)

    def __str__(self) -> str:
        return self._url

    @property
    def connection(self) -> Connection:
        """Return the current connection."""
        with self._lock:
            return self._connection

    @property
    def ahead(self) -> float | None:
        """Return by how many seconds the server's clock is ahead; None before an answer."""
        seconds: float | None = self.connection.bucket.session.ahead
        return seconds

    def call(self, operation: str, name: str, send: Callable[[Any], T]) -> T:
        """Call OSS once, and again with new credentials where they have expired.

        operation: as the API of OSS calls it; name: of the object, "" for none
        send: gets the bucket. Raises the errors of a store.
        """
        connection = self.connection
        try:
            with self.translating(connection, operation, name):
                return send(connection.bucket)
        except ExpiredError:
            if not self._is_renewed(connection):
                raise
        connection = self.connection
        with self.translating(connection, operation, name):
            return send(connection.bucket)

    @contextlib.contextmanager
    def translating(self, connection: Connection, operation: str, name: str) -> Iterator[None]:
        """Turn what oss2 raises in the block into the errors of a store."""
        try:
            yield
        except Exception as error:
            call = Call(str(self), connection.account, operation, name)
            translated = oss_errors.translated(error, call)
            if translated is error:
                raise
            raise translated from error

    def _is_renewed(self, used: Connection) -> bool:
        """Read the credentials again; return whether there are others than those that were used."""
        with self._lock:
            if self._connection is used:
                account = oss_account.of(self._keys)
                if account == used.account:
                    return False
                self._connection = connected(account, self._keys)
            return True
