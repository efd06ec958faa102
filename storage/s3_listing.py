"""What a bucket holds: objects, folders, unfinished uploads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from storage.bucket_answers import Listed, date_of
from storage.bucket_keys import Keys
from storage.s3_client import Answer, Client, members
from storage.s3_errors import ChecksumRefusedError, DeniedError, MissingError
from tools.base.errors import TransientError
from tools.base.log import logger
from tools.flow import store
from tools.flow.block_backend import PendingUpload, Upload
from tools.flow.store import StoreEntry

_FEW = 1_000  # uploads of which the parts are counted


class Listing:
    """Lists the bucket, page by page."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """Yield the objects in a folder, sorted by name."""
        listed = Listed(self._client, self._keys, folder)
        for page in store.limited(self._client, self._pages(listed.prefix)):
            now = _time_of(page)
            for entry in members(self._client, page, "Contents", "Key", "Size", "LastModified"):
                age = (now - entry["LastModified"]).total_seconds()
                listed.add(entry["Key"], entry["Size"], age)
        yield from listed

    def entry(self, name: str) -> Answer | None:
        """Return what the listing says of one object; None where there is none."""
        key = self._keys.of(name)
        page = self._list_objects(Prefix=key, MaxKeys=1)
        entry = next(members(self._client, page, "Contents", "Key", "Size"), None)
        return entry if entry and entry["Key"] == key else None

    def folders(self) -> Iterator[str]:
        """Yield the folders of the hosts, sorted."""
        listed = Listed(self._client, self._keys, "")
        for page in store.limited(self._client, self._pages(listed.prefix)):
            for one in members(self._client, page, "CommonPrefixes", "Prefix"):
                listed.add(one["Prefix"].removesuffix("/"))
        yield from (one.name for one in listed if one.name != store.OWN_FOLDER)

    def _pages(self, prefix: str) -> Iterator[Answer]:
        following: dict[str, object] = {}
        while True:
            page = self._list_objects(Prefix=prefix, Delimiter="/", **following)
            yield page
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated"):
                return
            if not token or following.get("ContinuationToken") == token:
                raise TransientError(f"{self._client}: the server lists no further page")
            following = {"ContinuationToken": token}

    def _list_objects(self, **parameters: object) -> Answer:
        page = self._client.call("list_objects_v2", "", **parameters)
        if not {"IsTruncated", "KeyCount", "Name"} & set(page):
            raise TransientError(
                f"{self._client}: ListObjectsV2: the answer is none of S3",
                "Check ENDPOINT_URL, and whether a proxy answers instead of the server.",
            )
        return page

    def uploads(self, folder: str) -> Iterator[PendingUpload]:
        """Yield the uploads in a folder that were neither completed nor aborted.

        None where the server has no such list, or the credentials do not allow it. rclone answers
        404 to a bucket that never had one.
        """
        listed = Listed(self._client, self._keys, folder)
        try:
            for page in store.limited(self._client, self._upload_pages(listed.prefix)):
                yield from self._uploads_of(page, listed)
        except (DeniedError, ChecksumRefusedError) as error:  # the latter also for 501
            logger.info("unfinished uploads are not listed: %s", error)
        except MissingError:
            return

    def _uploads_of(self, page: Answer, folder: Listed) -> Iterator[PendingUpload]:
        now = _time_of(page)
        for one in members(self._client, page, "Uploads", "Key", "UploadId"):
            if (name := folder.name(one["Key"])) is not None:
                age = (now - one["Initiated"]).total_seconds() if one.get("Initiated") else 0
                yield PendingUpload(Upload(name, str(one["UploadId"])), self._size(one), age)

    def _upload_pages(self, prefix: str) -> Iterator[Answer]:
        following: dict[str, object] = {}
        while True:
            page = self._client.call("list_multipart_uploads", "", Prefix=prefix, **following)
            yield page
            marker = page.get("NextKeyMarker")
            if not page.get("IsTruncated") or not marker or marker == following.get("KeyMarker"):
                return
            following = {"KeyMarker": marker}
            if page.get("NextUploadIdMarker"):
                following["UploadIdMarker"] = page["NextUploadIdMarker"]

    def _size(self, upload: Any) -> int:  # noqa: ANN401  (of botocore)
        """Return the bytes of the first 1,000 parts of an upload; 0 where they are not told."""
        try:
            of_upload = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
            page = self._client.call("list_parts", **of_upload)
        except (DeniedError, MissingError, ChecksumRefusedError):
            return 0
        return sum(int(part["Size"]) for part in members(self._client, page, "Parts", "Size"))


def _time_of(answer: Answer) -> datetime:
    """Return when an answer was given, by the clock of the server where it says."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return date_of(headers) or datetime.now(timezone.utc)
