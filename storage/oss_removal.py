"""Removing objects of a bucket of Aliyun OSS, and the versions that it keeps of them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from storage import bucket_keys, oss_client
from storage.bucket_keys import Keys
from storage.oss_client import Client
from storage.oss_errors import DeniedError, MissingError
from tools.base.errors import ForbiddenError, StoreError, TransientError
from tools.flow import store

_AT_ONCE = 1_000  # objects that one call lists or removes
_RETENTION = "The retention policy of the bucket says for how many days objects are kept."
Again = Callable[[Callable[[], None]], None]


class Removal:
    """Removes objects, many with one call; the reason for one that stays is asked for alone."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def remove(self, names: Sequence[str]) -> None:
        """See Store."""
        keys = list(map(self._keys.of, names))
        for begin in range(0, len(keys), _AT_ONCE):
            self._remove(keys[begin : begin + _AT_ONCE])

    def _remove(self, keys: list[str]) -> None:
        try:
            answer = self._client.call(
                "DeleteMultipleObjects", "", lambda bucket: bucket.batch_delete_objects(keys)
            )
        except DeniedError as error:
            raise _forbidden(error) from error
        deleted = set(answer.deleted_keys)
        for key in keys:
            if key not in deleted:
                self._remove_one(key)

    def _remove_one(self, key: str, version: str = "") -> None:
        name = self._keys.name(key)
        params = {"versionId": version} if version else None
        try:
            self._client.call(
                "DeleteObject", name, lambda bucket: bucket.delete_object(key, params)
            )
        except MissingError:
            return
        except DeniedError as error:
            raise _forbidden(error) from error

    def versioning(self) -> bool:
        """See Versioned."""
        try:
            answer = self._client.call(
                "GetBucketVersioning", "", lambda bucket: bucket.get_bucket_versioning()
            )
        except DeniedError as error:
            raise _forbidden(error) from error
        return bool(answer.status)

    def allowed(self, name: str) -> bool:
        """See Probed: what is removed is an object that is not there.

        A bucket that keeps versions gets a delete marker, which is removed where that is allowed.
        Where it is not, one marker stays: while it is there, no other one is made.
        """
        key = self._keys.of(name)
        if self._is_hidden(name):
            return True
        try:
            answer = self._client.call(
                "DeleteObject", name, lambda bucket: bucket.delete_object(key)
            )
        except MissingError:
            return True
        except DeniedError:
            return False
        version = answer.headers.get("x-oss-version-id", "")
        if version and answer.headers.get("x-oss-delete-marker") == "true":
            with contextlib.suppress(StoreError):
                self._remove_one(key, version)
        return True

    def _is_hidden(self, name: str) -> bool:
        """Return whether a delete marker hides an object."""
        key = self._keys.of(name)
        try:
            self._client.call("HeadObject", name, lambda bucket: bucket.head_object(key))
        except MissingError as error:
            headers = getattr(error.__cause__, "headers", {})
            return str(headers.get("x-oss-delete-marker")) == "true"
        except StoreError:  # who may not read an object may remove it all the same
            pass
        return False

    def remove_versions(self, names: Sequence[str], again: Again) -> int:
        """See Versioned. again: repeats a call that fails for a moment"""
        freed = 0
        for some in (names[:1], names[1:]):
            for prefix, keys in bucket_keys.groups(list(map(self._keys.of, some))).items():
                freed += self._remove_group(prefix, keys, again)
        return freed

    def _remove_group(self, prefix: str, keys: Sequence[str], again: Again) -> int:
        wanted = set(keys)
        versions: list[Any] = []
        markers: list[Any] = []

        def listed() -> None:
            versions.clear()
            markers.clear()
            for page in store.limited(self._client, self._pages(prefix)):
                versions.extend(one for one in page.versions if one.key in wanted)
                markers.extend(one for one in page.delete_marker if one.key in wanted)

        again(listed)
        versions.reverse()  # the newest goes last
        for group in (versions, markers):
            for begin in range(0, len(group), _AT_ONCE):
                targets = [(one.key, one.versionid) for one in group[begin : begin + _AT_ONCE]]
                again(functools.partial(self._remove_targets, targets))
        return sum(int(one.size) for one in versions)

    def _pages(self, prefix: str) -> Iterator[Any]:
        marks = ("", "")
        while True:
            try:
                page = self._client.call(
                    "ListObjectVersions", "", functools.partial(_versions_after, prefix, marks)
                )
            except DeniedError as error:
                raise _forbidden(error) from error
            yield page
            if not page.is_truncated:
                return
            following = (page.next_key_marker, page.next_versionid_marker)
            if following == marks:
                raise TransientError(f"{self._client}: the server lists no further page")
            marks = following

    def _remove_targets(self, targets: Sequence[tuple[str, str]]) -> None:
        versions = oss_client.versions(targets)
        try:
            answer = self._client.call(
                "DeleteObjectVersions", "", lambda bucket: bucket.delete_object_versions(versions)
            )
        except DeniedError as error:
            raise _forbidden(error) from error
        removed = {(one.key, one.versionid) for one in answer.delete_versions}
        for target in targets:
            if target not in removed:
                self._remove_one(*target)


def _versions_after(prefix: str, marks: tuple[str, str], bucket: Any) -> Any:  # noqa: ANN401  (of oss2)
    key, version = marks
    return bucket.list_object_versions(
        prefix, key_marker=key, versionid_marker=version, max_keys=_AT_ONCE
    )


def _forbidden(error: DeniedError) -> ForbiddenError:
    return ForbiddenError(str(error), error.hint or _RETENTION)
