"""What a bucket of Aliyun OSS holds: objects, folders, unfinished uploads."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from storage import oss_errors
from storage.bucket_keys import Keys
from storage.oss_client import Client
from storage.oss_errors import DeniedError, MissingError
from tools.base.errors import TransientError
from tools.base.log import logger
from tools.flow import store
from tools.flow.block_backend import PendingUpload, Upload
from tools.flow.store import StoreEntry

_PAGE = 1_000  # of objects, uploads or parts: the most that OSS lists at once


class Listing:
    """Lists the bucket, page by page."""

    def __init__(self, client: Client, keys: Keys, page: int = _PAGE) -> None:
        """page: objects that are asked for at once"""
        self._client = client
        self._keys = keys
        self._page = page

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """Yield the objects in a folder, sorted by name."""
        found = []
        for page in store.limited(self._client, self._pages(self._keys.folder(folder))):
            now = _time_of(page.headers)
            for entry in page.object_list:
                name = self._keys.name(entry.key)
                if not name.endswith("/"):  # which some tools make for a folder
                    found.append(StoreEntry(name, int(entry.size), now - entry.last_modified))
        yield from sorted(found, key=lambda one: one.name)

    def has(self, name: str) -> bool:
        """Return whether there is an object of this name."""
        key = self._keys.of(name)
        page = self._listed(key, "", 1)
        return any(entry.key == key for entry in page.object_list)

    def folders(self) -> Iterator[str]:
        """Yield the folders of the hosts, sorted."""
        found = {
            self._keys.name(prefix).rstrip("/")
            for page in store.limited(self._client, self._pages(self._keys.prefix))
            for prefix in page.prefix_list
        }
        yield from sorted(found - {store.OWN_FOLDER})

    def _pages(self, prefix: str) -> Iterator[Any]:
        token = ""
        while True:
            page = self._listed(prefix, token, self._page)
            yield page
            if not page.is_truncated:
                return
            if page.next_continuation_token in ("", token):
                raise TransientError(f"{self._client}: the server lists no further page")
            token = page.next_continuation_token

    def _listed(self, prefix: str, token: str, count: int) -> Any:  # noqa: ANN401  (of oss2)
        return self._client.call(
            "ListObjectsV2",
            "",
            lambda bucket: bucket.list_objects_v2(
                prefix, delimiter="/", continuation_token=token, max_keys=count
            ),
        )

    def uploads(self, folder: str) -> Iterator[PendingUpload]:
        """Yield the uploads in a folder that were neither completed nor aborted.

        None where the credentials do not allow that list.
        """
        try:
            listed = self._upload_pages(self._keys.folder(folder))
            pages = list(store.limited(self._client, listed))
        except DeniedError as error:
            logger.info("unfinished uploads are not listed: %s", error)
            return
        for page in pages:
            now = _time_of(page.headers)
            for one in page.upload_list:
                upload = Upload(self._keys.name(one.key), one.upload_id)
                age = now - one.initiation_date
                yield PendingUpload(upload, self._size(one.key, one.upload_id), age)

    def _upload_pages(self, prefix: str) -> Iterator[Any]:
        markers = ("", "")
        while True:
            page = self._client.call(
                "ListMultipartUploads",
                "",
                functools.partial(self._uploads_after, prefix, markers),
            )
            yield page
            following = (page.next_key_marker, page.next_upload_id_marker)
            if not page.is_truncated or following == markers:
                return
            markers = following

    def _uploads_after(self, prefix: str, markers: tuple[str, str], bucket: Any) -> Any:  # noqa: ANN401  (of oss2)
        return bucket.list_multipart_uploads(prefix, "/", *markers, max_uploads=self._page)

    def _parts_after(self, key: str, upload_id: str, marker: str, bucket: Any) -> Any:  # noqa: ANN401  (of oss2)
        return bucket.list_parts(key, upload_id, marker, self._page)

    def _size(self, key: str, upload_id: str) -> int:
        """Return the bytes of an upload; 0 where it is gone or its parts may not be listed."""
        size, marker = 0, ""
        try:
            while True:
                page = self._client.call(
                    "ListParts",
                    "",
                    functools.partial(self._parts_after, key, upload_id, marker),
                )
                size += sum(int(part.size) for part in page.parts)
                if not page.is_truncated or page.next_marker == marker:
                    return size
                marker = page.next_marker
        except (DeniedError, MissingError):
            return 0


def _time_of(headers: Mapping[str, str]) -> float:
    """Return when an answer was given, by the clock of the server where it says."""
    date = oss_errors.date_of(headers) or datetime.now(timezone.utc)
    return date.timestamp()
