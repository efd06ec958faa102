"""The connection to an S3 server: credentials, and calls whose errors are those of a store.

boto3 is imported here, and only where a section needs it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from storage import bucket_answers, s3_errors, s3_http, s3_options
from storage.s3_errors import Call, ExpiredError
from storage.s3_options import Addressing, Options
from tools.base import foreign, masking
from tools.base.errors import ConfigError, StoreError, in_words
from tools.flow import stream

Answer = Mapping[str, Any]  # of S3, by the names of its API
_CONNECTIONS = 32  # kept for the next calls
_REGION = "us-east-1"  # where nothing names one


def members(store: object, answer: Answer, name: str, *needed: str) -> Iterator[Answer]:
    """Yield the members of a list in an answer. Raises StoreError where one lacks a value.

    store: named in the error
    """
    for one in answer.get(name, ()):
        missing = [key for key in needed if one.get(key) is None]
        if missing:
            raise StoreError(
                f"{store}: the server lists {name} without {missing[0]}",
                "Check ENDPOINT_URL and the server.",
            )
        yield one


@dataclass(frozen=True)
class Connection:
    """A session with its credentials.

    api:      the client of botocore; credentials: as botocore signs with them
    key_id:   the access key; source: where botocore found it; secret: both keys, to compare
    expires:  when the credentials end, in words; "" where they do not say
    """

    api: Any
    endpoint: str
    region: str
    key_id: str
    source: str
    secret: tuple[str, ...] = field(repr=False, default=())
    expires: str = ""
    credentials: Any = field(repr=False, default=None)

    def proxy(self) -> str:
        """Return the proxy that the environment names for the endpoint, without its password."""
        from botocore.httpsession import mask_proxy_url
        from botocore.utils import get_environ_proxies

        url = get_environ_proxies(self.endpoint).get(urlsplit(self.endpoint).scheme, "")
        return str(mask_proxy_url(url)) if url else ""

    def about(self) -> str:
        """Return endpoint, region, credentials and proxy in one line."""
        proxy = self.proxy()
        via = f", proxy {proxy}" if proxy else ""
        key = f"access key ...{self.key_id[-4:]} (from {self.source})"
        return f"endpoint {self.endpoint}, region {self.region}, {key}{via}"


def connected(options: Options) -> Connection:
    """Return a new session with what credentials there are now. Raises ConfigError, StoreError."""
    try:
        import boto3
        import botocore.session
        from botocore import exceptions
    except ImportError:
        raise ConfigError(
            "DESTINATION s3 needs the package boto3", "Run python3 setup.py env."
        ) from None
    _check_authorities(options)
    try:
        core = botocore.session.get_session()
        s3_http.quicken(core)
        session = boto3.session.Session(profile_name=options.profile or None, botocore_session=core)
        region = options.region or session.region_name or _REGION
        credentials = session.get_credentials()
        if credentials is None:
            raise s3_errors.no_credentials(options.url, "none found")
        frozen = credentials.get_frozen_credentials()
        api = session.client(
            "s3",
            region_name=region,
            endpoint_url=options.endpoint_url or None,
            verify=str(options.ca_bundle) if options.ca_bundle else None,
            config=_settings(options),
        )
    except exceptions.ProfileNotFound:
        raise ConfigError(
            f"PROFILE: {options.profile}: no such profile",
            "Run aws configure --profile NAME as the user of the backup.",
        ) from None
    except exceptions.BotoCoreError as error:
        call = Call(options.url, options.endpoint_url, "session", "", "")
        raise s3_errors.translated(error, call) from error
    _check(options, frozen.access_key, frozen.secret_key)
    masking.add(frozen.secret_key)
    s3_http.guard(api)
    endpoint = str(api.meta.endpoint_url)
    s3_options.check_endpoint(endpoint, "endpoint of the environment or the profile")
    return Connection(
        api=api,
        endpoint=endpoint,
        region=region,
        key_id=frozen.access_key,
        source=str(credentials.method),
        secret=(frozen.access_key, frozen.secret_key, frozen.token or ""),
        credentials=credentials,
        expires=str(getattr(credentials, "_expiry_time", None) or ""),
    )


def _settings(options: Options) -> Any:  # noqa: ANN401  (botocore has no types)
    """Return how botocore must work: one attempt a call, and checksums as they are given to it."""
    from botocore.config import Config

    addressing = options.addressing
    if addressing is Addressing.AUTO and "." in options.bucket_name:
        addressing = Addressing.PATH  # no certificate fits a host name with more dots
    return Config(
        signature_version="s3v4",
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=options.connect_timeout,
        read_timeout=options.read_timeout,
        max_pool_connections=_CONNECTIONS,
        tcp_keepalive=True,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": addressing.value},
        user_agent_extra="nc-backup-py",
    )


def _check_authorities(options: Options) -> None:
    """Raise ConfigError unless CA_BUNDLE is a regular file: opening a FIFO would block."""
    try:
        if options.ca_bundle is not None:
            foreign.beginning(options.ca_bundle, 1)
    except OSError as error:
        raise ConfigError(
            f"CA_BUNDLE: {in_words(error)[0]}", "Set it to a file of certificates (PEM)."
        ) from None


def _check(options: Options, key_id: str, secret: str) -> None:
    if any(not one.isprintable() or one != one.strip() for one in (key_id, secret)):
        raise StoreError(
            f"{options.url}: the access key or the secret key contains a line break, a space at "
            "its end or another control character",
            "Write both again, without a line break.",
        )


class Client:
    """Calls of one bucket. Expired credentials are read anew, once for each call."""

    def __init__(
        self, options: Options, connect: Callable[[Options], Connection] = connected
    ) -> None:
        """Prepare a client; `connect` makes the session at the first call."""
        self.options = options
        self._connect = connect
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self.ahead: float | None = None  # seconds of the clock of the server, by its last answer

    def __str__(self) -> str:
        return self.options.url

    @property
    def connection(self) -> Connection:
        """Return the session; the first call makes it. Raises ConfigError, StoreError."""
        with self._lock:
            if self._connection is None:
                self._connection = self._connect(self.options)
            return self._connection

    def call(self, operation: str, name: str = "", /, **parameters: object) -> Answer:
        """Call S3 once, with a new session where the credentials have expired.

        operation: a method of the client (put_object). name: of the object, for messages.
        """
        connection = self.connection
        try:
            return self._send(connection, operation, name, parameters)
        except ExpiredError as error:
            connection = self._renewed(connection, error)
        try:
            return self._send(connection, operation, name, parameters)
        except ExpiredError as error:
            raise StoreError(str(error), error.hint) from error

    def _send(
        self, connection: Connection, operation: str, name: str, parameters: Mapping[str, object]
    ) -> Answer:
        body = parameters.get("Body")
        if hasattr(body, "seek"):
            body.seek(0)  # an earlier call, with credentials that had expired, has read it
        with self.translating(connection, operation, name):
            method = getattr(connection.api, operation)
            answer: Answer = method(Bucket=self.options.bucket_name, **parameters)
        date = bucket_answers.date_of(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}))
        self.ahead = date.timestamp() - time.time() if date else self.ahead
        return answer

    @contextlib.contextmanager
    def translating(self, connection: Connection, operation: str, name: str) -> Iterator[None]:
        """Raise what botocore raises in the block as an error of the store."""
        try:
            yield
        except Exception as error:
            api_name = "".join(word.capitalize() for word in operation.split("_"))
            key_id = connection.key_id[-4:]
            call = Call(str(self), connection.endpoint, api_name, name, key_id)
            raise s3_errors.translated(error, call) from error

    @contextlib.contextmanager
    def reading(self, answer: Answer, name: str) -> Iterator[Iterator[bytes]]:
        """Give the chunks of an object that GetObject has answered with."""
        body = contextlib.closing(answer["Body"])
        with self.translating(self.connection, "get_object", name), body as chunks:
            yield chunks.iter_chunks(stream.CHUNK)

    def _renewed(self, old: Connection, error: StoreError) -> Connection:
        """Return a session with other credentials. Raises StoreError where there are none."""
        with self._lock:
            if self._connection is old:
                fresh = self._connect(self.options)
                if fresh.secret == old.secret:
                    at = f" at {old.expires}" if old.expires else ""
                    raise StoreError(f"{error}{at}", error.hint) from error
                self._connection = fresh
            assert self._connection is not None  # noqa: S101  (`old` was it)
            return self._connection
