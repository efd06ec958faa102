"""What a section, a module and a run hand back: one frozen value (DESIGN 8)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from tools.base.errors import BackupError


class Status(str, Enum):
    """How a section or a run ended, from good to bad: `worst` takes the later one."""

    OK = "ok"
    UNREPORTED = "unreported"  # stored, report not delivered
    UNCLEAN = "unclean"  # stored, clean-up failed
    INCOMPLETE = "incomplete"  # stored, but named files are missing or cut
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
        """Whether what there was to store has been stored."""
        return self in (Status.OK, Status.UNREPORTED, Status.UNCLEAN, Status.INCOMPLETE)

    @classmethod
    def of_exit_code(cls, code: int) -> Status:
        """The status that an exit code stands for; an unknown one is a failure."""
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
    """The worst of the statuses; OK if there is none."""
    order = list(Status)
    return max(statuses, key=order.index, default=Status.OK)


BUNDLE = "bundle"  # the stage that puts several files into one plain tar archive


@dataclasses.dataclass(frozen=True)
class Made:
    """What became of files in a staged run, from which the manifest is made.

    files:  what was read, absolute paths; of a source nothing
    into:   what it became: absolute paths, or names in a store
    stage:  the stage in between ("zstd"); of a source what kind of item it is ("fileset")
    size, sha256: of what was read; of a source or where unknown -1 and ""
    facts:  versions of tools, positions
    name, ending: of a source: what the item is called within its section, and its ending
    warnings, notes: of a source: what it said of the item (tools.item.Ended)
    """

    files: tuple[str, ...]
    into: tuple[str, ...]
    stage: str = ""
    size: int = -1
    sha256: str = ""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    name: str = ""
    ending: str = ""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Made:
        """Read what `dataclasses.asdict` gave; raises KeyError, TypeError, ValueError."""
        return cls(
            files=tuple(map(str, given["files"])),
            into=tuple(map(str, given["into"])),
            stage=str(given.get("stage", "")),
            size=int(given.get("size", -1)),
            sha256=str(given.get("sha256", "")),
            facts={str(key): value for key, value in given.get("facts", {}).items()},
            name=str(given.get("name", "")),
            ending=str(given.get("ending", "")),
            warnings=tuple(map(str, given.get("warnings", ()))),
            notes=tuple(map(str, given.get("notes", ()))),
        )


@dataclasses.dataclass(frozen=True)
class Result:
    """What one section did.

    message:   one line for people
    hint:      what to do about it, where something is wrong
    files:     the files that were made or stored, absolute paths
    items:     how many restorable things these are
    bytes:     how many bytes they hold
    warnings:  one line each, of what is missing or cut (status INCOMPLETE) or unusual
    removable: what may be removed once every store of the run has confirmed
    size:      the size of the run as a text for the report, if the section measures it
    trail:     what became of which file, for the manifest
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
    trail: tuple[Made, ...] = ()

    def to_json(self) -> str:
        """The form that goes into the file named by NC_BACKUP_RESULT."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Read what a module wrote; unknown keys are skipped.

        Raises BackupError where the text is no result.
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
            known["trail"] = tuple(Made.from_dict(entry) for entry in known.get("trail", ()))
            return cls(**known)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BackupError(
                f"the file named by NC_BACKUP_RESULT is no result: {error}",
                hint='It must hold a JSON object with at least "status" and "message".',
            ) from None


def of_error(error: BackupError | OSError) -> Result:
    """The result of a section that ended with an error."""
    status = Status.of_exit_code(getattr(error, "exit_code", 1))
    return Result(status, str(error), hint=getattr(error, "hint", ""))
