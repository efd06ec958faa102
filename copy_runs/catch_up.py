"""Which store of a config gets runs from which other one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from copy_runs.stores import OpenStore
from tools.base.errors import BackupError, in_words
from tools.base.result import Result, Status


@dataclass(frozen=True)
class Failed:
    """A store that cannot be used."""

    name: str
    result: Result


def failed(name: str, error: BackupError | OSError, *, required: bool) -> Failed:
    """Return the result for a store that cannot be used: a required one fails the copy."""
    line, hint = in_words(error)
    status = Status.FAILED if required else Status.INCOMPLETE
    return Failed(name, Result(status, line, hint))


def pairs(open_stores: Sequence[OpenStore]) -> Iterator[tuple[OpenStore, OpenStore]]:
    """Yield every store as a target, with each other one as its source."""
    for target in open_stores:
        for source in open_stores:
            if source is not target:
                yield source, target
