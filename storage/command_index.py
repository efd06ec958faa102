"""What has been uploaded to a store that cannot be asked: a list in the work folder.

One JSON object a line: name, size, SHA-256, time, and the content of small objects that are no
parts of items, so that manifests can be read here. A line without a size says that an object was
removed.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import filesystem_handling
from tools.base import foreign_json
from tools.base.errors import StoreError
from tools.flow.store import StoredObject, StoreEntry

SMALL = 1 << 20  # bytes of an object that is kept here as well
_LONGEST = 2 << 20  # bytes of a line


@dataclass(frozen=True)
class Uploaded:
    """An object that has been uploaded. created: seconds since 1970; content: of a small one"""

    stored: StoredObject
    created: float
    content: bytes | None


class Index:
    """The list. Several processes of a run may add to it: each reads what the others added."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._uploads: dict[str, Uploaded] = {}
        self._end = 0  # bytes of the lines that have been read
        self._lock = threading.Lock()

    def get(self, name: str) -> Uploaded | None:
        """Return an object; None where none of this name was uploaded. Raises StoreError."""
        with self._lock:
            self._read()
            return self._uploads.get(name)

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """Yield the objects of a folder, sorted by name. Raises StoreError."""
        now = time.time()
        with self._lock:
            self._read()
            uploads = sorted(self._uploads.items())
        for name, one in uploads:
            if name.rpartition("/")[0] == folder:
                yield StoreEntry(name, one.stored.size, max(0.0, now - one.created))

    def add(self, stored: StoredObject, content: bytes | None) -> None:
        """Record an object. content: of a small one. Raises StoreError, OSError."""
        line: dict[str, Any] = {"name": stored.name, "size": stored.size, "sha256": stored.sha256}
        line["time"] = time.time()
        if content is not None:
            line["content"] = base64.b64encode(content).decode("ascii", "strict")
        self._append(line)

    def remove(self, name: str) -> None:
        """Record that an object was removed. Raises StoreError, OSError."""
        if self.get(name) is not None:
            self._append({"name": name})

    def _append(self, line: dict[str, Any]) -> None:
        filesystem_handling.make_folder(self._file.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._lock:
            descriptor = os.open(self._file, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                self._read()
                os.ftruncate(descriptor, self._end)  # a line that a power cut has left unfinished
                os.lseek(descriptor, 0, os.SEEK_END)
                filesystem_handling.write_all(descriptor, json.dumps(line).encode("ascii") + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._read()

    def _read(self) -> None:
        """Take the lines that were added since the last time."""
        try:
            with self._file.open("rb") as file:
                file.seek(self._end)
                raw = file.read()
        except FileNotFoundError:
            return
        for line in raw.split(b"\n")[:-1]:
            try:
                self._take(foreign_json.load(line, _LONGEST))
            except (ValueError, KeyError, TypeError):
                raise StoreError(
                    f"{self._file}: byte {self._end}: not a valid line",
                    "It lists what was uploaded. Move it away: the store counts as new then.",
                ) from None
            self._end += len(line) + 1

    def _take(self, line: dict[str, Any]) -> None:
        name = str(line["name"])
        if "size" not in line:
            self._uploads.pop(name, None)
            return
        content = base64.b64decode(line["content"]) if "content" in line else None
        stored = StoredObject(name, int(line["size"]), str(line["sha256"]))
        self._uploads[name] = Uploaded(stored, float(line["time"]), content)
