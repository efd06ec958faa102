"""The result of a section: one frozen value, which each module returns."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

from tools.base import foreign, foreign_json
from tools.base.errors import BackupError, in_words

_Json: TypeAlias = bytes | str
MAX_BYTES = 64 << 20  # of a result file: the items of a store may have many parts


class Status(str, Enum):
    """How a section or a run ended, from good to bad; `worst` compares by this order."""

    OK = "ok"
    UNREPORTED = "unreported"  # stored, report not delivered
    UNCLEAN = "unclean"  # stored, clean-up failed
    INCOMPLETE = "incomplete"  # stored, but something is missing or truncated, and named
    FAILED = "failed"
    LOCKED = "locked"  # another run holds the lock
    REFUSED = "refused"  # config or usage, nothing was started
    INTERRUPTED = "interrupted"  # SIGINT
    TERMINATED = "terminated"  # SIGTERM

    @property
    def exit_code(self) -> int:
        return _EXIT_CODES[self]

    @property
    def stored(self) -> bool:
        """Return whether everything that could be read was stored."""
        return self in (Status.OK, Status.UNREPORTED, Status.UNCLEAN, Status.INCOMPLETE)

    @classmethod
    def of_exit_code(cls, code: int) -> Status:
        """Return the status of an exit code; an unknown one is a failure."""
        return _STATUSES.get(code, cls.FAILED)


_EXIT_CODES = {
    Status.OK: 0,
    Status.FAILED: 1,
    Status.REFUSED: 2,
    Status.INCOMPLETE: 3,
    Status.UNREPORTED: 4,
    Status.UNCLEAN: 5,
    Status.LOCKED: 11,
    Status.INTERRUPTED: 130,
    Status.TERMINATED: 143,
}
_STATUSES = {code: status for status, code in _EXIT_CODES.items()}


def worst(statuses: Iterable[Status]) -> Status:
    """Return the worst of the statuses; OK if there is none."""
    order = list(Status)
    return max(statuses, key=order.index, default=Status.OK)


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of one section.

    message:   one line for people
    notices:   what every report says first
    details:   more lines for whoever starts the program without a run
    hint:      how to fix it, if something is wrong
    files:     files that were written or stored, absolute paths
    items:     number of items
    bytes:     bytes of these items
    warnings:  one line each: what is missing or truncated (status INCOMPLETE), or unusual
    removable: paths that may be removed once every store of the run has confirmed
    size:      size of the run as a text for the report, if the section measures it
    stored:    of a store in a staged run: its items as JSON objects of the manifest
    consequence: whether it failed because another section did: that one is named first
    """

    status: Status
    message: str
    hint: str = ""
    files: tuple[str, ...] = ()
    items: int = 0
    bytes: int = 0
    warnings: tuple[str, ...] = ()
    removable: tuple[str, ...] = ()
    size: str = ""
    stored: tuple[Mapping[str, Any], ...] = ()
    details: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    consequence: bool = False

    def to_json(self) -> str:
        """Return the JSON for the file named by NC_BACKUP_RESULT."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    def __post_init__(self) -> None:
        """Make its texts fit to be shown: this is where the texts of modules and servers enter."""
        for name, text in (
            ("message", foreign.line(self.message)),
            ("hint", foreign.paragraph(self.hint)),
            ("warnings", foreign.listing(self.warnings)),
            ("size", foreign.line(self.size)),
            ("details", foreign.listing(self.details)),
            ("notices", foreign.listing(self.notices)),
        ):
            object.__setattr__(self, name, text)

    @classmethod
    def from_json(cls, raw: _Json) -> Result:
        """Read what a module wrote; unknown keys are skipped.

        Raises BackupError for an invalid result.
        """
        try:
            record: Any = foreign_json.load(raw, MAX_BYTES)
            if not isinstance(record, dict):
                raise ValueError("not an object")
            return cls(
                status=Status(record["status"]),
                message=_text(record, "message"),
                hint=_text(record, "hint"),
                files=_texts(record, "files"),
                items=_count(record, "items"),
                bytes=_count(record, "bytes"),
                warnings=_texts(record, "warnings"),
                notices=_texts(record, "notices"),
                removable=_texts(record, "removable"),
                size=_text(record, "size"),
                stored=tuple(dict(entry) for entry in record.get("stored", ())),
            )
        except (ValueError, KeyError, TypeError) as error:
            problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise BackupError(
                f"NC_BACKUP_RESULT: invalid result file: {problem}",
                hint='Write a JSON object in UTF-8 with at least "status" and "message".',
            ) from None

    @classmethod
    def from_file(cls, path: Path) -> Result | None:
        """Read what a module wrote into a file; None where it wrote nothing.

        Raises BackupError for an invalid result, and for a file that cannot be read.
        """
        try:
            raw = foreign.content(path, MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BackupError(f"NC_BACKUP_RESULT: invalid result file: {error.strerror}") from None
        return cls.from_json(raw) if raw else None


def _text(record: Mapping[str, Any], name: str) -> str:
    """Return a text; a number is one as well. Raises ValueError."""
    value = record.get(name, "")
    if isinstance(value, list | dict):
        raise ValueError(f"{name}: expected a text")
    return "" if value is None else str(value)


def _texts(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = record.get(name, [])
    if not isinstance(values, list):
        raise ValueError(f"{name}: expected a list of texts")
    return tuple(_text({name: value}, name) for value in values)


def _count(record: Mapping[str, Any], name: str) -> int:
    value = record.get(name, 0)
    is_whole = (
        isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    )
    if not is_whole or value < 0:
        raise ValueError(f"{name}: expected a number that is not negative")
    return int(value)


def of_error(error: BackupError | OSError) -> Result:
    """Return the result of a section that raised an error."""
    status = Status.of_exit_code(getattr(error, "exit_code", 1))
    line, hint = in_words(error)
    return Result(status, line, hint=hint)
