"""Small objects of a bucket that are read before they are asked for, several at once.

A call of boto3 takes about 3 ms of a processor. 1,000 runs have 2,000 such objects, so these are
signed and sent by the parts of botocore that do nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import quote

from storage.s3_blocks import S3Blocks
from storage.s3_client import Connection
from storage.s3_options import Options

_READERS = 8
_OK = 200


class Prefetcher:
    """Objects on their way here, each of which is handed out once."""

    def __init__(self, backend: S3Blocks) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._reader: _Reader | None = None
        self._coming: dict[str, Future[bytes]] = {}

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

    def _read(self, name: str) -> bytes:
        assert self._reader is not None  # noqa: S101  (made by `begin`)
        content = self._reader.read(self._backend.keys.of(name))
        return b"".join(self._backend.get(name)) if content is None else content

    def get(self, name: str) -> Iterator[bytes] | None:
        """Return an object that is on its way; None for any other."""
        with self._lock:
            coming = self._coming.pop(name, None)
        return None if coming is None else _content(coming)


def _content(coming: Future[bytes]) -> Iterator[bytes]:
    yield coming.result()


class _Reader:
    """GetObject without the layers of boto3; where a proxy is needed, it reads nothing."""

    def __init__(self, connection: Connection, options: Options) -> None:
        import urllib3
        from botocore.auth import S3SigV4Auth
        from botocore.httpsession import get_cert_path

        found = connection.api.generate_presigned_url(
            "get_object", Params={"Bucket": options.bucket_name, "Key": "k"}
        )
        self._bucket = str(found).partition("?")[0].removesuffix("k")
        self._auth = S3SigV4Auth(connection.credentials, "s3", connection.region)
        self._is_direct = not connection.proxy()
        self._pool = urllib3.PoolManager(
            maxsize=_READERS,
            retries=False,
            timeout=urllib3.Timeout(options.connect_timeout, options.read_timeout),
            ca_certs=str(options.ca_bundle or get_cert_path(verify=True)),
        )

    def read(self, key: str) -> bytes | None:
        """Return an object; None where the answer is not simply its bytes."""
        import urllib3
        from botocore.awsrequest import AWSRequest

        if not self._is_direct:
            return None
        request = AWSRequest("GET", self._bucket + quote(key, safe="/~"))
        self._auth.add_auth(request)
        try:
            answer = self._pool.request("GET", request.url, headers=dict(request.headers.items()))
        except urllib3.exceptions.HTTPError:
            return None
        return answer.data if answer.status == _OK else None
