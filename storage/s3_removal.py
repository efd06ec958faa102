"""Removing objects of an S3 bucket, and the versions that it keeps of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from storage import bucket_keys, s3_errors
from storage.bucket_keys import Keys
from storage.s3_client import Answer, Client, members
from storage.s3_errors import Call, ChecksumRefusedError, DeniedError, MissingError
from tools.base.errors import ForbiddenError, StoreError, TransientError
from tools.flow import store

_AT_ONCE = 1_000  # objects that one call removes
MAX_VERSIONS = 100_000  # of the objects that are asked for: each takes 1 KiB of memory
_TOO_MANY = f"more than {MAX_VERSIONS} versions"
_LIFECYCLE = "Let a lifecycle rule of the bucket remove its noncurrent versions."
Target = Mapping[str, str]  # Key, and VersionId where it is one version
Again = Callable[[Callable[[], None]], None]


class Removal:
    """Removes objects: one by one, or many with one call where the server can do that."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._at_once = True  # until the server refuses DeleteObjects

    def remove(self, names: Sequence[str]) -> None:
        """See Store."""
        self._remove([{"Key": self._keys.of(name)} for name in names])

    def versioning(self) -> bool:
        """See Versioned."""
        try:
            answer = self._client.call("get_bucket_versioning")
        except (ChecksumRefusedError, MissingError):  # the former also for 501
            return False
        except DeniedError as error:
            raise ForbiddenError(str(error), error.hint) from error
        return answer.get("Status") in ("Enabled", "Suspended")

    def allowed(self, name: str) -> bool:
        """See Probed: what is removed is an object that is not there.

        A bucket that keeps versions gets a delete marker, which is removed where that is allowed.
        Where it is not, one marker stays: while it is there, no other one is made.
        """
        key = {"Key": self._keys.of(name)}
        if self._is_hidden(name):
            return True
        try:
            answer = self._client.call("delete_object", name, **key)
        except MissingError:
            return True
        except DeniedError:
            return False
        if answer.get("DeleteMarker") and answer.get("VersionId"):
            with contextlib.suppress(StoreError):
                self._client.call("delete_object", name, **key, VersionId=answer["VersionId"])
        return True

    def _is_hidden(self, name: str) -> bool:
        """Return whether a delete marker hides an object."""
        try:
            self._client.call("head_object", name, Key=self._keys.of(name))
        except MissingError as error:
            response = getattr(error.__cause__, "response", {})
            headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
            return str(headers.get("x-amz-delete-marker")) == "true"
        except StoreError:  # who may not read an object may remove it all the same
            pass
        return False

    def remove_versions(self, names: Sequence[str], again: Again) -> int:
        """See Versioned. again: repeats a call that fails for a moment"""
        freed = 0
        try:
            versioned = self.versioning()
        except ForbiddenError:  # who may not ask may remove them all the same
            versioned = True
        for some in (names[:1], names[1:]):
            for prefix, keys in bucket_keys.groups(list(map(self._keys.of, some))).items():
                freed += self._remove_group(prefix, keys, again, versioned=versioned)
        return freed

    def _remove_group(
        self, prefix: str, keys: Sequence[str], again: Again, *, versioned: bool
    ) -> int:
        wanted = set(keys)
        needed = ("Key", "VersionId") if versioned else ("Key",)
        versions: list[Answer] = []
        markers: list[Answer] = []

        def list_all() -> None:
            versions.clear()
            markers.clear()
            for page in store.limited(self._client, self.pages(prefix)):
                for group, name in ((versions, "Versions"), (markers, "DeleteMarkers")):
                    listed = members(self._client, page, name, *needed)
                    group.extend(one for one in listed if one["Key"] in wanted)
                if len(versions) + len(markers) > MAX_VERSIONS:
                    raise StoreError(f"{self._client}: {prefix}: {_TOO_MANY}", _LIFECYCLE)

        again(list_all)
        versions.reverse()  # the newest goes last
        for listing in (versions, markers):
            targets = [_target(one, versioned=versioned) for one in listing]
            again(lambda targets=targets: self._remove(targets))  # type: ignore[misc]
        return sum(int(one.get("Size", 0)) for one in versions)

    def pages(self, prefix: str) -> Iterator[Answer]:
        """Yield the pages of the versions below a prefix. Raises StoreError."""
        following: dict[str, object] = {}
        while True:
            try:
                page = self._client.call("list_object_versions", "", Prefix=prefix, **following)
            except DeniedError as error:
                raise ForbiddenError(str(error), error.hint) from error
            yield page
            if not page.get("IsTruncated"):
                return
            marks = {
                name: page[f"Next{name}"]
                for name in ("KeyMarker", "VersionIdMarker")
                if page.get(f"Next{name}")
            }
            if not marks or marks == following:
                raise TransientError(f"{self._client}: the server lists no further page")
            following = marks

    def _remove(self, targets: Sequence[Target]) -> None:
        for begin in range(0, len(targets), _AT_ONCE):
            some = targets[begin : begin + _AT_ONCE]
            left = self._together(some) if len(some) > 1 and self._at_once else some
            for target in left:
                self._remove_one(target)

    def _remove_one(self, target: Target) -> None:
        try:
            self._client.call("delete_object", self._keys.name(target["Key"]), **target)
        except MissingError:
            return
        except DeniedError as error:
            raise self._forbidden(target, error) from error

    def _together(self, targets: Sequence[Target]) -> Sequence[Target]:
        """Remove many with one call; return those of which the server says nothing."""
        try:
            answer = self._client.call("delete_objects", "", Delete={"Objects": list(targets)})
        except (TransientError, DeniedError) as error:
            if isinstance(error, DeniedError):
                raise self._forbidden(targets[0], error) from error
            raise
        except StoreError:  # a server that has no such call, or wants another checksum
            self._at_once = False
            return targets
        self._require(answer.get("Errors", ()), targets)
        removed = {(one.get("Key"), one.get("VersionId")) for one in answer.get("Deleted", ())}
        names = {key for key, _ in removed}
        return [
            one
            for one in targets
            if (one["Key"], one.get("VersionId")) not in removed
            and ("VersionId" in one or one["Key"] not in names)
        ]

    def _require(self, errors: Iterable[Mapping[str, Any]], targets: Sequence[Target]) -> None:
        """Raise the error of the first key that was not removed, if there is one."""
        connection = self._client.connection
        failures: list[StoreError] = []
        for entry in errors:
            name = self._keys.name(str(entry.get("Key") or targets[0]["Key"]))
            key_id = connection.key_id[-4:]
            call = Call(str(self._client), connection.endpoint, "DeleteObjects", name, key_id)
            error = s3_errors.of_entry(entry, call)
            if isinstance(error, DeniedError):
                version = {"VersionId": entry["VersionId"]} if entry.get("VersionId") else {}
                raise self._forbidden({"Key": self._keys.of(name), **version}, error) from error
            if not isinstance(error, MissingError):
                failures.append(error)
        if failures:
            raise failures[0]

    def _forbidden(self, target: Target, error: DeniedError) -> ForbiddenError:
        """Return the error of an object that may not be removed, with its lock where it has one."""
        try:
            about = self._client.call("head_object", self._keys.name(target["Key"]), **target)
        except (StoreError, OSError):
            about = {}
        until, mode = about.get("ObjectLockRetainUntilDate"), about.get("ObjectLockMode")
        if about.get("ObjectLockLegalHoldStatus") == "ON":
            return ForbiddenError(f"{error}; it has a legal hold", "Remove the hold first.")
        if until is None:
            return ForbiddenError(str(error), error.hint)
        return ForbiddenError(
            f"{error}; it is locked until {until:%Y-%m-%d %H:%M} UTC ({mode})",
            "Wait until then: that is what the lock is for.",
        )


def _target(version: Answer, *, versioned: bool) -> Target:
    """Return what is removed; without versions not every server takes the one that it lists."""
    key = {"Key": version["Key"]}
    return {**key, "VersionId": version["VersionId"]} if versioned else key
