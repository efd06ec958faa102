"""The result of a section: one frozen value, which each module returns."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from tools.base.errors import BackupError, in_words


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
        """Whether everything that could be read was stored."""
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
    hint:      how to fix it, if something is wrong
    files:     files that were written or stored, absolute paths
    items:     number of items
    bytes:     bytes of these items
    warnings:  one line each: what is missing or truncated (status INCOMPLETE), or unusual
    removable: paths that may be removed once every store of the run has confirmed
    size:      size of the run as a text for the report, if the section measures it
    stored:    of a store in a staged run: its items as JSON objects of the manifest
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

    def to_json(self) -> str:
        """Return the JSON for the file named by NC_BACKUP_RESULT."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Read what a module wrote; unknown keys are skipped.

        Raises BackupError for an invalid result.
        """
        try:
            given: Any = json.loads(text)
            known = {
                field.name: given[field.name]
                for field in dataclasses.fields(cls)
                if field.name in given
            }
            known["status"] = Status(known["status"])
            known["message"] = str(known.get("message", ""))
            for name in ("files", "warnings", "removable"):
                known[name] = tuple(str(entry) for entry in known.get(name, ()))
            for name in ("items", "bytes"):
                known[name] = int(known.get(name, 0))
            known["stored"] = tuple(dict(entry) for entry in known.get("stored", ()))
            return cls(**known)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BackupError(
                f"NC_BACKUP_RESULT: invalid result file: {error}",
                hint='Write a JSON object with at least "status" and "message".',
            ) from None


def of_error(error: BackupError | OSError) -> Result:
    """Return the result of a section that raised an error."""
    status = Status.of_exit_code(getattr(error, "exit_code", 1))
    line, hint = in_words(error)
    return Result(status, line, hint=hint)
