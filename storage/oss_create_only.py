"""Whether a bucket of Aliyun OSS keeps objects from being overwritten: proven by a probe.

OSS ignores `x-oss-forbid-overwrite` in a bucket whose versioning is enabled or suspended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from storage import oss_client
from storage.bucket_keys import Keys
from storage.create_only import PROBE, Proofs
from storage.oss_client import Body, Client
from storage.oss_errors import DeniedError
from storage.oss_listing import Listing
from tools.base.errors import StoreError, TakenError
from tools.base.log import logger

_CONTENT = b"probe\n"
_FORBID = {"x-oss-forbid-overwrite": "true"}


class Guard:
    """Keeps `publish` from replacing an object: by the server, else by listing the name before."""

    def __init__(self, client: Client, keys: Keys, listing: Listing) -> None:
        self._client = client
        self._keys = keys
        self._listing = listing
        self.proofs = Proofs(
            client, lambda: self._proven(self._put_probe), lambda: self._proven(self._upload_probe)
        )

    def before_put(self, name: str) -> dict[str, str]:
        """Return the headers of a PutObject. Raises TakenError where the name is listed."""
        return self._headers(name, proven=self.proofs.put())

    def before_upload(self) -> None:
        """Probe the completion of uploads, before bytes are sent for nothing."""
        self.proofs.complete()

    def before_complete(self, name: str) -> dict[str, str]:
        """Return the headers of a completion. Raises TakenError where the name is listed."""
        return self._headers(name, proven=self.proofs.complete())

    def _headers(self, name: str, *, proven: bool) -> dict[str, str]:
        if not proven and self._listing.has(name):
            raise TakenError(f"{name}: object exists with different content")
        return dict(_FORBID)

    def begin(self, name: str, key: str, facts: dict[str, str]) -> str:
        """Begin an upload; return its ID.

        Where the object exists, only its content tells whether that is an error: the completion
        forbids overwriting as well, and then they are compared.
        """

        def begin(headers: dict[str, str]) -> str:
            answer = self._client.call(
                "InitiateMultipartUpload",
                name,
                lambda bucket: bucket.init_multipart_upload(key, headers),
            )
            return str(answer.upload_id)

        try:
            return begin({**facts, **_FORBID})
        except TakenError:
            return begin(facts)

    def _proven(self, publish: Callable[[], None]) -> bool:
        """Return whether the server refuses to publish the probe a second time."""
        try:
            return self._is_refused(publish) or self._is_refused(publish)
        except DeniedError as error:
            logger.info("%s: create-only cannot be probed: %s", self._client, error)
            return False

    def _is_refused(self, publish: Callable[[], None]) -> bool:
        try:
            publish()
        except TakenError:
            return True
        return False

    def _put_probe(self) -> None:
        key = self._keys.of(PROBE)
        self._client.call(
            "PutObject", PROBE, lambda bucket: bucket.put_object(key, Body(_CONTENT), dict(_FORBID))
        )

    def _upload_probe(self) -> None:
        key = self._keys.of(PROBE)
        upload_id = self.begin(PROBE, key, {})

        def completed(bucket: Any) -> None:  # noqa: ANN401  (of oss2)
            part = bucket.upload_part(key, upload_id, 1, Body(_CONTENT))
            parts = [oss_client.part(1, part.etag)]
            bucket.complete_multipart_upload(key, upload_id, parts, dict(_FORBID))

        try:
            self._client.call("CompleteMultipartUpload", PROBE, completed)
        except TakenError:
            with contextlib.suppress(StoreError, OSError):
                self._client.call(
                    "AbortMultipartUpload",
                    PROBE,
                    lambda bucket: bucket.abort_multipart_upload(key, upload_id),
                )
            raise
