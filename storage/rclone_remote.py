"""What rclone knows of a remote: its type, its abilities, and the clock of its server."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.rclone_calls import Calls
from storage.rclone_hashes import HASHES
from tools.base.errors import StoreError

# Types of backends whose listings have every object that was written before (rclone's name of
# each). All others may show an object later, or a removed one for a while.
_CONSISTENT = frozenset(
    [
        *("azureblob", "azurefiles", "b2", "ftp", "google cloud storage", "hdfs", "local"),
        *("memory", "oracleobjectstorage", "s3", "sftp", "smb", "webdav"),
    ]
)
_AROUND = frozenset(("alias", "chunker", "compress", "crypt", "hasher"))  # of another remote
_DEEPEST = 10  # remotes around remotes
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True)
class Features:
    """The abilities of a remote.

    kind:       type of the backend, of the innermost one where remotes are around remotes
    hash_name:  hash of its objects that is compared; "" where there is none that we can take
    streams:    it takes objects of an unknown size; others are gathered in a file before
    moves:      it renames or copies by itself; otherwise the bytes are sent again
    duplicates: it may hold several objects of one name
    folders:    it has empty folders
    measured:   it may know how much space is left
    slow_hash:  it reads the whole object to take its hash
    """

    kind: str
    hash_name: str
    streams: bool
    moves: bool
    duplicates: bool
    folders: bool
    measured: bool
    slow_hash: bool

    @property
    def consistent(self) -> bool:
        """Return whether a listing has every object that was published before it began."""
        return self.kind in _CONSISTENT

    def __str__(self) -> str:
        compared = f"hash {self.hash_name}" if self.hash_name else "no hash: objects are read back"
        facts = [
            f"type {self.kind or 'unknown'}",
            compared,
            "streams" if self.streams else "no streams: objects wait in WORK_FOLDER",
        ]
        facts += [] if self.moves else ["no server-side move: every object is sent twice"]
        facts += ["may hold two objects of one name"] if self.duplicates else []
        facts += [] if self.consistent else ["listings may lag behind: no clean-up"]
        return ", ".join(facts)


def features(calls: Calls) -> Features:
    """Return what a remote can do. Raises StoreError."""
    answer = calls.of_remote("operations/fsinfo", calls.remote)
    able = answer.get("Features") or {}
    known = answer.get("Hashes") or ()
    return Features(
        kind=kind(calls),
        hash_name=next((name for name in HASHES if name in known), ""),
        streams=bool(able.get("PutStream")),
        moves=bool(able.get("Move") or able.get("Copy")),
        duplicates=bool(able.get("DuplicateFiles")),
        folders=bool(able.get("CanHaveEmptyDirectories")),
        measured=bool(able.get("About")),
        slow_hash=bool(able.get("SlowHash")),
    )


def kind(calls: Calls) -> str:
    """Return the type of the innermost remote; "" where it is not known. Raises StoreError."""
    remote = calls.remote
    for _ in range(_DEEPEST):
        if ":" not in remote:
            return "local"
        if remote.startswith(":"):
            return re.split("[,:]", remote[1:])[0]
        name = re.split("[,:]", remote)[0]
        about = _config(calls, name)
        kind_of_remote = str(about.get("type", ""))
        if kind_of_remote not in _AROUND:
            return kind_of_remote
        remote = str(about.get("remote", ""))
    return ""


def _config(calls: Calls, name: str) -> Mapping[str, Any]:
    """Return the settings of a remote, from the environment and from the config."""
    begin = f"RCLONE_CONFIG_{name}_".upper().replace("-", "_")
    settings = calls.call("config/get", calls.remote, name=name)
    environment = {key: os.environ.get(begin + key.upper()) for key in ("type", "remote")}
    return {**settings, **{key: value for key, value in environment.items() if value}}


def seconds(text: str) -> float:
    """Return a time of rclone in seconds since 1970. Raises StoreError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise StoreError(f"{text[:40]!r}: not a time of rclone")
    whole = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
    return whole.timestamp() + float(match[2] or 0)


def clock(calls: Calls, able: Features, path: str) -> float:
    """Return how many seconds the clock of the remote is ahead of ours.

    By the time that a new folder gets there, or a new object where there are no empty folders.
    path: a name that is free; nothing stays there. Raises StoreError
    """
    options = {"noMimeType": True}
    try:
        if able.folders:
            calls.of_remote("operations/mkdir", path, remote=path)
        else:
            calls.upload(path, [b"time"], path)
        about = calls.of_remote("operations/stat", path, remote=path, opt=options)
        return seconds(str((about.get("item") or {}).get("ModTime", ""))) - time.time()
    finally:
        method = "operations/rmdir" if able.folders else "operations/deletefile"
        with contextlib.suppress(StoreError):
            calls.of_remote(method, path, remote=path)
