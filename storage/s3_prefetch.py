"""Small objects of a bucket that are read before they are asked for, several at once.

A call of boto3 takes about 3 ms of a processor. 1,000 runs have 2,000 such objects, so these are
signed and sent by the parts of botocore that do nothing else.
"""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import quote, urlsplit

from storage.s3_blocks import S3Blocks
from storage.s3_client import Connection
from storage.s3_options import Options
from tools.flow import stream

_READERS = 8
_PIECE = 64 << 10
_OK = 200
_LARGEST = 4 << 20  # bytes of an object that is read ahead
_WAITING = 32 << 20  # bytes that wait until they are asked for


class Prefetcher:
    """Objects on their way here, each of which is handed out once."""

    def __init__(self, backend: S3Blocks) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._reader: _Reader | None = None
        self._coming: dict[str, Future[bytes | None]] = {}
        self._waiting = 0

    def begin(self, names: Sequence[str]) -> None:
        """Begin to read objects."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_READERS, "s3-prefetch")
                self._reader = _Reader(
                    self._backend.client.connection, self._backend.client.options
                )
            for name in names:
                if name not in self._coming:
                    self._coming[name] = self._pool.submit(self._read, name)

    def _read(self, name: str) -> bytes | None:
        """Return an object; None where it is read when it is asked for."""
        assert self._reader is not None  # noqa: S101  (made by `begin`)
        if self._waiting >= _WAITING:
            return None
        content = self._reader.read(self._backend.keys.of(name))
        if content is None:
            content = stream.small(self._backend.get(name), _LARGEST)
        with self._lock:
            self._waiting += len(content or b"")
        return content

    def get(self, name: str) -> Iterator[bytes] | None:
        """Return an object that is on its way; None for any other."""
        with self._lock:
            coming = self._coming.pop(name, None)
        return None if coming is None else self._content(coming, name)

    def _content(self, coming: Future[bytes | None], name: str) -> Iterator[bytes]:
        content = coming.result()
        if content is None:
            yield from self._backend.get(name)
            return
        with self._lock:
            self._waiting -= len(content)
        yield content


class _Reader:
    """GetObject without the layers of boto3; where a proxy is needed, it reads nothing."""

    def __init__(self, connection: Connection, options: Options) -> None:
        from botocore.auth import S3SigV4Auth
        from botocore.httpsession import get_cert_path

        url = connection.api.generate_presigned_url(
            "get_object", Params={"Bucket": options.bucket_name, "Key": "k"}
        )
        self._bucket = str(url).partition("?")[0].removesuffix("k")
        self._auth = S3SigV4Auth(connection.credentials, "s3", connection.region)
        self._is_direct = not connection.proxy()
        self._timeout = options.read_timeout
        self._authorities = str(options.ca_bundle or get_cert_path(verify=True))
        self._local = threading.local()  # a connection of each thread

    def read(self, key: str) -> bytes | None:
        """Return an object; None where the answer is not simply its bytes."""
        from botocore.awsrequest import AWSRequest

        if not self._is_direct:
            return None
        request = AWSRequest("GET", self._bucket + quote(key, safe="/~"))
        self._auth.add_auth(request)
        path = request.url.split("/", 3)[3]
        connection = self._connection()
        content, is_whole = None, False
        try:
            connection.request("GET", f"/{path}", headers=dict(request.headers.items()))
            answer = connection.getresponse()
            if answer.status == _OK:
                content = stream.small(iter(lambda: answer.read(_PIECE), b""), _LARGEST)
            ended = answer.chunked or answer.length == 0  # None: its headers are cut
            is_whole = content is not None and ended
        except (OSError, http.client.HTTPException):
            content = None
        if not is_whole:  # what remains of the answer is not read
            connection.close()
            self._local.connection = None
        return content if is_whole else None

    def _connection(self) -> http.client.HTTPConnection:
        """Return the connection of this thread."""
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            server = urlsplit(self._bucket)
            if server.scheme == "https":
                context = ssl.create_default_context(cafile=self._authorities)
                connection = http.client.HTTPSConnection(
                    server.netloc, timeout=self._timeout, context=context
                )
            else:
                connection = http.client.HTTPConnection(server.netloc, timeout=self._timeout)
            self._local.connection = connection
        return connection
