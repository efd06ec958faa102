"""The stores whose clean-up is measured: folders, accounts and buckets of this machine.

Runs in a folder get their times as times of files, whatever the store that reads them. A bucket
dates objects itself: there the times are those in the names of runs.
"""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from storage import s3_store
from storage.local_store import LocalStore
from storage.s3_options import Options as S3Options
from storage.ssh_objects import SshStore
from storage.ssh_session import Session
from tests import s3_servers
from tests.s3_servers import S3Server
from tests.sshd import sshd
from tests.storage import rclone_stores
from tools.base import run_ids
from tools.flow import store
from tools.flow.store import Store, StoreEntry
from tools.flow.store_wrappers import Wrapping

KINDS = ("local", "ssh", "rclone", "s3", "s3-versioned", "s3-locked")
_THREADS = 8
_LOCKED_DAYS = 100  # runs that are not older get a lock in the bucket `s3-locked`


@dataclass(frozen=True)
class File:
    """An object of a run: its name with the folder of the host, and when it was stored."""

    name: str
    content: bytes
    moment: datetime


@dataclass(frozen=True)
class Target:
    """One store. fill: stores the files of runs; opened: opens it; versions: key VERSIONS"""

    fill: Callable[[Iterable[File]], None]
    opened: Callable[[], Store]
    versions: bool = False


class _Dated(Wrapping):
    """A store whose objects are as old as the runs in their names: a bucket cannot be told."""

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""
        now = datetime.now(timezone.utc)
        for entry in self._inner.entries(folder):
            run_id = run_ids.run_in(entry.name.rpartition("/")[2])
            age = (now - run_ids.time_of(run_id)).total_seconds()
            yield dataclasses.replace(entry, age=age)


def target(kind: str, folder: Path) -> Target:
    """Return a store of a kind. folder: an empty one of its own"""
    if kind.startswith("s3"):
        return _bucket(kind)
    opened: dict[str, Callable[[], Store]] = {
        "local": lambda: LocalStore(folder),
        "ssh": lambda: SshStore(Session(sshd().server()), str(folder)),
        "rclone": lambda: rclone_stores.opened(f":local:{folder}"),
    }
    return Target(lambda files: _write(folder, files), opened[kind])


def _write(folder: Path, files: Iterable[File]) -> None:
    for file in files:
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        os.utime(path, (file.moment.timestamp(), file.moment.timestamp()))


def _bucket(kind: str) -> Target:
    server = s3_servers.seaweedfs()
    os.environ.update(server.environment, AWS_DEFAULT_REGION="us-east-1")
    bucket = f"cleanup-{uuid.uuid4().hex[:12]}"
    locked = kind == "s3-locked"
    server.client().create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=locked)
    if kind == "s3-versioned":
        status = {"Status": "Enabled"}
        server.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration=status)
    keys = {"object_lock_mode": "COMPLIANCE", "object_lock_days": 2} if locked else {}

    def fill(files: Iterable[File]) -> None:
        begin = datetime.now(timezone.utc) - timedelta(days=_LOCKED_DAYS)
        old, new = _open_store(server, bucket), _open_store(server, bucket, **keys)

        def put(file: File) -> None:
            target_store = new if file.moment > begin else old
            store.store_object(target_store, file.name, [file.content])

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(put, files))

    return Target(fill, lambda: _Dated(_open_store(server, bucket)), kind != "s3")


def _open_store(server: S3Server, bucket: str, **keys: object) -> Store:
    options = {"hostname": "srv", "bucket_name": bucket, "endpoint_url": server.endpoint, **keys}
    return s3_store.open_store(S3Options(**options))  # type: ignore[arg-type]
