"""Older versions of objects of an S3 bucket, for a part that was replaced by something else.

Size and SHA-256 of the manifest tell which version is the one that was stored. Only buckets with
versioning are asked, once for each run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from storage.bucket_keys import Keys
from storage.s3_client import Answer, Client, members
from storage.s3_removal import MAX_VERSIONS, Removal
from tools.base import run_ids
from tools.base.errors import ForbiddenError, StoreError, TransientError
from tools.base.log import logger
from tools.flow import store
from tools.flow.store import StoredObject


class Versions:
    """Which version of an object is read, where the newest one is not what was stored."""

    def __init__(self, client: Client, keys: Keys, removal: Removal) -> None:
        self._client = client
        self._keys = keys
        self._removal = removal
        self._usable: bool | None = None  # None: the bucket has not been asked
        self._several: dict[str, list[Answer]] = {}  # by key, newest first
        self._listed: set[str] = set()  # prefixes of keys
        self._chosen: dict[str, str] = {}

    def chosen(self, name: str) -> str:
        """Return the version that is read; "" for the newest."""
        return self._chosen.get(name, "")

    def choose(self, stored: StoredObject) -> None:
        """See Choosing. Raises TransientError."""
        try:
            several = self._of(stored)
            version = next((one for one in several if self._is(stored, one)), None)
        except TransientError:
            raise
        except StoreError as error:  # these credentials may not, or the server cannot
            logger.info("%s: older versions are not read: %s", self._client, error)
            self._usable = False
            return
        if version is not None and not version.get("IsLatest"):
            self._chosen[stored.name] = str(version["VersionId"])
            logger.warning(
                "%s: %s was replaced: its version of %s is read, which is what was stored",
                *(self._client, stored.name, version.get("LastModified")),
            )

    def holds(self, stored: StoredObject) -> bool:
        """See Choosing. Raises TransientError."""
        try:
            return any(int(one.get("Size", -1)) == stored.size for one in self._of(stored))
        except TransientError:
            raise
        except StoreError:
            return False

    def _of(self, stored: StoredObject) -> Sequence[Answer]:
        """Return the versions of an object, newest first, where there are several."""
        if self._usable is None:
            self._usable = self._is_versioned()
        if not self._usable:
            return ()
        key = self._keys.of(stored.name)
        folder, _, name = key.rpartition("/")
        prefix = f"{folder}/{run_ids.run_in(name) or name}".removeprefix("/")
        if prefix not in self._listed:
            self._list(prefix)
            self._listed.add(prefix)
        return self._several.get(key, ())

    def _is_versioned(self) -> bool:
        try:
            return self._removal.versioning()
        except ForbiddenError:  # who may not ask may list them all the same
            return True

    def _list(self, prefix: str) -> None:
        by_key: dict[str, list[Answer]] = {}
        number = 0
        for page in store.limited(self._client, self._removal.pages(prefix)):
            for one in members(self._client, page, "Versions", "Key", "VersionId"):
                by_key.setdefault(one["Key"], []).append(one)
                number += 1
            if number > MAX_VERSIONS:
                raise StoreError(f"{self._client}: {prefix}: more than {MAX_VERSIONS} versions")
        self._several |= {key: versions for key, versions in by_key.items() if len(versions) > 1}

    def _is(self, stored: StoredObject, version: Answer) -> bool:
        """Return whether a version has the size and the SHA-256 of what was stored."""
        if int(version.get("Size", -1)) != stored.size:
            return False
        key, number = self._keys.of(stored.name), version["VersionId"]
        answer = self._client.call("get_object", stored.name, Key=key, VersionId=number)
        digest = hashlib.sha256()
        with self._client.reading(answer, stored.name) as chunks:
            for chunk in chunks:
                digest.update(chunk)
        return digest.hexdigest() == stored.sha256
