"""Reports that wait to be sent, a file each, with the number of tries that may have arrived."""

from __future__ import annotations

import json
import os
import stat
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools import filesystem_handling
from tools.base.log import logger
from tools.requests_utils import Doubt

UNSURE = ".unsure"  # ends the name of a report that may have arrived and is not sent again
_BAD = ".bad"
_MOST_DOUBTS = 5  # tries in all, over all runs, that may have arrived
_MOST_BYTES = 1 << 20
_DOUBTS = "_doubts"  # beside the fields in the file


class Spool:
    """The folder of the reports that wait."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, fields: Mapping[str, str]) -> Path:
        """Write a report before it is sent: not even a kill while sending loses it."""
        filesystem_handling.make_folder(self._folder)
        place = self._folder / f"{fields['run_id']}-{uuid.uuid4().hex[:8]}.json"
        with filesystem_handling.create(place) as write:
            write(json.dumps(fields).encode())
        return place

    def reports(self) -> list[Path]:
        """The reports, oldest first."""
        return sorted(self._folder.glob("*.json"))

    def read(self, kept: Path) -> dict[str, str] | None:
        """The fields; None where it is gone by now, or is no report (put aside then)."""
        found = self._load(kept)
        if found is not None:
            found.pop(_DOUBTS, None)
        return found

    def begin(self, kept: Path) -> bool:
        """Note that a try begins; False where it has been in doubt often enough."""
        fields = self._load(kept)
        if fields is None:
            return False
        doubts = int(fields.get(_DOUBTS, 0))
        if doubts >= _MOST_DOUBTS:
            return False
        self._write(kept, {**fields, _DOUBTS: doubts + 1})
        return True

    def settle(self, kept: Path, doubt: Doubt) -> None:
        """Note how a try failed: one that cannot have arrived does not count."""
        fields = self._load(kept)
        if fields is not None and doubt is not Doubt.AMBIGUOUS:
            self._write(kept, {**fields, _DOUBTS: max(0, int(fields.get(_DOUBTS, 0)) - 1)})

    def exhausted(self, kept: Path) -> Path | None:
        """Put a report aside that must not be sent again; None for any other."""
        fields = self._load(kept)
        if fields is None or int(fields.get(_DOUBTS, 0)) < _MOST_DOUBTS:
            return None
        aside = kept.with_suffix(UNSURE)
        kept.rename(aside)
        return aside

    def remove(self, kept: Path) -> None:
        """It has been acknowledged."""
        kept.unlink(missing_ok=True)

    def _load(self, kept: Path) -> dict[str, Any] | None:
        """What a file of this user's holds; never read through a link."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(os.open(kept, flags), "rb") as file:
                status = os.fstat(file.fileno())
                ours = stat.S_ISREG(status.st_mode) and status.st_uid in (0, os.geteuid())
                found = json.loads(file.read(_MOST_BYTES)) if ours else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError):
            found = None
        if not _is_report(found):
            logger.error("%s is no report of this user's: put aside", kept)
            kept.rename(kept.with_suffix(_BAD))
            return None
        assert isinstance(found, dict)  # noqa: S101
        return found

    def _write(self, kept: Path, fields: Mapping[str, Any]) -> None:
        """Replace the file at once, so that no kill leaves half of it."""
        with filesystem_handling.staged(kept) as temporary:
            with os.fdopen(
                os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb"
            ) as file:
                file.write(json.dumps(fields).encode())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(kept)


def _is_report(found: object) -> bool:
    """Whether it is a form: texts by their names, and the number of doubts."""
    if not isinstance(found, dict) or not isinstance(found.get(_DOUBTS, 0), int):
        return False
    texts = (value for key, value in found.items() if key != _DOUBTS)
    return isinstance(found.get("srvname"), str) and all(isinstance(text, str) for text in texts)
