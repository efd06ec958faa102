"""What a bucket of Aliyun OSS holds: objects, folders, unfinished uploads."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from storage.bucket_answers import Listed, date_of
from storage.bucket_keys import Keys
from storage.oss_client import Client
from storage.oss_errors import DeniedError, MissingError
from tools.base.errors import TransientError
from tools.base.log import logger
from tools.flow import store
from tools.flow.block_backend import PendingUpload, Upload
from tools.flow.store import StoreEntry

_PAGE = 1_000  # of objects, uploads or parts: the most that OSS lists at once
_PART_PAGES = 11  # an upload has at most 10,000 parts


class Listing:
    """Lists the bucket, page by page."""

    def __init__(self, client: Client, keys: Keys, page: int = _PAGE) -> None:
        """List with `page` objects for each request."""
        self._client = client
        self._keys = keys
        self._page = page

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """Yield the objects in a folder, sorted by name."""
        listed = Listed(self._client, self._keys, folder)
        for page in store.limited(self._client, self._pages(listed.prefix)):
            now = _time_of(page.headers)
            for entry in page.object_list:
                listed.add(entry.key, int(entry.size), now - entry.last_modified)
        yield from listed

    def has(self, name: str) -> bool:
        """Return whether there is an object of this name."""
        key = self._keys.of(name)
        page = self._listed(key, "", 1)
        return any(entry.key == key for entry in page.object_list)

    def folders(self) -> Iterator[str]:
        """Yield the folders of the hosts, sorted."""
        listed = Listed(self._client, self._keys, "")
        for page in store.limited(self._client, self._pages(listed.prefix)):
            for prefix in page.prefix_list:
                listed.add(prefix.removesuffix("/"))
        yield from (one.name for one in listed if one.name != store.OWN_FOLDER)

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
        listed = Listed(self._client, self._keys, folder)
        try:
            for page in store.limited(self._client, self._upload_pages(listed.prefix)):
                yield from self._uploads_of(page, listed)
        except DeniedError as error:
            logger.info("unfinished uploads are not listed: %s", error)

    def _uploads_of(self, page: Any, folder: Listed) -> Iterator[PendingUpload]:  # noqa: ANN401  (of oss2)
        now = _time_of(page.headers)
        for one in page.upload_list:
            if (name := folder.name(one.key)) is not None:
                size = self._size(one.key, one.upload_id)
                yield PendingUpload(Upload(name, one.upload_id), size, now - one.initiation_date)

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
        try:
            pages = store.limited(self._client, self._part_pages(key, upload_id), _PART_PAGES)
            return sum(int(part.size) for page in pages for part in page.parts)
        except (DeniedError, MissingError):
            return 0

    def _part_pages(self, key: str, upload_id: str) -> Iterator[Any]:
        marker = ""
        while True:
            send = functools.partial(self._parts_after, key, upload_id, marker)
            page = self._client.call("ListParts", "", send)
            yield page
            if not page.is_truncated or page.next_marker == marker:
                return
            marker = page.next_marker


def _time_of(headers: Mapping[str, str]) -> float:
    """Return when an answer was given, by the clock of the server where it says."""
    date = date_of(headers) or datetime.now(timezone.utc)
    return date.timestamp()
