"""The spool: a folder of reports that wait for delivery, one file each.

A file holds the document of the run, the channel, what the channel sends, and the number of
attempts that may have arrived. Files of version 0.1, which held the form of the BRT alone, are
read as well.
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import filesystem_handling
from tools.base import foreign_json
from tools.base.log import logger
from tools.reporting.channel import Message
from tools.reporting.document import Document
from tools.requests_utils import Doubt

VERSION = 1
UNSURE = ".unsure"  # ends the name of a report that may have arrived and is not sent again
_BAD = ".bad"
_MAX_DOUBTS = 5  # attempts in all, over all runs, that may have arrived
_MAX_BYTES = 64 << 20
_FIRST_CHANNEL = "brt"  # of files of version 0.1
_FIRST_DOUBTS = "_doubts"


@dataclass(frozen=True)
class Entry:
    """One report that waits for delivery.

    channel: its name in the table; message: what the channel sends
    document: of the run; empty in files of version 0.1
    doubts: attempts so far that may have arrived
    """

    channel: str
    message: Message
    document: Document
    doubts: int = 0


class Spool:
    """The folder of the reports that wait."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, entry: Entry) -> Path:
        """Write a report before it is sent: not even a kill while sending loses it."""
        filesystem_handling.make_folder(self._folder)
        path = self._folder / f"{entry.document['run_id']}-{uuid.uuid4().hex[:8]}.json"
        with filesystem_handling.create(path) as write:
            write(_to_json(entry))
        return path

    def waiting(self, channel: str) -> list[Path]:
        """Return the reports of a channel, oldest first; what is not a report is moved aside."""
        paths = sorted(self._folder.glob("*.json"))
        entries = ((path, self.read(path)) for path in paths)
        return [path for path, entry in entries if entry is not None and entry.channel == channel]

    def abandoned(self, channels: Collection[str], age: float) -> list[Path]:
        """Return the reports of other channels than these that have waited for `age` seconds."""
        paths = []
        for path in sorted(self._folder.glob("*.json")):
            entry = self.read(path)
            if entry is not None and entry.channel not in channels:
                waited = time.time() - path.lstat().st_mtime
                paths += [path] if waited > age else []
        return paths

    def begin(self, path: Path) -> bool:
        """Note that an attempt begins; False if too many of them may have arrived."""
        entry = self.read(path)
        if entry is None or entry.doubts >= _MAX_DOUBTS:
            return False
        self._write(path, dataclasses.replace(entry, doubts=entry.doubts + 1))
        return True

    def settle(self, path: Path, doubt: Doubt) -> None:
        """Note how an attempt failed: one that cannot have arrived does not count."""
        entry = self.read(path)
        if entry is not None and doubt is not Doubt.AMBIGUOUS:
            self._write(path, dataclasses.replace(entry, doubts=max(0, entry.doubts - 1)))

    def exhausted(self, path: Path) -> Path | None:
        """Rename a report that must not be sent again; None for any other."""
        entry = self.read(path)
        if entry is None or entry.doubts < _MAX_DOUBTS:
            return None
        unsure = path.with_suffix(UNSURE)
        path.rename(unsure)
        return unsure

    def remove(self, path: Path) -> None:
        """Remove a report that was delivered."""
        path.unlink(missing_ok=True)

    def read(self, path: Path) -> Entry | None:
        """Return a report of this user's, never through a link; None if it is gone.

        A file that is not a report is moved aside, and None is returned.
        """
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(os.open(path, flags), "rb") as file:
                status = os.fstat(file.fileno())
                ours = stat.S_ISREG(status.st_mode) and status.st_uid in (0, os.geteuid())
                entry = (
                    _from_json(foreign_json.load(file.read(_MAX_BYTES), _MAX_BYTES))
                    if ours
                    else None
                )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError):
            entry = None
        if entry is None:
            logger.error("%s: not a report of this user, moved aside", path)
            path.rename(path.with_suffix(_BAD))
        return entry

    def _write(self, path: Path, entry: Entry) -> None:
        """Replace a file at once, so that a kill never leaves half of it."""
        with filesystem_handling.staged(path) as temporary:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(_to_json(entry))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)


def _to_json(entry: Entry) -> bytes:
    return json.dumps({"version": VERSION, **dataclasses.asdict(entry)}).encode()


def _from_json(value: Any) -> Entry | None:  # noqa: ANN401  (any JSON value)
    """Return the report that a file holds, None if it holds none."""
    if not isinstance(value, dict):
        return None
    if "version" not in value:  # of version 0.1: the fields of the form, and the doubts
        doubts = value.pop(_FIRST_DOUBTS, 0)
        value = {"channel": _FIRST_CHANNEL, "message": value, "document": {}, "doubts": doubts}
        return _checked(value) if "srvname" in value["message"] else None
    return _checked(value) if value["version"] == VERSION else None


def _checked(value: dict[str, Any]) -> Entry | None:
    """Return a report if every field has its type, else None."""
    channel, message = value.get("channel"), value.get("message")
    document, doubts = value.get("document"), value.get("doubts")
    if not isinstance(channel, str) or not isinstance(document, dict) or type(doubts) is not int:
        return None
    if not isinstance(message, dict) or not all(isinstance(v, str) for v in message.values()):
        return None
    return Entry(channel, message, document, doubts)
