"""What a module of each role must offer: one Protocol per role, which mypy holds built-ins to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from tools import manifest
from tools.dump import Again, Following, Server, Steps
from tools.finding import Finding
from tools.item import Item, Stage, Told
from tools.result import Result
from tools.store import Store
from tools.stream import Chunks

O = TypeVar("O")  # noqa: E741  (the Options of a module)


class Declared(Protocol[O]):
    """A module whose keys are declared in one frozen dataclass."""

    Options: type[O]


class Module(Declared[O], Protocol[O]):
    """A built-in module: `test` looks whether it could run and changes nothing (backup.py -t)."""

    def test(self, options: O, /) -> Sequence[str | Finding]:
        """Return what it found. Raises BackupError or OSError where it could not go on."""


class SourceModule(Module[O], Protocol[O]):
    """Gives items."""

    def items(self, options: O, told: Told, /) -> Sequence[Item]:
        """Return the items to back up; their data are read later. Raises BackupError, OSError."""


class StageModule(Module[O], Protocol[O]):
    """Changes the chunks of every item on their way, and has the inverse."""

    def stage(self, options: O, /) -> Stage:
        """Return the stage. Raises BackupError where it cannot work (no key, no program)."""

    def backward(self, name: str, options: O, /) -> Callable[[Chunks], Iterator[bytes]]:
        """Return the inverse of the stage that the manifest calls `name`. Raises StageError."""


class StoreModule(Module[O], Protocol[O]):
    """Opens a store."""

    def opened(self, options: O, /) -> Store:
        """Return the store; raises BackupError or OSError where it cannot be reached."""


class CheckModule(Declared[O], Protocol[O]):
    """Looks at the run or the machine: a program or a plugin class, never part of the stream."""

    def main(self, argv: Sequence[str], /) -> int:
        """Run the command line; return the exit code."""


@runtime_checkable
class Restorer(Protocol):
    """Restores an item into a server."""

    def into(self, item: manifest.Item, again: Again, server: Server, /) -> Steps:
        """Return the steps of the restore. Raises BackupError or OSError."""


@runtime_checkable
class FolderRestorer(Protocol):
    """Restores an item as a folder in a form of its own (a data directory)."""

    def laid_out(
        self,
        item: manifest.Item,
        again: Again,
        place: Path,
        stored: Callable[[], Iterator[Following]],
        /,
    ) -> Result:
        """Fill the empty folder `place`. Raises BackupError or OSError."""
